#!/usr/bin/env bash
# Starts a tool in several processes, each with a GPU, on one machine or on each of NNODES:
#   tools/torchrun.sh PROCESSES TOOL.py [the tool's arguments]
set -eu
processes=$1
shift
port=${PORT:-29500}
# Two trainings on one machine are told apart by their ports; torch says so in forty lines.
free='import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))'
if [ "${NODE_RANK:-0}" = 0 ] && ! python -c "$free" "$port" 2>/dev/null; then
  echo "port $port is taken, perhaps by another training on this machine: choose another with" \
    "PORT=$((port + 1)) before the command" >&2
  exit 2
fi
exec python -m torch.distributed.run \
  --nnodes="${NNODES:-1}" \
  --node_rank="${NODE_RANK:-0}" \
  --nproc_per_node="$processes" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" \
  --master_port="$port" \
  "$@" --launcher pytorch
