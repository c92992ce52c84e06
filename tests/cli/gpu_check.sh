#!/usr/bin/env bash
# bundle/gpu-check as it is unpacked, with the stand-in for CUDA in the place of a GPU's: its parts run,
# their files are whole, and one that fails or skips shows. What the parts find is the matter of other tests.
#   gpu_check.sh BUILD_FOLDER
set -euo pipefail
build=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")
tests=$build/tests

fail() {
    echo "FAILED: $*"
    cat "$work"/out/*.log
    exit 1
}
skip() {
    echo "skipped: $*"
    exit 77
}
[[ -e $tests/tidemark-cuda-on-cpu.so ]] || skip "no stand-in for CUDA on this processor"

work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-gpu-check-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/start"
cp "$root/bundle/gpu-check" "$work/"
ln -s "$build/tidemark" "$root/configs" "$root/tests" "$work/"
ln -s "$tests/tidemark-cuda-on-cpu.so" "$work/tidemark-cuda.so"
ln -s "$tests/test_cuda_norm" "$work/start/gpu_norm"
ln -s "$tests/test_cuda_splits" "$work/start/test_cuda_splits"
ln -s "$(command -v mpirun)" "$work/start/mpirun"
export GPU_ON_CPU_DEVICES=4 TIDEMARK_NCCL=$tests/libnccl-stand-in.so

# The four shapes, and loads that find their end, take a GPU.
small=(target.model=preset:tiny target.max_running=8 load.input_tokens=16 load.output_tokens=4 target.max_batch_tokens=64
    load.rates=10 load.step=1s load.drain=20s)
"$work/gpu-check" "$work/out" kernels splits run stages replicas sweeps "${small[@]}" >"$work/said" || fail "$(cat "$work/said")"
cat "$work/said"
[[ $(grep -c '^ok ' "$work/said") -eq 15 && $(wc -l <"$work/said") -eq 15 ]] || fail "15 times ok wanted"
runs=("$work"/out/*.h5)
[[ ${#runs[@]} -eq 13 ]] || fail "13 result files wanted: ${runs[*]}"
"$build/tidemark" validate "${runs[@]}"
"$build/tidemark" report "$work/out/replicas-3.h5" --format json |
    /usr/bin/python3 -c 'import json, sys
target = json.load(sys.stdin)["run"]["target"]
assert (target["backend"], target["replicas"]) == ("cuda", 3), target'

# Failures, skips and what is not there.
ln -sf "$(command -v false)" "$work/start/gpu_false"
printf '#!/bin/sh\necho skipped: for the test\nexit 77\n' >"$work/start/gpu_skips"
chmod +x "$work/start/gpu_skips"
code=0
"$work/gpu-check" "$work/out" kernels >"$work/said" || code=$?
[[ $code -eq 1 ]] || fail "exit code $code, not 1: $(cat "$work/said")"
grep -q '^FAIL     gpu_false' "$work/said" || fail "$(cat "$work/said")"
grep -q '^ok       gpu_norm' "$work/said" || fail "$(cat "$work/said")"
grep -q '^skipped  gpu_skips: skipped: for the test' "$work/said" || fail "$(cat "$work/said")"
code=0
"$work/gpu-check" "$work/out" kernel 2>"$work/said" || code=$?
[[ $code -eq 2 && $(wc -l <"$work/said") -eq 1 ]] || fail "exit code $code: $(cat "$work/said")"
