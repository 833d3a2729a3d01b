//! `policy diff`: who may now reach whom, and who may no longer.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use agent_policy::{connection::Perspective, diff::Diff, model::World};
use clap::Args;

use crate::{
    cli::{
        asked::{Agent, Look},
        output::{self, Format},
        policy::{Input, Settings, world_of},
    },
    exit::Answer,
};

/// Show who may now reach whom, and who may no longer.
///
/// Exit code: 0 no difference, 1 some, 2 error.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Policy and inventory as they were: a file or a folder
    #[arg(
        value_name = "OLD",
        required_unless_present = "live",
        conflicts_with = "live"
    )]
    old: Option<PathBuf>,
    /// Policy and inventory as they shall be
    #[arg(
        value_name = "NEW",
        required_unless_present = "live",
        conflicts_with = "live"
    )]
    new: Option<PathBuf>,
    /// More files of both, such as an inventory; with --live, what shall be. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Compare with what the running agent enforces
    #[arg(long, requires = "paths")]
    live: bool,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    look: Look,
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
}

impl DiffArgs {
    pub(crate) fn run(&self, out: &mut impl Write) -> anyhow::Result<Answer> {
        let (old, new) = if self.live {
            (
                self.agent.world()?,
                world(None, &self.paths, &self.settings)?,
            )
        } else {
            let of = |path: &Option<PathBuf>| world(path.as_deref(), &self.paths, &self.settings);
            (of(&self.old)?, of(&self.new)?)
        };
        compare(&old, &new, self.look.perspective(), self.output, out)
    }
}

fn world(one: Option<&Path>, others: &[PathBuf], settings: &Settings) -> anyhow::Result<World> {
    let paths = one.map(Path::to_owned).into_iter();
    let input = Input::of(paths.chain(others.iter().cloned()).collect());
    world_of(&input.parse(), settings)
}

fn compare(
    old: &World,
    new: &World,
    perspective: Perspective,
    output: Format,
    out: &mut impl Write,
) -> anyhow::Result<Answer> {
    let diff = Diff::new(old, new, perspective);
    output::unless_closed(match output {
        Format::Human => diff.render(out),
        Format::Json => output::json(&diff, out),
    })?;
    Ok(if diff.is_empty() {
        Answer::Yes
    } else {
        Answer::No
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: \
        closed, namespace: shop}\nspec: {podSelector: {}}\n";
    const INVENTORY: &str = "apiVersion: ringfence.io/v1alpha1\nkind: Workload\nmetadata: {name: \
        web, namespace: shop, labels: {app: web}}\nspec: {addresses: [10.1.0.1]}\n";

    #[test]
    fn the_exit_code_tells_whether_there_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (policy, inventory) = (file("p.yaml", POLICY), file("i.yaml", INVENTORY));
        let empty = file("e.yaml", "");
        let run = |old: &str, new: &str| {
            let command = DiffArgs::augment_args(clap::Command::new("diff"));
            let line = [
                "diff",
                old,
                new,
                "-f",
                &inventory,
                "--at",
                "2026-12-01T00:00:00Z",
            ];
            let matches = command.try_get_matches_from(line).unwrap();
            let mut out = Vec::new();
            let args = DiffArgs::from_arg_matches(&matches).unwrap();
            let answer = args.run(&mut out).unwrap();
            (answer, String::from_utf8(out).unwrap())
        };
        assert_eq!(run(&policy, &policy).0, Answer::Yes);
        let (answer, text) = run(&empty, &policy);
        assert_eq!(answer, Answer::No);
        assert!(
            text.starts_with("- 0.0.0.0/0 -> shop/app=web (1): every port\n"),
            "{text}"
        );
    }

    #[test]
    fn two_states_are_asked_for() {
        let command = || DiffArgs::augment_args(clap::Command::new("diff"));
        for line in [
            &["diff"][..],
            &["diff", "a"],
            &["diff", "--live"],
            &["diff", "a", "b", "--live", "-f", "c"],
        ] {
            assert!(command().try_get_matches_from(line).is_err(), "{line:?}");
        }
        for line in [&["diff", "a", "b"][..], &["diff", "--live", "-f", "c"]] {
            assert!(command().try_get_matches_from(line).is_ok(), "{line:?}");
        }
    }
}
