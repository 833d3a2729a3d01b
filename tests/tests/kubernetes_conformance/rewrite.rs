//! From the vectors' objects to those of a cluster with addresses of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

/// Where the cluster's pods have their addresses.
const PODS: [&str; 2] = ["10.244.0.0/24", "fd00:10:244::/64"];

/// Of each pod of the vectors: the address there, and those that it has got.
pub(crate) type Addresses = BTreeMap<IpAddr, Vec<IpAddr>>;

/// A policy whose blocks hold the pods that they hold in the vectors, and no other.
pub(crate) fn policy(object: &Value, addresses: &Addresses) -> Value {
    let mut object = object.clone();
    // Some policies of cyclonus came without their kind, which its own client fills in.
    if object["kind"].is_null() {
        object["kind"] = "NetworkPolicy".into();
    }
    if object["apiVersion"].is_null() {
        object["apiVersion"] = "networking.k8s.io/v1".into();
    }
    rewrite(&mut object, addresses);
    object
}

fn rewrite(value: &mut Value, addresses: &Addresses) {
    match value {
        Value::Object(members) => {
            if let Some(block) = members.get_mut("ipBlock").filter(|block| block.is_object()) {
                *block = ip_block(block, addresses);
            }
            if let Some(networks) = members.get_mut("networks") {
                *networks = of_networks(networks, addresses);
            }
            members
                .values_mut()
                .for_each(|value| rewrite(value, addresses));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rewrite(value, addresses)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The same pods by exception: of the pods' own network, or of all addresses if it was of all.
fn ip_block(block: &Value, addresses: &Addresses) -> Value {
    let cidr = network(&block["cidr"]);
    let excepts: Vec<IpNet> = list(&block["except"]).map(network).collect();
    let is_in = |theirs: &IpAddr| {
        cidr.contains(theirs) && !excepts.iter().any(|except| except.contains(theirs))
    };
    let pods = PODS.map(|pods| pods.parse::<IpNet>().expect("a network"));
    let same_family = |ours: &&IpAddr| ours.is_ipv4() == cidr.addr().is_ipv4();
    let out = addresses.iter().filter(|(theirs, _)| !is_in(theirs));
    let mut except: Vec<_> = out
        .flat_map(|(_, ours)| ours.iter().filter(same_family).map(|ours| single(*ours)))
        .collect();
    except.sort();
    let cidr = if cidr.prefix_len() == 0 {
        // What is excepted beside pods stays excepted.
        let others = excepts
            .iter()
            .filter(|except| !addresses.keys().any(|pod| except.contains(pod)));
        except.extend(others.map(ToString::to_string));
        cidr
    } else {
        let of_family = pods
            .iter()
            .find(|pods| pods.addr().is_ipv4() == cidr.addr().is_ipv4());
        *of_family.expect("both families")
    };
    json!({"cidr": cidr.to_string(), "except": except})
}

/// Each pod of a network by itself.
fn of_networks(networks: &Value, addresses: &Addresses) -> Value {
    let one = |network_: &Value| {
        let cidr = network(network_);
        if cidr.prefix_len() == 0 {
            return vec![cidr.to_string()];
        }
        let inside = addresses
            .iter()
            .filter(|(theirs, _)| cidr.contains(*theirs));
        inside
            .flat_map(|(_, ours)| ours.iter().map(|ours| single(*ours)))
            .collect()
    };
    list(networks).flat_map(one).collect::<Vec<_>>().into()
}

fn single(address: IpAddr) -> String {
    IpNet::from(address).to_string()
}

fn network(value: &Value) -> IpNet {
    let text = value.as_str().expect("a network");
    text.parse().expect("a network")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[test]
fn a_block_holds_the_same_pods_by_exception() {
    let at = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let addresses = Addresses::from([
        (at("10.1.0.1"), vec![at("10.244.0.5"), at("fd00:10:244::5")]),
        (at("10.1.1.1"), vec![at("10.244.0.6"), at("fd00:10:244::6")]),
    ]);
    let rewritten = policy(
        &json!({"x": {"ipBlock": {"cidr": "10.1.0.0/24"}}}),
        &addresses,
    );
    assert_eq!(
        rewritten["x"]["ipBlock"],
        json!({"cidr": "10.244.0.0/24", "except": ["10.244.0.6/32"]})
    );
    let all = policy(
        &json!({"x": {"ipBlock": {"cidr": "0.0.0.0/0"}}}),
        &addresses,
    );
    assert_eq!(
        all["x"]["ipBlock"],
        json!({"cidr": "0.0.0.0/0", "except": []})
    );
    let networks = policy(
        &json!({"networks": ["10.1.0.1/32", "0.0.0.0/0"]}),
        &addresses,
    );
    assert_eq!(
        networks["networks"],
        json!(["10.244.0.5/32", "fd00:10:244::5/128", "0.0.0.0/0"])
    );
}
