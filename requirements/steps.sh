# Sourced by what builds an environment: says each step, and installs a mmcv whose operators load.
#
#   python, log       the environment's interpreter, and the file that takes the output of commands
#   install           a function: pip's install with the constraints of the environment

say() { printf '[set-up] %s\n' "$*"; }
fail() { printf '[set-up] %s\n' "$@" >&2; exit 2; }

# Runs a command with its output in the log; shows the end of the log and stops when it fails.
step() {
  local what=$1; shift
  say "$what"
  if ! "$@" >>"$log" 2>&1; then
    tail -n 25 "$log" >&2
    fail "failed: $what" "The whole log is $log; once the cause is mended, the same command goes on from here."
  fi
}

# mmcv is published as source only, and its operators must match torch: take a wheel that loads, or compile one.
mmcv_loads() { "$python" -c 'import torch, mmcv._ext' >/dev/null 2>&1; }

install_mmcv() {
  local name=$1 version=$2
  mmcv_loads && return
  say "$name $version: looking for a wheel"
  if install --only-binary "$name" "$name==$version" >>"$log" 2>&1 && mmcv_loads; then
    say "$name: a wheel fits"
    return
  fi
  "$python" -m pip uninstall -y "$name" >>"$log" 2>&1
  compile_mmcv "$name" "$version"
  mmcv_loads || fail "$name was installed and its operators do not load: $("$python" -c 'import torch, mmcv._ext' 2>&1 | tail -n 1)"
}

compile_mmcv() {
  local name=$1 version=$2 tag cache file source minutes arch=cpu
  file=${name//-/_}-$version
  command -v c++ >/dev/null || command -v g++ >/dev/null || fail \
    'mmcv must be compiled and there is no C++ compiler.' 'Debian, Ubuntu: sudo apt install g++'
  "$python" -c 'import os, sysconfig; open(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' \
    2>/dev/null || fail "mmcv must be compiled and Python's C headers (Python.h) are missing." \
    'Debian, Ubuntu: sudo apt install python3-dev'
  # FORCE_CUDA=1 is mmcv's own word for a machine without a GPU that builds for one with (docker/).
  if [ "${FORCE_CUDA:-}" = 1 ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    arch=cuda
    command -v nvcc >/dev/null || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ] || fail \
      'A CUDA GPU is to be used, and nvcc, which compiles the GPU operators of mmcv, is missing.' \
      "Install the CUDA toolkit $("$python" -c 'import torch; print(torch.version.cuda)') or set CUDA_HOME."
  fi
  tag=$("$python" -c 'import sys, torch; v = sys.version_info; print(
    f"py{v[0]}{v[1]}-torch{torch.__version__}")')-$arch
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/bnet_mm/$file-$tag
  mkdir -p "$cache"
  exec 8>"$cache/lock"
  if command -v flock >/dev/null; then flock 8; fi
  if ! ls "$cache"/*.whl >/dev/null 2>&1; then
    source=$cache/$file
    if ! [ -d "$source" ]; then
      step "the source package of $name (seconds)" "$python" -m pip download --no-input --no-deps \
        --no-binary "$name" --no-build-isolation -d "$cache" "$name==$version"
      mkdir "$source.part"
      tar -xzf "$cache/$file.tar.gz" -C "$source.part" --strip-components 1
      mv "$source.part" "$source"
    fi
    minutes=$(( (26 + $(nproc) - 1) / $(nproc) ))
    [ $arch = cuda ] && minutes=$((minutes * 3))
    # Object files stay in the cache folder, so a build that was interrupted goes on where it stopped.
    step "compiling $name $version for $tag (about $minutes minutes on $(nproc) cores, once; kept in $cache)" \
      env CFLAGS='-g0 -O2' MMCV_WITH_OPS=1 MAX_JOBS="$(nproc)" PATH="$(dirname "$python"):$PATH" \
      "$python" -m pip wheel --no-input --no-deps --no-build-isolation -w "$cache/wheel.part" "$source"
    mv "$cache/wheel.part"/*.whl "$cache"
    rm -rf "$cache/wheel.part" "$source" "$cache/$file.tar.gz"
  fi
  exec 8>&-
  step 'installing the compiled mmcv (seconds)' install "$cache"/*.whl
}
