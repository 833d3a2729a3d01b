use std::net::IpAddr;

use super::*;
use crate::datapath::sandbox::NamespaceId;

fn inner(name: &str, kind: Option<&str>, addresses: &[&str]) -> Inner {
    Inner {
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
        addresses: addresses
            .iter()
            .map(|address| address.parse::<IpAddr>().unwrap())
            .collect(),
    }
}

fn way(name: &str, inner: Inner) -> Way {
    Way {
        index: 7,
        name: name.to_owned(),
        inner,
    }
}

fn other(id: u64, ways: Vec<Way>, past: Vec<Inner>) -> Sandbox {
    Sandbox::Other {
        id: NamespaceId::fake(id),
        ways,
        past,
    }
}

fn process(began: u64) -> Process {
    Process { began, pid: 1 }
}

fn at(judgement: &Judgement) -> Option<EndpointSpec> {
    let placement = judgement.placement(Some("kubepods/poda"));
    placement.map(|placement| placement.endpoint)
}

#[test]
fn the_sandbox_that_was_made_last_counts() {
    let old = other(
        1,
        vec![way("veth-old", inner("eth0", Some("veth"), &["10.0.0.1"]))],
        vec![],
    );
    let new = other(
        2,
        vec![way("veth-new", inner("eth0", Some("veth"), &["10.0.0.2"]))],
        vec![],
    );
    let seen = vec![
        (process(20), new),
        (process(10), old.clone()),
        (process(30), old),
    ];
    let judged = judge(seen, None).unwrap();
    assert_eq!(
        at(&judged),
        Some(EndpointSpec::Interface("veth-new".to_owned()))
    );
}

#[test]
fn what_is_held_stays_while_it_leads_there() {
    let side = |index, name: &str, address| Way {
        index,
        ..way(name, inner("eth0", Some("veth"), &[address]))
    };
    let held = other(
        1,
        vec![
            side(9, "veth-net1", "10.1.0.1"),
            side(7, "veth", "10.0.0.1"),
        ],
        vec![],
    );
    let younger = other(2, vec![side(8, "veth-made", "10.0.0.2")], vec![]);
    let seen = vec![(process(10), held), (process(20), younger)];
    let at = |held| at(&judge(seen.clone(), held).unwrap());
    let interface = |name: &str| Some(EndpointSpec::Interface(name.to_owned()));
    assert_eq!(at(Some(7)), interface("veth"));
    // Gone: the one that was made last.
    assert_eq!(at(Some(6)), interface("veth-made"));
}

#[test]
fn a_namespace_that_a_container_has_made_for_itself_does_not_count() {
    let own = other(
        1,
        vec![way("veth", inner("eth0", Some("veth"), &["10.0.0.1"]))],
        vec![],
    );
    let made = other(2, vec![], vec![]);
    let judged = judge(vec![(process(10), own), (process(20), made)], None).unwrap();
    assert_eq!(
        at(&judged),
        Some(EndpointSpec::Interface("veth".to_owned()))
    );
}

#[test]
fn what_has_a_host_side_is_held_beside_and_what_has_none_is_named() {
    let first = way("veth", inner("eth0", Some("veth"), &["10.0.0.1"]));
    let second = Way {
        index: 8,
        ..way("veth1", inner("net1", Some("veth"), &["10.1.0.1"]))
    };
    let third = inner("net2", Some("macvlan"), &[]);
    let sandbox = other(1, vec![first, second], vec![third]);
    let judged = judge(vec![(process(1), sandbox)], None).unwrap();
    let placement = judged.placement(None).unwrap();
    let beside: Vec<_> = placement.beside.into_iter().collect();
    let expected = Beside {
        interface: "veth1".to_owned(),
        addresses: ["10.1.0.1".parse().unwrap()].into(),
    };
    assert_eq!(beside, [(8, expected)]);
    let Judgement::Interface { notes, .. } = judged else {
        panic!("no interface");
    };
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("net2 (macvlan)"), "{notes:?}");
}

#[test]
fn without_a_host_side_it_is_the_cgroup() {
    let sandbox = other(
        1,
        vec![],
        vec![inner("eth0", Some("ipvlan"), &["10.0.0.9"])],
    );
    let judged = judge(vec![(process(1), sandbox)], None).unwrap();
    let cgroup = EndpointSpec::Cgroup("kubepods/poda".to_owned());
    assert_eq!(at(&judged), Some(cgroup.clone()));
    let Judgement::Past { addresses, notes } = &judged else {
        panic!("{judged:?}");
    };
    assert_eq!((addresses.len(), notes.len()), (1, 1));
    assert_eq!(
        at(&judge(vec![(process(1), Sandbox::Node)], None).unwrap()),
        Some(cgroup)
    );
}

#[test]
fn without_an_interface_it_is_nowhere() {
    let judged = judge(vec![(process(1), other(1, vec![], vec![]))], None).unwrap();
    assert_eq!(at(&judged), None);
    assert_eq!(judge(Vec::new(), None), None);
}
