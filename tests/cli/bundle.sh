#!/usr/bin/env bash
# The bundle in a root that holds nothing else: no shell, no C library, no Open MPI. A short main job with
# two stages, started by tidemark itself; its file validated and reported from there. Where the stand-ins for CUDA and NCCL
# are built, they go along as a GPU's backend and its library would, and are found there.
#   bundle.sh BUILD_FOLDER
set -euo pipefail
build=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")

skip() {
    echo "skipped: $*"
    exit 77
}
[[ $(id -u) -eq 0 ]] || skip "chroot and mount need root"
for tool in unshare mount mpirun cc; do
    command -v "$tool" >/dev/null || skip "needs $tool (util-linux, openmpi-bin, gcc)"
done
unshare -m true 2>/dev/null || skip "no mount namespaces here"

work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-bundle-test.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
mkdir "$work/build"
cp "$build/tidemark" "$work/build/"
if [[ -e "$build/tests/tidemark-cuda-on-cpu.so" && -e "$build/tests/libnccl-stand-in.so" ]]; then
    cp "$build/tests/tidemark-cuda-on-cpu.so" "$work/build/tidemark-cuda.so"
    export TIDEMARK_NCCL=$build/tests/libnccl-stand-in.so
fi
"$root/bundle/make-bundle" "$work/bundle.tar.gz" "$work/build"
mkdir -p "$work/root"/{proc,sys,dev,tmp,etc}
tar -C "$work/root" -xzf "$work/bundle.tar.gz"
echo "root:x:0:0:root:/:/none" >"$work/root/etc/passwd"

# shellcheck disable=SC2016 # for the shell inside
unshare -m bash -euc '
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/tmp"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    inside() { env -i PATH=/nowhere GPU_ON_CPU_DEVICES=${gpus:-0} "$(PATH=$PATH:/usr/sbin command -v chroot)" "$1" "${@:2}"; }
    tidemark() { inside "$root" /tidemark/tidemark "$@"; }
    root=$1
    tidemark --version
    tidemark run /tidemark/configs/quickstart.yaml load.rates=2 load.step=3s load.drain=10s \
        cost.prices=/tidemark/configs/prices.csv -o /tmp/run.h5
    tidemark validate /tmp/run.h5
    tidemark report /tmp/run.h5 --format json >"$1/../report.json"
    if [[ -e "$root/tidemark/tidemark-cuda.so" ]]; then
        gpus=2 tidemark bench --edges --backend cuda --ranks 2 --seconds 1 --max-size 1KiB >"$1/../edges"
        grep -q "^nccl, within a host" "$1/../edges"
    fi
' - "$work/root"

/usr/bin/python3 - "$work/report.json" <<'EOF'
import json
import sys

report = json.load(open(sys.argv[1]))
step, = report["steps"]
assert report["run"]["complete"] and step["requests"]["ok"] > 0, step["requests"]
assert len(step["stages"]) == 2, step["stages"]
print(f"{step['requests']['ok']} requests answered by two stages in an empty root")
EOF
