#!/usr/bin/env bash
# The tokenizers against Hugging Face `tokenizers` on 12 MB of text in many scripts: ids and decoded texts of
# every family, then the speed of both in the same run, on that text and on plain English. About ten minutes.
# Exit 1 when a text differs, when a family is below 20 MiB per CPU second, or when it is not five times as fast.
#
#   tests/perf/tokenizers.sh [BUILD_FOLDER [agree.py arguments...]]      default: build
#
# Needs build/venv (./run-tests makes it). CPU seconds of one thread, tidemark's the best of several passes.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build}
exec /usr/bin/python3 "$root/tests/tokenizers/agree.py" "$build/tests/encode_corpus" \
    --bytes 12000000 --vocab 16000 --speed "${@:2}"
