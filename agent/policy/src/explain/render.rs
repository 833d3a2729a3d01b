//! An explanation for people.

use std::{
    fmt,
    io::{self, Write},
    net::IpAddr,
};

use super::{
    ConsideredPolicy, Counterfactual, Explanation, OtherPair, Party, RuleEffect, Searched,
    SideExplanation, WouldBe,
};
use crate::{
    connection::{BackendOutcome, Outcome, Side, Verdict},
    model::{Denied, Mode, PolicyKind, Terms},
    question::{Action, View},
    shown::shown,
};

impl Explanation {
    /// Writes plain text, some ten lines of it.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn render(&self, out: &mut impl Write) -> io::Result<()> {
        let Self {
            verdict,
            view,
            at: _,
            from,
            to,
            port,
            pairs,
            others,
            egress,
            ingress,
            backends,
            would_be,
            counterfactual,
        } = self;
        write!(out, "{verdict}")?;
        if !others.is_empty() {
            let alike = pairs.saturating_sub(others.len());
            write!(out, ", for {alike} of {pairs} pairs of addresses")?;
        }
        write!(out, ": {} to {} {port}", shown(from), shown(to))?;
        match view {
            View::Live => writeln!(out)?,
            View::Audit => writeln!(out, ", with the policies in audit")?,
            View::Staged => writeln!(out, ", with the staged policies")?,
        }
        side(out, "egress", from, egress)?;
        side(out, "ingress", to, ingress)?;
        behind(out, to, backends)?;
        between_others(out, *pairs, others)?;
        for one in would_be {
            would(out, one, (from.address, to.address))?;
        }
        if let Some(change) = counterfactual {
            turned_round(out, change, *pairs)?;
        }
        Ok(())
    }
}

fn side(
    out: &mut impl Write,
    direction: &str,
    party: &Party,
    explanation: &SideExplanation,
) -> io::Result<()> {
    let SideExplanation { decision, policies } = explanation;
    writeln!(
        out,
        "\n{direction} of {}: {}",
        shown(&party.name),
        Decision(decision)
    )?;
    if let Some(terms) = &decision.terms {
        said(out, terms)?;
    }
    policies
        .iter()
        .try_for_each(|policy| considered(out, policy))
}

/// What is said with a policy, for whoever wants to know why it is there.
fn said(out: &mut impl Write, terms: &Terms) -> io::Result<()> {
    let Terms {
        mode: _,
        denied: _,
        reason,
        approved_by,
        owner,
        revision,
    } = terms;
    let revision = revision.map(|number| number.to_string());
    for (what, text) in [
        ("reason", reason),
        ("approved by", approved_by),
        ("owner", owner),
        ("revision", &revision),
    ] {
        if let Some(text) = text {
            writeln!(out, "  {what}: {}", shown(text))?;
        }
    }
    Ok(())
}

fn considered(out: &mut impl Write, considered: &ConsideredPolicy) -> io::Result<()> {
    let ConsideredPolicy {
        kind,
        tier,
        priority,
        policy,
        terms,
        in_time,
        file,
        line,
        rules,
    } = considered;
    match kind {
        PolicyKind::NetworkPolicy => write!(out, "  {policy}")?,
        // Its name is what a settings file says.
        PolicyKind::Failsafe => write!(out, "  failsafe {}", shown(policy))?,
        _ => write!(out, "  {kind} {policy} ({tier}")?,
    }
    if let Some(priority) = priority {
        write!(out, " {priority})")?;
    }
    write!(out, " at {}:{line}", shown(file))?;
    match terms.as_ref().map(|terms| terms.mode) {
        None | Some(Mode::Enforce) => {}
        Some(Mode::Audit) => write!(out, ", in audit")?,
        Some(Mode::Staged) => write!(out, ", staged")?,
    }
    if !in_time {
        write!(out, ", not at this time")?;
    }
    writeln!(out)?;
    if rules.is_empty() {
        writeln!(out, "    no rules: permits nothing")?;
    }
    for rule in rules {
        let phrase = rule.result.phrase();
        let effect = match (kind, rule.effect) {
            // All they can do is permit.
            (PolicyKind::NetworkPolicy | PolicyKind::Failsafe, _) => "",
            (_, RuleEffect::Allow) => " Allow",
            (_, RuleEffect::Deny) => " Deny",
            (_, RuleEffect::Pass) => " Pass",
        };
        let name = rule.name.as_ref().map(|name| format!(" `{}`", shown(name)));
        writeln!(
            out,
            "    {}{}{effect} at {}:{}: {phrase}",
            rule.rule,
            name.unwrap_or_default(),
            shown(&rule.file),
            rule.line
        )?;
    }
    Ok(())
}

