#!/usr/bin/env bash
# Everything of a release but the upload (`make release`):
#
#   TAG               the tag that is released; without it that is not compared
#   ROWS              environments to try the wheels in: rows of tests/compat/rows (default: all, about
#                     15 minutes each), or `none`
#   RELEASE_ENV       where the tools of release/requirements.txt are kept
#                     (default: ~/.cache/bnet_mm/release)
#
# dist/ holds what would be uploaded, build/notes.md the notes.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
tools=${RELEASE_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/bnet_mm/release}
export PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf '[release] %s\n' "$*"; }

if [ -n "$(git status --porcelain)" ]; then
  git status --short >&2
  say 'the tree has changes that are not committed: a release is made of a commit' >&2
  exit 2
fi

if [ "$(cat "$tools/.ready" 2>/dev/null)" != "$(sha256sum < release/requirements.txt)" ]; then
  say "tools of a release, kept in $tools (seconds)"
  rm -rf "$tools" && .venv/bin/python -m venv "$tools"
  "$tools/bin/pip" install -q --no-input -r release/requirements.txt
  sha256sum < release/requirements.txt > "$tools/.ready"
fi
python=$tools/bin/python

say 'version, changelog, citation'
"$python" release/release_checks.py agreement ${TAG:+--tag "$TAG"}
"$tools/bin/cffconvert" --validate -i CITATION.cff

say 'wheels and the source archive'
bash requirements/build_wheels.sh
"$python" -m build --sdist --outdir dist . >/dev/null
"$python" -m twine check --strict dist/*
"$python" release/release_checks.py archives dist/*

say 'the source archive builds the same wheel'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
BNET_KERNELS=0 "$python" -m pip wheel -q --no-deps -w "$work" dist/*.tar.gz
listing() { "$python" -m zipfile -l "$1" | awk '{print $1, $NF}'; }
diff <(listing "$work"/*.whl) <(listing dist/*-none-any.whl)

if [ "${ROWS:-}" != none ]; then
  say "the wheels in fresh environments: ${ROWS:-all rows}"
  # shellcheck disable=SC2086 # a list
  BUILT=1 bash tests/compat/run.sh ${ROWS:-}
fi

mkdir -p "$root/build"
"$python" release/release_checks.py notes > build/notes.md
say 'dist/ is ready to be uploaded; build/notes.md are the notes:'
cat build/notes.md
