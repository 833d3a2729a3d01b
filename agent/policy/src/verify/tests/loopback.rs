//! Within a host, sockets tell who is there, and loopback is a way of its own.

use std::sync::Arc;

use super::*;

/// What contradicts a claim about `host/cache`, if something does.
fn shown(denied: &str, reach: Reach, from: Ends, port: &str) -> Option<String> {
    let world = example::loaded(&example::HOST.replace("DENIED", denied));
    let ports = PortSet::of(&[PortRange::one(port.parse().unwrap())]);
    let claim = assertion(reach, from, workloads("cache"), ports);
    let proof = verify(&world, Perspective::default(), &[claim])
        .pop()
        .unwrap();
    assert!(proof.pairs > 0);
    let shown = proof.counterexample?;
    Some(format!("{} ({})", shown.from, shown.from_address))
}

const EVERYBODY: &str = "[{cidr: {block: 0.0.0.0/0}}, {cidr: {block: '::/0'}}]";

#[test]
fn those_of_one_host_are_told_apart() {
    let on_its_port = |reach, from| shown(EVERYBODY, reach, workloads(from), "TCP/6379");
    assert_eq!(on_its_port(Reach::Always, "web"), None);
    assert_eq!(on_its_port(Reach::Never, "cron"), None);
    // A workload that shares its addresses is not exempt from what it says of itself.
    assert_eq!(on_its_port(Reach::Never, "cache"), None);
    let web = "host/web (10.0.0.1)".to_owned();
    assert_eq!(on_its_port(Reach::Never, "web"), Some(web));
    for port in ["TCP/6380", "UDP/6379", "ICMP"] {
        assert_eq!(shown(EVERYBODY, Reach::Never, Ends::Every, port), None);
    }
}

#[test]
fn what_is_denied_at_the_addresses_of_the_node_may_pass_over_loopback() {
    let cron = shown("[{nodes: {}}]", Reach::Never, workloads("cron"), "TCP/6379");
    assert_eq!(cron.unwrap(), "host/cron (127.0.0.1)");
}

#[test]
fn a_process_that_is_no_workload_is_not_forgotten() {
    let units = "[{local: {workloads: {namespaceSelector: {}}}}]";
    let by_socket = |from: Ends| shown(units, Reach::Never, from, "TCP/1");
    assert_eq!(by_socket(workloads("cron")), None);
    let here = Ends::Listed(vec![EndsPart::Block {
        cidr: "127.0.0.0/8".parse().unwrap(),
        except: Vec::new(),
    }]);
    assert_eq!(by_socket(here.clone()).unwrap(), "node/one (127.0.0.1)");
    // Nor where its host is nobody known.
    let text = example::HOST.replace("DENIED", units);
    let lines = text.lines().filter(|line| !line.contains("kind: Node"));
    let world = example::loaded(&lines.collect::<Vec<_>>().join("\n"));
    let ports = PortSet::of(&[PortRange::one("TCP/1".parse().unwrap())]);
    let claim = assertion(Reach::Never, here, workloads("cache"), ports);
    let proofs = verify(&world, Perspective::default(), &[claim]);
    let shown = proofs[0].counterexample.as_ref().unwrap();
    assert_eq!(shown.from.to_string(), "127.0.0.1");
}

/// Not by the address alone that workloads are asked about there.
#[test]
fn all_of_the_block_of_loopback_is_asked_about() {
    let resolver = "
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: host, name: web}, \
   spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], \
   egress: [{to: [{ipBlock: {cidr: 127.0.0.53/32}}], ports: [{protocol: UDP, port: 53}]}]}}
