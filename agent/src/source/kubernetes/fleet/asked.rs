//! A policy as somebody at a terminal names it.

use std::{fmt, str::FromStr};

use super::FleetError;
use crate::source::kubernetes::{
    kind::{Key, Kind},
    report::{Known, Policies},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    text: String,
    /// Those that it can be.
    keys: Vec<Key>,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let key = |kind, namespace: &str, name: &str| Key {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let policy = |name: &str| Kind::of_name(name).filter(|kind| kind.is_policy());
        let parts: Vec<&str> = text.split('/').collect();
        let keys = match *parts {
            _ if parts.contains(&"") => Vec::new(),
            [name] => Kind::POLICIES
                .into_iter()
                .filter(|kind| !kind.has_namespaces())
                .map(|kind| key(kind, "", name))
                .collect(),
            [first, name] => match policy(first) {
                Some(kind) if !kind.has_namespaces() => vec![key(kind, "", name)],
                Some(_) => Vec::new(),
                None => vec![key(Kind::NetworkPolicy, first, name)],
            },
            [first, namespace, name] => policy(first)
                .filter(|kind| kind.has_namespaces())
                .map(|kind| key(kind, namespace, name))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        };
        if keys.is_empty() {
            let kinds = Kind::POLICIES.map(Kind::name).join(", ");
            return Err(format!(
                "expected NAMESPACE/NAME of a NetworkPolicy, the NAME of what is in no namespace, or KIND/… of {kinds}"
            ));
        }
        let text = text.to_owned();
        Ok(Self { text, keys })
    }
}

impl Asked {
    /// # Errors
    ///
    /// If there is none, or more than one.
    pub(super) fn find<'p>(
        &self,
        policies: &'p Policies,
    ) -> Result<(&'p Key, &'p Known), FleetError> {
        let mut found = self
            .keys
            .iter()
            .filter_map(|key| policies.get_key_value(key));
        match (found.next(), found.next()) {
            (None, _) => Err(FleetError::NoSuch(self.clone())),
            (Some(one), None) => Ok(one),
            (Some((one, _)), Some((other, _))) => Err(FleetError::Ambiguous {
                asked: self.to_string(),
                one: one.to_string(),
                other: other.to_string(),
            }),
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Option<String> {
        let asked: Asked = text.parse().ok()?;
        let keys: Vec<String> = asked.keys.iter().map(Key::to_string).collect();
        Some(keys.join(" "))
    }

    #[test]
    fn a_policy_is_named_as_kubectl_shows_it_or_with_its_kind() {
        assert_eq!(keys("shop/a").unwrap(), "NetworkPolicy/shop/a");
        assert_eq!(
            keys("NetworkPolicy/shop/a").unwrap(),
            "NetworkPolicy/shop/a"
        );
        assert_eq!(keys("RingfencePolicy/a").unwrap(), "RingfencePolicy/a");
        assert_eq!(
            keys("a").unwrap(),
            "ClusterNetworkPolicy/a RingfencePolicy/a NameTable/a"
        );
        for wrong in [
            "",
            "/a",
            "a/",
            "Pod/shop/a",
            "NetworkPolicy/a",
            "RingfencePolicy/a/b",
            "a/b/c/d",
        ] {
            assert_eq!(keys(wrong), None, "{wrong}");
        }
    }
}
