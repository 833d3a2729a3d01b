use super::*;
use crate::{example, reference::Reference};

fn matrix() -> Matrix {
    let world = example::world();
    let ports = ["TCP/8080", "ICMP"].map(|port| port.parse().unwrap());
    Matrix::new(&world, &Reference(&world), &ports, Time::default())
}

#[test]
fn each_port_has_its_grid() {
    let mut text = Vec::new();
    matrix().render(&mut text).unwrap();
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
         . allow   X deny   - no common address family   \\ itself\n"
    );
}

#[test]
fn the_json_has_all_pairs_but_those_of_a_workload_with_itself() {
    let json = serde_json::to_value(matrix()).unwrap();
    let pairs = json["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 4 * 3 * 2);
    assert_eq!(
        pairs[0],
        serde_json::json!({"from": "shop/api", "to": "shop/probe", "port": "TCP/8080", "verdict": "allow"})
    );
}
