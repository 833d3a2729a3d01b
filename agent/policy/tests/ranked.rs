//! What good ranked policies, tables of names and Services say, once they are read.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use agent_policy::{
    load::{InputFile, Loaded, assemble_with, load, parse_file},
    model::{
        Denied, Direction, Failsafe, IcmpVersion, Mode, NamespaceScope, ObjectName, Peer, Peers,
        PolicyId, PolicyKind, PortMatch, PortSpec, Ports, Protocol, Schedule, Selector, Source,
        Subjects, Terms, Tier, TierAction, TierPolicy, Time, Weekday, When, Window, World,
    },
};

fn load_text(text: &str) -> Loaded {
    load([InputFile {
        name: Arc::from("t.yaml"),
        bytes: text.as_bytes().to_vec(),
    }])
}

fn world(text: &str) -> World {
    let loaded = load_text(text);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.world
}

fn policy(kind: PolicyKind, spec: &str) -> TierPolicy {
    let version = match kind {
        PolicyKind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1alpha2",
        _ => "ringfence.io/v1alpha1",
    };
    let world = world(&format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n"
    ));
    let id = PolicyId::cluster_wide(kind, "p");
    TierPolicy::clone(&world.tier_policies[&id])
}

fn cluster(spec: &str) -> TierPolicy {
    policy(PolicyKind::ClusterNetworkPolicy, spec)
}

fn own(spec: &str) -> TierPolicy {
    policy(PolicyKind::RingfencePolicy, spec)
}

fn everybody() -> Peer {
    Peer::Workloads {
        namespaces: NamespaceScope::Matching(Selector::default()),
        workloads: Selector::default(),
    }
}

fn tcp(first: u16, last: u16) -> PortMatch {
    PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Range { first, last },
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_cluster_network_policy() {
    let policy = cluster(
        "{tier: Baseline, priority: 7, subject: {namespaces: {}}, \
         ingress: [{name: '', action: Pass, from: [{namespaces: {}}]}], \
         egress: [{name: out, action: Accept, to: [\
           {pods: {podSelector: {}}}, {nodes: {}}, {networks: [10.0.0.0/8, 'fd00::/8']}, \
           {domainNames: ['*.Example.org.', a.example.org]}], \
           protocols: [{tcp: {destinationPort: {number: 80}}}, \
             {tcp: {destinationPort: {range: {start: 90, end: 91}}}}]}]}",
    );
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 7));
    assert_eq!(
        policy.subjects,
        Subjects::Workloads {
            namespaces: Selector::default(),
            workloads: Selector::default(),
            host_network: false,
        }
    );
    let [ingress] = &policy.ingress[..] else {
        panic!("one rule")
    };
    assert_eq!((&ingress.name, ingress.action), (&None, TierAction::Pass));
    assert_eq!(ingress.ports, Ports::Every);
    let [egress] = &policy.egress[..] else {
        panic!("one rule")
    };
    assert_eq!(egress.name.as_deref(), Some("out"));
    let block = |cidr: &str| Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: Vec::new(),
    };
    assert_eq!(
        egress.peers,
        Peers::listed(vec![
            everybody(),
            Peer::Nodes(Selector::default()),
            block("10.0.0.0/8"),
            block("fd00::/8"),
            Peer::Domain("*.example.org".to_owned()),
            Peer::Domain("a.example.org".to_owned()),
        ])
    );
    assert_eq!(egress.ports, Ports::Listed(vec![tcp(80, 80), tcp(90, 91)]));
}

#[test]
fn a_peer_that_is_not_understood_closes_its_rule() {
    for (action, peer, expected) in [
        (
            "Accept",
            "{new: {}}",
            (TierAction::Accept, Peers::listed(Vec::new()), false),
        ),
        ("Deny", "{new: {}}", (TierAction::Deny, Peers::Every, true)),
        ("Pass", "{new: {}}", (TierAction::Deny, Peers::Every, true)),
    ] {
        let policy = cluster(&format!(
            "{{tier: Admin, priority: 0, subject: {{namespaces: {{}}}}, \
             ingress: [{{action: {action}, from: [{{namespaces: {{}}}}, {peer}], \
             protocols: [{{destinationNamedPort: http}}]}}]}}"
        ));
        let rule = &policy.ingress[0];
        let seen = (rule.action, rule.peers.clone(), rule.ports == Ports::Every);
        assert_eq!(seen, expected, "{action}");
    }
}

