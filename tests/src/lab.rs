//! A lab: one host namespace and the peers wired to it.

mod bpffs;
mod names;
mod netns;
mod wiring;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

pub use bpffs::Bpffs;
pub(crate) use bpffs::unmount_below;
pub use names::unique;
pub use netns::{FOLDER, Netns, enter_anonymous};
pub use wiring::Wiring;

use crate::probe::Outcome;
use crate::wait::eventually;

/// How long a new peer may take until the host reaches it over both families.
const LINK_DEADLINE: Duration = Duration::from_secs(10);

/// A host namespace, a scratch folder, and how peers are joined to the host. Gone on drop.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    wiring: Wiring,
    // Dropped before the folder: the mount lies in it.
    bpffs: Bpffs,
    host: Arc<Netns>,
    folder: TempDir,
}

impl Lab {
    /// Peers are ports of a bridge and see each other's frames.
    pub fn bridged() -> Result<Self> {
        Self::new(Wiring::Bridged)
    }

    /// Each peer has a link of its own to the host, which routes: no frame passes between peers.
    pub fn routed() -> Result<Self> {
        Self::new(Wiring::Routed)
    }

    pub fn new(wiring: Wiring) -> Result<Self> {
        let prefix = unique();
        let folder = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir()
            .context("cannot make a scratch folder")?;
        let host = Netns::create(format!("{prefix}-host"))?;
        wiring.prepare(&host)?;
        let bpffs = Bpffs::mount(folder.path().join("bpf"))?;
        Ok(Self {
            prefix,
            wiring,
            bpffs,
            host: Arc::new(host),
            folder,
        })
    }

    /// The namespace in which the agent runs and which holds the host side of every interface.
    pub fn host(&self) -> &Netns {
        &self.host
    }

    /// For what may outlive a borrow of the lab.
    pub(crate) fn host_handle(&self) -> Arc<Netns> {
        Arc::clone(&self.host)
    }

    /// The host's addresses towards its peers: the gateway that peers see.
    pub fn host_addresses(&self) -> [IpAddr; 2] {
        [wiring::GATEWAY_V4.into(), wiring::GATEWAY_V6.into()]
    }

    /// What every name of this lab begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A folder that is removed with the lab.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lab's own BPF file system.
    pub fn bpffs(&self) -> &Path {
        self.bpffs.path()
    }

    /// Adds a peer with the addresses 10.77.0.`number` and `fd77::number` (in hexadecimal),
    /// behind the host's interface `veth-<name>`, and waits until the host reaches it.
    pub fn peer(&self, name: &str, number: u8) -> Result<Peer> {
        self.reached(self.unheard_peer(name, number)?)
    }

    /// As [`Lab::peer`], and does not wait: nobody may be able to reach it.
    pub fn unheard_peer(&self, name: &str, number: u8) -> Result<Peer> {
        ensure!(
            number > 1,
            "number {number} is the host or the network; peers begin at 2"
        );
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number));
        let peer = self.unwired_peer(name, v4, v6)?;
        self.wiring.join(&self.host, &peer)?;
        Ok(peer)
    }

    /// Adds a peer that is not of this node: 198.51.100.2 and `2001:db8:77::2`, behind `uplink`,
    /// with the host as router between it and the others.
    pub fn outside(&self, name: &str) -> Result<Peer> {
        let mut peer = self.unwired_peer(name, wiring::OUTSIDE_V4, wiring::OUTSIDE_V6)?;
        "uplink".clone_into(&mut peer.interface);
        wiring::join_outside(&self.host, &peer)?;
        self.reached(peer)
    }

    /// Writes a file into the lab's folder, atomically, as an editor would: watchers see the
    /// whole of it or nothing.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        let parent = path
            .parent()
            .context("a file of the lab lies in a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let draft =
            tempfile::NamedTempFile::new_in(self.folder()).context("cannot make a draft file")?;
        fs::write(draft.path(), text).context("cannot write a draft file")?;
        draft
            .persist(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn unwired_peer(&self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<Peer> {
        let interface = format!("veth-{name}");
        ensure!(
            interface.len() < 16,
            "interface name {interface} is longer than 15 bytes"
        );
        let netns = Netns::create(format!("{}-{name}", self.prefix))?;
        let host = Arc::clone(&self.host);
        Ok(Peer {
            name: name.to_owned(),
            interface,
            v4,
            v6,
            netns,
            host,
        })
    }

    fn reached(&self, peer: Peer) -> Result<Peer> {
        for address in peer.addresses() {
            let answered = eventually(LINK_DEADLINE, || {
                self.host.ping(address) == Outcome::Allowed
            });
            ensure!(
                answered,
                "the host does not reach {} at {address}",
                peer.name
            );
        }
        Ok(peer)
    }
}

/// A namespace with one interface `eth0`, and its host side. It derefs to its namespace, since
/// everything that a peer does, it does there. Its interface goes when it is dropped.
#[derive(Debug)]
pub struct Peer {
    name: String,
    interface: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    netns: Netns,
    host: Arc<Netns>,
}

impl Peer {
    pub fn role(&self) -> &str {
        &self.name
    }

    /// The host side of its interface.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Both addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    pub fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.v4, port))
    }

    pub fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.v6, port))
    }

    /// The port at both addresses, IPv4 first.
    pub fn at(&self, port: u16) -> [SocketAddr; 2] {
        [self.v4(port), self.v6(port)]
    }
}

impl Deref for Peer {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

impl Drop for Peer {
    /// Deletes the link by hand: with the namespace it would go too, but at a time of the
    /// kernel's choosing, and a peer of the same name could not follow at once.
    fn drop(&mut self) {
        let _gone = self
            .host
            .ip(&format!("link delete {}", self.interface))
            .is_ok();
    }
}
