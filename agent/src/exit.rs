//! Exit codes of the binary. Scripts rely on them.

use std::process::ExitCode;

/// All is well; for questions about policy: permitted, or no finding.
const OK: u8 = 0;

/// The answer is no: denied, or warnings with `--strict`.
const NO: u8 = 1;

/// Something is wrong with the input, the machine or the command line (which is clap's code too).
pub(crate) const ERROR: u8 = 2;

/// How a command ended that could be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// The input has errors, and the command was to print them.
    Broken,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        Self::from(match answer {
            Answer::Yes => OK,
            Answer::No => NO,
            Answer::Broken => ERROR,
        })
    }
}
