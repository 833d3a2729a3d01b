//! From what is written to what holds together.

use std::{path::PathBuf, str::FromStr};

use agent_policy::model::{IcmpVersion, PortMatch, PortSpec, Ports, Protocol, Source};
use ipnet::IpNet;
use serde_saphyr::{Location, Spanned};

use super::{
    Entry, FailsafeConfig, Placed,
    raw::{RawEntry, RawFailsafe, RawIcmp, RawPort, RawRange},
};
use crate::config::ConfigError;

/// Names that the other settings give their entries.
const RESERVED: [&str; 3] = ["dhcp", "ssh", "api-server"];

impl FailsafeConfig {
    pub(in crate::config) fn check(raw: RawFailsafe) -> Result<Self, ConfigError> {
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
