//! Failsafe settings as they are written.

use std::path::PathBuf;

use agent_policy::model::Direction;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RawFailsafe {
    #[serde(skip)]
    pub(in crate::config) file: PathBuf,
    #[serde(default)]
    pub(super) management_cidrs: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) api_servers: Vec<Spanned<String>>,
    pub(super) dhcp: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) entries: Vec<Spanned<RawEntry>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEntry {
    pub(super) name: Spanned<String>,
    pub(super) direction: Direction,
    pub(super) cidrs: Vec<Spanned<String>>,
    pub(super) ports: Option<Vec<Spanned<RawPort>>>,
}

/// As in a policy of our own kind, without names: exactly one of these. Numbers of any size are
/// taken here, so that those beyond their bounds are told of together with all else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPort {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) tcp: Option<RawRange>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) udp: Option<RawRange>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) sctp: Option<RawRange>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) icmp: Option<RawIcmp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) icmpv6: Option<RawIcmp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) protocol: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawRange {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) port: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) end_port: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIcmp {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none", default)]
    pub(super) kind: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) code: Option<i64>,
}
