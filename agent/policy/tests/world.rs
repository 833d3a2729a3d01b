//! What good files say, once they are put together.

use std::sync::Arc;

use agent_policy::{
    load::{
        InputFile, Loaded, ParsedFile, assemble, assemble_again, assemble_changed, load, parse_file,
    },
    model::{EndpointSpec, NamedPort, NetworkPolicy, ObjectName, PortName, Protocol, WorkloadKind},
};

fn load_text(text: &str) -> Loaded {
    load([InputFile {
        name: Arc::from("t.yaml"),
        bytes: text.as_bytes().to_vec(),
    }])
}

fn policy(spec: &str) -> NetworkPolicy {
    let loaded = load_text(&format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    ));
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    NetworkPolicy::clone(&loaded.world.network_policies[&ObjectName::new("default", "p")])
}

#[test]
fn policy_types_default_as_the_api_does() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", Some(0), None),
        ("{podSelector: {}, egress: []}", Some(0), None),
        ("{podSelector: {}, egress: [{}]}", Some(0), Some(1)),
        (
            "{podSelector: {}, policyTypes: [], egress: [{}]}",
            Some(0),
            Some(1),
        ),
        ("{podSelector: {}, policyTypes: [Egress]}", None, Some(0)),
        (
            "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}",
            None,
            Some(0),
        ),
        (
            "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
            Some(0),
            None,
        ),
        (
            "{podSelector: {}, ingress: null, egress: null}",
            Some(0),
            None,
        ),
    ] {
        let policy = policy(spec);
        assert_eq!(policy.ingress.map(|rules| rules.len()), ingress, "{spec}");
        assert_eq!(policy.egress.map(|rules| rules.len()), egress, "{spec}");
    }
}

#[test]
fn rules_remember_their_lines() {
    let policy = policy("\n  podSelector: {}\n  egress:\n  - to: []\n  - ports: [{port: 53}]");
    assert_eq!(policy.source.line, 1);
    let lines: Vec<_> = policy
        .egress
        .unwrap()
        .iter()
        .map(|rule| rule.source.line)
        .collect();
    assert_eq!(lines, [7, 8]);
}

#[test]
fn a_cluster_as_kubectl_prints_it() {
    for text in [
        include_str!("good/kubectl-list.json"),
        include_str!("good/tabs.json"),
    ] {
        let world = load_text(text).world;
        assert_eq!(
            world.namespaces["shop"]["kubernetes.io/metadata.name"],
            "shop"
        );
        assert_eq!(world.namespaces["shop"]["team"], "a");

        let pod = &world.workloads[&ObjectName::new("shop", "api-0")];
        assert_eq!(pod.kind, WorkloadKind::Pod);
        assert_eq!(pod.node.as_deref(), Some("n1"));
        let port = |name: &str, port| NamedPort {
            name: name.to_owned(),
            port,
            protocol: Protocol::Tcp,
        };
        assert_eq!(pod.ports, [port("http", 8080), port("metrics", 9090)]);
        assert_eq!(pod.addresses.len(), 2);

        // The job has ended, and the proxy shares the address of its node.
        assert!(
            !world
                .workloads
                .contains_key(&ObjectName::new("shop", "job"))
        );
        assert!(world.workloads[&ObjectName::new("shop", "proxy")].host_network);
        assert_eq!(world.addresses.len(), 2);
        assert_eq!(world.nodes["n1"].addresses.len(), 1);

        let service = &world.services[&ObjectName::new("shop", "api")];
        assert_eq!(service.ports[0].target, PortName::Name("http".to_owned()));
        assert_eq!(service.ports[1].target, PortName::Number(9090));
        assert!(
            world.services[&ObjectName::new("shop", "headless")]
                .addresses
                .is_empty()
        );
    }
}

#[test]
fn workloads_without_kubernetes() {
    let world = load_text(include_str!("good/plain-host.yaml")).world;
    let api = ObjectName::new("shop", "api-0");
    assert_eq!(
        world.workloads[&api].endpoint,
        Some(EndpointSpec::Interface("veth-api".to_owned()))
    );
    assert_eq!(world.addresses[&"fd77::2".parse().unwrap()], api);
    assert_eq!(
        world.network_policies[&ObjectName::new("shop", "api")]
            .ingress
            .as_ref()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn problems_between_files_name_both() {
    let workload = |name: &str| {
        format!(
            "apiVersion: ringfence.io/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\n\
             spec: {{addresses: [10.0.0.1]}}\n"
        )
    };
    let files = [("a.yaml", workload("a")), ("b.yaml", workload("b"))]
        .map(|(name, text)| parse_file(Arc::from(name), text.as_bytes()));
    let (_, problems) = assemble(&files);
    let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "b.yaml:4:20: error[address-owned-twice]: address `10.0.0.1` of `default/b` is also that \
          of `default/a` at a.yaml:4:20\n  hint: an address must lead to one workload"
        ]
    );
}

