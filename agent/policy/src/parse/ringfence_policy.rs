//! `RingfencePolicy` of `ringfence.io/v1alpha1`: what the kinds of Kubernetes can not say, ranked in
//! the same tiers.

mod peers;
mod ports;
pub(super) mod subject;

use super::{
    Declared, Object as Parsed, PortUse,
    choice::{ACTIONS, TIERS},
    form,
    metadata::{self, Annotations, Form},
    names,
    reader::{Field, Object},
    terms, tier, when,
};
use crate::model::{
    Direction, Peers, PolicyId, PolicyKind, Ports, Source, Subjects, Terms, Tier, TierAction,
    TierPolicy, TierRule, When,
};

struct Spec {
    tier: Tier,
    priority: u16,
    subjects: Subjects,
    rules: [Vec<TierRule>; 2],
    when: When,
    terms: Terms,
}

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(
        &mut object,
        names::SUBDOMAIN,
        Form::ClusterWide(Annotations::OursRefused),
    );
    let spec = object.require("spec").and_then(|field| field.object());
    object.deny_unknown();
    let mut uses = Vec::new();
    let spec = read_spec(spec?, &source, &mut uses);
    let (metadata, spec) = (metadata?, spec?);
    let Spec {
        tier,
        priority,
        subjects,
        rules: [ingress, egress],
        when,
        terms,
    } = spec;
    let policy = TierPolicy {
        id: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, metadata.name),
        tier,
        priority,
        subjects,
        ingress,
        egress,
        when,
        terms: Terms {
            revision: metadata.terms.revision,
            ..terms
        },
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::TierPolicy {
            policy: policy.into(),
            uses,
        },
    })
}

fn read_spec(mut spec: Object<'_>, source: &Source, uses: &mut Vec<PortUse>) -> Option<Spec> {
    let place = spec.field().clone();
    let tier = spec.require("tier").and_then(|field| TIERS.read(&field));
    // Where the tier is not known, it is not known either whether one is needed.
    let priority = match tier {
        Some(Tier::Admin | Tier::Baseline) => spec.require("priority"),
        Some(Tier::Quarantine) | None => spec.get("priority"),
    };
    let priority = form::optional(priority, tier::priority);
    let subject = spec.require("subject");
    let terms = terms::of_spec(&mut spec);
    let when = form::optional(spec.get("when"), when::read);
    let ingress = spec.get("ingress");
    let egress = spec.get("egress");
    spec.deny_unknown();

    let subjects = subject.and_then(|field| subject::read(&field));
    let (ingress, egress) = if tier == Some(Tier::Quarantine) {
        for field in ingress.iter().chain(&egress) {
            deny_rules(field);
        }
        (everything(source), everything(source))
    } else {
        let rules = tier::both([ingress, egress], usize::MAX, |item, direction| {
            rule(item, direction, uses)
        });
        let [ingress, egress] = rules?;
        tier::warn_without_rules(&place, &ingress, &egress);
        (ingress, egress)
    };
    Some(Spec {
        tier: tier?,
        priority: priority.ok()?.unwrap_or_default(),
        subjects: subjects?,
        rules: [ingress, egress],
        when: when.ok()?.unwrap_or_default(),
        terms,
    })
}

fn deny_rules(field: &Field<'_>) {
    field.error_with_hint(
        "quarantine-rules",
        format!("{}: a quarantine has no rules", field.name()),
        "it denies everything but the failsafe; for exceptions, use the tier `Admin`",
    );
}

/// The one rule of a quarantine.
fn everything(source: &Source) -> Vec<TierRule> {
    vec![TierRule {
        name: None,
        action: TierAction::Deny,
        peers: Peers::Every,
        ports: Ports::Every,
        when: When::default(),
        source: source.clone(),
    }]
}

fn rule(field: &Field<'_>, direction: Direction, uses: &mut Vec<PortUse>) -> Option<TierRule> {
    let mut object = field.object()?;
    let name = form::optional(object.get("name"), |field| {
        terms::line(field, tier::MAX_NAME)
    });
    let action = object.require("action");
    let peers = object.get(tier::side(direction));
    let ports = object.get("ports");
    let when = form::optional(object.get("when"), when::read);
    object.deny_unknown_with(|entry| tier::other_side(entry, direction));

    let action = action.and_then(|field| ACTIONS.read(&field));
    let peers = peers.map_or(Some(Peers::Every), |field| {
        peers::read(&field, direction, action)
    });
    let ports = ports.map_or(Some(Ports::Every), |field| ports::read(&field, uses));
    Some(TierRule {
        name: name.ok()?,
        action: action?,
        peers: peers?,
        ports: ports?,
        when: when.ok()?.unwrap_or_default(),
        source: field.source(),
    })
}
