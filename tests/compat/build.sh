#!/usr/bin/env bash
# Builds the environment of one row, or returns at once when it is there already; prints nothing but steps.
#
#   tests/compat/build.sh ROW FOLDER
#
#   ROW               rows/ROW.txt: requirements, with the Python's version in the first line
#   PIP_FIND_LINKS    folders with wheels; a mmcv wheel found there saves its compilation
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
row=$root/tests/compat/rows/$1.txt
venv=$2
log=$venv/setup.log
tools='pytest pytest-xdist hypothesis safetensors timm'
export PIP_DISABLE_PIP_VERSION_CHECK=1

# shellcheck source=requirements/steps.sh
. "$root/requirements/steps.sh"

wanted=$(cat "$row" "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.ready" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

version=$(sed -n '1s/^# python //p' "$row")
base=$(ls -d "$HOME"/.pyenv/versions/"$version".*/bin/python 2>/dev/null | tail -1) || true
[ -n "$base" ] || base=$(command -v "python$version") || fail "The row $1 needs Python $version, which is not on PATH."
say "$1: building $venv with $("$base" --version) (about 5 minutes)"
rm -rf "$venv"
"$base" -m venv "$venv"
python=$venv/bin/python
install() { "$python" -m pip install --no-input -c "$row" "$@"; }

step 'torch, torchvision and numpy' install torch torchvision numpy setuptools wheel ninja
mmcv=$(sed -nE 's/^((onedl-)?mmcv)==(.*)/\1 \3/p' "$row")
# shellcheck disable=SC2086  (a name and a version)
[ -z "$mmcv" ] || install_mmcv $mmcv
# shellcheck disable=SC2086  (a list)
step 'libraries and test tools' install --no-build-isolation -r "$row" $tools
echo "$wanted" > "$venv/.ready"
