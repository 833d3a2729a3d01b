//! An explanation for people.

use std::io::{self, Write};

use super::{ConsideredPolicy, Explanation, Party, SideExplanation};
use crate::connection::Side;

impl Explanation {
    /// Writes plain text, some ten lines of it.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn render(&self, out: &mut impl Write) -> io::Result<()> {
        let Self {
            verdict,
            from,
            to,
            port,
            egress,
            ingress,
        } = self;
        writeln!(out, "{verdict}: {from} to {to} {port}")?;
        side(out, "egress", from, egress)?;
        side(out, "ingress", to, ingress)
    }
}

fn side(
    out: &mut impl Write,
    direction: &str,
    party: &Party,
    explanation: &SideExplanation,
) -> io::Result<()> {
    let SideExplanation { decision, policies } = explanation;
    let Side {
        verdict,
        policy,
        rule,
        file,
        line,
        reason,
    } = decision;
    write!(out, "\n{direction} of {}: {verdict}, ", party.name)?;
    match (policy, rule, file, line) {
        (Some(policy), Some(rule), Some(file), Some(line)) => {
            writeln!(out, "by {policy} {rule} at {file}:{line}")?;
        }
        (Some(policy), Some(rule), _, _) => writeln!(out, "by {policy} {rule}")?,
        _ => writeln!(out, "{}", reason.phrase())?,
    }
    policies
        .iter()
        .try_for_each(|policy| considered(out, policy))
}

fn considered(out: &mut impl Write, considered: &ConsideredPolicy) -> io::Result<()> {
    let ConsideredPolicy {
        policy,
        file,
        line,
        rules,
    } = considered;
    writeln!(out, "  {policy} at {file}:{line}")?;
    if rules.is_empty() {
        writeln!(out, "    no rules: permits nothing")?;
    }
    for rule in rules {
        let phrase = rule.result.phrase();
        writeln!(
            out,
            "    {} at {}:{}: {phrase}",
            rule.rule, rule.file, rule.line
        )?;
    }
    Ok(())
}

impl std::fmt::Display for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, address) = (self.name.to_string(), self.address.to_string());
        if name == address {
            f.write_str(&name)
        } else {
            write!(f, "{name} ({address})")
        }
    }
}
