use std::sync::Arc;

use proptest::{prelude::*, test_runner::TestCaseError};

use super::*;
use crate::{
    compiled::Everywhere,
    connection::{Connection, End, Port, Reason, Verdict},
    example,
    model::{
        Change as Step, NamespaceScope, NetworkPolicy, Peer, Peers, PortMatch, PortSpec, Ports,
        Rule, Selector, Time,
    },
    question::{Question, View},
    strategies,
};

fn text(old: &World, new: &World) -> String {
    let mut text = Vec::new();
    let diff = Diff::new(old, new, Perspective::default());
    diff.render(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn with_rule(port: u16, peers: Peers) -> World {
    let mut world = example::world();
    let name = ObjectName::new("shop", "api");
    let mut policy = world.network_policies[&name].as_ref().clone();
    policy.ingress = Some(vec![Rule {
        peers,
        ports: Ports::Listed(vec![PortMatch::Transport {
            protocol: crate::model::Protocol::Tcp,
            port: PortSpec::Range {
                first: port,
                last: port,
            },
        }]),
        source: example::source(20),
    }]);
    world.apply(&Step::NetworkPolicy(name, Some(policy.into())));
    world
}

#[test]
fn the_same_is_no_difference() {
    let world = example::world();
    assert!(Diff::new(&world, &world, Perspective::default()).is_empty());
    assert_eq!(
        text(&world, &world),
        "no difference: everybody may reach whom they could before\n"
    );
}

#[test]
fn a_changed_port_is_one_row_for_each_sign() {
    let from_web = || {
        Peers::Listed(vec![Peer::Workloads {
            namespaces: NamespaceScope::Named("shop".to_owned()),
            workloads: example::is("web"),
        }])
    };
    assert_eq!(
        text(&with_rule(80, from_web()), &with_rule(443, from_web())),
        "+ shop/app=web (1) -> shop/app=api (1): TCP/443\n    \
             ingress: was deny, selected by policy, and no rule permits it\n              \
             now allow, by shop/api ingress[0] at shop.yaml:20\n\
         - shop/app=web (1) -> shop/app=api (1): TCP/80\n    \
             ingress: was allow, by shop/api ingress[0] at shop.yaml:20\n              \
             now deny, selected by policy, and no rule permits it\n\
         \n1 permitted now, 1 no longer\n"
    );
}

#[test]
fn the_world_outside_is_told_by_its_blocks() {
    let block = |text: &str| {
        Peers::Listed(vec![Peer::Block {
            cidr: text.parse().unwrap(),
            except: vec!["203.0.113.0/24".parse().unwrap()],
        }])
    };
    let nobody = Peers::Listed(Vec::new());
    let text = text(
        &with_rule(80, nobody),
        &with_rule(80, block("203.0.0.0/16")),
    );
    assert!(
        text.starts_with("+ 203.0.0.0/16 except 203.0.113.0/24 -> shop/app=api (1): TCP/80\n"),
        "{text}"
    );
}

#[test]
fn whoever_is_new_reaches_somebody_for_the_first_time() {
    let old = example::world();
    let mut new = old.clone();
    let late = example::workload("shop", "late", &["10.1.0.9"]);
    new.apply(&Step::Workload(late.name.clone(), Some(late.into())));
    let text = text(&old, &new);
    assert!(
        text.contains(
            "+ shop/app=late (1) -> shop/app=web (1): every port\n    one of them is new\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("+ 0.0.0.0/0 -> shop/app=late (1): every port\n"),
        "{text}"
    );
}

#[test]
fn json_has_all_that_is_shown() {
    let closed = with_rule(80, Peers::Listed(Vec::new()));
    let json = serde_json::to_value(Diff::new(
        &closed,
        &with_rule(
            80,
            Peers::Listed(vec![Peer::Workloads {
                namespaces: NamespaceScope::Matching(Selector::default()),
                workloads: example::is("web"),
            }]),
        ),
        Perspective::default(),
    ))
    .unwrap();
    let row = &json["rows"][0];
    assert_eq!(row["change"], "+");
    assert_eq!(row["from"]["labels"]["app"], "web");
    assert_eq!(row["from"]["names"][0], "shop/web");
    assert_eq!(row["to"]["kind"], "workloads");
    assert_eq!(row["ports"], serde_json::json!(["TCP/80"]));
    assert_eq!(row["turns"][0]["direction"], "ingress");
    assert_eq!(row["turns"][0]["new"]["line"], 20);
}

/// Whether a group has this end.
fn has(group: &Group, end: &End) -> bool {
    match (group, end) {
        (Group::Workloads { names, .. }, End::Workload(name)) => names.contains(&name.to_string()),
        (Group::Nodes { names }, End::Node(name)) => names.contains(name),
        (Group::Addresses { blocks }, End::Address(address)) => blocks.iter().any(|block| {
            block.cidr.contains(address) && !block.except.iter().any(|hole| hole.contains(address))
        }),
        _ => false,
    }
}

/// The ends of a question, unless one is a Service, which is another thing as a source.
pub(crate) fn ends(world: &World, question: &Question) -> Option<(End, End)> {
    let subject = match &question.subject {
        crate::model::SubjectName::Workload(name) => End::Workload(name.clone()),
        crate::model::SubjectName::Node(name) => End::Node(name.clone()),
    };
    let mut services = world.services.values();
    if services.any(|service| service.addresses.contains(&question.peer)) {
        return None;
    }
    let of_node = |node: &&Arc<crate::model::Node>| node.addresses.contains(&question.peer);
    let peer = match world.nodes.values().find(of_node) {
        Some(node) => End::Node(node.name.clone()),
        None => match world.addresses.get(&question.peer) {
            Some(owner) => End::Workload(owner.clone()),
            None => End::Address(question.peer),
        },
    };
    Some(match question.direction {
        Direction::Ingress => (peer, subject),
        Direction::Egress => (subject, peer),
    })
}

/// The other world has the same inventory, and some of its policies replaced.
fn worlds() -> impl Strategy<Value = (World, World, Time, Vec<Question>)> {
    (
        strategies::world_and_questions(),
        strategies::world(),
        any::<u8>(),
    )
        .prop_map(|((old, now, questions), other, kept)| {
            let mut new = old.clone();
            let policies = |world: &World| -> Vec<Arc<NetworkPolicy>> {
                world.network_policies.values().cloned().collect()
            };
            for (place, policy) in policies(&old).into_iter().enumerate() {
                if kept & (1 << (place % 8)) == 0 {
                    new.network_policies.remove(&policy.name);
                }
            }
            for policy in policies(&other).into_iter().take(2) {
                if new.namespaces.contains_key(&policy.name.namespace) {
                    new.network_policies.insert(policy.name.clone(), policy);
                }
            }
            for (id, policy) in other.tier_policies.iter().take(2) {
                new.tier_policies.insert(id.clone(), Arc::clone(policy));
            }
            (old, new, now, questions)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_row_is_there_exactly_where_the_verdicts_differ((old, new, now, questions) in worlds()) {
        for view in View::ALL {
            let perspective = Perspective { view, at: now };
            let diff = Diff::new(&old, &new, perspective);
            let worlds = [&old, &new].map(|world| (world, Everywhere::new(world, now)));
            for question in &questions {
                agrees(&worlds, &diff, question, perspective)?;
            }
        }
    }
}

fn agrees(
    worlds: &[(&World, Everywhere<'_>); 2],
    diff: &Diff,
    question: &Question,
    perspective: Perspective,
) -> Result<(), TestCaseError> {
    let [(old, _), _] = worlds;
    let Some((from, to)) = ends(old, question).filter(|(from, to)| from != to) else {
        return Ok(());
    };
    let port = Port {
        protocol: question.protocol,
        number: question.port,
    };
    let mut verdicts = Vec::new();
    let mut family = Family::IPv4;
    for (world, tables) in worlds {
        let Ok(connection) = Connection::new(world, &from, &to, port, perspective) else {
            return Ok(());
        };
        let outcome = connection.judge(world, tables);
        let sides = [&outcome.egress, &outcome.ingress];
        // What stands behind a frontend has rows of its own.
        if !connection.backends.is_empty()
            || sides
                .iter()
                .any(|side| side.reason == Reason::UnknownSubject)
        {
            return Ok(());
        }
        if connection.from.is_ipv6() {
            family = Family::IPv6;
        }
        verdicts.push(outcome.verdict);
    }
    let shown = |change| {
        diff.rows.iter().any(|row| {
            row.change == change
                && has(&row.from, &from)
                && has(&row.to, &to)
                && row.family.is_none_or(|only| only == family)
                && *row.ports.as_map().at(port)
        })
    };
    let expected = match verdicts.as_slice() {
        [Verdict::Deny, Verdict::Allow] => [true, false],
        [Verdict::Allow, Verdict::Deny] => [false, true],
        _ => [false, false],
    };
    prop_assert_eq!(
        [shown(Change::Permitted), shown(Change::Denied)],
        expected,
        "{} to {} {}: {:?}",
        from,
        to,
        port,
        verdicts
    );
    Ok(())
}
