#!/usr/bin/env bash
# Builds the site into site/, strictly: a warning or a dead link fails. .venv-docs is made first if it is missing.
#
#   PYTHON   the interpreter for .venv-docs, 3.10 or later (default: the first that fits)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-docs
log=$venv/setup.log

# shellcheck source=requirements/steps.sh
. requirements/steps.sh

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
pick_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.10 python3}; do
    if fits "$candidate"; then echo "$candidate"; return; fi
  done
  fail 'No Python 3.10 or later was found on PATH.' 'Install one, or set PYTHON.'
}

wanted=$(sha256sum < requirements/docs.txt)
if ! [ -x $venv/bin/mkdocs ] || [ "$(cat $venv/.ready 2>/dev/null)" != "$wanted" ]; then
  rm -rf $venv
  python=$(pick_python)
  "$python" -m venv $venv || fail "$python cannot make a virtual environment." \
    'Debian, Ubuntu: sudo apt install python3-venv'
  step "MkDocs and its theme in $venv, apart from every other environment (15 MB, under a minute)" \
    $venv/bin/python -m pip install --no-input --disable-pip-version-check -r requirements/docs.txt
  echo "$wanted" > $venv/.ready
fi

say 'the pages (about 20 seconds)'
# The theme's banner is about another program.
NO_MKDOCS_2_WARNING=1 $venv/bin/mkdocs build --quiet
say 'spelling'
# Without the images of notebooks.
$venv/bin/codespell --ignore-words-list tood --ignore-regex '[A-Za-z0-9+/=]{100,}' README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md CODE_OF_CONDUCT.md docs study/*.md
say 'site/index.html opens from disk, and needs no network'
