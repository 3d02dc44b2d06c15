#!/bin/sh
# Agents on machines that are reached by ssh, for a broker here:
#
#     over_ssh.sh tcp://HERE:8786 KEYS HOST...
#
# KEYS is the directory that `headrace keygen` made. Start the broker first: headrace broker --listen tcp://0.0.0.0:8786
# --keys KEYS --workers 0. The key travels through ssh and is written nowhere. When this script ends, however it ends, the
# agents leave. HEADRACE names the command there, SSH the one here.
set -eu
address=$1 keys=$2
shift 2
started=
trap 'kill $started 2>/dev/null || true' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
for host in "$@"; do
    # The key first; then nothing, for as long as this script lives: the end of its input ends the agent.
    { cat "$keys/worker.key"; exec tail --pid=$$ -f /dev/null; } |
        ${SSH:-ssh} "$host" exec "${HEADRACE:-headrace}" worker "$address" --keys - --tied --name "$host" &
    started="$started $!"
done
wait
