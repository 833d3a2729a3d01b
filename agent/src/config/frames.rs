//! What endpoints at interfaces may send beside what policy is about.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::{ConfigError, refuse};
use crate::datapath::object::Frames;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFrames {
    pub(super) allow: Option<Vec<String>>,
    pub(super) dhcp_client: Option<bool>,
}

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FramesConfig {
    /// Types of frames that pass, of those that are neither IP nor ARP.
    allow: BTreeSet<FrameType>,
    /// Endpoints get their addresses by DHCP, without a rule.
    pub(crate) dhcp_client: bool,
    #[serde(skip)]
    pub(crate) frames: Frames,
}

/// The type of an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
struct FrameType(u16);

/// IEEE's names of what is met beside IP.
const NAMES: [(&str, u16); 7] = [
    ("profinet", 0x8892),
    ("ethercat", 0x88a4),
    ("lldp", 0x88cc),
    ("eapol", 0x888e),
    ("macsec", 0x88e5),
    ("ptp", 0x88f7),
    ("fcoe", 0x8906),
];

/// What is judged by policy or by its own rules; and tags, which would hide it from both.
const JUDGED: [(u16, &str); 5] = [
    (0x0800, "IPv4, which policy is about"),
    (0x86dd, "IPv6, which policy is about"),
    (0x0806, "ARP, which has rules of its own"),
    (0x8100, "a VLAN tag, behind which anything may come"),
    (0x88a8, "a VLAN tag, behind which anything may come"),
];

/// Below are lengths of frames that have no type (IEEE 802.3).
const FIRST: u16 = 0x0600;

const ALLOW: &str = "frames.allow";

impl FramesConfig {
    pub(super) fn check(raw: RawFrames) -> Result<Self, ConfigError> {
        let RawFrames { allow, dhcp_client } = raw;
        let allow = allow.unwrap_or_default();
        let allow = allow.iter().map(|text| FrameType::read(text));
        let allow = allow.collect::<Result<BTreeSet<_>, _>>()?;
        let frames = Frames::of(allow.iter().map(|FrameType(number)| *number))
            .ok_or_else(|| refuse(ALLOW, &allow.len(), format!("at most {}", Frames::MOST)))?;
        Ok(Self {
            allow,
            dhcp_client: dhcp_client.unwrap_or_default(),
            frames,
        })
    }
}

impl FrameType {
    fn read(text: &str) -> Result<Self, ConfigError> {
        let named = NAMES.iter().find(|(name, _)| *name == text);
        let written = text.strip_prefix("0x").map_or_else(
            || text.parse().ok(),
            |digits| u16::from_str_radix(digits, 16).ok(),
        );
        let Some(number) = named.map(|(_, number)| *number).or(written) else {
            let choices = NAMES.map(|(name, _)| name).join(", ");
            let expected = format!("a number, as in 0x88cc, or one of {choices}");
            return Err(refuse(ALLOW, &format_args!("`{text}`"), expected));
        };
        if let Some((_, what)) = JUDGED.iter().find(|(judged, _)| *judged == number) {
            return Err(refuse(
                ALLOW,
                &format_args!("`{text}`, {what}"),
                "another type",
            ));
        }
        if number < FIRST {
            let expected = format!("at least {FIRST:#06x}");
            return Err(refuse(ALLOW, &format_args!("`{text}`"), expected));
        }
        Ok(Self(number))
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = self;
        match NAMES.iter().find(|(_, named)| named == number) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{number:#06x}"),
        }
    }
}

impl From<FrameType> for String {
    fn from(kind: FrameType) -> Self {
        kind.to_string()
    }
}
