//! What can be wrong with the ends or the port that somebody asks about.

use std::net::Ipv4Addr;

use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    #[error(
        "no port: `{seen}`; expected `TCP/8080`, `UDP/53`, `SCTP/1`, `ICMP`, `ICMP/TYPE/CODE`, \
         `ICMPv6`, or `protocol/NUMBER`"
    )]
    Port { seen: String },
    #[error(
        "`{seen}` alone is no port: write `TCP/{seen}` or `UDP/{seen}`; another protocol by its number is \
         `protocol/NUMBER`"
    )]
    BareNumber { seen: String },
    #[error(
        "no end of a connection: `{seen}`; expected `NAMESPACE/NAME`, `node/NAME`, \
         `service/NAMESPACE/NAME` or an address"
    )]
    End { seen: String },
    #[error("`{seen}` is an IPv4 address written as IPv6; write it as IPv4, `{v4}`")]
    MappedAddress { seen: String, v4: Ipv4Addr },
    #[error("no pod or workload is called `{seen}`{}", did_you_mean(.near.as_ref()))]
    UnknownWorkload { seen: String, near: Option<String> },
    #[error("no node is called `{seen}`{}", did_you_mean(.near.as_ref()))]
    UnknownNode { seen: String, near: Option<String> },
    #[error("no Service is called `{seen}`{}", did_you_mean(.near.as_ref()))]
    UnknownService { seen: String, near: Option<String> },
    #[error("`{seen}` is no source: a Service starts no connection")]
    ServiceAsSource { seen: String },
    #[error("`{end}` has no address")]
    NoAddress { end: String },
    #[error("`{from}` and `{to}` have no addresses of the same family that `{port}` could use")]
    NoCommonFamily {
        from: String,
        to: String,
        port: String,
    },
}

fn did_you_mean(near: Option<&String>) -> String {
    near.map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}

/// The known name closest to what was typed, if it is close enough to be a slip.
pub(super) fn nearest(seen: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let limit = (seen.chars().count() / 3).max(1);
    known
        .map(|name| (distance(seen, &name), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// How many letters to insert, delete or replace to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = line.saturating_add(1);
        next.push(left);
        for (pair, theirs) in row.windows(2).zip(&other) {
            if let [diagonal, above] = *pair {
                let replaced = diagonal.saturating_add(usize::from(letter != *theirs));
                left = replaced
                    .min(above.saturating_add(1))
                    .min(left.saturating_add(1));
                next.push(left);
            }
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letters() {
        for (one, other, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("api", "api", 0),
            ("api", "apo", 1),
            ("shop/api", "shp/api-0", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn only_a_slip_gets_a_suggestion() {
        let known = || ["shop/api-0", "shop/db-0"].map(str::to_owned).into_iter();
        assert_eq!(nearest("shop/api0", known()), Some("shop/api-0".to_owned()));
        assert_eq!(nearest("shop/api", known()), Some("shop/api-0".to_owned()));
        assert_eq!(nearest("monitoring/otel", known()), None);
    }
}
