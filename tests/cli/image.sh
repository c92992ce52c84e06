#!/usr/bin/env bash
# The Dockerfile without a container engine: buildah with chroot isolation on a debootstrap base. Then
# what the pod of k8s-jobs/job.yaml does: as user 1000, writing to its volumes only.
# Slow: TIDEMARK_SLOW=1 image.sh [FOLDER FOR THE RESULT]
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/cli/debian_root.sh
. "$root/tests/cli/debian_root.sh"
debian_need
trap debian_clean EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

start=$SECONDS
base=localhost/debian:12-minbase
debian_make "$base"
echo "made: the base: $((SECONDS - start)) s"

version=$(sed -n 's/^project(tidemark VERSION \([0-9.]*\).*/\1/p' "$root/CMakeLists.txt")
image=localhost/tidemark:$version
start=$SECONDS
debian_buildah bud --isolation=chroot --build-arg "BASE=$base" --tag "$image" "$root" \
    >"$debian_work/bud.log" 2>&1 || {
    tail -n 60 "$debian_work/bud.log" >&2
    fail "buildah bud"
}
echo "ok: image $image: $((SECONDS - start)) s"

container=$(debian_buildah from "$image")
mnt=$(debian_buildah mount "$container")
volumes=("$debian_work/results" "$debian_work/scratch")
mkdir "${volumes[@]}"
chown 1000:1000 "${volumes[@]}"

in_pod() { # command of the container
    debian_buildah run --isolation=chroot --volume "${volumes[0]}:/results" \
        --volume "${volumes[1]}:/scratch" --env TMPDIR=/scratch "$container" -- "$@"
}

said=$(in_pod tidemark --version | head -n 1)
[[ "$said" == *"$version"* ]] || fail "tidemark --version says '$said', the project is $version"
[[ "$(in_pod id -u)" == 1000 ]] || fail "the image's user is not 1000"
for tool in gcc cmake; do
    in_pod bash -c "command -v $tool" >/dev/null 2>&1 && fail "$tool is in the final image"
done

touch "$debian_work/before"
in_pod tidemark run configs/quickstart.yaml load.rates=2,4 load.step=4s -o /results/quickstart.h5 ||
    fail "run in the image: exit status $?"
in_pod tidemark validate /results/quickstart.h5
in_pod tidemark report /results/quickstart.h5 --format html -o /results/quickstart.html
written=$(find "$mnt" -xdev -newer "$debian_work/before" -type f \
    -not -path "$mnt/dev/*" -not -path "$mnt/etc/*" -not -path "$mnt/run/*")
[[ -z "$written" ]] || fail "a read-only root would have refused: $written"
left=$(find "${volumes[1]}" -mindepth 1)
[[ -z "$left" ]] || fail "left behind in TMPDIR: $left"
echo "ok: ran as user 1000, wrote to its volumes only:"
find "${volumes[0]}" -type f -printf '    %f %s bytes\n'
[[ -z "${1:-}" ]] || cp "${volumes[0]}"/* "$1"
