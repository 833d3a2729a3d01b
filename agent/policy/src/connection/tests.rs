use super::*;
use crate::{example, reference::Reference};

fn end(text: &str) -> Result<End, ConnectionError> {
    End::parse(&example::world(), text)
}

fn outcome(from: &str, to: &str, port: &str) -> Outcome {
    let world = example::world();
    let port = port.parse().unwrap();
    let connection = Connection::new(
        &world,
        &end(from).unwrap(),
        &end(to).unwrap(),
        port,
        Perspective::default(),
    )
    .unwrap();
    let outcome = connection.judge(&world, &Reference(&world));
    assert_eq!(
        outcome.verdict,
        connection.verdict(&Reference(&world)),
        "one verdict, asked twice"
    );
    outcome
}

#[test]
fn the_own_node_reaches_a_workload_and_another_node_does_not() {
    assert_eq!(
        outcome("node/one", "shop/api", "TCP/9").ingress.reason,
        Reason::OwnNode
    );
    assert_eq!(
        outcome("node/two", "shop/api", "TCP/9").verdict,
        Verdict::Deny
    );
}

#[test]
fn a_pod_on_the_host_network_is_its_node() {
    assert_eq!(
        outcome("shop/probe", "shop/api", "TCP/9").ingress.reason,
        Reason::OwnNode
    );
    assert_eq!(
        outcome("shop/api", "shop/probe", "TCP/9").ingress.reason,
        Reason::NotIsolated
    );
}

#[test]
fn an_address_of_a_node_is_that_nodes_own_voice() {
    let made = outcome("10.0.0.1", "shop/api", "TCP/9");
    assert_eq!(made.ingress.reason, Reason::OwnNode);
    assert_eq!(
        outcome("10.0.0.2", "shop/api", "TCP/9").verdict,
        Verdict::Deny
    );
    assert_eq!(end("10.0.0.1").unwrap().to_string(), "node/one");
}

#[test]
fn a_workload_reaches_itself() {
    for to in ["shop/api", "10.1.0.1", "fd00::1"] {
        let outcome = outcome("shop/api", to, "TCP/9");
        assert_eq!(outcome.verdict, Verdict::Allow);
        assert_eq!(outcome.ingress.reason, Reason::Itself, "{to}");
    }
}

fn ways(from: &str, to: &str, port: &str) -> Result<Vec<String>, ConnectionError> {
    let world = example::world();
    let (from, to) = (End::parse(&world, from)?, End::parse(&world, to)?);
    let ways = Ways::new(&world, &from, &to, port.parse()?, Perspective::default())?;
    let text = |way: &Connection| format!("{} to {}", way.from, way.to);
    assert_eq!(ways.iter().count(), ways.count());
    Ok(ways.iter().map(text).collect())
}

#[test]
fn a_name_stands_for_each_of_its_addresses() {
    let (v4, v6) = ("10.1.0.2 to 10.1.0.1", "fd00::2 to fd00::1");
    for (port, expected) in [("TCP/1", &[v4, v6][..]), ("ICMP", &[v4]), ("ICMPv6", &[v6])] {
        assert_eq!(
            ways("shop/web", "shop/api", port).unwrap(),
            expected,
            "{port}"
        );
    }
}

#[test]
fn an_address_stands_for_itself_alone() {
    for (from, to, expected) in [
        ("fd00::2", "shop/api", "fd00::2 to fd00::1"),
        ("shop/web", "fd00::1", "fd00::2 to fd00::1"),
        ("shop/web", "10.0.0.1", "10.1.0.2 to 10.0.0.1"),
        ("shop/web", "2001:db8::1", "fd00::2 to 2001:db8::1"),
    ] {
        assert_eq!(ways(from, to, "TCP/1").unwrap(), [expected], "{from} {to}");
    }
    assert_eq!(
        outcome("fd00::2", "shop/api", "TCP/8080").verdict,
        Verdict::Allow
    );
    let own = end("fd00::2").unwrap();
    assert_eq!(own.to_string(), "shop/web", "whose policies have a say");
}