#[test]
fn a_policy_of_our_own() {
    let policy = own(
        "{tier: Admin, priority: 100, subject: {workloads: {}}, mode: staged, denied: reject, \
         reason: r, approvedBy: a, owner: o, \
         when: {notBefore: 2026-12-01T08:00:00Z, expires: 2026-12-02T08:00:00+01:00}, \
         ingress: [{action: Allow, ports: [{tcp: {}}, {udp: {port: 5, endPort: 6}}, \
             {sctp: {name: s}}, {icmp: {}}, {icmpv6: {type: 128}}, {icmp: {type: 3, code: 4}}, \
             {protocol: 47}, {name: n}]}], \
         egress: [{name: r, action: Deny, to: [{workloads: {}}, {ownNode: {}}, {nodes: {}}, \
             {cidr: {block: 10.0.0.0/8, except: [10.1.0.0/16]}}], \
             when: {schedule: {timeZone: UTC, windows: [\
               {days: [Sunday, Monday], from: '22:30', to: '24:00'}]}}}]}",
    );
    assert_eq!(
        policy.subjects,
        Subjects::Workloads {
            namespaces: Selector::default(),
            workloads: Selector::default(),
            host_network: true,
        }
    );
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        policy.terms,
        Terms {
            mode: Mode::Staged,
            denied: Denied::Reject,
            reason: text("r"),
            approved_by: text("a"),
            owner: text("o"),
            revision: None,
        }
    );
    let time = |text: &str| Some(Time::parse(text).unwrap());
    assert_eq!(
        policy.when,
        When {
            not_before: time("2026-12-01T08:00:00Z"),
            expires: time("2026-12-02T07:00:00Z"),
            schedule: None,
        }
    );
    let transport = |protocol, port| PortMatch::Transport { protocol, port };
    let icmp = |version, kind, code| PortMatch::Icmp {
        version,
        kind,
        code,
    };
    assert_eq!(policy.ingress[0].peers, Peers::Every);
    assert_eq!(
        policy.ingress[0].ports,
        Ports::Listed(vec![
            transport(Protocol::Tcp, PortSpec::Every),
            transport(Protocol::Udp, PortSpec::Range { first: 5, last: 6 }),
            transport(Protocol::Sctp, PortSpec::Name("s".to_owned())),
            icmp(IcmpVersion::V4, None, None),
            icmp(IcmpVersion::V6, Some(128), None),
            icmp(IcmpVersion::V4, Some(3), Some(4)),
            PortMatch::Protocol(47),
            PortMatch::Named("n".to_owned()),
        ])
    );
    let egress = &policy.egress[0];
    assert_eq!(
        egress.peers,
        Peers::listed(vec![
            everybody(),
            Peer::OwnNode,
            Peer::Nodes(Selector::default()),
            Peer::Block {
                cidr: "10.0.0.0/8".parse().unwrap(),
                except: vec!["10.1.0.0/16".parse().unwrap()],
            },
        ])
    );
    assert_eq!(egress.ports, Ports::Every);
    assert_eq!(
        egress.when.schedule,
        Some(Schedule {
            zone: "UTC".to_owned(),
            windows: vec![Window {
                days: [Weekday::Sunday, Weekday::Monday].into(),
                from: 22 * 60 + 30,
                to: 24 * 60,
            }],
        })
    );
}

#[test]
fn a_quarantine_denies_in_both_directions() {
    let policy = own("{tier: Quarantine, subject: {cgroups: [a/b]}, mode: audit}");
    assert_eq!(policy.priority, 0);
    assert_eq!(
        policy.subjects,
        Subjects::Cgroups(BTreeSet::from(["a/b".to_owned()]))
    );
    for direction in Direction::BOTH {
        let [rule] = policy.rules(direction) else {
            panic!("one rule {direction}")
        };
        assert_eq!(rule.action, TierAction::Deny);
        assert_eq!((&rule.peers, &rule.ports), (&Peers::Every, &Ports::Every));
        assert!(rule.when.is_always());
    }
}

#[test]
fn annotations_say_how_a_policy_of_kubernetes_is_meant() {
    let annotations = "annotations: {ringfence.io/mode: audit, ringfence.io/denied: reject, \
                       ringfence.io/reason: r, ringfence.io/approved-by: a, ringfence.io/owner: o}";
    let world = world(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, generation: 7, {annotations}}}\nspec: {{podSelector: {{}}}}\n---\n\
         apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: p, generation: 7, {annotations}}}\n\
         spec: {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}}}\n"
    ));
    let text = |text: &str| Some(text.to_owned());
    let expected = Terms {
        mode: Mode::Audit,
        denied: Denied::Reject,
        reason: text("r"),
        approved_by: text("a"),
        owner: text("o"),
        revision: Some(7),
    };
    let id = PolicyId::cluster_wide(PolicyKind::ClusterNetworkPolicy, "p");
    let name = ObjectName::new("default", "p");
    assert_eq!(world.network_policies[&name].terms, expected);
    assert_eq!(world.tier_policies[&id].terms, expected);
}

#[test]
fn a_policy_has_the_revision_that_its_keeper_counts() {
    let of = |generation: &str| {
        let world = world(&format!(
            "apiVersion: ringfence.io/v1alpha1\nkind: RingfencePolicy\nmetadata: {{name: p{generation}}}\n\
             spec: {{tier: Quarantine, subject: {{workloads: {{}}}}}}\n"
        ));
        let id = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, "p");
        world.tier_policies[&id].terms.revision
    };
    assert_eq!(of(""), None);
    assert_eq!(of(", generation: 12"), Some(12));
}

