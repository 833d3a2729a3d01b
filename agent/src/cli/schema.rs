//! `ringfence schema`: JSON Schemas of the kinds that are ours, for editors and for CI, and of the flow record.

use std::io::Write;

use agent_policy::schema::{self, Kind};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{cli::output, exit::Answer, flow::record, source::kubernetes::report};

/// Print the JSON Schema (draft 2020-12) of a kind, one schema of all kinds, or that of flow records.
///
/// Editors complete and check policies by it; what is right is decided by `ringfence policy check`.
///
/// Exit code: 0, or 2 on an error.
#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    #[arg(value_enum, ignore_case = true, value_name = "KIND")]
    kind: Option<Spelled>,
    /// Print the kinds as definitions for a Kubernetes API server (`kubectl apply -f -`).
    #[arg(long, conflicts_with = "kind")]
    crds: bool,
    /// Print the schema of what `ringfence flows -o json` and files of flow records have in each line.
    #[arg(long, conflicts_with_all = ["kind", "crds"])]
    flow_record: bool,
}

/// A kind as it is typed; documents spell it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spelled {
    #[value(name = "Workload")]
    Workload,
    #[value(name = "RingfencePolicy")]
    RingfencePolicy,
    #[value(name = "NameTable")]
    NameTable,
    #[value(name = "PolicyTest")]
    PolicyTest,
}

/// Writes the schema to `out`.
///
/// # Errors
///
/// If `out` fails.
pub(crate) fn run(args: &SchemaArgs, out: &mut impl Write) -> anyhow::Result<Answer> {
    let SchemaArgs {
        kind,
        crds,
        flow_record,
    } = args;
    let schema = match kind {
        None if *flow_record => record::schema(),
        None if *crds => definitions(),
        None => schema::of_all(),
        Some(name) => schema::of((*name).into()),
    };
    output::unless_closed(output::json(&schema, out))?;
    Ok(Answer::Yes)
}

/// Those of the kinds that are read, and of the one that agents write.
fn definitions() -> Value {
    let mut all = schema::crds();
    if let Some(items) = all.get_mut("items").and_then(Value::as_array_mut) {
        items.push(report::definition());
    }
    all
}

impl From<Spelled> for Kind {
    fn from(name: Spelled) -> Self {
        match name {
            Spelled::Workload => Self::Workload,
            Spelled::RingfencePolicy => Self::RingfencePolicy,
            Spelled::NameTable => Self::NameTable,
            Spelled::PolicyTest => Self::PolicyTest,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    fn printed(line: &[&str]) -> Value {
        let command = SchemaArgs::augment_args(clap::Command::new("schema"));
        let matches = command.try_get_matches_from(line).unwrap();
        let args = SchemaArgs::from_arg_matches(&matches).unwrap();
        let mut out = Vec::new();
        assert_eq!(run(&args, &mut out).unwrap(), Answer::Yes);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn one_kind_or_all() {
        for kind in Kind::ALL {
            let schema = printed(&["schema", kind.name()]);
            assert_eq!(schema["properties"]["kind"]["const"], kind.name());
        }
        assert_eq!(printed(&["schema", "nametable"])["title"], "NameTable");
        let all = printed(&["schema"]);
        assert_eq!(all["oneOf"].as_array().unwrap().len(), Kind::ALL.len());
    }

    #[test]
    fn records_have_one_too() {
        let schema = printed(&["schema", "--flow-record"]);
        assert_eq!(schema, record::schema());
    }

    #[test]
    fn a_cluster_has_the_kind_that_agents_write_too() {
        let all = printed(&["schema", "--crds"]);
        let kinds = all["items"].as_array().unwrap().iter();
        let kinds: Vec<_> = kinds
            .filter_map(|crd| crd["spec"]["names"]["kind"].as_str())
            .collect();
        let expected = ["Workload", "RingfencePolicy", "NameTable", "AgentStatus"];
        assert_eq!(kinds, expected);
    }
}
