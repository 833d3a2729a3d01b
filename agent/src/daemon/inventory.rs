//! Who is who and what is what in records, of the policy that is in force.

mod addresses;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use agent_common::table::Word;
use agent_policy::{
    compiled::{Compiled, Rank, RuleOrigin, Subject},
    model::{ObjectName, SubjectName, Workload, WorkloadKind, World},
};

pub(crate) use self::addresses::{View, addresses};
use crate::flow::{
    addresses::Addresses,
    clock::BootTime,
    enrich::Inventory,
    record::{Fragment, RuleRef, WorkloadRef},
    views::Views,
};

/// `words` are what endpoints are judged by.
pub(crate) fn inventory(
    world: &World,
    compiled: &Compiled,
    endpoints: &BTreeMap<u16, SubjectName>,
    words: &BTreeMap<u16, Word>,
    addresses: Addresses,
    since: BootTime,
) -> Inventory {
    let of_subject = |name: &SubjectName| match name {
        SubjectName::Workload(name) => {
            let workload = world.workloads.get(name)?;
            Some(Arc::new(of_workload(workload)))
        }
        SubjectName::Node(name) => Some(Arc::new(of_node(world, name))),
    };
    Inventory {
        since,
        addresses,
        endpoints: endpoints
            .iter()
            .filter_map(|(id, name)| {
                let workload = of_subject(name)?;
                let name = workload.to_string().into();
                Some((*id, (workload, name)))
            })
            .collect(),
        rules: compiled
            .rules
            .iter()
            .map(|(&number, origin)| (number, Arc::new(of_rule(number, origin))))
            .collect(),
        revisions: compiled
            .rules
            .iter()
            .filter_map(|(&number, origin)| Some((number, origin.terms.revision?)))
            .collect(),
        generations: words
            .iter()
            .map(|(id, word)| (*id, word.generation()))
            .collect(),
        views: endpoints
            .iter()
            .filter_map(|(id, name)| Some((*id, views(compiled.subjects.get(name)?)?)))
            .collect(),
    }
}

/// The sets of a subject that decide nothing; `None` if it has no such.
fn views(subject: &Subject) -> Option<Views> {
    let Subject {
        set,
        audit,
        staged,
        flags,
        addresses: _,
        policies: _,
    } = subject;
    let other = |view: &Option<u32>| view.filter(|view| view != set);
    let views = Views {
        flags: *flags,
        audit: other(audit),
        staged: other(staged),
    };
    (views.audit.is_some() || views.staged.is_some()).then_some(views)
}

fn of_workload(workload: &Workload) -> WorkloadRef {
    let ObjectName { namespace, name } = &workload.name;
    WorkloadRef {
        namespace: namespace.clone(),
        name: name.clone(),
        kind: Cow::Borrowed(match workload.kind {
            WorkloadKind::Pod => "Pod",
            WorkloadKind::Workload => "Workload",
        }),
        owner: workload.owner.clone(),
        labels: Arc::clone(&workload.labels),
        json: Fragment::default(),
    }
}

fn of_node(world: &World, name: &str) -> WorkloadRef {
    WorkloadRef {
        namespace: String::new(),
        name: name.to_owned(),
        kind: Cow::Borrowed("Node"),
        owner: None,
        labels: world
            .nodes
            .get(name)
            .map_or_else(Arc::default, |node| Arc::clone(&node.labels)),
        json: Fragment::default(),
    }
}

fn of_rule(number: u32, origin: &RuleOrigin) -> RuleRef {
    let RuleOrigin {
        id,
        rank,
        name,
        terms,
        // A flow record outlives the file.
        source: _,
    } = origin;
    let policy = &id.policy;
    RuleRef {
        kind: policy.kind.name().into(),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        rule: format!("{}[{}]", id.direction, id.index),
        rule_id: number,
        tier: match rank {
            Rank::Quarantine => Some("Quarantine".into()),
            Rank::Admin => Some("Admin".into()),
            Rank::Baseline => Some("Baseline".into()),
            // Ranks of their own, in no tier.
            Rank::Failsafe | Rank::NetworkPolicy => None,
        },
        rule_name: name.clone(),
        reason: terms.reason.clone(),
        approved_by: terms.approved_by.clone(),
        owner: terms.owner.clone(),
        json: Fragment::default(),
    }
}

#[cfg(test)]
mod tests {
    use agent_policy::{
        model::{Direction, PolicyId, PolicyKind, Source, Terms},
        question::RuleId,
    };

    use super::*;

    fn rule(rank: Rank) -> RuleRef {
        let origin = RuleOrigin {
            id: RuleId {
                policy: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, "db-admins"),
                direction: Direction::Ingress,
                index: 2,
            },
            rank,
            name: Some("admins".to_owned()),
            terms: Terms {
                reason: Some("ticket 4711".to_owned()),
                approved_by: Some("jane@example.org".to_owned()),
                owner: Some("team-db".to_owned()),
                ..Terms::default()
            },
            source: Source {
                file: "a.yaml".into(),
                line: 3,
            },
        };
        of_rule(7, &origin)
    }

    #[test]
    fn a_rule_carries_what_its_author_said_with_it() {
        let text = serde_json::to_string(&rule(Rank::Admin)).unwrap();
        let expected = concat!(
            r#"{"kind":"RingfencePolicy","name":"db-admins","rule":"ingress[2]","rule_id":7,"#,
            r#""tier":"Admin","rule_name":"admins","reason":"ticket 4711","#,
            r#""approved_by":"jane@example.org","owner":"team-db"}"#,
        );
        assert_eq!(text, expected);
        assert_eq!(rule(Rank::Failsafe).tier, None);
    }
}
