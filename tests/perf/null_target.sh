#!/usr/bin/env bash
# tidemark against a target that answers at once: the load generator's own accuracy and memory.
#
#   tests/perf/null_target.sh [BINARY]        default: build/tidemark; takes about three minutes
#
# One rank on a free core, no mpirun. Run 1 offers 10,000 requests/s for 60 s: send lag p50 <= 20 us and
# p99 <= 200 us, rate error <= 0.1 %. Run 2 replays a trace of 10,000 requests/s for 10 s: the same limits
# on when its requests are sent, against the times in the trace's own file. Run 3 offers them for 101 s: 1,000,000 records in under 400 MB in all, and, inside the
# step, no growth per request. Prints each figure with PASS or FAIL; exit 1 when one fails.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tidemark=${1:-${TIDEMARK:-$root/build/tidemark}}
python=/usr/bin/python3
work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-null.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=0

[ -x "$tidemark" ] || { echo "null_target.sh: no binary at $tidemark" >&2; exit 2; }

# check NAME VALUE LIMIT UNIT: value <= limit
check() {
    local verdict=PASS
    if ! "$python" -c 'import sys; sys.exit(not float(sys.argv[1]) <= float(sys.argv[2]))' "$2" "$3"; then
        verdict=FAIL
        failed=1
    fi
    printf '%-4s  %-34s %12s %-8s (at most %s)\n' "$verdict" "$1" "$2" "$4" "$3"
}

# run NAME STEP: one step at 10,000 requests/s, alone in this process; NAME.rss gets lines of seconds, kB now, most kB so far.
run() {
    local name=$1 step=$2 pid start
    "$tidemark" run "$root/configs/null.yaml" load.rates=10000 "load.step=$step" --quiet \
        -o "$work/$name.h5" >"$work/$name.out" 2>"$work/$name.err" &
    pid=$!
    start=$(date +%s%N)
    while kill -0 "$pid" 2>/dev/null; do
        awk -v t="$((($(date +%s%N) - start) / 1000000))" \
            '/^VmRSS|^VmHWM/ {v[$1] = $2} END {if (v["VmRSS:"]) print t / 1000, v["VmRSS:"], v["VmHWM:"]}' \
            "/proc/$pid/status" >>"$work/$name.rss" 2>/dev/null || true
        sleep 0.2
    done
    if ! wait "$pid"; then
        cat "$work/$name.err" >&2
        exit 1
    fi
    "$tidemark" report "$work/$name.h5" --format json >"$work/$name.json"
}

# figure NAME EXPRESSION: of the run's one step s
figure() {
    "$python" -c '
import json, sys
s = json.load(open(sys.argv[1]))["steps"][-1]
print("%.6g" % eval(sys.argv[2], {"s": s, "abs": abs, "sum": sum}))' "$work/$1.json" "$2"
}

run short 60s
echo "10,000 requests/s for 60 s, one rank"
check "send lag p50" "$(figure short 's["send_lag_us"]["p50"]')" 20 us
check "send lag p99" "$(figure short 's["send_lag_us"]["p99"]')" 200 us
check "rate error" "$(figure short '100 * s["rate_error"]')" 0.1 %
check "requests not ok" "$(figure short 's["requests"]["scheduled"] - s["requests"]["ok"]')" 0 requests
printf '      send lag p99.9 %s us, max %s us; poll gap p50 %s us, p99 %s us\n' \
    "$(figure short 's["send_lag_us"]["p999"]')" "$(figure short 's["send_lag_us"]["max"]')" \
    "$(figure short 's["poll_gap_us"]["p50"]')" "$(figure short 's["poll_gap_us"]["p99"]')"

# A trace with times of 100 ns, as published traces have them; what was sent is held against the file.
"$python" - "$work/trace.csv" <<'END'
import random, sys
draw = random.Random(1)
t, rows = 0, []
while t < 10 * 10**7:
    rows.append(f"2024-05-10 00:00:{t // 10**7:02d}.{t % 10**7:07d},8,4\n")
    t += int(draw.expovariate(1e-3)) + 1
open(sys.argv[1], "w").write("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows))
END
"$tidemark" run "$root/configs/null.yaml" load.rates=null load.arrival=trace \
    "load.dataset.source=$work/trace.csv" --quiet -o "$work/trace.h5" >/dev/null
errors=$("$python" - "$work/trace.csv" "$work/trace.h5" <<'END'
import sys
import h5py, numpy
wanted = numpy.array([round(float(line.split(",")[0][17:]) * 10**7) * 100
                      for line in open(sys.argv[1]).readlines()[1:]])
with h5py.File(sys.argv[2]) as f:
    step = f["steps/0000"]
    sent = step["requests/t_send_ns"][()] - step.attrs["t_begin_ns"]
error_us = numpy.abs(sent - (wanted - wanted[0])) / 1000
print(len(wanted) - len(sent), *numpy.percentile(error_us, [50, 99]).round(2))
END
)
read -r missing p50 p99 <<<"$errors"
echo "a trace of 10,000 requests/s for 10 s, one rank"
check "requests of the trace not sent" "$missing" 0 requests
check "timing error p50" "$p50" 20 us
check "timing error p99" "$p99" 200 us

run long 101s
records=$(figure long 'sum(s["requests"]["by_outcome"].values())')
echo "10,000 requests/s for 101 s, one rank: $records records in the window"
check "send lag p99" "$(figure long 's["send_lag_us"]["p99"]')" 1000 us
check "most memory, folding included" \
    "$(awk '$3 > m {m = $3} END {printf "%.1f", m * 1024 / 1e6}' "$work/long.rss")" 400 MB
# The step fills seconds 5 to 95 of the process's life whatever the start took.
check "growth from second 15 to 90" \
    "$(awk '$1 < 15 {a = $2} $1 < 90 {b = $2} END {printf "%.3f", (b - a) * 1024 / 750000}' \
        "$work/long.rss")" 1 B/request

exit $failed
