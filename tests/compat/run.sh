#!/usr/bin/env bash
# Runs the tests beside other versions than those of requirements/constraints.txt, for maintainers:
#   tests/compat/run.sh [FOLDER for the environments, default: a temporary one]
# - the oldest torch that the package supports, with tests that need torch alone;
# - the maintained fork of mmengine, in the place of the official one of `make env`.
# About 5 minutes and 3 GB of downloads. The last results are in docs/compatibility.md.
set -eu
cd "$(dirname "$0")/../.."
here=$PWD
folder=${1:-$(mktemp -d)}
oldest_torch=2.6.0
oldest_torchvision=0.21.0
alone=(tests/kernels tests/layers tests/models tests/checkpoint)
with_mmengine=(tests/kernels tests/layers tests/models tests/openmmlab tests/checkpoint
  tests/engine/test_resume.py tests/engine/test_train_and_test.py)
status=0

[ -x .venv/bin/python ] || make env

echo "torch $oldest_torch, alone (environment in $folder/oldest)"
if [ ! -x "$folder/oldest/bin/python" ]; then
  .venv/bin/python -m venv "$folder/oldest"
  "$folder/oldest/bin/python" -m pip install -q "torch==$oldest_torch" \
    "torchvision==$oldest_torchvision" numpy pytest pytest-xdist hypothesis safetensors pillow timm
fi
PYTHONPATH=$here "$folder/oldest/bin/python" -m pytest -p no:cacheprovider "${alone[@]}" || status=1

echo "onedl-mmengine before the official one ($folder/fork)"
if [ ! -d "$folder/fork/mmengine" ]; then
  .venv/bin/python -m pip install -q --no-deps --target "$folder/fork" onedl-mmengine
fi
PYTHONPATH=$folder/fork .venv/bin/python -c 'import mmengine; print("mmengine", mmengine.__version__)'
PYTHONPATH=$folder/fork .venv/bin/python -m pytest -p no:cacheprovider "${with_mmengine[@]}" || status=1
exit $status
