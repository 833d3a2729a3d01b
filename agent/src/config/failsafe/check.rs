//! From what is written to what holds together.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, str::FromStr};

use agent_policy::model::{IcmpVersion, PortMatch, PortSpec, Ports, Protocol, Source};
use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};

use super::{
    ApiServer, Entry, FailsafeConfig, Placed,
    raw::{RawEntry, RawFailsafe, RawIcmp, RawPort, RawRange},
};
use crate::config::{ConfigError, Item, Items};

/// Names that the other settings give their entries.
const RESERVED: [&str; 3] = ["dhcp", "ssh", "api-server"];

const ANY: &str = "0.0.0.0/0 and ::/0 for every peer";
const ONE_OF: &str = "one of `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` and `protocol`";

impl FailsafeConfig {
    /// # Errors
    ///
    /// With all that is wrong, in the order in which it is written.
    pub(in crate::config) fn check(raw: RawFailsafe) -> Result<Self, ConfigError> {
        let RawFailsafe {
            file,
            management_cidrs,
            api_servers,
            dhcp,
            entries,
        } = raw;
        let mut reader = Reader {
            file,
            refused: Vec::new(),
        };
        let config = Self {
            management_cidrs: management_cidrs
                .iter()
                .filter_map(|cidr| {
                    let network = reader.cidr("failsafe.managementCidrs", cidr)?;
                    Some(reader.placed(network, &cidr.referenced))
                })
                .collect(),
            api_servers: api_servers
                .iter()
                .filter_map(|server| reader.api_server(server))
                .collect(),
            dhcp: dhcp.map_or_else(
                || Placed {
                    value: true,
                    source: Source {
                        file: "(default)".into(),
                        line: 1,
                    },
                },
                |dhcp| reader.placed(dhcp.value, &dhcp.referenced),
            ),
            entries: entries
                .iter()
                .filter_map(|entry| reader.entry(entry))
                .collect(),
        };
        reader.names(&entries);
        let Reader {
            file: _,
            mut refused,
        } = reader;
        if refused.is_empty() {
            return Ok(config);
        }
        refused.sort_by_key(|item| (item.line, item.column));
        Err(ConfigError::Items(Items(refused)))
    }
}

/// Goes on behind what it has refused.
struct Reader {
    file: PathBuf,
    refused: Vec<Item>,
}

impl Reader {
    fn refuse(
        &mut self,
        setting: &'static str,
        at: &Location,
        seen: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.refused.push(Item {
            path: self.file.clone(),
            line: at.line(),
            column: at.column(),
            setting,
            seen: seen.into(),
            expected: expected.into(),
        });
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
        &mut self,
        setting: &'static str,
        text: &Spanned<String>,
        expected: &str,
    ) -> Option<T> {
        let value = text.value.parse().ok();
        if value.is_none() {
            let seen = format!("`{}`", text.value);
            self.refuse(setting, &text.referenced, seen, expected);
        }
        value
    }

    /// Without host bits, and in the one spelling that a packet has: who may pass must be what is
    /// written.
    fn cidr(&mut self, setting: &'static str, text: &Spanned<String>) -> Option<IpNet> {
        let cidr: IpNet = self.read(setting, text, "a network, as in 192.0.2.0/24")?;
        if let IpAddr::V6(address) = cidr.addr()
            && let Some(v4) = address.to_ipv4_mapped()
        {
            let length = cidr.prefix_len().saturating_sub(96);
            let expected = IpNet::new(v4.into(), length)
                .map_or_else(|_| v4.to_string(), |network| network.trunc().to_string());
            self.mapped(setting, text, &expected);
            return None;
        }
        let network = cidr.trunc();
        if network != cidr {
            let seen = format!("`{}`, which has host bits", text.value);
            self.refuse(setting, &text.referenced, seen, format!("`{network}`"));
            return None;
        }
        Some(network)
    }

    fn mapped(&mut self, setting: &'static str, text: &Spanned<String>, expected: &str) {
        let seen = format!("`{}`, which is IPv4 written as IPv6", text.value);
        self.refuse(setting, &text.referenced, seen, format!("`{expected}`"));
    }

    fn api_server(&mut self, text: &Spanned<String>) -> Option<Placed<ApiServer>> {
        let setting = "failsafe.apiServers";
        let expected = "an address, or address:port (IPv6: [address]:port)";
        let server: ApiServer = self.read(setting, text, expected)?;
        if server.port == Some(0) {
            let seen = format!("`{}`, with port 0", text.value);
            self.refuse(setting, &text.referenced, seen, "1 to 65535");
            return None;
        }
        if let IpAddr::V6(address) = server.address
            && let Some(v4) = address.to_ipv4_mapped()
        {
            let expected = ApiServer {
                address: v4.into(),
                ..server
            };
            self.mapped(setting, text, &expected.to_string());
            return None;
        }
        Some(self.placed(server, &text.referenced))
    }

