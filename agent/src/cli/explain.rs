//! `policy explain`: whether a connection passes, and which line of which file says so.
//!
//! Takes a world that somebody else has loaded; the verdict is the given evaluator's.

use std::io::Write;

use agent_policy::{
    connection::{End, Perspective, Port, Verdict},
    explain::explain,
    model::World,
    question::Evaluator,
};
use clap::Args;

use crate::{
    cli::{
        asked::Asked,
        output::{self, Format},
    },
    exit::Answer,
};

/// Say whether a connection passes, which rule of which file decides, and what would change that.
///
/// A name stands for all of its addresses: the connection passes if it does between each of them.
///
/// Exit code: 0 allowed, 1 denied, 2 error.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Source: NAMESPACE/NAME, node/NAME or an address
    #[arg(long, value_name = "END")]
    from: String,
    /// Destination: NAMESPACE/NAME, node/NAME, service/NAMESPACE/NAME or an address
    #[arg(long, value_name = "END")]
    to: String,
    /// Destination port: TCP/8080, UDP/53, SCTP/1, ICMP, ICMPv6/TYPE/CODE or protocol/NUMBER
    #[arg(long, value_name = "PORT")]
    port: Port,
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
}

/// Answers on `out`.
///
/// # Errors
///
/// If an end is unknown, the ends have no common address family, or `out` fails.
pub(crate) fn run(
    args: &ExplainArgs,
    world: &World,
    evaluator: &impl Evaluator,
    perspective: Perspective,
    out: &mut impl Write,
) -> anyhow::Result<Answer> {
    let ExplainArgs {
        asked: _,
        from,
        to,
        port,
        output,
    } = args;
    let (from, to) = (End::parse(world, from)?, End::parse(world, to)?);
    let explanation = explain(world, evaluator, &from, &to, *port, perspective)?;
    output::unless_closed(match output {
        Format::Human => explanation.render(out),
        Format::Json => output::json(&explanation, out),
    })?;
    Ok(match explanation.verdict {
        Verdict::Allow => Answer::Yes,
        Verdict::Deny => Answer::No,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use agent_policy::reference::Reference;
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn args(line: &[&str]) -> ExplainArgs {
        let command = ExplainArgs::augment_args(clap::Command::new("explain"));
        let matches = command
            .try_get_matches_from([&["explain"], line].concat())
            .unwrap();
        ExplainArgs::from_arg_matches(&matches).unwrap()
    }

    const LINE: [&str; 10] = [
        "-f",
        "x",
        "--from",
        "192.0.2.1",
        "--to",
        "192.0.2.2",
        "--port",
        "TCP/80",
        "-o",
        "json",
    ];

    #[test]
    fn an_open_world_permits_and_says_so_in_json() {
        let (world, mut out) = (World::default(), Vec::new());
        let answer = run(
            &args(&LINE),
            &world,
            &Reference(&world),
            Perspective::default(),
            &mut out,
        )
        .unwrap();
        assert_eq!(answer, Answer::Yes);
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["verdict"], "allow");
        assert_eq!(json["egress"]["reason"], "no-subject");
    }

    /// A pipe whose reader has gone.
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_does_not_change_the_answer() {
        let world = World::default();
        for form in ["human", "json"] {
            let mut line = LINE;
            line[9] = form;
            let answer = run(
                &args(&line),
                &world,
                &Reference(&world),
                Perspective::default(),
                &mut Closed,
            )
            .unwrap();
            assert_eq!(answer, Answer::Yes, "{form}");
        }
    }

    #[test]
    fn an_unknown_end_is_an_error() {
        let (world, mut line) = (World::default(), LINE);
        line[3] = "shop/web";
        let error = run(
            &args(&line),
            &world,
            &Reference(&world),
            Perspective::default(),
            &mut Vec::new(),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "no pod or workload is called `shop/web`");
    }
}
