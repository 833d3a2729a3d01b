//! Network interfaces of the agent's namespace, and the one that an endpoint hangs on.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    net::IpAddr,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use agent_policy::model::EndpointSpec;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
    nsid::{NsidAttribute, NsidMessage},
};
use serde::Serialize;

use crate::datapath::netlink;

mod list;
mod names;
mod routes;
mod stations;
mod watch;

pub use self::watch::{Change, Watch};
pub(crate) use self::{
    list::Links,
    names::{NamePattern, NamePatternError},
    routes::uplinks,
    stations::Stations,
};

/// An interface, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// Its number, which no other interface of the namespace gets while it lives.
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, …; physical interfaces have none.
    pub kind: Option<String>,
    /// The interface that it leads to: the other end of a veth, the parent of a VLAN.
    pub leads_to: Option<u32>,
    /// Our number for the namespace of `leads_to`; `None` if that is our own.
    pub leads_to_netns: Option<i32>,
    /// `ARPHRD_*`: 1 is Ethernet.
    pub hardware: u16,
    pub mac: Option<[u8; 6]>,
    /// Somebody has set it up: it may carry traffic.
    pub is_up: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("interface {0} does not exist")]
    NoInterface(String),
    #[error("network namespace {} does not exist", .0.display())]
    NoNamespace(PathBuf),
    #[error("{} is not a network namespace", .0.display())]
    NotANamespace(PathBuf),
    #[error("network namespace {} is opened only with CAP_SYS_PTRACE, which the agent has not: give it a name (`ip netns attach`), or name the interface instead", .0.display())]
    OfAProcess(PathBuf),
    #[error("{} is the agent's own network namespace: name the interface instead", .0.display())]
    OwnNamespace(PathBuf),
    #[error("no veth of the agent's namespace leads to network namespace {}", .0.display())]
    NoHostSide(PathBuf),
    #[error("several interfaces lead to network namespace {}: {}; name one by `interface:`", .path.display(), .names.join(", "))]
    Several { path: PathBuf, names: Vec<String> },
    #[error(
        "interface {name} is not Ethernet (hardware type {hardware}): its packets cannot be judged on the host side"
    )]
    NotEthernet { name: String, hardware: u16 },
    #[error("failed to {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
}

pub(super) fn failed(doing: impl Into<String>) -> impl FnOnce(io::Error) -> LinkError {
    let doing = doing.into();
    move |source| LinkError::Io { doing, source }
}

impl LinkError {
    /// Whether waiting can help: the endpoint is attached when what is missing appears.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoInterface(_)
            | Self::NoNamespace(_)
            // The name of a namespace is made before the namespace is mounted on it.
            | Self::NotANamespace(_)
            | Self::NoHostSide(_)
            | Self::Several { .. } => true,
            Self::OfAProcess(_) | Self::OwnNamespace(_) | Self::NotEthernet { .. } | Self::Io { .. } => false,
        }
    }
}

/// Every interface of the calling thread's network namespace.
pub fn links() -> Result<Vec<Link>, LinkError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let found = netlink::dump(request).map_err(failed("list interfaces"))?;
    Ok(found
        .into_iter()
        .filter_map(|object| match object {
            Ok(RouteNetlinkMessage::NewLink(message)) => Some(link(&message)),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "an interface that could not be read is left out");
                None
            }
        })
        .collect())
}

/// Every address of every interface of the calling thread's network namespace.
pub fn addresses() -> Result<BTreeSet<IpAddr>, LinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = netlink::dump(request).map_err(failed("list addresses"))?;
    Ok(found
        .into_iter()
        .filter_map(|object| match object {
            Ok(RouteNetlinkMessage::NewAddress(message)) => address(&message),
            Ok(_) | Err(_) => None,
        })
        .collect())
}

/// An interface by its number.
pub(crate) fn by_index(index: u32) -> Result<Link, LinkError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    let found = match netlink::get(RouteNetlinkMessage::GetLink(request)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        found => found.map_err(failed(format!("find interface {index}")))?,
    };
    first(&found)
        .filter(|link| link.index == index)
        .ok_or_else(|| LinkError::NoInterface(index.to_string()))
}

/// The interface that an endpoint's programs are to be attached to; `None` for one known by cgroup.
pub fn resolve(spec: &EndpointSpec) -> Option<Result<Link, LinkError>> {
    match spec {
        EndpointSpec::Interface(name) => Some(named(name)),
        EndpointSpec::Netns(path) => {
            let path = Path::new(path);
            Some(links().and_then(|links| host_side(links.iter(), path)))
        }
        EndpointSpec::Cgroup(_) | EndpointSpec::SystemdUnit(_) => None,
    }
}

