#!/bin/bash
# One rank lives, but does not do its part: the job must end by itself, soon, with that rank's name on one line.
#   hung_rank.sh PROGRAM MPIRUN FLAGS...
set -u
program=$1
shift
mpirun=("$@")
limit_s=10
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fail() {
    echo "FAILED: $*" >&2
    sed 's/^/    /' "$log" >&2
    exit 1
}

# expect P T MODE VICTIM WITNESS TEXT: the line that WITNESS ends the job with
expect() {
    local ranks=$((1 + $1 * $2)) start=$SECONDS text=$6
    timeout --kill-after=5 60 "${mpirun[@]}" -np "$ranks" "$program" "$1" "$2" "$3" "$4" >"$log" 2>&1
    local status=$? took=$((SECONDS - start))
    [ "$status" -eq 3 ] || fail "$1 x $2, $3: exit status $status, not 3"
    [ "$took" -le "$limit_s" ] || fail "$1 x $2, $3: took $took s"
    local line
    line=$(grep -o 'comm: rank .*' "$log" | head -n 1)
    [[ "$line" =~ ^comm:\ rank\ $5\ \([a-z0-9,\ ]*\):\ $text ]] || fail "$1 x $2, $3: $line"
    echo "ok $1 x $2, $3: $line"
}

batch='a batch of 1 tokens for [0-9.]+ s \(limit '
expect 2 1 backend 2 2 "its backend \(cpu\) has been computing $batch"
expect 2 1 deaf 2 1 "rank 2 \(replica 0, stage 1, tensor 0\) has not returned the ids of $batch"
expect 1 2 deaf 2 1 "rank 2 \(replica 0, stage 0, tensor 1\) has not sent its part of a sum for $batch"
expect 2 1 wire 1 2 "rank 1 \(replica 0, stage 0, tensor 0\) has not sent the hidden states of $batch"