";
    let text = example::HOST.replace("DENIED", EVERYBODY);
    let world = example::loaded(&format!("{}{resolver}", text.trim_end()));
    let never = |block: &str, port: &str| {
        let to = EndsPart::Block {
            cidr: block.parse().unwrap(),
            except: Vec::new(),
        };
        let ports = PortSet::of(&[PortRange::one(port.parse().unwrap())]);
        let to = Ends::Listed(vec![to]);
        let claim = assertion(Reach::Never, workloads("web"), to, ports);
        let proofs = verify(&world, Perspective::default(), &[claim]);
        let shown = proofs[0].counterexample.as_ref();
        shown.map(|shown| shown.to_address.to_string())
    };
    for block in ["127.0.0.53/32", "127.0.0.0/8", "0.0.0.0/0"] {
        assert_eq!(never(block, "UDP/53").unwrap(), "127.0.0.53", "{block}");
    }
    assert_eq!(never("127.0.0.0/8", "UDP/54"), None);
}

#[test]
fn ping_tells_no_socket() {
    let units = "[{local: {workloads: {namespaceSelector: {}}}}]";
    let cron = shown(units, Reach::Never, workloads("cron"), "ICMP");
    assert_eq!(cron.unwrap(), "host/cron (10.0.0.1)");
}

/// Behind its port, nobody tells whose socket the Service leads to.
#[test]
fn a_port_of_the_node_that_leads_elsewhere_tells_no_socket() {
    let text = example::HOST.replace("DENIED", "[{cidr: {block: 192.0.2.0/24}}]");
    let more = "
- {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: api, labels: {app: api}}, \
   spec: {nodeName: one}, status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}], \
   conditions: [{type: Ready, status: 'True'}]}}
- {apiVersion: v1, kind: Service, metadata: {namespace: shop, name: api}, \
   spec: {type: NodePort, clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], selector: {app: api}, \
   ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}}
- {apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {name: cron}, \
   spec: {tier: Admin, priority: 1, subject: {units: [cron.service]}, \
   egress: [{action: Deny, to: [{local: {units: [cache.service]}}]}]}}
";
    let world = example::loaded(&format!("{}{}", text.trim_end(), more));
    let never = |port: &str| {
        let ports = PortSet::of(&[PortRange::one(port.parse().unwrap())]);
        let claim = assertion(Reach::Never, workloads("cron"), workloads("cache"), ports);
        verify(&world, Perspective::default(), &[claim])
            .pop()
            .unwrap()
    };
    assert!(never("TCP/30081").holds);
    let shown = never("TCP/30080").counterexample.unwrap();
    assert_eq!(shown.to_address.to_string(), "10.0.0.1");
    assert_eq!(shown.ingress.reason, Reason::OwnNode);
}

/// Over loopback, both pods would say that they are asked about themselves.
#[test]
fn pods_are_told_apart_by_what_they_say_of_others() {
    let world = example::loaded(
        "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: one}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: shop, name: a, labels: {app: it}}, \
   spec: {addresses: [10.1.0.1]}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: shop, name: b, labels: {app: it}}, \
   spec: {addresses: [10.1.0.2]}}
- {apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {name: a}, \
   spec: {tier: Admin, priority: 1, subject: {workloads: {namespaceSelector: {}}}, \
   ingress: [{action: Deny, from: [{cidr: {block: 10.0.0.0/8}}]}]}}
- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: closed}, \
   spec: {podSelector: {matchExpressions: [{key: only, operator: DoesNotExist}]}, policyTypes: [Ingress]}}
",
    );
    let mut open = world.clone();
    let b = crate::model::ObjectName::new("shop", "b");
    let mut workload = world.workloads[&b].as_ref().clone();
    Arc::make_mut(&mut workload.labels).insert("only".to_owned(), String::new());
    open.apply(&crate::model::Change::Workload(b, Some(workload.into())));
    let proof = |world| {
        let claim = assertion(Reach::Never, internet(), workloads("it"), PortSet::every());
        verify(world, Perspective::default(), &[claim])
            .pop()
            .unwrap()
    };
    assert!(proof(&world).holds);
    assert_eq!(
        proof(&open).counterexample.unwrap().to.to_string(),
        "shop/b"
    );
}
