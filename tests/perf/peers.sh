#!/usr/bin/env bash
# tidemark beside other load generators on one null server: events/s per core, and how their figures
# differ on the same endpoint. Writes OUT/peers.md, the tables of docs/peers.md.
#
#   tests/perf/peers.sh OUT [BUILD]     default: build; needs its target sse_reader
#
# Takes about six minutes; the first time some minutes more and 8 GB, to install the tools from PyPI
# into OUT/tools. What does not install is named in the table with pip's reason. wrk is Debian's.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: peers.sh OUT [BUILD]" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1/tools"
out=$(cd "$1" && pwd)
build=${2:-$root/build}

# install NAME PYTHON pip-arguments...: OUT/tools/NAME, and in OUT/tools/NAME.failed why not
install() {
    local name=$1 python=$2 into=$out/tools/$1
    shift 2
    [ ! -e "$into/installed" ] || return 0
    rm -rf "$into" "$into.failed"
    echo "installing $name" >&2
    if "$python" -m venv "$into" 2>"$into.log" &&
        timeout 600 "$into/bin/python" -m pip "$@" >>"$into.log" 2>&1; then
        touch "$into/installed"
    else
        grep -m1 'rror:' "$into.log" >"$into.failed" ||
            tail -n 1 "$into.log" >"$into.failed"
    fi
}

# The newest of the Pythons that run here: inference-perf wants 3.12.
newest=/usr/bin/python3
for python in python3.12 python3.13 "$HOME"/.pyenv/versions/3.1[23]*/bin/python3; do
    if "$python" -c '' 2>/dev/null; then newest=$python; fi
done

install guidellm /usr/bin/python3 install guidellm
install aiperf /usr/bin/python3 install aiperf
install inference-perf "$newest" install inference-perf
# vLLM's serving benchmark is a program of its own in the wheel, which runs without the gigabytes
# that the rest depends on.
install vllm /usr/bin/python3 download --no-deps --only-binary :all: -d "$out/tools/wheel" vllm
if [ -e "$out/tools/vllm/installed" ] && [ ! -e "$out/tools/vllm/bin/vllm-rs" ]; then
    "$out/tools/vllm/bin/python" - "$out"/tools/wheel/vllm-*.whl "$out/tools/vllm/bin" <<'END'
import os, pathlib, sys, zipfile
wheel, into = sys.argv[1], pathlib.Path(sys.argv[2], "vllm-rs")
into.write_bytes(zipfile.ZipFile(wheel).read("vllm/vllm-rs"))
os.chmod(into, 0o755)
into.with_name("vllm.version").write_text(pathlib.Path(wheel).name.split("-")[1])
END
    rm -rf "$out/tools/wheel"
fi

exec /usr/bin/python3 "$root/tests/perf/peers.py" "$out" "$build"
