//! The vectors that others vouch for, as traffic between pods of a real cluster.
//!
//! Where they come from: `agent/policy/tests/conformance/README.md`. Pods get the addresses that the cluster has for them, so
//! blocks of addresses in policies are rewritten to hold the same pods. Addresses outside of the cluster are that of the
//! one neighbour that it has. What one node cannot show is left out, counted, and counted again here.

#[path = "kubernetes_conformance/play.rs"]
mod play;
#[path = "kubernetes_conformance/rewrite.rs"]
mod rewrite;
#[path = "../../agent/policy/tests/support/table.rs"]
mod table;
#[path = "../../agent/policy/tests/support/vectors.rs"]
mod vectors;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::{Result, ensure};
use play::{Form, Play, Tally};
use ringfence_lab::cluster::Cluster;
use vectors::File;

const RECIPES: &str = include_str!("../../agent/policy/tests/conformance/recipes.json");
const SUITE: &str = include_str!("../../agent/policy/tests/conformance/cnp-conformance.json");
const CYCLONUS: &str = include_str!("../../agent/policy/tests/conformance/netpol-cyclonus.json");

/// How many of cyclonus' cases are played: they take two minutes. `RINGFENCE_CYCLONUS=all` plays all that the API knows.
const SAMPLE: usize = 60;
const SEED: u64 = 5;

#[test]
fn the_recipes_hold_between_pods() -> Result<()> {
    let tally = play(RECIPES, Form::Probes, |_| true)?;
    expect(
        tally.as_ref(),
        &Tally {
            cases: 22,
            checks: 109,
            left_out: 0,
        },
    )
}

#[test]
fn the_suite_of_cluster_network_policy_holds_between_pods() -> Result<()> {
    // SCTP, which the machine may not have, and pods with the network of another node.
    let tally = play(SUITE, Form::Probes, |_| true)?;
    expect(
        tally.as_ref(),
        &Tally {
            cases: 24,
            checks: 204,
            left_out: 97,
        },
    )
}

#[test]
fn a_sample_of_cyclonus_holds_between_pods() -> Result<()> {
    let file = File::read(CYCLONUS);
    let file = file.cases().filter(|case| {
        // An API server of before 1.22 drops it, and would have the policy say something else.
        let documents = case.states().flat_map(|state| state.documents());
        !documents
            .into_iter()
            .any(|document| document.to_string().contains("endPort"))
    });
    let mut ids: Vec<_> = file.map(|case| case.id().to_owned()).collect();
    ids.sort_by_key(|id| {
        let mut hasher = DefaultHasher::new();
        (SEED, id).hash(&mut hasher);
        hasher.finish()
    });
    if std::env::var("RINGFENCE_CYCLONUS").is_ok_and(|which| which == "all") {
        eprintln!("{} cases", ids.len());
    } else {
        ids.truncate(SAMPLE);
    }
    let tally = play(CYCLONUS, Form::Tables, |id| {
        ids.iter().any(|chosen| chosen == id)
    })?;
    if let Some(tally) = tally {
        ensure!(tally.cases == ids.len(), "{tally:?}");
    }
    Ok(())
}

/// So that nothing is left out without anybody noticing; nothing at all without a cluster.
fn expect(tally: Option<&Tally>, expected: &Tally) -> Result<()> {
    ensure!(
        tally.is_none_or(|tally| tally == expected),
        "{tally:?}, expected {expected:?}"
    );
    Ok(())
}

fn play(text: &str, form: Form, chosen: impl Fn(&str) -> bool) -> Result<Option<Tally>> {
    let Some(cluster) = Cluster::of_this_run() else {
        return Ok(None);
    };
    cluster.install_agent()?;
    let file = File::read(text);
    let mut play = Play::new(&cluster, form)?;
    for case in file.cases().filter(|case| chosen(case.id())) {
        play.case(&case)?;
    }
    play.finish().map(Some)
}
