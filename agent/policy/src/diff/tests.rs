mod loopback;
mod services;

use std::sync::Arc;

use proptest::{option, prelude::*, sample, test_runner::TestCaseError};

use super::*;
use crate::{
    connection::{End, LOOPBACK},
    example,
    exhaustive::{self, Exhaustive, Somebody},
    model::{
        Change as Step, NamespaceScope, Peer, Peers, PortMatch, PortSpec, Ports, Rule, Selector,
    },
    question::View,
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
        Peers::listed(vec![Peer::Workloads {
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
        Peers::listed(vec![Peer::Block {
            cidr: text.parse().unwrap(),
            except: vec!["203.0.113.0/24".parse().unwrap()],
        }])
    };
    let nobody = Peers::listed(Vec::new());
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
    let closed = with_rule(80, Peers::listed(Vec::new()));
    let json = serde_json::to_value(Diff::new(
        &closed,
        &with_rule(
            80,
            Peers::listed(vec![Peer::Workloads {
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

/// Whether a group has this end with this address.
fn has(group: &Group, (end, address): Somebody<'_>) -> bool {
    // Whether loopback is meant, the row says.
    let is_meant =
        |only: &Vec<IpAddr>| only.is_empty() || address.is_loopback() || only.contains(&address);
    match (group, end) {
        (
            Group::Workloads {
                names, addresses, ..
            },
            End::Workload(name),
        ) => names.contains(&name.to_string()) && is_meant(addresses),
        (Group::Nodes { names, addresses }, End::Node(name)) => {
            names.contains(name) && is_meant(addresses)
        }
        (Group::Service { name, addresses }, End::Service(service)) => {
            *name == service.to_string() && is_meant(addresses)
        }
        (Group::Addresses { blocks }, End::Address(_)) => blocks.iter().any(|block| {
            block.cidr.contains(&address)
                && !block.except.iter().any(|hole| hole.contains(&address))
        }),
        _ => false,
    }
}

/// How the world before becomes the world after.
#[derive(Clone, Debug)]
struct Mutation {
    /// One bit for each object: whether it is still there.
    kept: u16,
    /// What takes the place of some objects of the same name, or comes new.
    from_other: u8,
    more: [Vec<(bool, sample::Index, u8)>; 2],
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let more = || exhaustive::more_addresses();
    let kept = prop_oneof![Just(u16::MAX), any::<u16>()];
    (kept, any::<u8>(), [more(), more()]).prop_map(|(kept, from_other, more)| Mutation {
        kept,
        from_other,
        more,
    })
}

impl Mutation {
    /// Other policies, Services and labels; some go, and some are at other addresses.
    fn apply(&self, old: &mut World, other: &World) -> World {
        let [before, after] = &self.more;
        exhaustive::with_more_addresses(old, before);
        let mut new = old.clone();
        let is_kept = |place: usize| self.kept & (1 << (place % 16)) != 0;
        let gone = |place: usize| !is_kept(place);
        for (place, name) in old.network_policies.keys().enumerate() {
            if gone(place) {
                new.network_policies.remove(name);
            }
        }
        for (place, name) in old.services.keys().enumerate() {
            if gone(place + 5) {
                new.services.remove(name);
            }
        }
        for (place, (name, workload)) in old.workloads.iter().enumerate() {
            if place == 0 && gone(8) {
                new.apply(&Step::Workload(name.clone(), None));
            } else if gone(place + 9) {
                let mut workload = workload.as_ref().clone();
                workload.ready = !workload.ready;
                Arc::make_mut(&mut workload.labels).insert("app".to_owned(), "a".to_owned());
                new.apply(&Step::Workload(name.clone(), Some(workload.into())));
            }
        }
        let takes = |bit: u8| self.from_other & (1 << bit) != 0;
        if takes(0) {
            let policies = other.network_policies.values().take(2);
            for policy in policies.filter(|one| new.namespaces.contains_key(&one.name.namespace)) {
                new.network_policies
                    .insert(policy.name.clone(), Arc::clone(policy));
            }
        }
        if takes(1) {
            for (id, policy) in other.tier_policies.iter().take(2) {
                new.tier_policies.insert(id.clone(), Arc::clone(policy));
            }
        }
        if takes(2) {
            let services = other.services.values().take(2);
            for service in services.filter(|one| new.namespaces.contains_key(&one.name.namespace)) {
                new.services
                    .insert(service.name.clone(), Arc::clone(service));
            }
        }
        if takes(3) {
            exhaustive::with_more_addresses(&mut new, after);
        }
        new
    }
}

/// Somebody's addresses before and after, each with what it was or will be: what stays, then the
/// first new one for the first old one.
fn moves(old: &BTreeSet<IpAddr>, new: &BTreeSet<IpAddr>) -> Vec<[Option<IpAddr>; 2]> {
    let stays = old.intersection(new).map(|address| [Some(*address); 2]);
    let mut all: Vec<_> = stays.collect();
    for address in LOOPBACK {
        if old.contains(&address) != new.contains(&address) {
            all.push([old, new].map(|all| all.get(&address).copied()));
        }
    }
    for is_v4 in [true, false] {
        let of_family = |one: &&IpAddr| one.is_ipv4() == is_v4 && !one.is_loopback();
        let mut gone = old.difference(new).filter(of_family).copied();
        let mut late = new.difference(old).filter(of_family).copied();
        loop {
            let one = [gone.next(), late.next()];
            if one == [None; 2] {
                break;
            }
            all.push(one);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_row_is_there_exactly_where_the_verdicts_differ(
        (mut old, now, _) in strategies::world_and_questions(),
        other in strategies::world(),
        mutation in mutation(),
        crowd in exhaustive::crowd(),
        later in option::weighted(0.3, exhaustive::crowd()),
        view in sample::select(View::ALL.to_vec()),
    ) {
        crowd.settle(&mut old);
        let mut new = mutation.apply(&mut old, &other);
        if let Some(crowd) = later {
            crowd.settle(&mut new);
        }
        let perspective = Perspective { view, at: now };
        check([&old, &new], perspective)?;
    }
}

fn check(worlds: [&World; 2], perspective: Perspective) -> Result<(), TestCaseError> {
    let [old, new] = worlds;
    let diff = Diff::new(old, new, perspective);
    let truths = worlds.map(|world| Exhaustive::new(world, perspective));
    let [before, after] = worlds.map(exhaustive::inventory);
    let ends: BTreeSet<&End> = before.keys().chain(after.keys()).collect();
    let mut everybody: Vec<(End, [Option<IpAddr>; 2])> = Vec::new();
    for end in ends {
        let [old, new] = [&before, &after].map(|all| all.get(end).cloned().unwrap_or_default());
        let moves = moves(&old, &new).into_iter();
        everybody.extend(moves.map(|addresses| (end.clone(), addresses)));
    }
    let outside = exhaustive::outside(&worlds, []).into_iter();
    everybody.extend(outside.map(|address| (End::Address(address), [Some(address); 2])));
    let of_family = [true, false].map(|is_v4| exhaustive::ports(&worlds, is_v4));
    for (from, sources) in &everybody {
        for (to, destinations) in &everybody {
            let newest = |addresses: &[Option<IpAddr>; 2]| addresses[1].or(addresses[0]).unwrap();
            let (source, destination) = ((from, newest(sources)), (to, newest(destinations)));
            let could_meet = |truth: &Exhaustive<'_>| truth.can_meet(source, destination);
            if !truths.iter().any(could_meet) {
                continue;
            }
            let family = if source.1.is_ipv4() {
                Family::IPv4
            } else {
                Family::IPv6
            };
            let is_about = |row: &&Row| {
                has(&row.from, source)
                    && has(&row.to, destination)
                    && row.family.is_none_or(|only| only == family)
                    && match row.loopback {
                        None => !source.1.is_loopback(),
                        Some(Loopback::Only) => source.1.is_loopback(),
                        Some(Loopback::Too) => true,
                    }
            };
            let rows: Vec<&Row> = diff.rows.iter().filter(is_about).collect();
            let [v4, v6] = &of_family;
            for port in if family == Family::IPv4 { v4 } else { v6 } {
                let [was, is] = [0, 1].map(|state: usize| {
                    let (Some(source), Some(destination)) = (sources[state], destinations[state])
                    else {
                        return false;
                    };
                    let (source, destination) = ((from, source), (to, destination));
                    let truth = &truths[state];
                    truth.there_is_a_way(source, destination)
                        && truth.passes(source, destination, *port)
                });
                let expected = match (was, is) {
                    (false, true) => Some(Change::Permitted),
                    (true, false) => Some(Change::Denied),
                    _ => None,
                };
                let on_port = |row: &&&Row| *row.ports.as_map().at(*port);
                let shown: BTreeSet<Change> =
                    rows.iter().filter(on_port).map(|row| row.change).collect();
                prop_assert_eq!(
                    shown,
                    expected.into_iter().collect::<BTreeSet<_>>(),
                    "{:?} to {:?} {}",
                    source,
                    destination,
                    port
                );
            }
        }
    }
    Ok(())
}
