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

# shellcheck source=requirements/steps.sh
. $here/steps.sh

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

wanted=$(cat $here/constraints.txt $here/setup_env.sh $here/steps.sh setup.py pyproject.toml bnet_mm/kernels/csrc/* | sha256sum | cut -d' ' -f1)
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

install() { "$python" -m pip install --no-input -c $here/constraints.txt "$@"; }

step 'build tools (seconds)' install --upgrade pip setuptools wheel ninja
step 'torch and torchvision (about 2.5 GB with the CUDA libraries; 1 to 10 minutes by your network)' \
  install torch torchvision

install_mmcv mmcv "$(sed -n 's/^mmcv==//p' $here/constraints.txt)"

step 'the OpenMMLab libraries, test tools and bnet_mm itself (about a minute)' \
  install --no-build-isolation -e '.[all,analysis,dev]'

# Without its own requirements, which would move protobuf and others down; of its code what exports needs none of them.
if ! "$python" -m pip install --no-input --no-deps -c $here/constraints.txt mmdeploy aenum >>$log 2>&1; then
  say 'mmdeploy has no wheel for this machine: whole detectors are not exported to ONNX here'
fi

# Runtimes that exports are compared in, beside onnxruntime; tests of them are skipped where they are not.
if ! install openvino nncf >>$log 2>&1; then
  say 'openvino and nncf have no wheels for this machine: exports are compared in onnxruntime alone'
fi

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
