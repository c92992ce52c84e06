#!/usr/bin/env bash
# One run on two hosts: two network namespaces with host names and addresses of their own, joined by a
# wire (of 0.2 ms each way where the kernel has netem). Load rank and stage 0 on the one, stages 1 and 2
# on the other.
# Once started by mpirun by hand, once by tidemark itself with --hostfile.
#   two_hosts.sh TIDEMARK
set -euo pipefail
tidemark=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")
deadline_s=120 # for one run

skip() {
    echo "skipped: $*"
    exit 77
}
[[ $(id -u) -eq 0 ]] || skip "network namespaces need root"
for tool in ip unshare mpirun; do
    command -v "$tool" >/dev/null || skip "needs $tool (iproute2, util-linux, openmpi-bin)"
done
/usr/bin/python3 -c 'import h5py' 2>/dev/null || skip "needs python3-h5py"

work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-hosts.XXXXXX")
net=10.203.$((RANDOM % 250)) # a /24 of its own, seen in the two namespaces only
hosts=("tide-a-$$" "tide-b-$$")
addresses=("$net.1" "$net.2")

remove_hosts() {
    local host
    for host in "${hosts[@]}"; do
        ip netns pids "$host" 2>/dev/null | xargs --no-run-if-empty kill -KILL 2>/dev/null || true
        ip netns delete "$host" 2>/dev/null || true # and its end of the wire with it
    done
    rm -rf "$work"
}
trap remove_hosts EXIT

fail() {
    echo "FAILED: $*" >&2
    for log in "$work"/*.txt; do
        [[ -f "$log" ]] && sed "s|^|$(basename "$log"): |" "$log" | tail -n 40 >&2
    done
    exit 1
}

make_hosts() {
    local i wires=("w$$a" "w$$b")
    for i in 0 1; do
        ip netns add "${hosts[i]}" 2>"$work/ip.err" || skip "no network namespaces here: $(cat "$work/ip.err")"
    done
    ip link add "${wires[0]}" netns "${hosts[0]}" type veth peer name "${wires[1]}" netns "${hosts[1]}"
    for i in 0 1; do
        ip -n "${hosts[i]}" link set lo up
        ip -n "${hosts[i]}" address add "${addresses[i]}/24" dev "${wires[i]}"
        ip -n "${hosts[i]}" link set "${wires[i]}" up
        # without netem in the kernel the wire is as fast as memory: the run is the same
        tc -n "${hosts[i]}" qdisc add dev "${wires[i]}" root netem delay 200us 2>/dev/null || true
        printf '%s slots=2\n' "${addresses[i]}" >>"$work/hostfile"
    done
}

# A command on a host: its network, its name, its own shared memory and temporary folders.
make_enter() {
    local host
    for host in "${hosts[@]}"; do
        mkdir "$work/$host"
    done
    cat >"$work/enter" <<ENTER
#!/usr/bin/env bash
# usage: enter ADDRESS COMMAND...
set -euo pipefail
address=\$1
shift
host=${hosts[0]} other=${hosts[1]}
if [[ "\$address" == ${addresses[1]} ]]; then
    host=${hosts[1]} other=${hosts[0]}
fi
export TMPDIR=$work/\$host
# mpirun gives its daemon's command as for ssh: words for a shell of the other host
exec ip netns exec "\$host" unshare --uts --mount -- bash -c "
    hostname \$host
    mount -t tmpfs none /dev/shm
    mount -t tmpfs none $work/\$other
    exec \$*"
ENTER
    chmod +x "$work/enter"
}

on_first() { # words for a shell on the first host
    timeout --kill-after=5 "$deadline_s" "$work/enter" "${addresses[0]}" "$*"
}

check() { # name
    "$tidemark" validate "$work/$1.h5" || fail "$1: validate"
    /usr/bin/python3 "$root/tests/cli/check_run.py" "$tidemark" "$work/$1.h5" --complete --steps 2 \
        --all-ok --hosts "${hosts[0]},${hosts[0]},${hosts[1]},${hosts[1]}" --hops-between-hosts 1 --clock-bound-us 20000 ||
        fail "$1: its result is not what was asked for"
    echo "ok: $1"
}

make_hosts
make_enter
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_plm_rsh_agent="$work/enter" OMPI_MCA_oob_tcp_if_include="$net.0/24"
export OMPI_MCA_btl_tcp_if_include="$net.0/24"
cd "$root"
run="run configs/quickstart.yaml target.pipeline=3 load.ranks=1 load.rates=2,4 load.step=4s load.drain=10s"

# by hand: TCP between all ranks, on one host too
on_first mpirun -np 4 --hostfile "$work/hostfile" --oversubscribe --bind-to none --mca pml ob1 \
    --mca btl self,tcp "$tidemark" "$run" -o "$work/by-hand.h5" >"$work/by-hand.txt" 2>&1 ||
    fail "by hand: exit status $?"
check by-hand

on_first "$tidemark" "$run" -o "$work/self-launched.h5" --hostfile "$work/hostfile" \
    >"$work/self-launched.txt" 2>&1 || fail "self-launched: exit status $?"
check self-launched

# the tensor ranks of a stage on two hosts: refused before anything is loaded
split="run configs/quickstart.yaml target.pipeline=1 target.tensor=2 load.ranks=1"
status=0
on_first "$tidemark" "$split" -o "$work/split.h5" --hostfile "$work/hostfile" >"$work/split.txt" 2>&1 || status=$?
[[ $status -eq 2 ]] || fail "a stage on two hosts: exit status $status, not 2"
grep -q "stage 0 of replica 0 is on two hosts, rank 1 on ${hosts[0]} and rank 2 on ${hosts[1]}" "$work/split.txt" ||
    fail "a stage on two hosts: not said"
[[ ! -e "$work/split.h5" ]] || fail "a stage on two hosts: a result file"
echo "ok: a stage on two hosts is refused"

# ranks dealt out by turns: a hop to the other host from each stage to the next
on_first mpirun -np 4 --hostfile "$work/hostfile" --map-by node --oversubscribe --bind-to none --mca pml ob1 \
    --mca btl self,tcp "$tidemark" "$run" --dry-run >"$work/dealt.txt" 2>&1 || fail "dealt out: exit status $?"
grep -q "placement: 4 rank(s) on 2 host(s); 2 of 2 hop(s) between hosts" "$work/dealt.txt" ||
    fail "dealt out: hops are not said"
grep -q "rank 1 .* on ${hosts[1]}, .*; hidden states to rank 2 by mpi (another host)" "$work/dealt.txt" ||
    fail "dealt out: rank 1's edge is not said"
echo "ok: placement"
