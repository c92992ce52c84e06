#!/usr/bin/env bash
# What the null server gives to a bare epoll and recv reader, each on a core of its own: the ceiling
# of every measurement of a client against it. Then how exact its times are at three loads.
#
#   tests/perf/serve_speed.sh [BUILD]     default: build; needs its target sse_reader; about a minute
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build}
server=""
trap '[ -z "$server" ] || kill "$server"' EXIT

# measure STREAMS TOKENS SECONDS SPREAD_S [serve.key=value ...]
measure() {
    local out err port load=("${@:1:4}")
    shift 4
    out=$(mktemp)
    err=$(mktemp)
    echo "streams=${load[0]} $*"
    taskset -c 0 "$build/tidemark" serve target.kind=null serve.port=0 "$@" >"$out" 2>"$err" &
    server=$!
    until grep -q listening "$out"; do sleep 0.1; done
    port=$(sed 's|.*:\([0-9]*\)/v1|\1|' "$out")
    taskset -c 1 "$build/tests/sse_reader" "$port" "${load[@]}"
    kill "$server"
    wait "$server"
    server=""
    cat "$err"
    rm -f "$out" "$err"
}

for packet in 1 8; do
    for streams in 64 1000; do
        measure "$streams" 256 3 0 "serve.events_per_packet=$packet"
    done
done
measure 1 64 4 0 serve.ttft=80ms serve.itl=8ms serve.spin=500us
measure 100 64 4 1 serve.ttft=80ms serve.itl=8ms serve.spin=300us
measure 5000 64 8 1 serve.ttft=500ms serve.itl=100ms serve.spin=300us
