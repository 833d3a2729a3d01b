//! What no policy may deny to the node: settings that rank above everything.
//!
//! Said in blocks and ports alone, so that it holds before anything else is known.

mod check;
mod raw;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use agent_policy::model::{
    Direction, Failsafe, Peer, Peers, PortMatch, PortSpec, Ports, Protocol, Source,
};
use ipnet::IpNet;
use serde::{Serialize, Serializer};

pub(super) use self::raw::RawFailsafe;
use self::raw::RawPort;

/// Settings that hold together. Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailsafeConfig {
    /// Who may reach the node by SSH.
    #[serde(serialize_with = "values")]
    management_cidrs: Vec<Placed<IpNet>>,
    #[serde(serialize_with = "values")]
    api_servers: Vec<Placed<ApiServer>>,
    #[serde(serialize_with = "value")]
    dhcp: Placed<bool>,
    #[serde(serialize_with = "values")]
    entries: Vec<Placed<Entry>>,
}

/// A value and where it was written, in which settings that are the same may differ.
#[derive(Clone, Debug)]
struct Placed<T> {
    value: T,
    source: Source,
}

/// An address of a server, with any port or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
struct ApiServer {
    address: IpAddr,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entry {
    name: String,
    direction: Direction,
    cidrs: Vec<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Vec<RawPort>>,
    #[serde(skip)]
    matches: Ports,
}

impl FailsafeConfig {
    /// As policy takes them.
    pub(crate) fn rules(&self) -> Vec<Failsafe> {
        let Self {
            management_cidrs,
            api_servers,
            dhcp,
            entries,
        } = self;
        let mut rules = Vec::new();
        if dhcp.value {
            // RFC 2131, 4.1 and RFC 8415, 7.2: clients and servers each have a port.
            let ports =
                [(67, 68), (546, 547)].map(|(first, last)| range(Protocol::Udp, first, last));
            rules.extend(Direction::BOTH.map(|direction| Failsafe {
                name: "dhcp".to_owned(),
                direction,
                peers: Peers::Every,
                ports: Ports::Listed(ports.to_vec()),
                source: dhcp.source.clone(),
            }));
        }
        if let Some(first) = management_cidrs.first() {
            rules.push(Failsafe {
                name: "ssh".to_owned(),
                direction: Direction::Ingress,
                peers: blocks(management_cidrs.iter().map(|cidr| cidr.value)),
                ports: Ports::Listed(vec![range(Protocol::Tcp, 22, 22)]),
                source: first.source.clone(),
            });
        }
        rules.extend(api_servers.iter().map(|Placed { value, source }| Failsafe {
            name: format!("api-server {value}"),
            direction: Direction::Egress,
            peers: blocks([IpNet::from(value.address)]),
            ports: Ports::Listed(vec![match value.port {
                Some(port) => range(Protocol::Tcp, port, port),
                None => PortMatch::Transport {
                    protocol: Protocol::Tcp,
                    port: PortSpec::Every,
                },
            }]),
            source: source.clone(),
        }));
        rules.extend(entries.iter().map(|Placed { value, source }| Failsafe {
            name: value.name.clone(),
            direction: value.direction,
            peers: blocks(value.cidrs.iter().copied()),
            ports: value.matches.clone(),
            source: source.clone(),
        }));
        rules
    }
}

fn range(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch::Transport {
        protocol,
        port: PortSpec::Range { first, last },
    }
}

fn blocks(cidrs: impl IntoIterator<Item = IpNet>) -> Peers {
    let block = |cidr| Peer::Block {
        cidr,
        except: Vec::new(),
    };
    Peers::Listed(cidrs.into_iter().map(block).collect())
}

// === impl Placed ===

impl<T: PartialEq> PartialEq for Placed<T> {
    fn eq(&self, other: &Self) -> bool {
        let Self { value, source: _ } = self;
        *value == other.value
    }
}

impl<T: Eq> Eq for Placed<T> {}

fn values<T: Serialize, S: Serializer>(
    placed: &[Placed<T>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(placed.iter().map(|placed| &placed.value))
}

fn value<T: Serialize, S: Serializer>(
    placed: &Placed<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    placed.value.serialize(serializer)
}

// === impl ApiServer ===

impl FromStr for ApiServer {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: None,
            });
        }
        let server: SocketAddr = text.parse()?;
        Ok(Self {
            address: server.ip(),
            port: Some(server.port()),
        })
    }
}

impl fmt::Display for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

impl From<ApiServer> for String {
    fn from(server: ApiServer) -> Self {
        server.to_string()
    }
}

#[cfg(test)]
mod tests;
