#!/usr/bin/env bash
# The README's two commands in a really fresh Debian 12: minbase with nothing but git and certificates,
# a clone of HEAD, ./quickstart as a user without packages (who must be told the one line), as root,
# and as a user once the packages are there. FRESH_RUN_TESTS=1 adds ./run-tests as root, =only runs
# nothing else; FRESH_TEST_ARGS are arguments of ctest.
# Slow: TIDEMARK_SLOW=1 fresh_debian.sh [LOG FOLDER]
set -euo pipefail
root=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/cli/debian_root.sh
. "$root/tests/cli/debian_root.sh"
debian_need
logs=${1:-}
trap debian_clean EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

in_root() { # name of the log, user, words for a shell
    local log=$debian_work/$1.log user=$2
    shift 2
    local status=0
    debian_buildah run --isolation=chroot --user "$user" \
        --volume "$debian_work/origin.git:/origin.git:ro" "$container" -- bash -c "$*" \
        >"$log" 2>&1 || status=$?
    [[ -z "$logs" ]] || cp "$log" "$logs/"
    return $status
}

timed() { # what, log, user, words
    local start=$SECONDS what=$1
    shift
    in_root "$@" || {
        tail -n 60 "$debian_work/$1.log" >&2
        fail "$what"
    }
    echo "ok: $what: $((SECONDS - start)) s"
}

# What the report of a finished quickstart must say.
quickstart_checks() {
    cat <<'CHECKS'
set -euo pipefail
cd ~/tidemark
test -s results/runs/quickstart.h5 -a -s results/runs/quickstart.html
build/tidemark validate results/runs/quickstart.h5
build/tidemark report results/runs/quickstart.h5 --format json | grep -E '"complete": *true' >/dev/null
build/tidemark report results/runs/quickstart.h5
CHECKS
}

# A run says itself when its host was too busy to measure on; all else is still looked at.
invalid=()
look_at_result() { # log, user
    timed "its result is complete and follows the schema" "$1" "$2" "$export_home; $(quickstart_checks)"
    cat "$debian_work/$1.log"
    ! grep -q '^INVALID' "$debian_work/$1.log" || invalid+=("$2")
}

clone="cd && git clone --quiet file:///origin.git tidemark && cd tidemark"
export_home="export HOME=\$(getent passwd \$(id -un) | cut -d: -f6)"

start=$SECONDS
image=localhost/debian:12-fresh
debian_make "$image" git ca-certificates
git -c safe.directory="$root" clone --quiet --bare --no-local "file://$root" "$debian_work/origin.git"
container=$(debian_buildah from "$image")
debian_buildah run --isolation=chroot "$container" -- useradd --create-home tide
# git asks whose repository it is; anybody may clone this one, as they may over https
debian_buildah run --isolation=chroot "$container" -- git config --system safe.directory /origin.git
echo "made: Debian $(debian_buildah run --isolation=chroot "$container" -- cat /etc/debian_version)," \
    "$(debian_buildah run --isolation=chroot "$container" -- dpkg-query -W | wc -l) packages:" \
    "$((SECONDS - start)) s"

try_quickstart() {
    # Without packages and without the right to install them: one line that says what an administrator runs.
    if in_root refused tide "$export_home; $clone && ./quickstart"; then
        fail "quickstart without packages succeeded"
    fi
    [[ $(grep -c 'apt-get install' "$debian_work/refused.log") -eq 1 ]] ||
        fail "quickstart without packages does not print its one apt line: $(cat "$debian_work/refused.log")"
    echo "ok: a user without packages is told: $(sed -n 's/^ *\(apt-get update\)/\1/p' "$debian_work/refused.log")"

    timed "quickstart as root, packages included" root root "$export_home; $clone && ./quickstart"
    look_at_result root-result root
    timed "quickstart as a user" user tide "$export_home; cd ~/tidemark && ./quickstart"
    look_at_result user-result tide
}

tests=${FRESH_RUN_TESTS:-0} # 1: too; only: nothing else
[[ "$tests" == only ]] || try_quickstart
if [[ "$tests" != 0 ]]; then
    [[ "$tests" != only ]] || timed "a clone" clone root "$export_home; $clone"
    timed "run-tests as root" run-tests root "$export_home; cd ~/tidemark && ./run-tests ${FRESH_TEST_ARGS:-}"
    sed -n '/^left out/p' "$debian_work/run-tests.log" | sort -u
    tail -n 1 "$debian_work/run-tests.log"
fi
[[ ${#invalid[@]} -eq 0 ]] || fail "runs that are invalid by their own checks, as user: ${invalid[*]}"
