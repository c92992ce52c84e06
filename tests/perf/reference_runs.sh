#!/usr/bin/env bash
# The real runs of docs/reference-runs.md, about 14 minutes on two cores that do nothing else.
#
#   tests/perf/reference_runs.sh OUT_FOLDER [BINARY [NAME...]]      default: build/tidemark, all runs
#
# Needs the shared data (../shared, or TIDEMARK_SHARED): a model and datasets that are not part of the project.
# Each run's command line, report and result file go to OUT_FOLDER.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
out=${1:?usage: reference_runs.sh OUT_FOLDER [BINARY]}
tidemark=${2:-$root/build/tidemark}
wanted=" ${*:3} "
shared=${TIDEMARK_SHARED:-$root/../shared}
[[ -d "$shared/models" ]] || { echo "reference_runs.sh: no shared data at $shared" >&2; exit 77; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root"

one() { # name, arguments of `tidemark run`...
    local name=$1
    shift
    [[ "$wanted" =~ ^\ +$ || "$wanted" == *" $name "* ]] || return 0
    echo "== $name: tidemark run $*"
    "$tidemark" run "$@" --force -o "$out/$name.h5" 2>"$out/$name.log" | tee "$out/$name.txt"
    "$tidemark" report "$out/$name.h5" --format html -o "$out/$name.html"
    "$tidemark" report "$out/$name.h5" --format json -o "$out/$name.json"
}

one quickstart configs/quickstart.yaml
one sharegpt-first-turn configs/stories.yaml target.model="$shared/models/stories260K" \
    load.dataset.source="$shared/data/sharegpt/sharegpt_v3_first_turns_1000.json" \
    load.dataset.filter=first-turn
one fastchat-vllm configs/stories.yaml target.model="$shared/models/stories260K" \
    load.dataset.source="$shared/data/sharegpt/fastchat_dummy_multi_turn_500.json" \
    load.dataset.filter=vllm target.max_waiting=100000
one azure-5m configs/azure-trace.yaml \
    load.dataset.source="$shared/data/traces/AzureLLMInferenceTrace_conv.csv"
one azure-5m-twice configs/azure-trace.yaml load.dataset.time_scale=0.5 \
    load.dataset.source="$shared/data/traces/AzureLLMInferenceTrace_conv.csv"
