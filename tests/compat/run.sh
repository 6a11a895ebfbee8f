#!/usr/bin/env bash
# Runs the tests beside other versions than those of requirements/constraints.txt, and writes what
# came of it into docs/compatibility.md:
#
#   tests/compat/run.sh [ROW ...]        rows: the files of rows/ (default: all)
#
#   COMPAT_ENVS       where the environments are kept (default: ~/.cache/bnet_mm/compat)
#   WORKERS           processes of the tests (default: one a core)
#
# Each environment is built from nothing, once. The wheel of `make wheels` is installed into it, which
# must move no other package, and the tests see that installation and no checkout. About 5 minutes a
# row to build it, and 10 to run it on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=tests/compat
envs=${COMPAT_ENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/bnet_mm/compat}
workers=${WORKERS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1

# What needs torch alone, and what runs where the OpenMMLab libraries are.
alone='tests/layers tests/kernels tests/models tests/checkpoint tests/deploy'
with_libraries="$alone tests/openmmlab tests/engine"

say() { printf '[compat] %s\n' "$*"; }

row() {
  local name=$1 env=$envs/$1 wheel tests=$alone
  bash $here/build.sh "$name" "$env" || return 1
  grep -q '^mmengine\|^onedl-mmengine' "$here/rows/$name.txt" && tests=$with_libraries
  wheel=$(ls "$root"/dist/bnet_mm-*manylinux*.whl)

  "$env/bin/pip" uninstall -q -y bnet_mm
  "$env/bin/pip" freeze | sort > "$env/before.txt"
  "$env/bin/pip" install -q "$wheel"
  if ! "$env/bin/pip" freeze | grep -v '^bnet_mm' | sort | diff "$env/before.txt" -; then
    say "$name: installing the wheel moved these packages"
    return 1
  fi
  "$env/bin/pip" check || return 1

  rm -rf "$env/work" "$env/results.xml" && mkdir "$env/work"
  cp -r tests tools configs docs requirements pyproject.toml "$env/work"
  say "$name: tests, about 10 minutes on 2 cores"
  # shellcheck disable=SC2086  (a list)
  (cd "$env/work" && COMPAT_ROW=$name "$env/bin/python" -m pytest -n "$workers" --dist loadfile \
    -p no:cacheprovider --junitxml "$env/results.xml" $tests) || return 1
}

rows=("$@")
if [ ${#rows[@]} = 0 ]; then
  for file in $here/rows/*.txt; do rows+=("$(basename "$file" .txt)"); done
fi
for name in "${rows[@]}"; do
  [ -e "$here/rows/$name.txt" ] || { say "there is no row $name in $here/rows" >&2; exit 2; }
done

make -s wheels
status=0
for name in "${rows[@]}"; do
  row "$name" || status=1
  "$envs/$name/bin/python" $here/report.py "$name" "$envs/$name/results.xml" docs/compatibility.md || status=1
done
exit $status
