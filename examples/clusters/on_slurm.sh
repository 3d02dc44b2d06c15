#!/bin/sh
#SBATCH --job-name=headrace
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:TERM@60
# A broker on the first node of a job, an agent on each, and a program that uses them:
#
#     sbatch --cpus-per-task=32 on_slurm.sh python program.py
#
# The program finds the broker by `headrace.Client(os.environ["HEADRACE_ADDRESS"])`. The keys are made for the job, in a
# directory that all nodes see and that only this user can read; they go with the job.
set -eu
keys=$(mktemp -d "${HEADRACE_JOB_DIR:-$PWD}/headrace-keys.XXXXXX")
broker= agents=
finish() {
    [ -z "$broker" ] || kill "$broker" 2>/dev/null || true
    [ -z "$agents" ] || wait "$agents" || true # they end with the broker
    [ -z "$broker" ] || wait "$broker" || true
    rm -rf "$keys"
}
trap finish EXIT
trap 'exit 143' TERM
headrace keygen "$keys" >/dev/null
mkfifo "$keys/addresses"
headrace broker --workers 0 --places 2048 --keys "$keys" --listen "tcp://$(hostname -i | cut -d' ' -f1):*" \
    >"$keys/addresses" &
broker=$!
{ read -r HEADRACE_ADDRESS; read -r endpoint; } <"$keys/addresses"
export HEADRACE_ADDRESS
srun --kill-on-bad-exit=0 headrace worker "$endpoint" --keys "$keys" --slots "${SLURM_CPUS_PER_TASK:-1}" </dev/null &
agents=$!
"$@"
