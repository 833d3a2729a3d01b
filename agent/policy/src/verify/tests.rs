use proptest::prelude::*;

use super::*;
use crate::{
    compiled::Everywhere,
    connection::{Connection, Reason, Verdict},
    example, strategies,
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
    let file = crate::load::InputFile {
        name: "t.yaml".into(),
        bytes: text.as_bytes().to_vec(),
    };
    let world = crate::load::load([file]).world;
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
    let block = |text: &str| EndsPart::Block {
        cidr: text.parse().unwrap(),
        except: Vec::new(),
    };
    let everybody = EndsPart::Workloads {
        namespaces: Selector::default(),
        workloads: Selector::default(),
    };
    let part = prop_oneof![
        3 => Just(everybody),
        1 => Just(EndsPart::Nodes(Selector::default())),
        1 => Just(EndsPart::Internet),
        1 => Just(block("10.1.0.0/29")),
        1 => Just(block("fd01::/126")),
        1 => Just(block("203.0.113.8/29")),
    ];
    prop_oneof![
        1 => Just(Ends::Every),
        6 => part.prop_map(|part| Ends::Listed(vec![part])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_holds_is_contradicted_by_nobody_and_what_does_not_by_its_example(
        (world, now, questions) in strategies::world_and_questions(),
        from in ends(),
        to in ends(),
    ) {
        let perspective = Perspective::live(now);
        let tables = Everywhere::new(&world, now);
        let ports = PortSet::every();
        let claims = [Reach::Never, Reach::Always]
            .map(|reach| assertion(reach, from.clone(), to.clone(), ports.clone()));
        let proofs = verify(&world, perspective, &claims);
        for proof in &proofs {
            let Some(shown) = &proof.counterexample else { continue };
            let connect = |from, to| Connection::new(&world, from, to, shown.port, perspective);
            // By address: an end with several would be asked about its first one.
            let Ok(connection) = connect(&shown.from, &shown.to) else { continue };
            if (connection.from, connection.to) != (shown.from_address, shown.to_address)
                || !connection.backends.is_empty()
            {
                continue;
            }
            let outcome = connection.judge(&world, &tables);
            if [&outcome.egress, &outcome.ingress].iter().any(|side| side.reason == Reason::UnknownSubject) {
                continue;
            }
            let verdict = outcome.verdict;
            prop_assert_eq!(verdict == Verdict::Allow, proof.reach == Reach::Never, "{:?}", shown);
        }
        for question in &questions {
            let Some((source, destination)) = crate::diff::tests::ends(&world, question) else {
                continue;
            };
            let port = Port { protocol: question.protocol, number: question.port };
            let Ok(connection) = Connection::new(&world, &source, &destination, port, perspective)
            else {
                continue;
            };
            let meant = |ends: &Ends, end: &End, address| {
                let who = match end {
                    End::Workload(name) => Who::Workload(name.clone()),
                    End::Node(name) => Who::Node(name.clone()),
                    End::Service(name) => Who::Service(name.clone(), address),
                    End::Address(_) | End::At(..) => Who::Outside(crate::classes::Region::default()),
                };
                ends.include(&world, &who, address)
            };
            if source == destination
                || !connection.backends.is_empty()
                || !meant(&from, &source, connection.from)
                || !meant(&to, &destination, connection.to)
            {
                continue;
            }
            let outcome = connection.judge(&world, &tables);
            if [&outcome.egress, &outcome.ingress].iter().any(|side| side.reason == Reason::UnknownSubject) {
                continue;
            }
            let passes = outcome.verdict == Verdict::Allow;
            for proof in proofs.iter().filter(|proof| proof.holds) {
                prop_assert_eq!(passes, proof.reach == Reach::Always, "{} {} {}", source, destination, port);
            }
        }
    }
}
