//! `policy explain`: whether a connection passes, and which line of which file says so.
//!
//! Takes a world that somebody else has loaded; the verdict is the given evaluator's.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use agent_policy::{
    connection::{ConnectionError, End, Port, Verdict},
    explain::explain,
    model::World,
    question::Evaluator,
};
use clap::{Args, ValueEnum};

/// The connection is permitted.
pub(crate) const ALLOWED: u8 = 0;
/// The connection is denied.
pub(crate) const DENIED: u8 = 1;
/// The question could not be answered.
pub(crate) const FAILED: u8 = 2;

/// Say whether a connection passes, and which rule of which file decides.
///
/// Exit code: 0 allowed, 1 denied, 2 error.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// File or folder with policies and workloads; `-` is standard input
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Source: NAMESPACE/NAME, node/NAME or an address
    #[arg(long, value_name = "END")]
    from: String,
    /// Destination: NAMESPACE/NAME, node/NAME or an address
    #[arg(long, value_name = "END")]
    to: String,
    /// Destination port: TCP/8080, UDP/53, SCTP/1, ICMP, ICMPv6/TYPE/CODE or a protocol number
    #[arg(long, value_name = "PORT")]
    port: Port,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Human,
    Json,
}

/// Why a question about policy got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("failed to write the answer")]
    Write(#[from] io::Error),
    #[error("failed to write the answer as JSON")]
    Json(#[from] serde_json::Error),
}

/// Answers on `out`.
///
/// # Errors
///
/// If an end is unknown, the ends have no common address family, or `out` fails: [`FAILED`].
pub(crate) fn run(
    args: &ExplainArgs,
    world: &World,
    evaluator: &impl Evaluator,
    out: &mut impl Write,
) -> Result<ExitCode, ExplainError> {
    let ExplainArgs {
        paths: _,
        from,
        to,
        port,
        output,
    } = args;
    let (from, to) = (End::parse(world, from)?, End::parse(world, to)?);
    let explanation = explain(world, evaluator, &from, &to, *port)?;
    match output {
        Output::Human => explanation.render(out)?,
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, &explanation)?;
            writeln!(out)?;
        }
    }
    Ok(ExitCode::from(match explanation.verdict {
        Verdict::Allow => ALLOWED,
        Verdict::Deny => DENIED,
    }))
}

#[cfg(test)]
mod tests {
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
        let code = run(&args(&LINE), &world, &Reference(&world), &mut out).unwrap();
        assert_eq!(code, ExitCode::from(ALLOWED));
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json["verdict"], "allow");
        assert_eq!(json["egress"]["reason"], "no-subject");
    }

    #[test]
    fn an_unknown_end_is_an_error() {
        let (world, mut line) = (World::default(), LINE);
        line[3] = "shop/web";
        let error = run(&args(&line), &world, &Reference(&world), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "no pod or workload is called `shop/web`");
    }
}
