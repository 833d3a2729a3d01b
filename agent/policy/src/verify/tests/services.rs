//! The way to a Service is that to everybody behind it.

use super::*;
use crate::model::Change;

/// `shop/api` takes nothing from anybody and serves `service/shop/api` at 10.96.0.1 and on port 30080
/// of the nodes. `shop/idle` is its like, but not ready. Nodes take nothing for themselves.
const CLUSTER: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: one}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}}
- {apiVersion: v1, kind: Node, metadata: {name: two}, status: {addresses: [{type: InternalIP, address: 10.0.0.2}]}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: shop, name: web}, \
   spec: {addresses: [10.1.0.2], node: one}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: api, labels: {app: api}}, \
   spec: {nodeName: one}, status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}], \
   conditions: [{type: Ready, status: 'True'}]}}
- {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: idle, labels: {app: api}}, \
   spec: {nodeName: one}, status: {phase: Running, podIP: 10.1.0.4, podIPs: [{ip: 10.1.0.4}], \
   conditions: [{type: Ready, status: 'False'}]}}
- {apiVersion: v1, kind: Service, metadata: {namespace: shop, name: api}, \
   spec: {type: NodePort, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: api}, \
   ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: api}, \
   spec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress], ingress: INGRESS}}
- {apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {name: nodes}, \
   spec: {tier: Admin, priority: 1, subject: {nodes: {}}, ingress: [{action: Deny}]}}
";

fn cluster(ingress: &str) -> World {
    example::loaded(&CLUSTER.replace("INGRESS", ingress))
}

/// What holds of a world, or the connection that shows that it does not.
fn shown(world: &World, reach: Reach, from: Ends, to: Ends, port: &str) -> Option<String> {
    let ports = PortSet::of(&[PortRange::one(port.parse().unwrap())]);
    let claim = assertion(reach, from, to, ports);
    let proof = verify(world, Perspective::default(), &[claim])
        .pop()
        .unwrap();
    assert!(proof.pairs > 0);
    proof.counterexample.map(|shown| {
        let ingress = shown.ingress.phrase();
        format!("{} to {}: {ingress}", shown.from, shown.to)
    })
}

fn at(block: &str) -> Ends {
    Ends::Listed(vec![EndsPart::Block {
        cidr: block.parse().unwrap(),
        except: Vec::new(),
    }])
}

fn nodes() -> Ends {
    Ends::Listed(vec![EndsPart::Nodes(Selector::default())])
}

#[test]
fn who_is_denied_by_a_backend_is_denied_by_the_service() {
    let always = |ingress| {
        let world = cluster(ingress);
        shown(
            &world,
            Reach::Always,
            internet(),
            at("10.96.0.1/32"),
            "TCP/80",
        )
    };
    assert_eq!(
        always("[]").as_deref(),
        Some("1.0.0.0 to service/shop/api: selected by policy, and no rule permits it")
    );
    assert_eq!(always("[{ports: [{port: 8080}]}]"), None);
    // The port that counts is that of the backend.
    assert!(always("[{ports: [{port: 80}]}]").is_some());
}

#[test]
fn a_node_port_leads_past_what_its_node_says() {
    let never = |ingress, port| {
        let world = cluster(ingress);
        shown(&world, Reach::Never, internet(), nodes(), port)
    };
    assert_eq!(
        never("[{}]", "TCP/30080").as_deref(),
        Some("1.0.0.0 to node/one: by shop/api ingress[0] at t.yaml:11")
    );
    assert_eq!(never("[]", "TCP/30080"), None);
    assert_eq!(never("[{}]", "TCP/30081"), None);
}

#[test]
fn who_serves_behind_a_service_reaches_itself_there_and_its_like_do_not() {
    let world = cluster("[]");
    let always = |from| {
        shown(
            &world,
            Reach::Always,
            at(from),
            at("10.96.0.1/32"),
            "TCP/80",
        )
    };
    assert_eq!(always("10.1.0.3/32"), None);
    assert!(always("10.1.0.4/32").is_some());
    // Both are in one class: one of the two must not answer for the other.
    assert!(always("10.1.0.2/31").is_some());
    let never = shown(
        &world,
        Reach::Never,
        at("10.1.0.2/31"),
        at("10.96.0.1/32"),
        "TCP/80",
    );
    assert_eq!(
        never.as_deref(),
        Some("shop/api to service/shop/api: its own address")
    );
}

