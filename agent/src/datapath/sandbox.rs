//! The network namespace that a process is in: what it has, and which interfaces of the node lead there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::{AddressMessage, AddressScope},
    link::LinkMessage,
};

use crate::datapath::{
    helper::Helper,
    link::{self, Link, LinkError, Links},
    netlink::{Asking, Listening},
    netns,
};

/// Asks in a namespace.
///
/// It keeps the namespace alive, and so the interfaces that lead there: not to be kept for long.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: File,
    asking: Asking,
    /// For errors.
    path: PathBuf,
}

/// No two namespaces that are there at one time have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamespaceId {
    device: u64,
    inode: u64,
}

/// What a namespace is to its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sandbox {
    /// It is the node's own.
    Node,
    Other {
        id: NamespaceId,
        /// Interfaces that have a host side, the one that was made first at the front.
        ways: Vec<Way>,
        /// Interfaces by which packets come and go that pass no host side.
        past: Vec<Inner>,
    },
}

/// An interface of a namespace, with what leads there from the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) index: u32,
    /// On the node.
    pub(crate) name: String,
    pub(crate) inner: Inner,
}

/// An interface as its namespace has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    /// Those that have a meaning beyond the link.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u16 = 772;

impl Namespace {
    /// That of a process, by the helper, or without one by the rights of the caller.
    ///
    /// Whether the process is still the one that was meant, is to be asked afterwards.
    pub(crate) fn of(pid: u32, helper: Option<&Helper>) -> anyhow::Result<Self> {
        let path = netns::of_process(pid);
        let Some(helper) = helper else {
            return Ok(Self::at(path)?);
        };
        let [namespace, socket] = helper.namespace_of(pid)?;
        Ok(Self {
            file: namespace.into(),
            asking: Asking::over(socket),
            path,
        })
    }

    /// By its path, for whom may enter it.
    pub(crate) fn at(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let socket: OwnedFd = netns::within(&file, || Asking::here()?.into_descriptor())?;
        Ok(Self {
            file,
            asking: Asking::over(socket),
            path,
        })
    }

    pub(crate) fn id(&self) -> Result<NamespaceId, LinkError> {
        NamespaceId::of(self.file.metadata())
    }

    /// What it has, and which of `links` lead there.
    pub(crate) fn look(&self, links: &Links) -> Result<Sandbox, LinkError> {
        let id = self.id()?;
        if id == NamespaceId::of(fs::metadata("/proc/thread-self/ns/net"))? {
            return Ok(Sandbox::Node);
        }
        let mut addresses = self.addresses()?;
        let mut inner = self.links()?;
        let number = link::number_of(&self.file, &self.path)?;
        let sides = links
            .iter()
            .filter(|link| number.is_some() && link.leads_to_netns == number)
            .filter(|link| link.kind.as_deref() == Some("veth"))
            .filter_map(|link| Some((link.leads_to?, link)));
        let mut ways: Vec<Way> = sides
            .map(|(index, side)| Way {
                index: side.index,
                name: side.name.clone(),
                inner: Inner {
                    addresses: addresses.remove(&index).unwrap_or_default(),
                    // One that cannot be read is there all the same.
                    name: inner
                        .remove(&index)
                        .map_or_else(|| format!("number {index}"), |link| link.name),
                    kind: Some("veth".to_owned()),
                },
            })
            .collect();
        // Hardware, or made from an interface of another namespace. What is made from one of this namespace sends
        // by that.
        let past = inner.into_values().filter(|link| {
            link.hardware != LOOPBACK && (link.kind.is_none() || link.leads_to_netns.is_some())
        });
        let past = past
            .map(|link| Inner {
                addresses: addresses.remove(&link.index).unwrap_or_default(),
                name: link.name,
                kind: link.kind,
            })
            .collect();
        // Who owns the namespace names what is in there as he likes, and makes more. The host side of the cluster's
        // network was there before.
        ways.sort_by_key(|way| way.index);
        Ok(Sandbox::Other { id, ways, past })
    }

    /// Has changes of its interfaces and addresses kept for [`Self::into_listening`] from now on.
    pub(crate) fn listen(&mut self) -> io::Result<()> {
        self.asking.listen()
    }

    /// To be called in a tokio runtime.
    pub(crate) fn into_listening(self) -> io::Result<Listening> {
        self.asking.into_listening()
    }

    /// By their numbers.
    fn links(&self) -> Result<BTreeMap<u32, Link>, LinkError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let found = self.asking.dump(request).map_err(self.failed())?;
        Ok(found
            .into_iter()
            .filter_map(|object| match object {
                Ok(RouteNetlinkMessage::NewLink(message)) => Some(link::link(&message)),
                // Its host side shows that there is one.
                Ok(_) | Err(_) => None,
            })
            .map(|link| (link.index, link))
            .collect())
    }

    /// By the numbers of their interfaces.
    fn addresses(&self) -> Result<BTreeMap<u32, BTreeSet<IpAddr>>, LinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut addresses: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for object in self.asking.dump(request).map_err(self.failed())? {
            if let Ok(RouteNetlinkMessage::NewAddress(message)) = object
                && message.header.scope == AddressScope::Universe
                && let Some(address) = link::address(&message)
            {
                let of = addresses.entry(message.header.index).or_default();
                of.insert(address);
            }
        }
        Ok(addresses)
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> LinkError {
        link::failed(format!("ask in network namespace {}", self.path.display()))
    }
}

impl NamespaceId {
    #[cfg(test)]
    pub(crate) fn fake(inode: u64) -> Self {
        Self { device: 0, inode }
    }

    /// Of the namespace that a process is in, for whom may see that without help.
    pub(crate) fn of_process(pid: u32) -> Option<Self> {
        Self::of(fs::metadata(netns::of_process(pid))).ok()
    }

    fn of(metadata: io::Result<fs::Metadata>) -> Result<Self, LinkError> {
        let metadata = metadata.map_err(link::failed("identify a network namespace"))?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}
