#!/usr/bin/env bash
# slurm/tidemark.sbatch on a real Slurm of one host, which this script configures, starts and stops:
# munged, slurmctld and slurmd of its own, on ports, sockets and folders of their own.
# One run through srun --mpi=pmix, one through mpirun, one that is asked to stop and is resumed.
#   slurm.sh TIDEMARK
set -euo pipefail
tidemark=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")
deadline_s=150 # for one job

skip() {
    echo "skipped: $*"
    exit 77
}
[[ $(id -u) -eq 0 ]] || skip "starting Slurm's daemons needs root"
for tool in munged slurmctld slurmd sbatch srun mpirun; do
    [[ -n "$(PATH=$PATH:/usr/sbin command -v "$tool")" ]] || skip "needs $tool (slurm-wlm, munge, openmpi-bin)"
done
PATH=$PATH:/usr/sbin
/usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "needs python3-h5py"

work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-slurm.XXXXXX")
daemons=()

stop_daemons() {
    local pid
    scancel --quiet --user=root 2>/dev/null && sleep 1
    for pid in "${daemons[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${daemons[@]}"; do
        timeout 10 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
    done
    # job steps live in slurmstepd processes of their own, whose command line names this cluster's nodes
    for pid in $(pgrep slurmstepd || true); do
        grep -qzF "SLURM_CONF=$work/" "/proc/$pid/environ" 2>/dev/null && kill -KILL "$pid"
    done
    rm -rf "$work"
}
trap stop_daemons EXIT

show_logs() {
    for log in "$work"/*.{err,log} "$work"/out/*; do
        [[ -f "$log" ]] && sed "s|^|$(basename "$log"): |" "$log" | tail -n 15 >&2
    done
}
fail() {
    echo "FAILED: $*" >&2
    show_logs
    exit 1
}

# --- the cluster ----------------------------------------------------------------------------------

free_port() {
    /usr/bin/python3 -c 'import socket
s = socket.socket()
s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])'
}

wait_for() { # seconds, what, command...
    local seconds=$1 what=$2 end=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [[ $SECONDS -lt $end ]] || fail "$what: not within $seconds s"
        sleep 0.2
    done
}

configure() {
    local node
    node=$(hostname -s)
    mkdir -p "$work"/{state,spool,out}
    dd if=/dev/urandom of="$work/munge.key" bs=64 count=1 status=none
    chmod 600 "$work/munge.key"
    # Ranks that wait do not need a core: more CPUs are declared than the host may have, as a site
    # does that lets jobs oversubscribe
    cat >"$work/slurm.conf" <<CONF
ClusterName=tidemark
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MpiDefault=none
NodeName=$node NodeAddr=127.0.0.1 CPUs=8
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$work/slurm.conf
}

node_is_idle() {
    [[ "$(sinfo --noheader --format=%t)" == idle ]]
}

start_cluster() {
    munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
        --pid-file="$work/munged.pid" --log-file="$work/munged.log" --seed-file="$work/munged.seed" \
        >"$work/munged.err" 2>&1 &
    daemons+=($!)
    wait_for 20 "munged" munge --socket="$work/munge.socket" --no-input
    slurmctld -D >"$work/slurmctld.err" 2>&1 &
    daemons+=($!)
    slurmd -D >"$work/slurmd.err" 2>&1 &
    daemons+=($!)
    wait_for 40 "an idle Slurm node" node_is_idle
}

# --- jobs -----------------------------------------------------------------------------------------

state_of() {
    scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z_]*\).*/\1/p'
}

wait_for_end() { # job id, state it must end in
    local end=$((SECONDS + deadline_s)) state
    while :; do
        state=$(state_of "$1")
        case $state in
        PENDING | RUNNING | COMPLETING | CONFIGURING | "") ;;
        "$2") return ;;
        *) fail "job $1 ended as $state, not as $2" ;;
        esac
        [[ $SECONDS -lt $end ]] || fail "job $1 is still $state after $deadline_s s"
        sleep 0.5
    done
}

submit() { # name, config overrides...; prints the job id
    local name=$1
    shift
    sbatch --parsable --ntasks="$ranks" --output="$work/out/$name.txt" --chdir="$root" \
        --export="ALL,TIDEMARK=$tidemark,TIDEMARK_RESULT=$work/$name.h5" \
        slurm/tidemark.sbatch "$config" "$@"
}

check() { # name, job id, arguments of check_run.py...
    local name=$1 id=$2
    shift 2
    "$tidemark" validate "$work/$name.h5" || fail "$name: validate"
    /usr/bin/python3 "$root/tests/cli/check_run.py" "$tidemark" "$work/$name.h5" --slurm-job "$id" "$@" ||
        fail "$name: its result is not what was asked for"
}

launched_by() { # name, launcher
    grep -q "ranks by $2" "$work/out/$1.txt" || fail "$1: its ranks were not started by $2"
    echo "ok: $1 by $2"
}

cd "$root"
config=configs/quickstart.yaml
settings=(target.pipeline=2 load.ranks=1 "load.rates=2,4,6" load.step=3s load.drain=3s)
configure
start_cluster
ranks=$("$tidemark" run "$config" "${settings[@]}" --np-only)
[[ "$ranks" -eq 3 ]] || fail "1 load rank and 2 stages are $ranks ranks"

id=$(submit srun "${settings[@]}")
wait_for_end "$id" COMPLETED
check srun "$id" --complete --steps 3
launched_by srun srun

id=$(TIDEMARK_LAUNCHER=mpirun submit mpirun "${settings[@]}")
wait_for_end "$id" COMPLETED
check mpirun "$id" --complete --steps 3
launched_by mpirun mpirun

# A job of the wrong size says which one is right, before any rank starts.
id=$(ranks=2 submit wrong "${settings[@]}")
wait_for_end "$id" FAILED
grep -q -- "--ntasks=3" "$work/out/wrong.txt" || fail "wrong size: no line with the right --ntasks"
echo "ok: wrong number of tasks"

# Slurm's warning before the time limit: the step under way is finished, the next job goes on.
settings=(target.pipeline=2 load.ranks=1 "load.rates=2,3,4,5" load.step=4s load.drain=3s)
first=$(submit stopped "${settings[@]}")
wait_for 60 "the first step" test -e "$work/stopped.h5.journal"
sleep 5
scancel --batch --signal=USR1 "$first"
wait_for_end "$first" COMPLETED
steps=$(/usr/bin/python3 tests/cli/check_run.py "$tidemark" "$work/stopped.h5" --count-steps)
[[ "$steps" -ge 1 && "$steps" -lt 4 ]] || fail "the run that was asked to stop has $steps steps"
id=$(submit stopped "${settings[@]}")
wait_for_end "$id" COMPLETED
check stopped "$first" --complete --steps 4
echo "ok: stopped after $steps steps, resumed to 4"
