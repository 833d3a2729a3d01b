#!/bin/bash
# Fills the cache: Debian's packages, Kubernetes built from Debian's source, images. Run again at will: what is there is kept.
# Exits with 75 where the packages cannot be had.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
C=$KUBE_CACHE
case $C in /usr/* | /etc/* | /var/* | /opt/* | /run/*) die "KUBE_CACHE cannot lie where the node has files of its own: $C" ;; esac
mkdir -p "$C"
exec 9>"$C/lock"; flock 9
unavailable() { echo "${0##*/}: $*" >&2; exit 75; }

packages="etcd-server containerd runc containernetworking-plugins kubernetes-client conntrack bpftool golang-1.19-go golang-1.19-src
    iptables libip4tc2 libip6tc2 libxtables12 libnetfilter-conntrack3 libnfnetlink0 libnftnl11 libmnl0 libseccomp2 libelf1 libcap2 zlib1g
    golang-github-modern-go-reflect2-dev"
programs="kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy"

# apt with state of its own, and with the machine's Debian sources plus their deb-src
private_apt() {
    "$@" -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$C/apt/sources" -o Dir::State::lists="$C/apt/lists" \
        -o Dir::Cache="$C/apt/cache" -o APT::Sandbox::User=root
}
apt_update() {
    local suite; suite=$(. /etc/os-release; echo "$VERSION_CODENAME")
    rm -rf "$C/apt"; mkdir -p "$C/apt/sources" "$C/apt/lists/partial" "$C/apt/cache/archives/partial"
    { cat /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
        awk -v RS= -v ORS='\n\n' -v s="$suite" '$0 ~ "\nSuites:[ \t]*"s { sub(/Types:[^\n]*/, "Types: deb deb-src"); print }' >"$C/apt/sources/d.sources"
    { cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } |
        awk -v s="$suite" '$1 == "deb" && $0 ~ " "s"([-/ ]|$)" { print; sub(/^deb/, "deb-src"); print }' >"$C/apt/sources/d.list"
    private_apt apt-get -qq update || unavailable "apt-get update failed"
}

if [ ! -e "$C/pkgs/.done" ]; then
    echo "fetching Debian packages"
    apt_update
    rm -rf "$C/pkgs" "$C/debs"; mkdir -p "$C/debs" "$C/pkgs/usr/"{bin,sbin,lib,lib64}
    for d in bin sbin lib lib64; do ln -s usr/$d "$C/pkgs/$d"; done
    (cd "$C/debs" && private_apt apt-get -qq download $packages) || unavailable "not all packages can be fetched: $packages"
    for deb in "$C"/debs/*.deb; do dpkg -x "$deb" "$C/pkgs"; done
    for t in iptables ip6tables; do for op in "" -save -restore; do ln -s xtables-legacy-multi "$C/pkgs/usr/sbin/$t$op"; done; done
    rm -rf "$C/debs" "$C/pkgs/etc"
    touch "$C/pkgs/.done"
fi

export GOROOT=$C/pkgs/usr/lib/go-1.19 GOCACHE=$C/gocache GOPATH=$C/gopath GOFLAGS=-mod=mod CGO_ENABLED=0
if [ ! -e "$C/pkgs/usr/bin/kube-proxy" ]; then
    echo "building Kubernetes from Debian's source (some minutes; log: $C/build.log)"
    [ -s "$C/apt/sources/d.list" ] || [ -s "$C/apt/sources/d.sources" ] || apt_update
    rm -rf "$C/src"; mkdir -p "$C/src"
    (cd "$C/src" && private_apt apt-get -qq source kubernetes) >"$C/build.log" 2>&1 ||
        unavailable "the source of Kubernetes cannot be fetched: $C/build.log"
    (cd "$C/src"
     cd kubernetes-*/
     # The vendored reflect2 1.0.1 corrupts maps under Go >= 1.18 (the API server dies at the first custom resource).
     rm vendor/github.com/modern-go/reflect2/*.{go,s}
     cp "$C"/pkgs/usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} vendor/github.com/modern-go/reflect2/
     PATH=$GOROOT/bin:$PATH HOME=$C GOFLAGS='' make WHAT="${programs//kube/cmd/kube}" GOLDFLAGS='-s -w') >>"$C/build.log" 2>&1 || die "build failed: $C/build.log"
    for p in $programs; do install "$C"/src/kubernetes-*/_output/bin/$p "$C/pkgs/usr/bin/"; done
    rm -rf "$C/src" "$C/apt" "$C/gopath"
fi
if [ "$here/probe/main.go" -nt "$C/images/probe/probe" ]; then
    mkdir -p "$C/images/probe" "$C/images/tools"
    (cd "$here/probe" && "$GOROOT/bin/go" build -trimpath -ldflags='-s -w' -o "$C/images/probe/probe" .)
    cp "$C/images/probe/probe" "$C/images/tools/"
fi
if [ ! -e "$C/images/tools/usr/sbin/bpftool" ]; then      # bpftool and a shell, with the libraries that they name
    cd "$C/images/tools"
    for f in "$C/pkgs/usr/sbin/bpftool" /bin/bash /bin/ls /bin/cat /bin/sleep /usr/bin/nsenter /sbin/ip; do
        install -D "$f" "usr/sbin/${f##*/}"
        for lib in $(ldd "$f" | grep -o '/[^ ]*'); do install -D "$(readlink -f "$lib")" ".$lib"; done
    done
    cd "$here"
fi
