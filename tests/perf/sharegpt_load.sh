#!/bin/sh
# How long, and in how much memory, a ShareGPT-shaped file of 700 MB is loaded: read, checked, filtered,
# tokenised; then once more from the cache of ids. The file is made of the real conversations of the
# shared data (generated words where that is absent), each with words of its own so that no cache of
# words makes it easy. Limits, on two cores: 20 seconds (for other sizes in proportion), and twice the file in
# memory. Prints each figure with PASS or FAIL; exit 1 when one fails.
#
# usage: sharegpt_load.sh BUILD_FOLDER MODEL_FOLDER [MEGABYTES] [key=value ...]
#   MODEL_FOLDER has config.json and tokenizer.json; key=value goes to `dataset stats`
set -eu
build=$1
model=$2
megabytes=${3:-700}
if [ $# -le 3 ]; then shift $#; else shift 3; fi
root=$(cd "$(dirname "$0")/../.." && pwd)
shared=${TIDEMARK_SHARED:-$root/../shared}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 "$root/tests/perf/make_sharegpt.py" "$shared" "$megabytes" > "$work/sharegpt.json"
bytes=$(stat -c %s "$work/sharegpt.json")
most_s=$(awk "BEGIN {print 20 * $megabytes / 700}")
most_mb=$(awk "BEGIN {print 2 * $bytes / 1000000}")
failed=0
echo "file: $bytes bytes; load average $(cut -d' ' -f1-3 /proc/loadavg)"
for what in "tokenised" "from the cache"; do
    TIDEMARK_CACHE="$work" python3 "$root/tests/perf/timed.py" "$what" 2 "$most_s" "$most_mb" \
        "$build/tidemark" dataset stats "$work/sharegpt.json" --model "$model" "$@" || failed=1
done
exit "$failed"