#[test]
fn the_order_of_files_and_of_documents_does_not_matter() {
    let text = include_str!("good/plain-host.yaml");
    let parts: Vec<&str> = text.split("\n---\n").collect();
    assert!(parts.len() > 3);
    let world = |parts: Vec<&str>| {
        let files = parts.into_iter().map(|text| InputFile {
            name: Arc::from("part.yaml"),
            bytes: text.as_bytes().to_vec(),
        });
        let loaded = load(files);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        format!("{:?}", loaded.world)
    };
    let forwards = world(parts.clone());
    let backwards = world(parts.into_iter().rev().collect());
    assert_eq!(forwards, backwards);
}

fn file(name: &str, documents: &[&str]) -> ParsedFile {
    let file = parse_file(Arc::from(name), documents.join("---\n").as_bytes());
    assert!(!file.has_errors(), "{:?}", file.diagnostics);
    file
}

/// What changed files make of the world is what all files together make of it, or is left open.
#[test]
fn changed_policies_make_the_world_that_all_files_make() {
    const WORKLOAD: &str = "apiVersion: ringfence.io/v1alpha1\nkind: Workload\n\
         metadata: {name: w, namespace: shop}\nspec: {addresses: [10.0.0.1]}\n";
    const SHOP: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: one, namespace: shop}\nspec: {podSelector: {}}\n";
    const OPEN: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: one, namespace: shop}\nspec: {podSelector: {}, ingress: [{}]}\n";
    const BANK: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: one, namespace: bank}\nspec: {podSelector: {}}\n";
    const TIER: &str = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {name: t}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n";
    let rest = file("rest.yaml", &[WORKLOAD]);
    let other = file("other.yaml", &[BANK]);
    for (before, after, is_told) in [
        (&[SHOP][..], &[OPEN][..], true),
        (&[SHOP], &[SHOP, TIER], true),
        (&[SHOP, TIER], &[OPEN], true),
        (&[TIER], &[SHOP, TIER], true),
        (&[], &[SHOP], true),
        // Nobody may name the namespace any more.
        (&[SHOP], &[TIER], false),
        (&[SHOP], &[], false),
        // Declared twice: in one file, and in two.
        (&[SHOP], &[SHOP, OPEN], false),
        (&[SHOP], &[SHOP, BANK], false),
        // Something else than policies.
        (
            &[SHOP],
            &[
                SHOP,
                &WORKLOAD.replace("0.1", "0.2").replace("name: w", "name: v"),
            ],
            false,
        ),
    ] {
        let (before, after) = (file("p.yaml", before), file("p.yaml", after));
        let (world, problems) = assemble_again([&rest, &before, &other], Vec::new());
        assert!(problems.is_empty(), "{problems:?}");
        let changed = assemble_changed(&world, [&before], [&after]);
        assert_eq!(changed.is_some(), is_told, "{after:?}");
        if let Some(changed) = changed {
            let (whole, problems) = assemble_again([&rest, &after, &other], Vec::new());
            assert!(problems.is_empty(), "{problems:?}");
            assert_eq!(changed, whole);
        }
    }
}

#[test]
fn a_pod_is_kept_up_by_its_controller_and_that_of_its_replica_set() {
    for (metadata, owner) in [
        ("", None),
        (", ownerReferences: []", None),
        (
            ", ownerReferences: [{kind: ReplicaSet, name: web-5d9f, controller: true}]",
            Some("ReplicaSet/web-5d9f"),
        ),
        (
            ", labels: {pod-template-hash: 5d9f}, ownerReferences: [{kind: Node, name: n}, \
             {kind: ReplicaSet, name: web-5d9f, controller: true}]",
            Some("Deployment/web"),
        ),
        (
            ", labels: {pod-template-hash: d9f}, ownerReferences: [{kind: ReplicaSet, name: web-5d9f, controller: true}]",
            Some("ReplicaSet/web-5d9f"),
        ),
        (
            ", labels: {pod-template-hash: 5d9f}, ownerReferences: [{kind: StatefulSet, name: web-5d9f, controller: true}]",
            Some("StatefulSet/web-5d9f"),
        ),
        (
            ", ownerReferences: [{kind: Node, name: n, controller: false}]",
            None,
        ),
    ] {
        let loaded = load_text(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{metadata}}}\nspec: {{nodeName: n}}\nstatus: {{podIP: 10.0.0.1}}\n"
        ));
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let pod = &loaded.world.workloads[&ObjectName::new("default", "p")];
        assert_eq!(pod.owner.as_deref(), owner, "{metadata}");
    }
}
