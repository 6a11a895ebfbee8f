#!/usr/bin/env bash
# Runs the package beside other versions than those of requirements/constraints.txt:
#   tests/compat/run.sh [ROW ...]        rows: stock, old, newest (default: all)
# Each environment is built from nothing and kept in $COMPAT_ENVS (default: .compat); the wheel of
# `make wheels` is installed into it, which must move no other package. PIP_FIND_LINKS may name
# folders with mmcv's wheels, and the Pythons are found as python3.X on PATH or below ~/.pyenv.
# About 10 minutes a row on 2 cores. Results are written by hand into docs/compatibility.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
envs=${COMPAT_ENVS:-$root/.compat}
libraries='mmengine==0.10.7 mmcv==2.1.0 mmdet==3.3.0 mmsegmentation==1.2.2 mmpretrain==1.2.0 ftfy regex'
tools='pytest pytest-xdist hypothesis safetensors timm'
layer='tests/layers tests/kernels/test_use.py tests/models tests/checkpoint'
mmlab="$layer tests/openmmlab/test_layer.py tests/engine/test_resume.py"
export PIP_DISABLE_PIP_VERSION_CHECK=1 OMP_NUM_THREADS=1

python_of() {
  local found
  found=$(ls -d "$HOME"/.pyenv/versions/"$1".*/bin/python 2>/dev/null | tail -1) || true
  [ -n "$found" ] || found=$(command -v "python$1")
  echo "$found"
}

row() {  # name, Python, numpy, torch and its companions, libraries, tests
  local name=$1 python=$2 numpy=$3 torch=$4 more=$5 tests=$6 env=$envs/$1
  echo "[compat] $name: Python $python, $torch, $numpy"
  if [ ! -e "$env/.ready" ]; then
    rm -rf "$env"
    "$(python_of "$python")" -m venv "$env"
    # shellcheck disable=SC2086  (lists of requirements)
    "$env/bin/pip" install -q $torch $numpy 'setuptools<81' wheel
    # shellcheck disable=SC2086
    "$env/bin/pip" install -q $more $tools $numpy
    touch "$env/.ready"
  fi
  "$env/bin/pip" uninstall -q -y bnet_mm
  "$env/bin/pip" freeze | sort > "$env/before.txt"
  "$env/bin/pip" install -q --no-index "$root"/dist/bnet_mm-*manylinux*.whl
  "$env/bin/pip" freeze | grep -v '^bnet_mm' | sort | diff "$env/before.txt" - ||
    { echo "[compat] $name: installing the wheel moved these packages"; return 1; }
  # The tests, with the installed package and not the checkout's.
  rm -rf "$env/work" && mkdir "$env/work"
  cp -r tests tools configs docs requirements pyproject.toml "$env/work"
  # shellcheck disable=SC2086
  (cd "$env/work" && "$env/bin/python" -W ignore -m pytest -q -n 2 --dist loadfile -p no:warnings \
    -p no:cacheprovider $tests)
}

[ -n "$(ls dist/bnet_mm-*manylinux*.whl 2>/dev/null)" ] || make wheels
status=0
for name in "${@:-all}"; do
  case $name in
    stock | all) row stock 3.10 'numpy==1.26.4' 'torch==2.1.2 torchvision==0.16.2' \
      "$libraries mmaction2==1.2.0 opencv-python-headless<4.11 opencv-python<4.11" "$mmlab" || status=1 ;;&
    old | all) row old 3.8 'numpy==1.24.4' 'torch==2.0.1 torchvision==0.15.2' \
      "$libraries" "$mmlab" || status=1 ;;&
    newest | all) row newest 3.11 numpy 'torch torchvision' '' "$layer" || status=1 ;;&
    stock | old | newest | all) ;;
    *) echo "there is no row $name: stock, old, newest" >&2; exit 2 ;;
  esac
done
exit $status
