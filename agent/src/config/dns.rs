//! Whether names of addresses are learned from what resolvers say, and from which.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use super::{ConfigError, Item, Items};

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawDns {
    #[serde(skip)]
    pub(super) file: PathBuf,
    names: Option<bool>,
    #[serde(default)]
    resolvers: Vec<Spanned<String>>,
}

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct DnsConfig {
    /// Whether they are learned.
    pub(crate) names: bool,
    /// Who is believed; whoever an endpoint asks if there are none.
    pub(crate) resolvers: Vec<IpNet>,
}

impl DnsConfig {
    /// # Errors
    ///
    /// With all that is wrong, in the order in which it is written.
    pub(super) fn check(raw: RawDns) -> Result<Self, ConfigError> {
        let RawDns {
            file,
            names,
            resolvers: written,
        } = raw;
        let mut resolvers = Vec::new();
        let mut refused = Vec::new();
        for text in written {
            let network = text.value.parse::<IpNet>();
            let network = network.or_else(|_| text.value.parse::<IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => resolvers.push(network),
                Err(_) => refused.push(Item {
                    path: file.clone(),
                    line: text.referenced.line(),
                    column: text.referenced.column(),
                    setting: "dns.resolvers",
                    seen: format!("`{}`", text.value),
                    expected: "an address or a network, such as 10.96.0.10 or fd00::/64".to_owned(),
                }),
            }
        }
        if !refused.is_empty() {
            return Err(ConfigError::Items(Items(refused)));
        }
        Ok(Self {
            names: names.unwrap_or(true),
            resolvers,
        })
    }
}
