#!/bin/bash
# Brings up one Kubernetes node; see agent/docs/kubernetes.md. Run again at will: what is there is kept.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ "$(id -u)" = 0 ] || die "needs root"
[ -n "$cg2" ] || die "no cgroup2 mount"
C=$KUBE_CACHE
"$here/cache.sh"
exec 9>"$C/lock"; flock 9

if [ -s "$state/node.pid" ] && kill -0 "$(cat "$state/node.pid")" 2>/dev/null; then
    echo "already running"
else
    "$here/down.sh"
    [ ! -e "$cg2/kubepods" ] || die "there is another kubelet's $cg2/kubepods"
    K=$state/etc.up/kubernetes; mkdir -p "$K/pki" "$state/log" "$state/etc.up/cni/net.d" "$state/etc.up/containerd"
    cd "$K/pki"
    key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }      # PKCS #8 would not do for sa.key
    cert() { # NAME SUBJECT [SAN]
        key "$1"
        openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
        openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" 2>/dev/null \
            -extfile <(echo "extendedKeyUsage=clientAuth,serverAuth"; [ -z "${3-}" ] || echo "subjectAltName=$3")
    }
    conf() { # NAME: the kubeconfig for that certificate
        b64() { base64 -w0 "pki/$1"; }
        cat >"$1.conf" <<Y
{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
 clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority-data: $(b64 ca.crt)}}],
 users: [{name: u, user: {client-certificate-data: $(b64 $1.crt), client-key-data: $(b64 $1.key)}}]}
Y
    }
    key ca; openssl req -x509 -new -key ca.key -subj /CN=kube-debian -days 30 -out ca.crt
    key sa
    cert apiserver /CN=kube-apiserver "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:$node_ip,IP:$api_svc_ip"
    cert kubelet /O=system:nodes/CN=system:node:$node "DNS:$node,IP:$node_ip,IP:127.0.0.1"
    cert admin /O=system:masters/CN=admin
    cert controller-manager /CN=system:kube-controller-manager
    cert scheduler /CN=system:kube-scheduler
    cert proxy /CN=system:kube-proxy
    cd ..
    for n in admin controller-manager scheduler kubelet proxy; do conf $n; done
    echo "nameserver $ext_ip" >../resolv.conf      # refuses at once: there is no DNS
    cat >kubelet.yaml <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /etc/kubernetes/pki/kubelet.crt
tlsPrivateKeyFile: /etc/kubernetes/pki/kubelet.key
cgroupDriver: cgroupfs
failSwapOn: false
featureGates: {IPv6DualStack: true}
oomScoreAdj: 0
nodeStatusUpdateFrequency: 2s
maxOpenFiles: 20000
imageGCHighThresholdPercent: 100
# The disk is that of whoever tests: how full it is says nothing of a pod.
evictionHard: {memory.available: 100Mi}
Y
    cat >../containerd/config.toml <<T
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_tcp_service = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
T
    ipam='"ipam":{"type":"host-local","ranges":[[{"subnet":"'$pod_cidr'"}],[{"subnet":"'$pod_cidr6'"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}'
    case $KUBE_CNI in
        ptp) plugin='{"type":"ptp",'$ipam'}' ;;
        bridge) plugin='{"type":"bridge","bridge":"cni0","isGateway":true,"hairpinMode":true,'$ipam'}' ;;
        *) die "KUBE_CNI is ptp or bridge" ;;
    esac
    echo '{"cniVersion":"0.4.0","name":"pods","plugins":['"$plugin"',{"type":"portmap","capabilities":{"portMappings":true}}]}' >../cni/net.d/10-pods.conflist

    # The outside holds one end of the wire, the node the other.
    setsid unshare --net sleep infinity </dev/null >/dev/null 2>&1 9>&- &
    echo $! >"$state/outside.pid"
    setsid unshare --mount --net "$here/node-init.sh" </dev/null >"$state/log/init.log" 2>&1 9>&- &
    echo $! >"$state/node.pid"
    out=$(cat "$state/outside.pid") in=$(cat "$state/node.pid")
    own=$(readlink /proc/self/ns/net)
    until [ "$(readlink /proc/$out/ns/net)" != "$own" ] && [ "$(readlink /proc/$in/ns/net)" != "$own" ]; do sleep 0.02; done
    mkdir -p "$cg2/$node_cg"; echo "$out" >"$cg2/$node_cg/cgroup.procs"
    nsenter -t "$out" -n bash -e <<N
ip link set lo up
ip addr add $far_ip/32 dev lo
ip addr add $far_ip6/128 dev lo
ip addr add $metadata_ip/32 dev lo
ip link add eth0 type veth peer name eth0 netns $in
ip addr add $ext_ip/24 dev eth0
ip addr add $ext_ip6/64 dev eth0 nodad
ip link set eth0 up
ip route add $pod_cidr via $node_ip
ip route add $pod_cidr6 via $node_ip6
N
fi

ready() { "$here/on" node "$@" >/dev/null 2>&1; }
wait_for() { # SECONDS WHAT CMD...
    local end=$((SECONDS + $1)) what=$2; shift 2
    until ready "$@"; do
        kill -0 "$(cat "$state/node.pid")" 2>/dev/null || die "the node died; logs: $state/log"
        [ $SECONDS -lt $end ] || die "$what: not ready; logs: $state/log"
        sleep 0.3
    done
}
wait_for 30 containerd ctr version
for name in pause tools probe; do
    ready sh -c "ctr -n k8s.io image ls -q | grep -qx localhost/$name:1" && continue
    case $name in
        pause) "$here/image.sh" localhost/pause:1 "$C/images/probe" /probe pause ;;
        probe) "$here/image.sh" localhost/probe:1 "$C/images/probe" /probe ;;
        tools) "$here/image.sh" localhost/tools:1 "$C/images/tools" /usr/sbin/bash ;;
    esac
done
wait_for 60 kube-apiserver kubectl get --raw=/readyz
wait_for 60 kubelet kubectl wait --for=condition=Ready "node/$node" --timeout=5s
wait_for 30 "service accounts" kubectl get serviceaccount default
"$here/on" node kubectl get nodes -o wide
