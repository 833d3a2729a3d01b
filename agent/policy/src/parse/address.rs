//! Addresses and prefixes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{AddressMarks, reader::Field};
use crate::{model::Peer, yaml::quote};

pub(super) fn address(field: &Field<'_>) -> Option<IpAddr> {
    let text = field.string()?;
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!(
            "invalid address {}: expected an IPv4 or IPv6 address",
            quote(text)
        );
        if text.contains('/') {
            field.error_with_hint("invalid-address", message, "leave out the prefix length");
        } else {
            field.error("invalid-address", message);
        }
        return None;
    };
    if let Some(v4) = mapped(address) {
        return refuse_mapped(field, text, &v4.to_string());
    }
    Some(address)
}

/// An address that one workload can own.
pub(super) fn own_address(field: &Field<'_>) -> Option<IpAddr> {
    let address = address(field)?;
    let refused = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if matches!(address, IpAddr::V4(v4) if v4.is_broadcast()) {
        "the broadcast address"
    } else {
        return Some(address);
    };
    let message = format!("`{address}` is {refused}, expected an address that one object can have");
    field.error("invalid-address", message);
    None
}

/// Reads an address that one object can own, where one is written.
pub(super) fn mark(field: Option<&Field<'_>>, marks: &mut AddressMarks) {
    if let Some(field) = field
        && let Some(address) = own_address(field)
    {
        marks.entry(address).or_insert(field.at());
    }
}

/// A prefix, its host bits cleared (with a warning).
pub(super) fn prefix(field: &Field<'_>) -> Option<IpNet> {
    let text = field.string()?;
    let Some(net) = net(text) else {
        let message = format!(
            "invalid CIDR {}: expected ADDRESS/LENGTH, as in `10.0.0.0/8`",
            quote(text)
        );
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => {
                field.error_with_hint("invalid-cidr", message, format!("write `{text}/32`"));
            }
            Ok(IpAddr::V6(_)) => {
                field.error_with_hint("invalid-cidr", message, format!("write `{text}/128`"));
            }
            Err(_) => field.error("invalid-cidr", message),
        }
        return None;
    };
    if let Some(v4) = mapped(net.addr()) {
        let length = net.prefix_len().saturating_sub(MAPPED);
        let shown =
            Ipv4Net::new(v4, length).map_or_else(|_| v4.to_string(), |net| net.trunc().to_string());
        return refuse_mapped(field, text, &shown);
    }
    let canonical = net.trunc();
    if canonical != net {
        let message = format!("`{net}` has bits set beyond its prefix, read as `{canonical}`");
        field.warn("host-bits", message, format!("write `{canonical}`"));
    }
    Some(canonical)
}

/// A prefix and what is left out of it; the name of the prefix is that of its field.
pub(super) fn block(field: Option<Field<'_>>, items: &[Field<'_>]) -> Option<Peer> {
    let field = field?;
    let cidr = prefix(&field);
    let mut except = Vec::new();
    let mut broken = false;
    for item in items {
        let Some(net) = prefix(item) else {
            broken = true;
            continue;
        };
        if let Some(cidr) = cidr
            && (!cidr.contains(&net) || cidr == net)
        {
            let message = format!("`except` `{net}` is not inside of `{cidr}`");
            let hint = format!("it must be a strict subset of `{}`", field.last());
            item.error_with_hint("except-outside", message, hint);
        }
        except.push(net);
    }
    let cidr = cidr.filter(|_| !broken)?;
    Some(Peer::Block { cidr, except })
}

/// By the address parser of std: that of `ipnet` takes `010.0.0.0`, which others read as octal.
fn net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    if !length.bytes().all(|b| b.is_ascii_digit()) || (length.len() > 1 && length.starts_with('0'))
    {
        return None;
    }
    IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()
}

/// The length of the prefix below which IPv6 writes the addresses of IPv4.
const MAPPED: u8 = 96;

fn mapped(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

/// One address must not have two spellings: tables and sets compare by value.
fn refuse_mapped<T>(field: &Field<'_>, text: &str, v4: &str) -> Option<T> {
    let message = format!("{} is an IPv4 address written as IPv6", quote(text));
    let hint = format!("write it as IPv4, `{v4}`");
    field.error_with_hint("mapped-address", message, hint);
    None
}
