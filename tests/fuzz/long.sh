#!/usr/bin/env bash
# Fuzzes for as long as it is given: libFuzzer with ASan and UBSan, one target after the other, one line for
# each. Exit 1 when something was found. Needs clang.
#
#   tests/fuzz/long.sh [SECONDS [TARGET...]]      default: 600 seconds for each that reads what others send
#
# Built in build-fuzz, by as many jobs as CMAKE_BUILD_PARALLEL_LEVEL says. What a target learned stays in
# build-fuzz/found/TARGET for the next time; so does its log, and beside it the input that was a finding.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build-fuzz
found=$build/found
seconds=${1:-600}
targets=("${@:2}")
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || { sed -n '5s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
if [[ ${#targets[@]} -eq 0 ]]; then
    targets=(sse reply json_scan metrics trace sharegpt tokenizer gguf gguf_tokenizer vllm http_request)
    [[ ! -e $root/tests/fuzz/fuzz_http_answer.c ]] || targets+=(http_answer)
fi

fuzz() { # target; false: a finding
    local name=$1 log=$found/$1.log begin=$SECONDS n=0 runs
    mkdir -p "$found/$name"
    TIDEMARK_SOURCE=$root "$build/tests/fuzz_$name" -max_total_time="$seconds" -timeout=60 -print_final_stats=1 \
        -artifact_prefix="$found/$name." "$found/$name" "$root/tests/fuzz/corpus/$name" >"$log" 2>&1 || n=1
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$name: ${runs:-no} runs, $((SECONDS - begin)) s, findings: $n"
    if [[ $n -ne 0 ]]; then
        grep -m 1 -E 'ERROR:|runtime error:' "$log" || tail -n 1 "$log"
        echo "see $log"
        return 1
    fi
}

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DTIDEMARK_FUZZ=ON >/dev/null
cmake --build "$build" --target "${targets[@]/#/fuzz_}" >"$build/build.log" || {
    tail -n 20 "$build/build.log" >&2
    exit 2
}
failed=0
for target in "${targets[@]}"; do
    fuzz "$target" || failed=1
done
exit "$failed"
