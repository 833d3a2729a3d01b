//! `ClusterNetworkPolicy` of `policy.networking.k8s.io/v1alpha2`, with every bound that its API
//! sets. An API server refuses what is beyond them; so does this, because a policy that works from a
//! file and not in a cluster is no policy.

mod peers;
mod protocols;

use self::peers::{PeerList, PortNames, Understood};
use super::{
    Declared, Object as Parsed, PortUse,
    choice::{CLUSTER_ACTIONS, CLUSTER_TIERS},
    form,
    metadata::{self, Annotations, Form},
    names,
    reader::{Field, Object},
    selector, tier,
};
use crate::model::{
    Direction, Peers, PolicyId, PolicyKind, Ports, Selector, Subjects, Tier, TierAction,
    TierPolicy, TierRule, When,
};

const MAX_RULES: usize = 25;
const MAX_PEERS: usize = 25;
const MAX_PROTOCOLS: usize = 25;
/// Of `networks` and of `domainNames` of one peer.
const MAX_BLOCKS: usize = 25;

struct Spec {
    tier: Tier,
    priority: u16,
    subjects: Subjects,
    ingress: Vec<TierRule>,
    egress: Vec<TierRule>,
}

#[derive(Clone, Copy)]
enum SubjectForm {
    Namespaces,
    Pods,
}

const SUBJECTS: [(&str, SubjectForm); 2] = [
    ("namespaces", SubjectForm::Namespaces),
    ("pods", SubjectForm::Pods),
];

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(
        &mut object,
        names::SUBDOMAIN,
        Form::ClusterWide(Annotations::Terms),
    );
    let spec = object.require("spec").and_then(|field| field.object());
    object.tolerate(&["status"]);
    object.deny_unknown();
    let mut uses = Vec::new();
    let spec = read_spec(spec?, &mut uses);
    let (metadata, spec) = (metadata?, spec?);
    let Spec {
        tier,
        priority,
        subjects,
        ingress,
        egress,
    } = spec;
    let policy = TierPolicy {
        id: PolicyId::cluster_wide(PolicyKind::ClusterNetworkPolicy, metadata.name),
        tier,
        priority,
        subjects,
        ingress,
        egress,
        when: When::default(),
        terms: metadata.terms,
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

fn read_spec(mut spec: Object<'_>, uses: &mut Vec<PortUse>) -> Option<Spec> {
    let place = spec.field().clone();
    let rank = spec.require("tier");
    let priority = spec.require("priority");
    let subject = spec.require("subject");
    let ingress = spec.get("ingress");
    let egress = spec.get("egress");
    spec.deny_unknown();

    let rank = rank.and_then(|field| CLUSTER_TIERS.read(&field));
    let priority = priority.and_then(|field| tier::priority(&field));
    let subjects = subject.and_then(|field| read_subject(&field));
    let rules = tier::both([ingress, egress], MAX_RULES, |item, direction| {
        rule(item, direction, uses)
    });
    let [ingress, egress] = rules?;
    tier::warn_without_rules(&place, &ingress, &egress);
    Some(Spec {
        tier: rank?,
        priority: priority?,
        subjects: subjects?,
        ingress,
        egress,
    })
}

fn read_subject(field: &Field<'_>) -> Option<Subjects> {
    let mut object = field.object()?;
    let written = form::written(&mut object, &SUBJECTS);
    object.deny_unknown();
    let read = written
        .iter()
        .map(|(form, field)| match form {
            SubjectForm::Namespaces => {
                selector::read(field).map(|namespaces| (namespaces, Selector::default()))
            }
            SubjectForm::Pods => namespaced_pods(field),
        })
        .collect();
    let (namespaces, workloads) = form::only(field, "subject-form", &SUBJECTS, read)?;
    Some(Subjects::Workloads {
        namespaces,
        workloads,
        host_network: false,
    })
}

/// The selectors of namespaces and of pods in them. The API asks only for the latter.
fn namespaced_pods(field: &Field<'_>) -> Option<(Selector, Selector)> {
    let mut object = field.object()?;
    let namespaces = object.get("namespaceSelector");
    let pods = object.require("podSelector");
    object.deny_unknown();
    let namespaces = form::optional(namespaces, selector::read);
    let pods = pods.and_then(|field| selector::read(&field));
    Some((namespaces.ok()?.unwrap_or_default(), pods?))
}

fn rule(field: &Field<'_>, direction: Direction, uses: &mut Vec<PortUse>) -> Option<TierRule> {
    let mut object = field.object()?;
    let name = form::optional(object.get("name"), rule_name);
    let action = object.require("action");
    let peers = object.require(tier::side(direction));
    let protocols = object.get("protocols");
    object.deny_unknown_with(|entry| tier::other_side(entry, direction));

    let action = action.and_then(|field| CLUSTER_ACTIONS.read(&field));
    let peers = peers.and_then(|field| peers::read(&field, direction, action));
    let names = peers
        .as_ref()
        .map_or(PortNames::Possible, |peers| peers.port_names);
    let ports = protocols.map_or(Some(Ports::Every), |field| {
        protocols::read(&field, names, uses)
    });
    let (action, peers, ports) = (action?, peers?, ports?);
    let PeerList {
        listed,
        understood,
        port_names: _,
    } = peers;
    // A peer that is not understood must not open anything, nor leave anything open.
    let (action, peers, ports) = match (understood, action) {
        (Understood::All, action) => (action, Peers::listed(listed), ports),
        (Understood::NotAll, TierAction::Accept) => (action, Peers::listed(Vec::new()), ports),
        (Understood::NotAll, TierAction::Deny | TierAction::Pass) => {
            (TierAction::Deny, Peers::Every, Ports::Every)
        }
    };
    Some(TierRule {
        // An empty name is how the API writes that there is none.
        name: name.ok()?.filter(|name| !name.is_empty()),
        action,
        peers,
        ports,
        when: When::default(),
        source: field.source(),
    })
}

/// The API takes any text.
fn rule_name(field: &Field<'_>) -> Option<String> {
    let name = field.string()?;
    let length = name.chars().count();
    if length > tier::MAX_NAME {
        let message = format!(
            "{}: expected at most {} characters, found {length}",
            field.name(),
            tier::MAX_NAME
        );
        field.error("name-too-long", message);
        return None;
    }
    Some(name.to_owned())
}
