//! What no policy may deny to the node: settings that rank above everything.
//!
//! Said in blocks and ports alone, so that it holds before anything else is known.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use agent_policy::model::{
    Direction, Failsafe, IcmpVersion, Peer, Peers, PortMatch, PortSpec, Ports, Protocol, Source,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

use super::ConfigError;

/// Names that the other settings give their entries.
const RESERVED: [&str; 3] = ["dhcp", "ssh", "api-server"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawFailsafe {
    #[serde(skip)]
    pub(super) file: PathBuf,
    #[serde(default)]
    management_cidrs: Vec<Spanned<String>>,
    #[serde(default)]
    api_servers: Vec<Spanned<String>>,
    dhcp: Option<Spanned<bool>>,
    #[serde(default)]
    entries: Vec<Spanned<RawEntry>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    name: Spanned<String>,
    direction: Direction,
    cidrs: Vec<Spanned<String>>,
    ports: Option<Vec<Spanned<RawPort>>>,
}

/// As in a policy of our own kind, without names: exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPort {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tcp: Option<RawRange>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    udp: Option<RawRange>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sctp: Option<RawRange>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    icmp: Option<RawIcmp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    icmpv6: Option<RawIcmp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    protocol: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRange {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    end_port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIcmp {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    kind: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    code: Option<u8>,
}

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
    pub(super) fn check(raw: RawFailsafe) -> Result<Self, ConfigError> {
        let RawFailsafe {
            file,
            management_cidrs,
            api_servers,
            dhcp,
            entries,
        } = raw;
        let at = Places { file };
        let config = Self {
            management_cidrs: management_cidrs
                .iter()
                .map(|cidr| at.cidr("failsafe.managementCidrs", cidr))
                .collect::<Result<_, _>>()?,
            api_servers: api_servers
                .iter()
                .map(|server| {
                    let expected = "an address, or address:port (IPv6: [address]:port)";
                    at.read("failsafe.apiServers", server, expected)
                })
                .collect::<Result<_, _>>()?,
            dhcp: dhcp.map_or_else(
                || Placed {
                    value: true,
                    source: Source {
                        file: "(default)".into(),
                        line: 1,
                    },
                },
                |dhcp| at.placed(dhcp.value, &dhcp.referenced),
            ),
            entries: entries
                .iter()
                .map(|entry| at.entry(entry))
                .collect::<Result<_, _>>()?,
        };
        for (place, entry) in entries.iter().enumerate() {
            let name = &entry.value.name;
            let earlier = config.entries.iter().take(place);
            let taken = earlier.map(|other| other.value.name.as_str());
            if RESERVED
                .into_iter()
                .chain(taken)
                .any(|other| other == name.value)
            {
                let seen = format!("`{}` once more", name.value);
                return Err(at.refuse(
                    "failsafe.entries.name",
                    &name.referenced,
                    seen,
                    "another name",
                ));
            }
        }
        Ok(config)
    }

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

/// Where values were written.
struct Places {
    file: PathBuf,
}

impl Places {
    fn refuse(
        &self,
        setting: &'static str,
        at: &Location,
        seen: impl Into<String>,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Item {
            path: self.file.clone(),
            line: at.line(),
            column: at.column(),
            setting,
            seen: seen.into(),
            expected: expected.into(),
        }
    }

    fn placed<T>(&self, value: T, at: &Location) -> Placed<T> {
        Placed {
            value,
            source: Source {
                file: self.file.display().to_string().into(),
                line: u32::try_from(at.line()).unwrap_or(u32::MAX),
            },
        }
    }

    fn read<T: FromStr>(
        &self,
        setting: &'static str,
        text: &Spanned<String>,
        expected: &str,
    ) -> Result<Placed<T>, ConfigError> {
        let Ok(value) = text.value.parse() else {
            let seen = format!("`{}`", text.value);
            return Err(self.refuse(setting, &text.referenced, seen, expected));
        };
        Ok(self.placed(value, &text.referenced))
    }

    /// Without host bits: who may pass must be what is written.
    fn cidr(
        &self,
        setting: &'static str,
        text: &Spanned<String>,
    ) -> Result<Placed<IpNet>, ConfigError> {
        let cidr: Placed<IpNet> = self.read(setting, text, "a network, as in 192.0.2.0/24")?;
        let network = cidr.value.trunc();
        if network == cidr.value {
            return Ok(cidr);
        }
        let seen = format!("`{}`, which has host bits", text.value);
        Err(self.refuse(setting, &text.referenced, seen, format!("`{network}`")))
    }

