//! Addresses as the API server and proxies read them, more freely than our parsers do.
//!
//! Who writes one in a way that only some understand must not have the others overlook it.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

/// Leading zeros are of no meaning, and an IPv4 address in IPv6 is the IPv4 address.
pub(super) fn read(text: &str) -> Option<IpAddr> {
    if let Some((before, last)) = text.rsplit_once(':') {
        let plain = match v4(last) {
            Some(last) => format!("{before}:{last}"),
            None => text.to_owned(),
        };
        return plain.parse::<IpAddr>().ok().map(|it| it.to_canonical());
    }
    v4(text).map(IpAddr::V4)
}

/// Writes those of a list, or a single one, as our parsers want them. What is none is left for them to refuse.
pub(super) fn normalize(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::String(text) => {
            if let Some(address) = read(text) {
                *text = address.to_string();
            }
        }
        _ => {}
    }
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut parts = text.split('.').map(|part| {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let number = part.trim_start_matches('0');
        match number {
            "" => is_number.then_some(0),
            number => number.parse::<u8>().ok().filter(|_| is_number),
        }
    });
    let octets = [
        parts.next()??,
        parts.next()??,
        parts.next()??,
        parts.next()??,
    ];
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_written_it_is_the_same_address() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.000.02.001", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.02.01", Some("192.0.2.1")),
            ("2001:DB8:0::1", Some("2001:db8::1")),
            ("192.0.2", None),
            ("192.0.2.1.1", None),
            ("192.0.2.256", None),
            ("192.0.2.+1", None),
            ("192.0.2.", None),
            ("None", None),
            ("", None),
            ("example.org", None),
        ] {
            let expected = expected.map(|text| text.parse::<IpAddr>().unwrap());
            assert_eq!(read(text), expected, "{text}");
        }
        let mut list = serde_json::json!(["010.0.0.1", "None", 1]);
        normalize(&mut list);
        assert_eq!(list, serde_json::json!(["10.0.0.1", "None", 1]));
    }
}
