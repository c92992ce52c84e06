#!/bin/bash
# One rank goes silent: the job must end by itself, soon, with that rank's name and pid on one line,
# and leave no process behind.
#   silent_rank.sh PROGRAM MPIRUN FLAGS...
set -u
program=$1
shift
limit_s=20
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fail() {
    echo "FAILED: $*" >&2
    sed 's/^/    /' "$log" >&2
    exit 1
}

# mpirun may be gone a moment before its last child.
gone() {
    for _ in {1..50}; do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

# expect TEXT MODE VICTIM: TEXT follows "rank VICTIM (pid N on HOST) "
expect() {
    local text=$1 mode=$2 victim=$3 start=$SECONDS
    shift 3
    timeout --kill-after=5 60 "${mpirun[@]}" -np 3 "$program" "$mode" "$victim" >"$log" 2>&1
    local status=$? took=$((SECONDS - start))
    [ "$status" -eq 3 ] || fail "$mode $victim: exit status $status, not 3"
    [ "$took" -le "$limit_s" ] || fail "$mode $victim: took $took s"
    local pid
    pid=$(sed -n 's/^victim //p' "$log")
    grep -q "rank $victim (pid $pid on $(hostname)) $text" "$log" ||
        fail "$mode $victim: no line names rank $victim with pid $pid"
    while read -r pid; do
        gone "$pid" || fail "$mode $victim: pid $pid is still there"
    done < <(sed -n 's/^pid //p' "$log")
    echo "ok $mode: rank $victim named after $took s"
}

mpirun=("$@")
expect "has been silent for" poll 2
expect "has been silent for" poll 0
expect "has been silent for" barrier 1
expect "did not come" late 1