    fn entry(&self, raw: &Spanned<RawEntry>) -> Result<Placed<Entry>, ConfigError> {
        const ANY: &str = "0.0.0.0/0 and ::/0 for every peer";
        let RawEntry {
            name,
            direction,
            cidrs,
            ports,
        } = &raw.value;
        if name.value.is_empty() {
            return Err(self.refuse("failsafe.entries.name", &name.referenced, "empty", "a name"));
        }
        if cidrs.is_empty() {
            let at = &raw.referenced;
            return Err(self.refuse("failsafe.entries.cidrs", at, "empty", ANY));
        }
        let cidrs = cidrs
            .iter()
            .map(|cidr| Ok(self.cidr("failsafe.entries.cidrs", cidr)?.value))
            .collect::<Result<_, _>>()?;
        let matches = match ports {
            None => Ports::Every,
            Some(ports) if ports.is_empty() => {
                let expected = "at least one port, or no `ports` for every port and protocol";
                let at = &raw.referenced;
                return Err(self.refuse("failsafe.entries.ports", at, "empty", expected));
            }
            Some(ports) => {
                let read = ports.iter().map(|port| self.port(port));
                Ports::Listed(read.collect::<Result<_, _>>()?)
            }
        };
        let entry = Entry {
            name: name.value.clone(),
            direction: *direction,
            cidrs,
            ports: ports
                .as_ref()
                .map(|ports| ports.iter().map(|port| port.value).collect()),
            matches,
        };
        Ok(self.placed(entry, &raw.referenced))
    }

    fn port(&self, raw: &Spanned<RawPort>) -> Result<PortMatch, ConfigError> {
        let RawPort {
            tcp,
            udp,
            sctp,
            icmp,
            icmpv6,
            protocol,
        } = raw.value;
        let refuse = |seen: &str, expected: &str| {
            Err(self.refuse("failsafe.entries.ports", &raw.referenced, seen, expected))
        };
        let transport = [
            (Protocol::Tcp, tcp),
            (Protocol::Udp, udp),
            (Protocol::Sctp, sctp),
        ];
        let messages = [(IcmpVersion::V4, icmp), (IcmpVersion::V6, icmpv6)];
        let transport = transport.into_iter().filter_map(|(protocol, range)| {
            Some(spec(range?).map(|port| PortMatch::Transport { protocol, port }))
        });
        let messages = messages
            .into_iter()
            .filter_map(|(version, message)| Some(icmp_match(version, message?)));
        let number = protocol.map(|number| Ok(PortMatch::Protocol(number)));
        let mut given: Vec<Result<PortMatch, _>> =
            transport.chain(messages).chain(number).collect();
        match (given.pop(), given.is_empty()) {
            (Some(Ok(port)), true) => Ok(port),
            (Some(Err((seen, expected))), true) => refuse(seen, expected),
            (None, _) => refuse("empty", ONE_OF),
            (Some(_), false) => refuse("several at once", ONE_OF),
        }
    }
}

const ONE_OF: &str = "one of `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` and `protocol`";

/// What was seen and what was expected.
type Mistake = (&'static str, &'static str);

fn spec(range: RawRange) -> Result<PortSpec, Mistake> {
    let RawRange { port, end_port } = range;
    match (port, end_port) {
        (None, None) => Ok(PortSpec::Every),
        (None, Some(_)) => Err(("an `endPort` alone", "a `port` with it")),
        (Some(0), _) => Err(("port 0", "1 to 65535")),
        (Some(first), last) if last.is_some_and(|last| last < first) => Err((
            "an `endPort` below its `port`",
            "the last port of the range",
        )),
        (Some(first), last) => Ok(PortSpec::Range {
            first,
            last: last.unwrap_or(first),
        }),
    }
}

fn icmp_match(version: IcmpVersion, message: RawIcmp) -> Result<PortMatch, Mistake> {
    let RawIcmp { kind, code } = message;
    if kind.is_none() && code.is_some() {
        return Err(("a `code` alone", "a `type` with it"));
    }
    Ok(PortMatch::Icmp {
        version,
        kind,
        code,
    })
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