fn behind(out: &mut impl Write, to: &Party, backends: &[BackendOutcome]) -> io::Result<()> {
    let denied: Vec<_> = backends
        .iter()
        .filter(|backend| backend.verdict == Verdict::Deny)
        .collect();
    match (backends.len(), denied.len()) {
        (0, _) => return Ok(()),
        (1, 0) => writeln!(out, "\nbehind {}: 1 backend, permitted", to.name)?,
        (all, 0) => writeln!(out, "\nbehind {}: {all} backends, all permitted", to.name)?,
        (all, denied) => writeln!(
            out,
            "\nbehind {}: {denied} of {all} backends not permitted",
            to.name
        )?,
    }
    for backend in denied {
        let BackendOutcome {
            name,
            address,
            port,
            verdict: _,
            egress,
            ingress,
        } = backend;
        match name {
            Some(name) => write!(out, "  {name} ({address}) {port}:")?,
            None => write!(out, "  {address} {port}:")?,
        }
        let sides = [("egress", egress), ("ingress", ingress)]
            .into_iter()
            .filter(|(_, side)| side.verdict == Verdict::Deny)
            .map(|(name, side)| format!(" {name} {}", Decision(side)));
        writeln!(out, "{}", sides.collect::<Vec<_>>().join(";"))?;
    }
    Ok(())
}

fn between_others(out: &mut impl Write, pairs: usize, others: &[OtherPair]) -> io::Result<()> {
    match (pairs.saturating_sub(1), others) {
        (0, _) => return Ok(()),
        (1, []) => writeln!(out, "\nthe same for 1 other pair of addresses")?,
        (same, []) => writeln!(out, "\nthe same for {same} other pairs of addresses")?,
        (_, others) => {
            let count = others.len();
            writeln!(
                out,
                "\nfor the other {count} of {pairs} pairs of addresses:"
            )?;
        }
    }
    for other in others {
        let OtherPair { from, to, outcome } = other;
        writeln!(out, "  {from} to {to}: {}", outcome.verdict)?;
        writeln!(out, "    egress: {}", Decision(&outcome.egress))?;
        writeln!(out, "    ingress: {}", Decision(&outcome.ingress))?;
    }
    Ok(())
}

fn would(out: &mut impl Write, would_be: &WouldBe, shown: (IpAddr, IpAddr)) -> io::Result<()> {
    let WouldBe { view, pair } = would_be;
    let OtherPair { from, to, outcome } = pair;
    let Outcome {
        verdict,
        egress,
        ingress,
        backends: _,
    } = outcome;
    let policies = match view {
        View::Live => "enforced policies",
        View::Audit => "the policies in audit",
        View::Staged => "the staged policies",
    };
    if (*from, *to) == shown {
        writeln!(out, "\nwith {policies} it would be: {verdict}")?;
    } else {
        writeln!(out, "\nwith {policies} {from} to {to} would be: {verdict}")?;
    }
    writeln!(out, "  egress: {}", Decision(egress))?;
    writeln!(out, "  ingress: {}", Decision(ingress))
}

fn turned_round(out: &mut impl Write, change: &Counterfactual, pairs: usize) -> io::Result<()> {
    let Counterfactual {
        verdict,
        searched,
        changes,
    } = change;
    match (verdict, pairs) {
        // The others may need a change of their own.
        (Verdict::Allow, 2..) => writeln!(out, "\nto {verdict} it for these addresses:")?,
        _ => writeln!(out, "\nto {verdict} it:")?,
    }
    for step in changes {
        writeln!(out, "  {}", shown(&step.text))?;
    }
    match searched {
        Searched::All => Ok(()),
        Searched::Part if changes.is_empty() => {
            writeln!(out, "  nothing was found, and not everything was tried")
        }
        Searched::Part => writeln!(
            out,
            "  a smaller change may exist: not everything was tried"
        ),
    }
}

/// `deny, by shop/api ingress[0] at shop.yaml:12`.
struct Decision<'a>(&'a Side);

impl fmt::Display for Decision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(side) = self;
        write!(f, "{}", side.verdict)?;
        if side.action == Action::from(Denied::Reject) {
            f.write_str(" (reject)")?;
        }
        write!(f, ", {}", shown(side.phrase()))
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, address) = (self.name.to_string(), self.address.to_string());
        if name == address {
            f.write_str(&name)
        } else {
            write!(f, "{name} ({address})")
        }
    }
}
