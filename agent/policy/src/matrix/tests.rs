use super::*;
use crate::{example, reference::Reference};

fn matrix(axes: Axes) -> Matrix {
    let world = example::world();
    let ports = ["TCP/8080", "ICMP"].map(|port| port.parse().unwrap());
    Matrix::new(
        &world,
        &Reference(&world),
        axes,
        &ports,
        Perspective::default(),
    )
}

#[test]
fn each_port_has_its_grid() {
    let mut text = Vec::new();
    matrix(Axes::Workloads).render(&mut text).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "TCP/8080: from the rows to the columns\n             \
                      1 2 3 4\n\
         1 shop/api   \\ . . .\n\
         2 shop/probe . \\ - .\n\
         3 shop/v6    X - \\ .\n\
         4 shop/web   . . . \\\n\
         \n\
         ICMP: from the rows to the columns\n             \
                      1 2 3 4\n\
         1 shop/api   \\ . - .\n\
         2 shop/probe . \\ - .\n\
         3 shop/v6    - - \\ -\n\
         4 shop/web   X . - \\\n\
         \n\
         . allow   X deny   ~ allow or deny, by address   - no common address family   \\ itself\n"
    );
}

#[test]
fn the_json_has_all_pairs_but_those_of_a_workload_with_itself() {
    let json = serde_json::to_value(matrix(Axes::Workloads)).unwrap();
    let pairs = json["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 4 * 3 * 2);
    assert_eq!(
        pairs[0],
        serde_json::json!({"from": "shop/api", "to": "shop/probe", "port": "TCP/8080", "verdict": "allow"})
    );
}

#[test]
fn nodes_come_behind_the_workloads() {
    let json = serde_json::to_value(matrix(Axes::WorkloadsAndNodes)).unwrap();
    let pairs = json["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 6 * 5 * 2);
    let verdict = |from: &str| {
        let is_it = |pair: &&serde_json::Value| {
            pair["from"] == from && pair["to"] == "shop/api" && pair["port"] == "TCP/8080"
        };
        pairs.iter().find(is_it).unwrap()["verdict"].clone()
    };
    assert_eq!(verdict("node/one"), "allow");
    assert_eq!(verdict("node/two"), "deny");
}

#[test]
fn ends_whose_addresses_are_judged_differently_have_a_sign_of_their_own() {
    let world = example::by_address();
    let matrix = Matrix::new(
        &world,
        &Reference(&world),
        Axes::WorkloadsAndNodes,
        &["TCP/5432".parse().unwrap()],
        Perspective::default(),
    );
    let mut text = Vec::new();
    matrix.render(&mut text).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "TCP/5432: from the rows to the columns\n              \
                       1 2 3 4 5\n\
         1 shop/client \\ X ~ . .\n\
         2 shop/db     . \\ . . .\n\
         3 shop/job    . ~ \\ . .\n\
         4 shop/web    . ~ . \\ .\n\
         5 node/edge   . ~ . . \\\n\
         \n\
         . allow   X deny   ~ allow or deny, by address   - no common address family   \\ itself\n"
    );
    let json = serde_json::to_value(&matrix).unwrap();
    let pairs = json["pairs"].as_array().unwrap();
    let mixed = pairs.iter().filter(|pair| pair["verdict"] == "mixed");
    assert_eq!(mixed.count(), 4);
}