#[test]
fn tables_of_names_add_up() {
    let table = |name: &str, names: &str| {
        format!(
            "apiVersion: ringfence.io/v1alpha1\nkind: NameTable\nmetadata: {{name: {name}}}\n\
             spec: {{names: {names}}}\n"
        )
    };
    let world = world(&format!(
        "{}---\n{}",
        table("a", "{A.example.org.: [192.0.2.1], b.example.org: []}"),
        table("b", "{a.example.org: [192.0.2.1, '2001:db8::1']}")
    ));
    assert_eq!(
        *world.names["a.example.org"],
        addresses(&["192.0.2.1", "2001:db8::1"])
    );
    assert!(world.names["b.example.org"].is_empty());
}

#[test]
fn a_service_is_reached_at_all_its_addresses() {
    let world = world(
        "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n\
         spec: {type: LoadBalancer, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'], \
           externalIPs: [192.0.2.1], selector: {a: b}, publishNotReadyAddresses: true, \
           ports: [{port: 80, targetPort: http, nodePort: 30080}]}\n\
         status: {loadBalancer: {ingress: [{ip: 192.0.2.2}, {hostname: lb.example.org}, \
           {ip: 192.0.2.3, ipMode: Proxy}, {ip: 192.0.2.4, ipMode: VIP}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: alias}\n\
         spec: {type: ExternalName, externalName: a.example.org, externalIPs: [192.0.2.9], \
           ports: [{port: 80}]}\n",
    );
    let service = &world.services[&ObjectName::new("default", "s")];
    assert_eq!(
        service.addresses,
        addresses(&[
            "10.96.0.1",
            "fd00::1",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.4"
        ])
    );
    assert!(service.publish_not_ready);
    assert_eq!(service.ports[0].node_port, Some(30080));
    let alias = &world.services[&ObjectName::new("default", "alias")];
    assert!(alias.addresses.is_empty() && alias.ports.is_empty());
}

#[test]
fn a_service_that_the_proxy_of_the_cluster_leaves_alone_hides_nothing() {
    let world = world(
        "apiVersion: v1\nkind: Service\n\
         metadata: {name: labelled, labels: {service.kubernetes.io/headless: ''}}\n\
         spec: {clusterIP: 10.96.0.3, selector: {a: b}, ports: [{port: 80}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: headless}\n\
         spec: {type: NodePort, clusterIP: None, externalIPs: [192.0.2.1], selector: {a: b}, \
           ports: [{port: 80, nodePort: 30080}]}\n\
         status: {loadBalancer: {ingress: [{ip: 192.0.2.2}]}}\n---\n\
         apiVersion: v1\nkind: Service\n\
         metadata: {name: other, labels: {service.kubernetes.io/service-proxy-name: mine}}\n\
         spec: {clusterIP: 10.96.0.2, externalIPs: [192.0.2.7], selector: {a: b}, ports: [{port: 80}]}\n",
    );
    let headless = &world.services[&ObjectName::new("default", "headless")];
    assert!(headless.addresses.is_empty(), "{headless:?}");
    assert_eq!(headless.ports[0].node_port, None);
    // Whoever has the addresses may be reached, beside the backends.
    let other = &world.services[&ObjectName::new("default", "other")];
    let by_hand = other.by_hand.iter().map(|it| (it.address, it.port));
    let at = ["10.96.0.2", "192.0.2.7"].map(|it| (it.parse().unwrap(), 80));
    assert_eq!(by_hand.collect::<Vec<_>>(), at);
    assert_eq!(other.addresses.len(), 2);
    let labelled = &world.services[&ObjectName::new("default", "labelled")];
    assert_eq!(labelled.by_hand.len(), 1);
}

#[test]
fn a_pod_is_ready_unless_it_says_otherwise() {
    for (status, ready) in [
        ("{}", true),
        ("{conditions: []}", true),
        ("{conditions: [{type: Initialized, status: 'False'}]}", true),
        ("{conditions: [{type: Ready, status: 'True'}]}", true),
        ("{conditions: [{type: Ready, status: 'False'}]}", false),
        ("{conditions: [{type: Ready, status: Unknown}]}", false),
    ] {
        let world = world(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{}}\nstatus: {status}\n"
        ));
        let pod = &world.workloads[&ObjectName::new("default", "p")];
        assert_eq!(pod.ready, ready, "{status}");
    }
}

#[test]
fn the_failsafe_is_given_beside_the_files() {
    let failsafe = Failsafe {
        name: "ssh".to_owned(),
        direction: Direction::Ingress,
        peers: Peers::Every,
        ports: Ports::Listed(vec![tcp(22, 22)]),
        source: Source {
            file: Arc::from("configuration"),
            line: 1,
        },
    };
    let files = [parse_file(Arc::from("t.yaml"), b"")];
    let (world, problems) = assemble_with(&files, vec![failsafe.clone()]);
    assert_eq!(*world.failsafe, [failsafe]);
    assert!(problems.is_empty());
}
