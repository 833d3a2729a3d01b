mod loopback;
mod services;

use proptest::{collection, prelude::*, sample, test_runner::TestCaseError};

use super::*;
use crate::{
    classes::PortRange,
    compiled::Everywhere,
    connection::{Connection, Reason},
    example,
    exhaustive::{self, Exhaustive, Somebody},
    model::Requirement,
    question::View,
    strategies,
};

fn assertion(reach: Reach, from: Ends, to: Ends, ports: PortSet) -> Assertion {
    Assertion {
        name: "it".to_owned(),
        reach,
        from,
        to,
        ports,
        source: example::source(3),
    }
}

fn workloads(app: &str) -> Ends {
    Ends::Listed(vec![EndsPart::Workloads {
        namespaces: Selector::default(),
        workloads: example::is(app),
    }])
}

fn internet() -> Ends {
    Ends::Listed(vec![EndsPart::Internet])
}

fn proof(assertion: Assertion) -> Proof {
    let world = example::world();
    verify(&world, Perspective::default(), &[assertion])
        .pop()
        .unwrap()
}

fn text(proof: &Proof) -> String {
    let mut text = Vec::new();
    proof.render(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn what_is_closed_is_proved_to_be() {
    let never = |to: &str| assertion(Reach::Never, internet(), workloads(to), PortSet::every());
    assert!(proof(never("api")).holds);
    let open = proof(never("web"));
    assert_eq!(
        text(&open),
        "FALSE: it at shop.yaml:3\n  \
           1.0.0.0 (1.0.0.0) to shop/web (10.1.0.2) TCP/1 passes\n  \
           egress: allow, not subject to policy\n  \
           ingress: allow, no policy selects it in this direction\n"
    );
}

#[test]
fn a_workload_with_many_addresses_does_not_hide_another() {
    let text = "
apiVersion: v1
kind: List
items:
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: shop, name: a}, \
   spec: {addresses: [10.1.0.1, 10.1.0.2, 10.9.9.9]}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: shop, name: b}, \
   spec: {addresses: [10.1.0.5]}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: p}, \
   spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.9.0.0/16}}]}]}}
";
    let world = example::loaded(text);
    let anybody = || {
        Ends::Listed(vec![EndsPart::Workloads {
            namespaces: Selector::default(),
            workloads: Selector::default(),
        }])
    };
    let claim = assertion(Reach::Never, anybody(), anybody(), PortSet::every());
    let proofs = verify(&world, Perspective::default(), &[claim]);
    assert!(!proofs[0].holds, "b reaches 10.9.9.9, an address of a");
}

#[test]
fn always_is_about_each_of_them() {
    let port = crate::classes::PortRange::one("TCP/8080".parse().unwrap());
    let ports = || PortSet::of(&[port]);
    let always = |from| proof(assertion(Reach::Always, from, workloads("api"), ports()));
    assert!(always(workloads("web")).holds);
    let denied = always(Ends::Every);
    assert!(!denied.holds);
    assert_eq!(
        denied.counterexample.unwrap().ingress.reason,
        Reason::DefaultDeny
    );
}

#[test]
fn a_claim_about_nobody_holds_and_says_so() {
    let proof = proof(assertion(
        Reach::Never,
        internet(),
        workloads("nothing"),
        PortSet::every(),
    ));
    assert_eq!(text(&proof), "holds: it at shop.yaml:3 (about nobody)\n");
}

#[test]
fn the_internet_is_neither_private_nor_special() {
    for (address, expected) in [
        ("8.8.8.8", true),
        ("203.0.113.1", true),
        ("10.1.2.3", false),
        ("192.168.0.1", false),
        ("224.0.0.1", false),
        ("2001:db8::1", true),
        ("fd00::1", false),
        ("fe80::1", false),
    ] {
        assert_eq!(is_internet(address.parse().unwrap()), expected, "{address}");
    }
}

