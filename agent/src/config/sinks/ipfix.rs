//! A collector of IPFIX.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Reader;
use crate::flow::sink::{
    ipfix::{IpfixSettings, REVERSE, SMALLEST_MESSAGE, Transport},
    remote::Remote,
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIpfix {
    to: Spanned<String>,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    observation_domain: u32,
    template_seconds: Option<Spanned<u64>>,
    message_bytes: Option<Spanned<u32>>,
    enterprise: Option<Spanned<u32>>,
}

/// As it is usual over UDP.
const TEMPLATE_SECONDS: u64 = 60;
/// A collector that has lost them reads nothing until then.
const LONGEST: u64 = 3600;
/// The one of examples (RFC 5612): nobody else's elements have it.
const EXAMPLE: u32 = 32_473;

impl RawIpfix {
    /// `None` if it cannot be meant, which `reader` has been told of.
    pub(super) fn check(self, reader: &mut Reader) -> Option<IpfixSettings> {
        let Self {
            to,
            transport,
            observation_domain,
            template_seconds,
            message_bytes,
            enterprise,
        } = self;
        let remote = Remote::parse(&to.value);
        if remote.is_none() {
            let expected = "HOST:PORT, an address of IPv6 in brackets";
            reader.refuse(&to.referenced, "sinks.ipfix.to", &to.value, expected);
        }
        // All that is wrong is told, in this order.
        let template_seconds = seconds(template_seconds, transport, reader);
        let message_bytes = bytes(message_bytes, transport, reader);
        let enterprise = number(enterprise, reader);
        Some(IpfixSettings {
            to: remote?,
            transport,
            observation_domain,
            template_seconds,
            message_bytes,
            enterprise,
        })
    }
}

fn seconds(
    written: Option<Spanned<u64>>,
    transport: Transport,
    reader: &mut Reader,
) -> Option<u64> {
    if let Some(written) = &written {
        let expected = match transport {
            Transport::Udp if (1..=LONGEST).contains(&written.value) => "",
            Transport::Udp => "1 to 3600",
            Transport::Tcp => "nothing: over TCP, templates are sent once a connection",
        };
        if !expected.is_empty() {
            let seen = written.value.to_string();
            reader.refuse(
                &written.referenced,
                "sinks.ipfix.template_seconds",
                &seen,
                expected,
            );
        }
    }
    let written = written.map_or(TEMPLATE_SECONDS, |written| written.value);
    (transport == Transport::Udp).then_some(written)
}

fn bytes(written: Option<Spanned<u32>>, transport: Transport, reader: &mut Reader) -> u16 {
    let most = transport.most_bytes();
    let Some(written) = written else {
        return transport.default_bytes();
    };
    let bytes = u16::try_from(written.value).unwrap_or(u16::MAX);
    if written.value > most.into() || bytes < SMALLEST_MESSAGE {
        let expected = format!("{SMALLEST_MESSAGE} to {most}");
        let seen = written.value.to_string();
        reader.refuse(
            &written.referenced,
            "sinks.ipfix.message_bytes",
            &seen,
            &expected,
        );
    }
    bytes
}

fn number(written: Option<Spanned<u32>>, reader: &mut Reader) -> u32 {
    let Some(written) = written else {
        return EXAMPLE;
    };
    if written.value == 0 || written.value == REVERSE {
        let expected = "your own number of IANA's private enterprise numbers; 0 and 29305 have another meaning";
        let seen = written.value.to_string();
        reader.refuse(
            &written.referenced,
            "sinks.ipfix.enterprise",
            &seen,
            expected,
        );
    }
    written.value
}
