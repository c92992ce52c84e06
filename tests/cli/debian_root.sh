# shellcheck shell=bash
# A fresh Debian 12 for tests that need one, without a container engine: debootstrap's smallest root
# as an image in a buildah store of its own, entered through buildah's chroot isolation (which needs
# root, but neither namespaces nor a daemon). To be sourced; the caller calls debian_clean at its end.
# Mirror, proxy and dates come from this machine's apt; DEBIAN_MIRROR overrides the mirror.

debian_work=

debian_skip() {
    echo "skipped: $*"
    exit 77
}

debian_need() {
    [[ "${TIDEMARK_SLOW:-0}" == 1 ]] || debian_skip "takes minutes and downloads packages: set TIDEMARK_SLOW=1"
    [[ $(id -u) -eq 0 ]] || debian_skip "debootstrap and chroot need root"
    local tool
    for tool in buildah debootstrap apt-config git; do
        [[ -n "$(PATH=$PATH:/usr/sbin command -v "$tool")" ]] || debian_skip "needs $tool"
    done
}

debian_buildah() {
    buildah --root "$debian_work/store" --runroot "$debian_work/run" --storage-driver vfs "$@"
}

debian_clean() {
    [[ -n "$debian_work" ]] || return 0
    debian_buildah rm --all >/dev/null 2>&1 || true
    # nothing below may still be mounted when it is deleted
    local mounted
    while read -r mounted; do
        umount -l "$mounted" 2>/dev/null || true
    done < <(awk -v w="$debian_work/" 'index($5, w) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
    rm -rf --one-file-system "$debian_work"
}

debian_mirror() {
    if [[ -n "${DEBIAN_MIRROR:-}" ]]; then
        echo "$DEBIAN_MIRROR"
        return
    fi
    # shellcheck disable=SC2016 # apt's own placeholders
    apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(SITE)' 'Created-By: Packages' |
        sed -n 's/^bookworm main //p' | head -n 1
}

# debian_make IMAGE PACKAGE...: makes that image, with these packages beside minbase.
debian_make() {
    debian_work=$(mktemp -d "${TMPDIR:-/tmp}/tidemark-debian.XXXXXX")
    local root=$debian_work/root image=$1 mirror include container
    shift
    include=$*
    mirror=$(debian_mirror)
    [[ -n "$mirror" ]] || debian_skip "apt knows no mirror of Debian 12: set DEBIAN_MIRROR"
    PATH=$PATH:/usr/sbin debootstrap --variant=minbase ${include:+--include="${include// /,}"} \
        bookworm "$root" "$mirror" >"$debian_work/debootstrap.log" 2>&1 || {
        tail -n 20 "$debian_work/debootstrap.log" >&2
        return 1
    }
    apt-config dump | grep -E '^Acquire::(https?::Proxy|Check-)' >"$root/etc/apt/apt.conf.d/90machine" || true
    rm -f "$root"/var/cache/apt/archives/*.deb
    tar -C "$root" -cf "$debian_work/root.tar" .
    rm -rf --one-file-system "$root"
    container=$(debian_buildah from scratch)
    debian_buildah add --quiet "$container" "$debian_work/root.tar" / >/dev/null
    debian_buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    debian_buildah commit --quiet --rm "$container" "$image" >/dev/null
    rm -f "$debian_work/root.tar"
}
