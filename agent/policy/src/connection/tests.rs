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
fn an_address_of_the_node_is_not_taken_for_the_nodes_own_voice() {
    assert_eq!(
        outcome("10.0.0.1", "shop/api", "TCP/9").verdict,
        Verdict::Deny
    );
}

#[test]
fn a_workload_reaches_itself() {
    let outcome = outcome("shop/api", "10.1.0.1", "TCP/9");
    assert_eq!(outcome.verdict, Verdict::Allow);
    assert_eq!(outcome.ingress.reason, Reason::Itself);
}

#[test]
fn the_first_common_family_is_used() {
    let world = example::world();
    let addresses = |from: &str, port: &str| {
        let (from, to) = (End::parse(&world, from)?, End::parse(&world, "shop/api")?);
        Connection::new(&world, &from, &to, port.parse()?, Perspective::default())
            .map(|made| made.from.to_string())
    };
    assert_eq!(addresses("shop/web", "TCP/1").unwrap(), "10.1.0.2");
    assert_eq!(addresses("shop/web", "ICMPv6").unwrap(), "fd00::2");
    assert_eq!(addresses("shop/v6", "TCP/1").unwrap(), "fd00::3");
    let error = addresses("shop/v6", "ICMP").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`shop/v6` and `shop/api` have no addresses of the same family that `ICMP` could use"
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
