//! `policy test` and `policy verify`: what `PolicyTest` documents expect and assert.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use agent_policy::{
    load::ParsedFile,
    model::World,
    policy_test::{self, PolicyTest, Report},
    verify::{Proof, verify},
};
use anyhow::ensure;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{
    cli::{
        asked::{Agent, Look},
        output::{self, Format},
        policy::{Input, Settings, world_of},
    },
    exit::Answer,
};

/// Run what policy tests expect of single connections.
///
/// Exit code: 0 all pass, 1 some fail, 2 error.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    input: Input,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    look: Look,
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: TestFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum TestFormat {
    /// For people
    #[default]
    Human,
    /// For machines
    Json,
    /// For CI servers: the XML that they read
    Junit,
}

/// Prove what policy tests assert of everybody, or find what contradicts it.
///
/// Exit code: 0 all hold, 1 some are false, 2 error.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Policy, inventory and assertions: a file, a folder, or - for standard input. May be repeated.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Prove them of what the running agent enforces: of the files, only the assertions count
    #[arg(long)]
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

/// As JSON, `{"holding": 1, "false": 0, "proofs": […]}`.
#[derive(Debug, Serialize)]
struct Outcome {
    holding: usize,
    #[serde(rename = "false")]
    contradicted: usize,
    proofs: Vec<Proof>,
}

impl TestArgs {
    pub(crate) fn run(&self, out: &mut impl Write) -> anyhow::Result<Answer> {
        let Self {
            input,
            settings,
            look,
            output,
        } = self;
        let files = input.parse();
        let world = world_of(&files, settings)?;
        let report = policy_test::run(&world, tests(&files), look.perspective());
        let Report {
            passed,
            failed,
            errors,
            ..
        } = report;
        ensure!(
            passed + failed + errors > 0,
            "the input expects nothing: no PolicyTest has `spec.expect`"
        );
        output::unless_closed(match output {
            TestFormat::Human => report.render(out),
            TestFormat::Json => output::json(&report, out),
            TestFormat::Junit => report.junit(out),
        })?;
        Ok(match (failed, errors) {
            (0, 0) => Answer::Yes,
            (_, 0) => Answer::No,
            _ => Answer::Broken,
        })
    }
}

impl VerifyArgs {
    pub(crate) fn run(&self, out: &mut impl Write) -> anyhow::Result<Answer> {
        let files = Input::of(self.paths.clone()).parse();
        let of_files = world_of(&files, &self.settings)?;
        let world = if self.live {
            self.agent.world()?
        } else {
            of_files
        };
        let proofs = Outcome::new(&world, tests(&files), &self.look);
        ensure!(
            !proofs.proofs.is_empty(),
            "the input asserts nothing: no PolicyTest has `spec.assert`"
        );
        output::unless_closed(match self.output {
            Format::Human => proofs.render(out),
            Format::Json => output::json(&proofs, out),
        })?;
        Ok(if proofs.contradicted == 0 {
            Answer::Yes
        } else {
            Answer::No
        })
    }
}

fn tests(files: &[ParsedFile]) -> impl Iterator<Item = &PolicyTest> {
    files.iter().flat_map(ParsedFile::policy_tests)
}

impl Outcome {
    fn new<'t>(world: &World, tests: impl Iterator<Item = &'t PolicyTest>, look: &Look) -> Self {
        let now = look.perspective();
        let proofs: Vec<_> = tests
            .filter(|test| !test.assertions.is_empty())
            .flat_map(|test| verify(world, test.perspective(now), &test.assertions))
            .collect();
        let holding = proofs.iter().filter(|proof| proof.holds).count();
        Self {
            holding,
            contradicted: proofs.len() - holding,
            proofs,
        }
    }

    fn render(&self, out: &mut impl Write) -> io::Result<()> {
        self.proofs.iter().try_for_each(|proof| proof.render(out))?;
        writeln!(
            out,
            "{} hold, {} are false",
            self.holding, self.contradicted
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    const SHOP: &str = r#"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {addresses: [10.1.0.1]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{ipBlock: {cidr: BLOCK}}], ports: [{port: 5432}]}]
---
apiVersion: ringfence.io/v1alpha1
kind: PolicyTest
metadata: {name: shop}
spec:
  expect:
  - {from: 10.9.9.9, to: shop/db, ports: [TCP/5432], verdict: allow, rule: "shop/db ingress[0]"}
  assert:
  - name: nothing in shop is reachable from the internet
    reach: never
    from: [{internet: {}}]
    to: [{workloads: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}}]
"#;

    /// The answers of `test` and `verify`, and what `verify` printed.
    fn asked(block: &str) -> (Answer, Answer, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.yaml");
        std::fs::write(&path, SHOP.replace("BLOCK", block)).unwrap();
        let line = ["it", "-f", path.to_str().unwrap()];
        let parsed = |command: clap::Command| command.try_get_matches_from(line).unwrap();
        let matches = parsed(TestArgs::augment_args(clap::Command::new("it")));
        let tested = TestArgs::from_arg_matches(&matches).unwrap();
        let matches = parsed(VerifyArgs::augment_args(clap::Command::new("it")));
        let verified = VerifyArgs::from_arg_matches(&matches).unwrap();
        let mut out = Vec::new();
        let answers = (
            tested.run(&mut Vec::new()).unwrap(),
            verified.run(&mut out).unwrap(),
        );
        (answers.0, answers.1, String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_holds_and_what_does_not_have_their_exit_codes() {
        let (tested, verified, text) = asked("10.0.0.0/8");
        assert_eq!((tested, verified), (Answer::Yes, Answer::Yes), "{text}");
        let (tested, verified, text) = asked("0.0.0.0/0");
        assert_eq!((tested, verified), (Answer::Yes, Answer::No));
        assert!(
            text.contains("to shop/db (10.1.0.1) TCP/5432 passes"),
            "{text}"
        );
        let (tested, ..) = asked("192.168.0.0/16");
        assert_eq!(tested, Answer::No);
    }
}
