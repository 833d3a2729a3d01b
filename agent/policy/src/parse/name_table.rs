//! `NameTable` of `ringfence.io/v1alpha1`: what names of the DNS stand for, until they are learned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Declared, Object as Parsed, address, domain,
    metadata::{self, Annotations, Form},
    names,
    reader::{Field, Object},
};
use crate::yaml::quote;

type Table = BTreeMap<String, BTreeSet<IpAddr>>;

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let metadata = metadata::read(
        &mut object,
        names::SUBDOMAIN,
        Form::ClusterWide(Annotations::OursRefused),
    );
    let spec = object.require("spec").and_then(|field| field.object());
    object.deny_unknown();
    let mut spec = spec?;
    let table = spec.require("names");
    spec.deny_unknown();
    let table = table.and_then(|field| read_table(&field));
    let (metadata, names) = (metadata?, table?);
    Some(Parsed {
        at: metadata.at,
        declared: Declared::NameTable {
            name: metadata.name,
            names,
        },
    })
}

fn read_table(field: &Field<'_>) -> Option<Table> {
    let mut table = Table::new();
    for (entry, value) in field.pairs()? {
        let name = domain::read(&value, &entry.key);
        let addresses = addresses(&value);
        let Some(name) = name else {
            continue;
        };
        // Keys are unique as they are written; names are in whatever case.
        if table.insert(name, addresses).is_some() {
            let message = format!(
                "name {} is written twice, the other time in another spelling",
                quote(&entry.key)
            );
            field.error_at_key(entry, "duplicate-domain", message);
        }
    }
    Some(table)
}

fn addresses(field: &Field<'_>) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for item in field.list().unwrap_or_default() {
        let Some(address) = address::address(&item) else {
            continue;
        };
        if !addresses.insert(address) {
            let message = format!("address `{address}` is listed twice");
            item.error("duplicate-address", message);
        }
    }
    addresses
}