#[test]
fn ends_without_a_common_family_have_no_way() {
    for (from, to, expected) in [
        (
            "shop/v6",
            "shop/probe",
            "`shop/v6` and `shop/probe` have no addresses of the same family that `TCP/1` could use",
        ),
        (
            "shop/v6",
            "10.1.0.1",
            "`shop/v6` and `shop/api (10.1.0.1)` have no addresses of the same family that `TCP/1` \
             could use",
        ),
    ] {
        let error = ways(from, to, "TCP/1").unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    assert!(ways("shop/v6", "shop/api", "ICMP").is_err());
}

#[test]
fn an_address_has_one_spelling() {
    assert_eq!(
        end("::ffff:10.0.0.1").unwrap_err().to_string(),
        "`::ffff:10.0.0.1` is an IPv4 address written as IPv6; write it as IPv4, `10.0.0.1`"
    );
}

#[test]
fn an_unknown_end_is_told_what_is_near_it() {
    let error = |text| end(text).unwrap_err().to_string();
    assert_eq!(
        error("shop/wep"),
        "no pod or workload is called `shop/wep`; did you mean `shop/web`?"
    );
    assert_eq!(
        error("bank/vault"),
        "no pod or workload is called `bank/vault`"
    );
    assert_eq!(
        error("node/ones"),
        "no node is called `node/ones`; did you mean `node/one`?"
    );
    for malformed in ["web", "/web", "shop/", "a/b/c", ""] {
        assert!(
            error(malformed).starts_with("no end of a connection"),
            "{malformed}"
        );
    }
}

/// Two units of no node that is known, of which one is kept from both by a policy about sockets.
fn units() -> World {
    let text = "
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: host, name: web}
spec: {endpoint: {systemdUnit: web.service}}
---
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: host, name: cache}
spec: {endpoint: {systemdUnit: cache.service}}
---
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: host, name: far}
spec: {node: elsewhere, endpoint: {systemdUnit: far.service}, addresses: [10.0.0.9]}
---
apiVersion: ringfence.io/v1alpha1
kind: RingfencePolicy
metadata: {name: cache}
spec:
  tier: Admin
  priority: 1
  subject: {units: [cache.service]}
  ingress:
  - {action: Deny, from: [{local: {units: [cache.service]}}, {cidr: {block: '::1/128'}}]}
";
    example::loaded(text)
}

#[test]
fn those_who_share_a_node_meet_over_loopback_and_without_addresses() {
    let world = units();
    let judged = |from: &str, to: &str| -> Vec<(String, Verdict)> {
        let end = |text| End::parse(&world, text).unwrap();
        let port = "TCP/1".parse().unwrap();
        let ways = Ways::new(&world, &end(from), &end(to), port, Perspective::default());
        let judged = ways.unwrap().judge(&world, &Reference(&world));
        let shown = |way: &Judged| (way.connection.to.to_string(), way.outcome.verdict);
        judged.iter().map(shown).collect()
    };
    let v4 = || "127.0.0.1".to_owned();
    let v6 = || "::1".to_owned();
    assert_eq!(
        judged("host/web", "host/cache"),
        [(v4(), Verdict::Allow), (v6(), Verdict::Deny)]
    );
    // A workload to itself, where its addresses are not its own.
    assert_eq!(
        judged("host/cache", "host/cache"),
        [(v4(), Verdict::Deny), (v6(), Verdict::Deny)]
    );
    // Whoever is there and is no workload: at that address, wherever the node is.
    assert_eq!(judged("127.0.0.2", "host/cache"), [(v4(), Verdict::Allow)]);
    assert_eq!(judged("::1", "host/cache"), [(v6(), Verdict::Deny)]);
    let end = |text| End::parse(&world, text).unwrap();
    let apart = Ways::new(
        &world,
        &end("host/far"),
        &end("host/cache"),
        "TCP/1".parse().unwrap(),
        Perspective::default(),
    );
    assert!(matches!(apart, Err(ConnectionError::NoAddress { .. })));
}

#[test]
fn a_workload_reaches_loopback() {
    let made = outcome("shop/api", "127.0.0.1", "TCP/1");
    assert_eq!(made.egress.reason, Reason::OwnAddress);
}