/// Whom a claim may be about, so that they often meet the generated world.
fn ends() -> impl Strategy<Value = Ends> {
    let block = |text: &str, except: &[&str]| EndsPart::Block {
        cidr: text.parse().unwrap(),
        except: except.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let label = (
        sample::select(vec!["app", "team", "env"]),
        sample::select(vec!["a", "b", ""]),
    );
    let selector = label.prop_map(|(key, value)| Selector {
        requirements: vec![Requirement::In {
            key: key.to_owned(),
            values: [value.to_owned()].into(),
        }],
    });
    let selector = prop_oneof![Just(Selector::default()), selector];
    let workloads = |workloads| EndsPart::Workloads {
        namespaces: Selector::default(),
        workloads,
    };
    let part = prop_oneof![
        4 => selector.clone().prop_map(workloads),
        2 => selector.prop_map(EndsPart::Nodes),
        1 => Just(EndsPart::Internet),
        1 => Just(block("10.1.0.0/29", &["10.1.0.2/31"])),
        1 => Just(block("10.1.0.32/28", &[])),
        1 => Just(block("10.0.0.0/14", &["10.1.0.0/28"])),
        1 => Just(block("fd00::/14", &["fd01::/126"])),
        1 => Just(block("203.0.113.8/29", &[])),
    ];
    prop_oneof![
        1 => Just(Ends::Every),
        6 => collection::vec(part, 1..=2).prop_map(Ends::Listed),
    ]
}

fn some_ports() -> impl Strategy<Value = PortSet> {
    let range = (sample::select(vec![6, 17, 132]), 0..4usize).prop_map(|(protocol, one)| {
        let (first, last) = [(80, 80), (1, 1023), (79, 8080), (1024, u16::MAX)][one];
        let protocol = Some(protocol);
        PortRange {
            protocol,
            first,
            last,
        }
    });
    let ping = |protocol| PortRange {
        protocol: Some(protocol),
        first: 0,
        last: u16::MAX,
    };
    let range = prop_oneof![6 => range, 1 => Just(ping(1)), 1 => Just(ping(58))];
    prop_oneof![
        2 => Just(PortSet::every()),
        3 => collection::vec(range, 1..=2).prop_map(|ranges| PortSet::of(&ranges)),
    ]
}

/// Whether a claim is about somebody, read once more.
fn is_meant(world: &World, ends: &Ends, (end, address): Somebody<'_>) -> bool {
    let Ends::Listed(parts) = ends else {
        return true;
    };
    parts.iter().any(|part| match (part, end) {
        (EndsPart::Workloads { workloads, .. }, End::Workload(name)) => {
            selects(workloads, &world.workloads[name].labels)
        }
        (EndsPart::Nodes(nodes), End::Node(name)) => selects(nodes, &world.nodes[name].labels),
        (EndsPart::Block { cidr, except }, _) => {
            cidr.contains(&address) && !except.iter().any(|hole| hole.contains(&address))
        }
        (EndsPart::Internet, End::Address(_)) => is_internet(address),
        _ => false,
    })
}

fn blocks(ends: &Ends) -> impl Iterator<Item = &IpNet> {
    let parts = match ends {
        Ends::Every => &[],
        Ends::Listed(parts) => parts.as_slice(),
    };
    let mut all = Vec::new();
    for part in parts {
        if let EndsPart::Block { cidr, except } = part {
            all.push(cidr);
            all.extend(except);
        }
    }
    all.into_iter()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_claim_holds_exactly_if_no_address_and_no_port_contradicts_it(
        (mut world, now, _) in strategies::world_and_questions(),
        more in exhaustive::more_addresses(),
        crowd in exhaustive::crowd(),
        view in sample::select(View::ALL.to_vec()),
        (from, to) in (ends(), ends()),
        ports in some_ports(),
    ) {
        crowd.settle(&mut world);
        exhaustive::with_more_addresses(&mut world, &more);
        let perspective = Perspective { view, at: now };
        let claims = [Reach::Never, Reach::Always]
            .map(|reach| assertion(reach, from.clone(), to.clone(), ports.clone()));
        let proofs = verify(&world, perspective, &claims);
        let special: Vec<IpNet> = special().collect();
        let blocks = blocks(&from).chain(blocks(&to)).chain(&special);
        check(&world, perspective, &claims, &proofs, blocks)?;
    }
}

/// A counterexample is what `explain` says of these addresses, in the same words.
fn check_shown(
    world: &World,
    perspective: Perspective,
    tables: &Everywhere<'_>,
    shown: &Counterexample,
) -> Result<(), TestCaseError> {
    let from = shown.from.at(shown.from_address);
    let to = shown.to.at(shown.to_address);
    let asked = Connection::new(world, &from, &to, shown.port, perspective).unwrap();
    let outcome = asked.judge(world, tables);
    prop_assert_eq!(&outcome.egress, &shown.egress, "{:?}", shown);
    prop_assert_eq!(&outcome.ingress, &shown.ingress, "{:?}", shown);
    Ok(())
}

fn check<'b>(
    world: &World,
    perspective: Perspective,
    claims: &[Assertion],
    proofs: &[Proof],
    blocks: impl Iterator<Item = &'b IpNet>,
) -> Result<(), TestCaseError> {
    let truth = Exhaustive::new(world, perspective);
    let tables = Everywhere::new(world, perspective.at);
    let inventory = exhaustive::inventory(world);
    let known = inventory.iter().flat_map(|(end, addresses)| {
        let each = addresses.iter();
        each.map(|address| (end.clone(), *address))
    });
    let outside = exhaustive::outside(&[world], blocks).into_iter();
    let outside = outside.map(|address| (End::Address(address), address));
    let everybody: Vec<(End, IpAddr)> = known.chain(outside).collect();
    let of_family = [true, false].map(|is_v4| exhaustive::ports(&[world], is_v4));
    for (claim, proof) in claims.iter().zip(proofs) {
        let Assertion {
            reach,
            from,
            to,
            ports,
            ..
        } = claim;
        let contradicts = |source: Somebody<'_>, destination: Somebody<'_>, port: Port| {
            *ports.as_map().at(port)
                && truth.passes(source, destination, port) == (*reach == Reach::Never)
        };
        let is_about = |source: Somebody<'_>, destination: Somebody<'_>| {
            truth.can_meet(source, destination)
                && is_meant(world, from, source)
                && is_meant(world, to, destination)
        };
        if let Some(shown) = &proof.counterexample {
            let source = (&shown.from, shown.from_address);
            let destination = (&shown.to, shown.to_address);
            for (end, address) in [source, destination] {
                let has = inventory.get(end).map(|all| all.contains(&address));
                prop_assert!(has.unwrap_or(*end == End::Address(address)), "{:?}", shown);
            }
            prop_assert!(is_about(source, destination), "{:?}", shown);
            prop_assert!(contradicts(source, destination, shown.port), "{:?}", shown);
            check_shown(world, perspective, &tables, shown)?;
            let foreign = if shown.from_address.is_ipv4() { 58 } else { 1 };
            prop_assert_ne!(shown.port.protocol, foreign, "{:?}", shown);
            continue;
        }
        for source in &everybody {
            for destination in &everybody {
                let (source, destination) =
                    ((&source.0, source.1), (&destination.0, destination.1));
                if !is_about(source, destination) {
                    continue;
                }
                let [v4, v6] = &of_family;
                for port in if source.1.is_ipv4() { v4 } else { v6 } {
                    prop_assert!(
                        !contradicts(source, destination, *port),
                        "{:?}: {:?} to {:?} {}",
                        reach,
                        source,
                        destination,
                        port
                    );
                }
            }
        }
    }
    Ok(())
}
