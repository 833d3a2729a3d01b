//! The rule that decided, from `ringfence policy explain`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::script::{Attempt, Expected, Role};
use super::stage::Stage;

/// The answer to one question.
#[derive(Debug)]
pub(super) struct Explanation {
    pub(super) verdict: Expected,
    /// Which policy and rule, for people.
    pub(super) decided_by: String,
}

impl Explanation {
    pub(super) fn ask(
        binary: &Path,
        policies: &Path,
        attempt: Attempt,
        stage: &Stage,
    ) -> Result<Self> {
        let end = |role| named(role).map_or_else(|| stage.address(attempt).to_string(), Into::into);
        let mut command = Command::new(binary);
        command
            .args(["policy", "explain", "-o", "json", "-f"])
            .arg(policies);
        command.args(["--from", &end(attempt.from), "--to", &end(attempt.to)]);
        command.args(["--port", &format!("{}/{}", attempt.protocol, attempt.port)]);
        let output = command.output().context("cannot run the agent's binary")?;
        // 0 is allow and 1 is deny; all else is an error.
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            matches!(output.status.code(), Some(0 | 1)),
            "{}: {said}",
            output.status
        );
        let answer = serde_json::from_slice(&output.stdout).context("the answer is not JSON")?;
        Self::read(&answer)
    }

    fn read(answer: &Value) -> Result<Self> {
        let verdict = verdict(answer).with_context(|| format!("no verdict in {answer}"))?;
        let sides = ["egress", "ingress"].map(|name| (name, answer.get(name)));
        let decided_by = sides
            .into_iter()
            .filter_map(|(name, side)| side.map(|side| (name, side)))
            // A side that denies decides alone. Of two that allow, the one at the destination is
            // told, if a policy stands there.
            .filter(|(_, side)| verdict != Expected::Deny || denies(side))
            .filter_map(|(name, side)| Some(format!("{name}: {}", rule(side)?)))
            .next_back();
        let nobody = || "no policy selects either end".to_owned();
        Ok(Self {
            verdict,
            decided_by: decided_by.unwrap_or_else(nobody),
        })
    }
}

/// How policy knows a role; the Internet is known by address only.
fn named(role: Role) -> Option<&'static str> {
    match role {
        Role::Gateway => Some("shop/gateway"),
        Role::Api => Some("shop/api-service"),
        Role::Database => Some("shop/database"),
        Role::Redis => Some("shop/redis"),
        Role::Collector => Some("monitoring/otel-collector"),
        Role::Attacker => Some("dev/attacker"),
        Role::Node => Some("node/demo-node"),
        Role::Internet => None,
    }
}

fn verdict(value: &Value) -> Option<Expected> {
    match value.get("verdict")?.as_str()? {
        "allow" => Some(Expected::Allow),
        "deny" => Some(Expected::Deny),
        _ => None,
    }
}

fn denies(side: &Value) -> bool {
    verdict(side) == Some(Expected::Deny)
}

/// Policy and rule of one direction; nothing if it allows because no policy selects that end.
fn rule(side: &Value) -> Option<String> {
    if side.get("reason").and_then(Value::as_str) == Some("own-node") {
        return Some("its own node".to_owned());
    }
    let field = |name| side.get(name).and_then(text);
    match (field("policy"), field("rule")) {
        (Some(policy), Some(rule)) => Some(format!("{policy} rule {rule}")),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => denies(side).then(|| "default deny".to_owned()),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(answer: &Value) -> String {
        Explanation::read(answer).expect("an answer").decided_by
    }

    #[test]
    fn the_side_that_denies_is_told() {
        let answer = json!({
            "verdict": "deny",
            "egress": {"verdict": "deny", "policy": null, "rule": null},
            "ingress": {"verdict": "allow", "policy": "shop/database", "rule": "0"},
        });
        assert_eq!(told(&answer), "egress: default deny");
    }

    #[test]
    fn of_two_that_allow_the_destination_is_told() {
        let answer = json!({
            "verdict": "allow",
            "egress": {"verdict": "allow", "policy": "shop/api-service", "rule": 1},
            "ingress": {"verdict": "allow", "policy": "shop/database", "rule": 0},
        });
        assert_eq!(told(&answer), "ingress: shop/database rule 0");
    }

    #[test]
    fn nobody_selected_is_said() {
        let answer = json!({
            "verdict": "allow",
            "egress": {"verdict": "allow", "policy": null, "rule": null},
            "ingress": {"verdict": "allow"},
        });
        assert_eq!(told(&answer), "no policy selects either end");
    }
}
