#!/usr/bin/env bash
# One training on two machines, with nothing but torchrun. On each of them, with its number and the first one's address:
#     examples/launchers/two_hosts.sh 0 10.0.0.1 examples/one_line.py
#     examples/launchers/two_hosts.sh 1 10.0.0.1 examples/one_line.py
# A machine with several networks says which one gloo is to take: GLOO_SOCKET_IFNAME=eth0.
set -euo pipefail
exec torchrun --nnodes 2 --nproc-per-node 1 --node-rank "$1" --master-addr "$2" --master-port 29500 "${@:3}"
