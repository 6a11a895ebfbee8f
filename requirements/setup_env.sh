#!/usr/bin/env bash
# Builds .venv with the versions of constraints.txt, or returns at once when it is there already.
#
#   PYTHON            the interpreter to use (default: the first of python3.11, python3.12, python3 that fits)
#   PIP_FIND_LINKS    folders with wheels; a mmcv wheel found there saves its compilation
set -euo pipefail
cd "$(dirname "$0")/.."
here=requirements
venv=.venv
log=$venv/setup.log

say() { printf '[set-up] %s\n' "$*"; }
fail() { printf '[set-up] %s\n' "$@" >&2; exit 2; }

# One set-up at a time: a second `make` waits for the first instead of building the same thing beside it.
if command -v flock >/dev/null; then
  exec 9>.venv.lock
  if ! flock -n 9; then say 'another set-up of this folder is running; waiting for it'; flock 9; fi
fi

fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; }
pick_python() {
  if [ -n "${PYTHON:-}" ]; then
    fits "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or 3.12."
    echo "$PYTHON"; return
  fi
  local candidate
  for candidate in python3.11 python3.12 python3; do
    if fits "$candidate"; then echo "$candidate"; return; fi
  done
  fail 'No Python 3.11 or 3.12 was found on PATH.' \
    'Install one (Debian, Ubuntu: sudo apt install python3 python3-venv python3-dev) or set PYTHON.'
}
python=$(pick_python)

wanted=$(cat $here/constraints.txt $here/setup_env.sh setup.py pyproject.toml bnet_mm/kernels/csrc/* | sha256sum | cut -d' ' -f1)
if [ -x $venv/bin/python ] && [ "$(cat $venv/.ready 2>/dev/null)" = "$wanted" ]; then exit 0; fi

started=$SECONDS
say "building $venv with $($python --version); the log is $log"
if ! [ -x $venv/bin/pip ]; then
  rm -rf $venv
  if ! $python -m venv $venv 2>/dev/null; then
    rm -rf $venv
    $python -m virtualenv $venv >/dev/null 2>&1 || fail \
      "$python cannot make a virtual environment: its venv module lacks ensurepip." \
      'Debian, Ubuntu: sudo apt install python3-venv'
  fi
fi
rm -f $venv/.ready
python=$PWD/$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

# Runs a command with its output in the log; shows the end of the log and stops when it fails.
step() {
  local what=$1; shift
  say "$what"
  if ! "$@" >>$log 2>&1; then
    tail -n 25 $log >&2
    fail "failed: $what" "The whole log is $log; once the cause is mended, the same command goes on from here."
  fi
}
install() { "$python" -m pip install --no-input -c $here/constraints.txt "$@"; }

step 'build tools (seconds)' install --upgrade pip setuptools wheel ninja
step 'torch and torchvision (about 2.5 GB with the CUDA libraries; 1 to 10 minutes by your network)' \
  install torch torchvision

# mmcv is published as source only, and its operators must match torch: take a wheel that loads, or compile one.
mmcv=$(sed -n 's/^mmcv==//p' $here/constraints.txt)
mmcv_loads() { "$python" -c 'import torch, mmcv._ext' >/dev/null 2>&1; }

build_mmcv() {
  local tag cache source minutes arch=cpu
  command -v c++ >/dev/null || command -v g++ >/dev/null || fail \
    'mmcv must be compiled and there is no C++ compiler.' 'Debian, Ubuntu: sudo apt install g++'
  "$python" -c 'import os, sysconfig; open(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' \
    2>/dev/null || fail "mmcv must be compiled and Python's C headers (Python.h) are missing." \
    'Debian, Ubuntu: sudo apt install python3-dev'
  if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    arch=cuda
    command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || fail \
      'This machine has a CUDA GPU, and nvcc, which compiles the GPU operators of mmcv, is missing.' \
      "Install the CUDA toolkit $("$python" -c 'import torch; print(torch.version.cuda)') or set CUDA_HOME."
  fi
  tag=$("$python" -c 'import sys, torch; v = sys.version_info; print(
    f"py{v[0]}{v[1]}-torch{torch.__version__}")')-$arch
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/bnet_mm/mmcv-$mmcv-$tag
  mkdir -p "$cache"
  exec 8>"$cache/lock"
  if command -v flock >/dev/null; then flock 8; fi
  if ! ls "$cache"/*.whl >/dev/null 2>&1; then
    source=$cache/mmcv-$mmcv
    if ! [ -d "$source" ]; then
      step 'the source package of mmcv (seconds)' "$python" -m pip download --no-input --no-deps \
        --no-binary mmcv --no-build-isolation -d "$cache" "mmcv==$mmcv"
      mkdir "$source.part"
      tar -xzf "$cache/mmcv-$mmcv.tar.gz" -C "$source.part" --strip-components 1
      mv "$source.part" "$source"
    fi
    minutes=$(( (26 + $(nproc) - 1) / $(nproc) ))
    [ $arch = cuda ] && minutes=$((minutes * 3))
    # Object files stay in the cache folder, so a build that was interrupted goes on where it stopped.
    step "compiling mmcv $mmcv for $tag (about $minutes minutes on $(nproc) cores, once; kept in $cache)" \
      env CFLAGS='-g0 -O2' MMCV_WITH_OPS=1 MAX_JOBS="$(nproc)" PATH="$PWD/$venv/bin:$PATH" \
      "$python" -m pip wheel --no-input --no-deps --no-build-isolation -w "$cache/wheel.part" "$source"
    mv "$cache/wheel.part"/*.whl "$cache"
    rm -rf "$cache/wheel.part" "$source" "$cache/mmcv-$mmcv.tar.gz"
  fi
  exec 8>&-
  step 'installing the compiled mmcv (seconds)' install "$cache"/*.whl
}

if ! mmcv_loads; then
  say "mmcv $mmcv: looking for a wheel"
  if install --only-binary mmcv "mmcv==$mmcv" >>$log 2>&1 && mmcv_loads; then
    say 'mmcv: a wheel fits'
  else
    "$python" -m pip uninstall -y mmcv >>$log 2>&1
    build_mmcv
    mmcv_loads || fail "mmcv was installed and its operators do not load: $("$python" -c 'import torch, mmcv._ext' 2>&1 | tail -n 1)"
  fi
fi

step 'the OpenMMLab libraries, test tools and bnet_mm itself (about a minute)' \
  install --no-build-isolation -e '.[all,analysis,dev]'

# A machine without a desktop lacks the libraries that OpenCV's windows need; the headless build reads and draws the same.
if ! "$python" -c 'import cv2' 2>/dev/null; then
  opencv=$(sed -n 's/^opencv-python==//p' $here/constraints.txt)
  step 'OpenCV without windows, since libGL is missing here (seconds)' bash -c "
    '$python' -m pip uninstall -y opencv-python opencv-contrib-python &&
    '$python' -m pip install --no-input opencv-contrib-python-headless==$opencv"
  "$python" -c 'import cv2' || fail 'OpenCV does not load; see the line above.'
fi

echo "$wanted" > $venv/.ready
say "ready after $((SECONDS - started)) s"