    /// Each once, and none of those of the other settings.
    fn names(&mut self, entries: &[Spanned<RawEntry>]) {
        let mut taken = BTreeSet::from(RESERVED);
        for entry in entries {
            let name = &entry.value.name;
            let setting = "failsafe.entries.name";
            if name.value.is_empty() {
                self.refuse(setting, &name.referenced, "empty", "a name");
            } else if !taken.insert(&name.value) {
                let seen = format!("`{}` once more", name.value);
                self.refuse(setting, &name.referenced, seen, "another name");
            }
        }
    }

    fn entry(&mut self, raw: &Spanned<RawEntry>) -> Option<Placed<Entry>> {
        let RawEntry {
            name,
            direction,
            cidrs,
            ports,
        } = &raw.value;
        let at = &raw.referenced;
        if cidrs.is_empty() {
            self.refuse("failsafe.entries.cidrs", at, "empty", ANY);
        }
        let cidrs: Vec<_> = cidrs
            .iter()
            .map(|cidr| self.cidr("failsafe.entries.cidrs", cidr))
            .collect();
        if ports.as_ref().is_some_and(Vec::is_empty) {
            let expected = "at least one port, or no `ports` for every port and protocol";
            self.refuse("failsafe.entries.ports", at, "empty", expected);
        }
        let matches: Option<Vec<_>> = ports
            .as_ref()
            .map(|ports| ports.iter().map(|port| self.port(port)).collect());
        let entry = Entry {
            name: name.value.clone(),
            direction: *direction,
            cidrs: cidrs.into_iter().collect::<Option<_>>()?,
            ports: ports
                .as_ref()
                .map(|ports| ports.iter().map(|port| port.value).collect()),
            matches: match matches {
                None => Ports::Every,
                Some(read) => Ports::Listed(read.into_iter().collect::<Option<_>>()?),
            },
        };
        Some(self.placed(entry, at))
    }

    fn port(&mut self, raw: &Spanned<RawPort>) -> Option<PortMatch> {
        let RawPort {
            tcp,
            udp,
            sctp,
            icmp,
            icmpv6,
            protocol,
        } = raw.value;
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
        let number = protocol.map(|number| octet("a protocol", number).map(PortMatch::Protocol));
        let given: Vec<Result<PortMatch, Mistake>> =
            transport.chain(messages).chain(number).collect();
        let mut refuse = |seen: &str, expected| {
            self.refuse("failsafe.entries.ports", &raw.referenced, seen, expected);
        };
        match given.len() {
            0 => refuse("empty", ONE_OF),
            1 => {}
            _ => refuse("several at once", ONE_OF),
        }
        let mut read = Vec::new();
        for one in given {
            match one {
                Ok(port) => read.push(port),
                Err((seen, expected)) => refuse(&seen, expected),
            }
        }
        read.pop()
    }
}

/// What was seen and what was expected.
type Mistake = (String, &'static str);

fn spec(range: RawRange) -> Result<PortSpec, Mistake> {
    let RawRange { port, end_port } = range;
    let number = |number: i64| match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err((format!("port {number}"), "1 to 65535")),
    };
    let mistake = |seen: &str, expected| Err((seen.to_owned(), expected));
    let (port, end) = (
        port.map(number).transpose()?,
        end_port.map(number).transpose()?,
    );
    match (port, end) {
        (None, None) => Ok(PortSpec::Every),
        (None, Some(_)) => mistake("an `endPort` alone", "a `port` with it"),
        (Some(first), Some(last)) if last < first => mistake(
            "an `endPort` below its `port`",
            "the last port of the range",
        ),
        (Some(first), last) => Ok(PortSpec::Range {
            first,
            last: last.unwrap_or(first),
        }),
    }
}

fn icmp_match(version: IcmpVersion, message: RawIcmp) -> Result<PortMatch, Mistake> {
    let RawIcmp { kind, code } = message;
    if kind.is_none() && code.is_some() {
        return Err(("a `code` alone".to_owned(), "a `type` with it"));
    }
    Ok(PortMatch::Icmp {
        version,
        kind: kind.map(|kind| octet("a type", kind)).transpose()?,
        code: code.map(|code| octet("a code", code)).transpose()?,
    })
}

fn octet(what: &str, number: i64) -> Result<u8, Mistake> {
    u8::try_from(number).map_err(|_| (format!("{what} of {number}"), "0 to 255"))
}