fn named(name: &str) -> Result<Link, LinkError> {
    let mut request = LinkMessage::default();
    request
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    let found = match netlink::get(RouteNetlinkMessage::GetLink(request)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
        found => found.map_err(failed(format!("find interface {name}")))?,
    };
    first(&found)
        .filter(|link| link.name == name)
        .ok_or_else(|| LinkError::NoInterface(name.to_owned()))
        .and_then(ethernet)
}

fn first(found: &[netlink::Found]) -> Option<Link> {
    found.iter().find_map(|object| match object {
        Ok(RouteNetlinkMessage::NewLink(message)) => Some(link(message)),
        Ok(_) | Err(_) => None,
    })
}

/// The host side of the veth that leads into a namespace, of those that have been listed.
///
/// The kernel numbers each namespace that an interface of ours leads to; asked for the number of the
/// one at `path`, it tells which interface that is, and nobody has to enter the namespace. Listing makes it
/// number the namespaces that are listed: so the list has to be there before.
fn host_side<'l>(links: impl Iterator<Item = &'l Link>, path: &Path) -> Result<Link, LinkError> {
    let namespace = open(path)?;
    let number = number_of(&namespace, path)?;
    let mut sides: Vec<&Link> = links
        .filter(|link| number.is_some() && link.leads_to_netns == number)
        .filter(|link| matches!(link.kind.as_deref(), Some("veth")))
        .collect();
    match (sides.pop(), sides.as_slice()) {
        (None, _) => Err(LinkError::NoHostSide(path.to_path_buf())),
        (Some(side), []) => ethernet(side.clone()),
        (Some(last), others) => {
            let names = others.iter().chain([&last]).map(|link| link.name.clone());
            Err(LinkError::Several {
                path: path.to_path_buf(),
                names: names.collect(),
            })
        }
    }
}

/// The network namespace at `path`, which is another than ours.
fn open(path: &Path) -> Result<File, LinkError> {
    let doing = || failed(format!("open network namespace {}", path.display()));
    let namespace = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LinkError::NoNamespace(path.to_path_buf()),
        io::ErrorKind::PermissionDenied if path.starts_with("/proc") => {
            LinkError::OfAProcess(path.to_path_buf())
        }
        _ => doing()(error),
    })?;
    let theirs = namespace.metadata().map_err(doing())?;
    // Kernel 5.10 leads whoever may not follow the link to the folder that it is in.
    if theirs.is_dir() && path.starts_with("/proc") {
        return Err(LinkError::OfAProcess(path.to_path_buf()));
    }
    let ours = fs::metadata("/proc/thread-self/ns/net").map_err(doing())?;
    if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
        return Err(LinkError::OwnNamespace(path.to_path_buf()));
    }
    Ok(namespace)
}

/// Our number for a namespace; `None` if nothing of ours leads there. Minimum kernel: 4.0.
pub(crate) fn number_of(namespace: &File, path: &Path) -> Result<Option<i32>, LinkError> {
    let mut question = NsidMessage::default();
    let descriptor = namespace.as_raw_fd().cast_unsigned();
    question.attributes.push(NsidAttribute::Fd(descriptor));
    let answer = netlink::get(RouteNetlinkMessage::GetNsId(question));
    let found = answer.map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => LinkError::NotANamespace(path.to_path_buf()),
        _ => failed(format!("identify network namespace {}", path.display()))(error),
    })?;
    Ok(found.into_iter().find_map(|object| match object {
        Ok(RouteNetlinkMessage::NewNsId(message)) => {
            message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NsidAttribute::Id(number) if *number >= 0 => Some(*number),
                    _ => None,
                })
        }
        _ => None,
    }))
}

impl Link {
    /// Whether its frames have an Ethernet header, and are no loopback's.
    pub(crate) fn is_ethernet(&self) -> bool {
        self.hardware == u16::from(LinkLayerType::Ether)
    }
}

fn ethernet(link: Link) -> Result<Link, LinkError> {
    if link.is_ethernet() {
        Ok(link)
    } else {
        Err(LinkError::NotEthernet {
            name: link.name,
            hardware: link.hardware,
        })
    }
}

pub(super) fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: None,
        leads_to: None,
        leads_to_netns: None,
        hardware: message.header.link_layer_type.into(),
        mac: None,
        is_up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            // An interface that leads to itself leads nowhere, and says 0 if it lost what it led to.
            LinkAttribute::Link(index) if *index != 0 => link.leads_to = Some(*index),
            LinkAttribute::LinkNetNsId(number) => link.leads_to_netns = Some(*number),
            LinkAttribute::LinkInfo(infos) => link.kind = infos.iter().find_map(kind),
            _ => {}
        }
    }
    link
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(InfoKind::to_string(kind)),
        _ => None,
    }
}

/// The interface's own end; of a point-to-point address the other attribute is the far one.
pub(super) fn address(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = &message.attributes;
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
