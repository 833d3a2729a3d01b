//! Pairs as products of sources and destinations, as few as say no more than is so.

use std::collections::BTreeMap;

use super::extent::{Members, only_workload};
use crate::classes::Scope;

/// Every member of `from` differs to every member of `to` that is not the same workload.
#[derive(Debug)]
pub(super) struct Product {
    /// The node that they share, on its loopback interface.
    pub(super) home: Option<Scope>,
    pub(super) from: Members,
    pub(super) to: Members,
}

/// What is the same on several nodes as one product: there, each is meant with those of its own node.
pub(super) fn together(products: Vec<Product>) -> Vec<(Members, Members)> {
    let mut of_homes: BTreeMap<Option<Scope>, Vec<(Members, Members)>> = BTreeMap::new();
    for Product { home, from, to } in products {
        of_homes.entry(home).or_default().push((from, to));
    }
    let mut all = Vec::new();
    let mut each: Option<(Members, Members)> = None;
    for (home, pairs) in of_homes {
        let mut pairs: Vec<_> = joined(pairs).collect();
        // Two of one node would be taken for all pairs of both.
        if home.is_some() && pairs.len() == 1 {
            for (from, to) in pairs.drain(..) {
                let (sources, destinations) = each.get_or_insert_default();
                sources.extend(from);
                destinations.extend(to);
            }
        }
        all.extend(pairs);
    }
    all.extend(each);
    all
}

/// The same pairs in fewer products: sources with the same destinations together, and the other
/// way round.
fn joined(pairs: Vec<(Members, Members)>) -> impl Iterator<Item = (Members, Members)> {
    let mut by_source: BTreeMap<Members, Members> = BTreeMap::new();
    for (from, to) in pairs {
        by_source.entry(from).or_default().extend(to);
    }
    // A workload to itself is not meant, so that it may stand there, where others have it.
    let with_itself = |from: &Members, to: &Members| {
        only_workload(from.iter().map(|(who, _)| who))?;
        Some(to | from)
    };
    let mut counts: BTreeMap<Members, usize> = BTreeMap::new();
    for (from, to) in &by_source {
        let itself = with_itself(from, to).filter(|all| all != to);
        for to in [to.clone()].into_iter().chain(itself) {
            *counts.entry(to).or_default() += 1;
        }
    }
    let mut by_destination: BTreeMap<Members, Members> = BTreeMap::new();
    for (from, to) in by_source {
        let all = with_itself(&from, &to).filter(|all| counts.get(all) > counts.get(&to));
        by_destination
            .entry(all.unwrap_or(to))
            .or_default()
            .extend(from);
    }
    by_destination.into_iter().map(|(to, from)| (from, to))
}