#[test]
fn the_node_of_a_backend_reaches_it_by_the_service_too() {
    let world = cluster("[]");
    let always = |from| {
        shown(
            &world,
            Reach::Always,
            at(from),
            at("10.96.0.1/32"),
            "TCP/80",
        )
    };
    assert_eq!(always("10.0.0.1/32"), None);
    assert_eq!(
        always("10.0.0.2/32").as_deref(),
        Some("node/two to service/shop/api: selected by policy, and no rule permits it")
    );
}

#[test]
fn two_may_have_the_address_of_one_who_serves() {
    let mut world = cluster("[]");
    let name = crate::model::ObjectName::new("shop", "idle");
    let mut idle = world.workloads[&name].as_ref().clone();
    idle.ready = true;
    world.apply(&Change::Workload(name, Some(idle.into())));
    let mut node = world.nodes["one"].as_ref().clone();
    node.addresses.insert("10.1.0.3".parse().unwrap());
    world.apply(&Change::Node("one".to_owned(), Some(node.into())));
    // `shop/idle` takes nothing from `shop/api`, and all from its own node.
    let way = |reach| {
        shown(
            &world,
            reach,
            at("10.1.0.3/32"),
            at("10.96.0.1/32"),
            "TCP/80",
        )
    };
    let [never, always] = [Reach::Never, Reach::Always].map(|reach| way(reach).unwrap());
    assert!(never.starts_with("node/one to service/"), "{never}");
    assert!(always.starts_with("shop/api to service/"), "{always}");
}

#[test]
fn a_node_may_be_denied_what_goes_to_itself() {
    let world = cluster("[]");
    let one = || at("10.0.0.1/32");
    let always = shown(&world, Reach::Always, one(), one(), "TCP/22");
    assert!(always.is_some_and(|shown| shown.starts_with("node/one to node/one: ")));
}

#[test]
fn an_address_of_a_service_may_be_that_of_a_workload() {
    let mut world = cluster("[]");
    let text = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
        metadata: {namespace: shop, name: silent}, \
        spec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Egress]}}";
    let file = crate::load::InputFile {
        name: "t.yaml".into(),
        bytes: text.as_bytes().to_vec(),
    };
    let more = crate::load::load([file]).world.network_policies;
    let more = more.iter();
    world
        .network_policies
        .extend(more.map(|(name, policy)| (name.clone(), policy.clone())));
    let name = crate::model::ObjectName::new("shop", "api");
    let mut service = world.services[&name].as_ref().clone();
    service.addresses = ["10.1.0.4".parse().unwrap()].into();
    world.services.insert(name, service.into());
    // It is an address of its own to `shop/idle`, and to nobody else.
    let served_at = || at("10.1.0.4/32");
    let never = shown(
        &world,
        Reach::Never,
        at("10.1.0.3/32"),
        served_at(),
        "TCP/81",
    );
    assert_eq!(never, None);
    let all = |reach| shown(&world, reach, workloads("api"), served_at(), "TCP/81");
    let shown = [Reach::Never, Reach::Always].map(|reach| all(reach).unwrap());
    assert!(
        shown[0].starts_with("shop/idle to service/shop/api: "),
        "{shown:?}"
    );
    assert!(shown[1].starts_with("shop/api to "), "{shown:?}");
}

#[test]
fn icmp_is_asked_for_over_its_own_family() {
    let world = cluster("[{}]");
    let claim = |port: &str| {
        let ports = PortSet::of(&[PortRange::one(port.parse().unwrap())]);
        assertion(Reach::Never, internet(), at("10.1.0.3/32"), ports)
    };
    let proofs = verify(
        &world,
        Perspective::default(),
        &["ICMP", "ICMPv6"].map(claim),
    );
    assert_eq!([proofs[0].holds, proofs[1].holds], [false, true]);
    assert_eq!(proofs[1].pairs, 0);
}
