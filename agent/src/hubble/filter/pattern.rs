//! What filters compare with.

use std::net::IpAddr;

use ipnet::IpNet;

/// Namespace of a name that has none.
const NAMESPACE: &str = "default";

#[derive(Debug)]
pub(super) struct Network(IpNet);

/// A namespace, and what names in there begin with.
#[derive(Debug)]
pub(super) struct NamePattern {
    /// `None` for any.
    namespace: Option<String>,
    prefix: String,
}

/// Text with `*` for any letters, of either case.
#[derive(Debug)]
pub(super) struct Glob(Vec<u8>);

#[derive(Debug)]
pub(super) struct NodePattern {
    cluster: Glob,
    node: Glob,
}

/// Digits alone: Rust's parser takes a sign, too.
pub(super) fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

impl Network {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.contains('/') {
            return Some(Self(text.parse().ok()?));
        }
        Some(Self(text.parse::<IpAddr>().ok()?.into()))
    }

    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip)
    }
}

impl NamePattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (namespace, prefix) = match text.split_once('/') {
            // Names have no slashes.
            Some((_, name)) if name.contains('/') => return None,
            Some(("", name)) => (None, name),
            Some((namespace, name)) => (Some(namespace), name),
            None if text.is_empty() => return None,
            None => (Some(NAMESPACE), text),
        };
        Some(Self {
            namespace: namespace.map(str::to_owned),
            prefix: prefix.to_owned(),
        })
    }

    pub(super) fn fits(&self, namespace: &str, name: &str) -> bool {
        let is_there = !namespace.is_empty() || !name.is_empty();
        let in_namespace = self.namespace.as_ref().is_none_or(|it| it == namespace);
        is_there && in_namespace && name.starts_with(&self.prefix)
    }
}

impl Glob {
    fn new(text: &str) -> Self {
        Self(text.to_ascii_lowercase().into_bytes())
    }

    /// A name of DNS, with a dot at its end or without.
    pub(super) fn of_fqdn(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.' | '*');
        (!text.is_empty() && text.chars().all(is_name)).then(|| Self::new(text))
    }

    pub(super) fn fits_fqdn(&self, name: &str) -> bool {
        self.fits(name.strip_suffix('.').unwrap_or(name))
    }

    /// In as many steps as both have letters, multiplied, at most: only the last `*` is tried again.
    fn fits(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.as_slice(), text.as_bytes());
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            match (pattern, text) {
                ([], []) => return true,
                ([b'*', rest @ ..], _) => {
                    retry = Some((rest, text));
                    pattern = rest;
                    continue;
                }
                ([wanted, wanted_rest @ ..], [seen, rest @ ..])
                    if *wanted == seen.to_ascii_lowercase() =>
                {
                    (pattern, text) = (wanted_rest, rest);
                    continue;
                }
                _ => {}
            }
            // The last `*` takes one letter more.
            let Some((after, [_, rest @ ..])) = retry else {
                return false;
            };
            retry = Some((after, rest));
            (pattern, text) = (after, rest);
        }
    }
}

impl NodePattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (cluster, node) = text.split_once('/').unwrap_or(("", text));
        if text.is_empty() || text == "/" || node.contains('/') {
            return None;
        }
        // A part that says nothing is about any.
        let any = |part: &str| Glob::new(if part.is_empty() { "*" } else { part });
        Some(Self {
            cluster: any(cluster),
            node: any(node),
        })
    }

    /// `name` is with its cluster.
    pub(super) fn fits(&self, name: &str) -> bool {
        let (cluster, node) = name.split_once('/').unwrap_or(("", name));
        self.cluster.fits(cluster) && self.node.fits(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_letters() {
        for (glob, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("a", "A", true),
            ("a", "ab", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbYcb", false),
            ("a**c", "abcabc", true),
            ("*a*", "bbb", false),
        ] {
            assert_eq!(Glob::new(glob).fits(text), fits, "{glob} {text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_no_pattern() {
        for bad in ["+80", "", "65536", "http", "-1"] {
            assert_eq!(port(bad), None, "{bad}");
        }
        for bad in ["", "10.0.0", "10.0.0.0/33", "x"] {
            assert!(Network::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", "a/b/c"] {
            assert!(NamePattern::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", "/", "a/b/c"] {
            assert!(NodePattern::parse(bad).is_none(), "{bad}");
        }
        for bad in ["", ".", "a b", "a,b"] {
            assert!(Glob::of_fqdn(bad).is_none(), "{bad}");
        }
    }
}
