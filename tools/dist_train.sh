#!/usr/bin/env bash
# Trains on several GPUs of one machine, or of NNODES machines:
#   tools/dist_train.sh CONFIG GPUS [train.py's options]
set -eu
config=$1 gpus=$2
shift 2
here=$(dirname "$0")
exec "$here/torchrun.sh" "$gpus" "$here/train.py" "$config" "$@"
