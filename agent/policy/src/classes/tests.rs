//! Proofs and differences of a cluster with many Services: not the square of its workloads.

use std::fmt::Write;

use crate::{
    classes::{PortRange, PortSet},
    connection::Perspective,
    diff::Diff,
    example,
    load::{InputFile, load},
    model::{Selector, World},
    verify::{Assertion, Ends, EndsPart, Reach, verify},
};

const NODES: usize = 10;
const NAMESPACES: usize = 40;
const APPS: usize = 5;
const REPLICAS: usize = 10;

/// 2,000 workloads behind 200 Services, of which 120 have a port of the nodes. Each application takes
/// what the one before it in its namespace sends to `port`; Services lead to 8080.
fn cluster(port: u16) -> World {
    let mut objects = Vec::new();
    for node in 0..NODES {
        objects.push(format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n{node}}}, \
             status: {{addresses: [{{type: InternalIP, address: 10.0.0.{}}}]}}}}",
            node + 1
        ));
    }
    for namespace in 0..NAMESPACES {
        for app in 0..APPS {
            objects.extend((0..REPLICAS).map(|replica| pod(namespace, app, replica)));
            objects.push(service(namespace, app));
            objects.push(format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
                 metadata: {{namespace: ns-{namespace}, name: a{app}}}, \
                 spec: {{podSelector: {{matchLabels: {{app: a{app}}}}}, policyTypes: [Ingress], \
                 ingress: [{{from: [{{podSelector: {{matchLabels: {{app: a{}}}}}}}], \
                 ports: [{{port: {port}}}]}}]}}}}",
                (app + APPS - 1) % APPS
            ));
        }
    }
    let mut text = String::new();
    for object in objects {
        writeln!(text, "---\n{object}").unwrap();
    }
    let file = InputFile {
        name: "cluster.yaml".into(),
        bytes: text.into_bytes(),
    };
    let loaded = load([file]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics.first());
    loaded.world
}

fn pod(namespace: usize, app: usize, replica: usize) -> String {
    let node = (namespace + app + replica) % NODES;
    let address = format!("10.1.{namespace}.{}", app * REPLICAS + replica + 1);
    format!(
        "{{apiVersion: v1, kind: Pod, \
         metadata: {{namespace: ns-{namespace}, name: a{app}-{replica}, labels: {{app: a{app}}}}}, \
         spec: {{nodeName: n{node}}}, status: {{phase: Running, podIP: {address}, \
         podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: 'True'}}]}}}}"
    )
}

fn service(namespace: usize, app: usize) -> String {
    let (kind, node_port) = if app.is_multiple_of(2) {
        let number = 30000 + namespace * APPS + app;
        ("NodePort", format!(", nodePort: {number}"))
    } else {
        ("ClusterIP", String::new())
    };
    let address = format!("10.96.{namespace}.{app}");
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: ns-{namespace}, name: a{app}}}, \
         spec: {{type: {kind}, clusterIP: {address}, clusterIPs: [{address}], \
         selector: {{app: a{app}}}, ports: [{{port: 80, targetPort: 8080{node_port}}}]}}}}"
    )
}

fn never(from: EndsPart, to: EndsPart, ports: &str) -> Assertion {
    Assertion {
        name: format!("{from:?} {to:?} {ports}"),
        reach: Reach::Never,
        from: Ends::Listed(vec![from]),
        to: Ends::Listed(vec![to]),
        ports: PortSet::of(&[PortRange::parse(ports).unwrap()]),
        source: example::source(1),
    }
}

#[test]
fn a_cluster_with_many_services_is_proved_and_compared() {
    let open = cluster(8080);
    let workloads = |workloads| EndsPart::Workloads {
        namespaces: Selector::default(),
        workloads,
    };
    let anybody = || workloads(Selector::default());
    let app = |name| workloads(example::is(name));
    let services = || EndsPart::Block {
        cidr: "10.96.0.0/16".parse().unwrap(),
        except: Vec::new(),
    };
    let nodes = || EndsPart::Nodes(Selector::default());
    let (holding, wrong) = (
        [
            never(EndsPart::Internet, services(), "TCP/80"),
            never(anybody(), anybody(), "UDP"),
            // That of `ns-0/a0`, which takes from `a4` alone.
            never(app("a1"), nodes(), "TCP/30000"),
        ],
        [
            never(app("a1"), services(), "TCP/80"),
            never(app("a4"), nodes(), "TCP/30000"),
        ],
    );
    let claims = [holding.as_slice(), wrong.as_slice()].concat();
    let proofs = verify(&open, Perspective::default(), &claims);
    for (proof, holds) in proofs.iter().zip([true, true, true, false, false]) {
        assert_eq!(proof.holds, holds, "{proof:?}");
        // Each replica on its own would be four million.
        assert!(proof.pairs < 100_000, "{proof:?}");
    }

    let diff = Diff::new(&open, &cluster(8081), Perspective::default());
    // One for each application, each Service and each port of the nodes, and one for what it takes now.
    assert_eq!(diff.rows.len(), (200 + 200 + 120) + 200);
}
