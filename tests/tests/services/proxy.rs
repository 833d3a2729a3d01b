//! What kube-proxy makes of Services, in nftables of the lab's host.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use ringfence_lab::lab::Lab;

/// Who sends, as the backend sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Kept,
    /// The node: traffic policy `Cluster`.
    Node,
}

/// For what comes from elsewhere, and for what the node sends itself. Of what is marked the node becomes the source, and of
/// what comes back to who has sent it.
const TABLE: &str = "\
table inet proxy {
  chain services {}
  chain prerouting { type nat hook prerouting priority -100; policy accept; jump services; }
  chain output { type nat hook output priority -100; policy accept; jump services; }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    meta mark & 0x4000 == 0x4000 masquerade
    ip saddr 10.77.0.2 ip daddr 10.77.0.2 masquerade
    ip6 saddr fd77::2 ip6 daddr fd77::2 masquerade
  }
}
";

/// Of each family, in turn, one door leads to one backend.
pub(crate) fn lead(
    lab: &Lab,
    doors: &[SocketAddr],
    to: &[SocketAddr],
    source: Source,
) -> Result<()> {
    let host = lab.host();
    let list = host.ask("nft", &["list", "tables"])?;
    let mut text = String::new();
    if !list.contains("inet proxy") {
        text.push_str(TABLE);
    }
    ensure!(doors.len() == to.len(), "{doors:?} {to:?}");
    for (door, to) in doors.iter().zip(to) {
        let family = match door.ip() {
            IpAddr::V4(_) => "ip",
            IpAddr::V6(_) => "ip6",
        };
        let mark = match source {
            Source::Kept => "",
            Source::Node => "meta mark set meta mark | 0x4000 ",
        };
        for protocol in ["tcp", "udp"] {
            let (ip, port) = (door.ip(), door.port());
            writeln!(
                text,
                "add rule inet proxy services {family} daddr {ip} {protocol} dport {port} {mark}dnat {family} to {to}"
            )?;
        }
    }
    let file = lab.write("proxy.nft", &text)?;
    host.ask("nft", &["-f", &file.to_string_lossy()])
        .with_context(|| text)?;
    Ok(())
}
