#!/usr/bin/env bash
# Runs the tests beside other versions than those of requirements/constraints.txt, and writes what
# came of it into docs/compatibility.md:
#
#   tests/compat/run.sh [ROW ...]        rows: the files of rows/ (default: all)
#
#   COMPAT_ENVS       where the environments are kept (default: ~/.cache/bnet_mm/compat)
#   WORKERS           processes of the tests (default: one a core)
#   BUILT=1           the wheels are in dist/ already
#
# Each environment is built from nothing, once. The wheel of `make wheels` is installed into it, which
# must move no other package, and the tests see that installation and no checkout. About 5 minutes a
# row to build it, and 10 to 20 to run it on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
here=tests/compat
envs=${COMPAT_ENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/bnet_mm/compat}
workers=${WORKERS:-$(nproc)}
export PIP_DISABLE_PIP_VERSION_CHECK=1

# What needs torch alone, and what runs where the OpenMMLab libraries are.
alone='tests/layers tests/kernels tests/models tests/checkpoint'
with_libraries="$alone tests/deploy tests/openmmlab tests/engine"

say() { printf '[compat] %s\n' "$*"; }

# Installs a wheel, which must move no other package, and leaves nothing for `pip check` to say.
install() {
  local env=$1 wheel=$2
  "$env/bin/pip" uninstall -q -y bnet_mm
  "$env/bin/pip" freeze | sort > "$env/before.txt"
  "$env/bin/pip" install -q "$wheel" || return 1
  if ! "$env/bin/pip" freeze | grep -v '^bnet_mm' | sort | diff "$env/before.txt" -; then
    say "installing $wheel moved these packages"
    return 1
  fi
  "$env/bin/pip" check
}

row() {
  local name=$1 env=$envs/$1 tests=$alone options
  rm -f "$env/results.xml"
  bash $here/build.sh "$name" "$env" || return 1
  install "$env" "$(ls dist/bnet_mm-*-py3-none-any.whl)" || return 1
  # Somewhere else than here, where `bnet_mm` is the checkout.
  (cd / && "$env/bin/python" -W ignore "$root/$here/without_kernels.py") || return 1
  install "$env" "$(ls dist/bnet_mm-*manylinux*.whl)" || return 1

  grep -q '^mmengine\|^onedl-mmengine' "$here/rows/$name.txt" && tests=$with_libraries
  rm -rf "$env/work" && mkdir "$env/work" || return 1
  cp -r tests tools configs docs requirements pyproject.toml "$env/work" || return 1
  say "$name: tests, 10 to 20 minutes on 2 cores"
  options=$(sed -n 's/^# pytest //p' "$here/rows/$name.txt")
  # shellcheck disable=SC2086  (lists)
  (set -f; cd "$env/work" && "$env/bin/python" -m pytest -n "$workers" --dist loadfile \
    -p no:cacheprovider --junitxml "$env/results.xml" $options $tests)
}

rows=("$@")
if [ ${#rows[@]} = 0 ]; then
  for file in $here/rows/*.txt; do rows+=("$(basename "$file" .txt)"); done
fi
for name in "${rows[@]}"; do
  [ -e "$here/rows/$name.txt" ] || { say "there is no row $name in $here/rows" >&2; exit 2; }
done

[ -n "${BUILT:-}" ] || make -s wheels
status=0
for name in "${rows[@]}"; do
  row "$name" || status=1
  "$envs/$name/bin/python" $here/report.py "$name" "$envs/$name/results.xml" docs/compatibility.md || status=1
done
exit $status
