//! Those who share the addresses of a host, over loopback.

use super::*;

fn rows(old: &str, new: &str) -> Vec<String> {
    let [old, new] =
        [old, new].map(|denied| example::loaded(&example::HOST.replace("DENIED", denied)));
    lines(&old, &new)
}

fn lines(old: &World, new: &World) -> Vec<String> {
    let text = text(old, new);
    let lines = text.lines().filter(|line| line.contains(" -> "));
    lines.map(str::to_owned).collect()
}

#[test]
fn what_holds_over_loopback_as_well_is_one_row() {
    let of = |unit: &str| format!("[{{local: {{units: [{unit}.service]}}}}]");
    assert_eq!(
        rows(&of("cron"), &of("cache")),
        [
            "+ host/app=cron (1) -> host/app=cache (1): TCP, UDP, loopback too",
            "- host/app=cache (1) -> host/app=cache (1): TCP, UDP, loopback too",
        ]
    );
}

#[test]
fn what_holds_over_loopback_only_says_so() {
    let block = |text: &str| format!("[{{cidr: {{block: '{text}'}}}}]");
    assert_eq!(
        rows(&block("192.0.2.0/24"), &block("::1/128")),
        [
            "+ 192.0.2.0/24 -> host/app=cache (1): every port",
            "- host/app=cache (1) -> host/app=cache (1): every port over IPv6 only, loopback only",
            "- host/app=cron (1) -> host/app=cache (1): every port over IPv6 only, loopback only",
            "- host/app=web (1) -> host/app=cache (1): every port but TCP/6379 over IPv6 only, \
             loopback only",
            "- node/one -> host/app=cache (1): every port over IPv6 only, loopback only",
            "- ::1/128 -> host/app=cache (1): every port, loopback only",
        ]
    );
}

/// The first address of what is left of `::/0` is one of loopback.
#[test]
fn what_begins_with_an_address_of_loopback_is_not_left_out() {
    let world = |block: &str| {
        example::loaded(
            &format!(
                "
- {{apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {{namespace: shop, name: pod}}, \
   spec: {{addresses: [10.1.0.1, '2001:db8::1']}}}}
- {{apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {{name: p}}, \
   spec: {{tier: Admin, priority: 1, subject: {{workloads: {{namespaceSelector: {{}}}}}}, \
   ingress: [{{action: Deny, from: [{{cidr: {{block: '{block}'}}}}]}}]}}}}"
            )
            .replacen('\n', "\napiVersion: v1\nkind: List\nitems:\n", 1),
        )
    };
    assert_eq!(
        lines(&world("::/128"), &world("::/0")),
        ["- ::/0 except ::/128 -> shop/pod: every port"]
    );
}

/// `cache` on each of three nodes and `web` on some, where `cache` denies something.
fn hosts(web_is_on: &[usize], denied: &str) -> World {
    let node = |node: usize| {
        format!(
            "- {{apiVersion: v1, kind: Node, metadata: {{name: n{node}}}, \
             status: {{addresses: [{{type: InternalIP, address: 10.0.0.{node}}}]}}}}"
        )
    };
    let unit = |app: &str, number: usize, node: usize| {
        format!(
            "- {{apiVersion: ringfence.io/v1alpha1, kind: Workload, \
             metadata: {{namespace: host, name: {app}-{number}, labels: {{app: {app}}}}}, \
             spec: {{node: n{node}, endpoint: {{systemdUnit: {app}.service}}}}}}"
        )
    };
    let web = web_is_on.iter().enumerate();
    let web = web.map(|(place, node)| unit("web", place, *node));
    let mut items = vec!["apiVersion: v1\nkind: List\nitems:".to_owned()];
    items.extend((1..=3).map(node).chain(web));
    items.extend((1..=3).map(|node| unit("cache", node, node)));
    items.push(format!(
        "- {{apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {{name: cache}}, \
         spec: {{tier: Admin, priority: 1, subject: {{units: [cache.service]}}, \
         ingress: [{{action: Deny, from: [{denied}]}}]}}}}"
    ));
    example::loaded(&items.join("\n"))
}

#[test]
fn what_is_the_same_on_several_nodes_is_one_row() {
    let local = |unit: &str| format!("{{local: {{units: [{unit}.service]}}}}");
    let [old, new] = ["web", "other"].map(|unit| hosts(&[1, 2, 3], &local(unit)));
    let rows = lines(&old, &new);
    let over_loopback = "+ host/app=web (3) -> host/app=cache (3): TCP, UDP, loopback only";
    assert!(rows.iter().any(|row| row == over_loopback), "{rows:?}");
    // By the addresses of the node, the pairs of one node are some of many.
    assert_eq!(rows.len(), 4, "{rows:?}");
}

#[test]
fn those_who_share_a_node_no_longer_are_not_gone() {
    let nobody = "{cidr: {block: 192.0.2.0/24}}";
    let text = text(&hosts(&[1], nobody), &hosts(&[2], nobody));
    assert!(!text.contains("gone") && !text.contains("new"), "{text}");
    let parted = "- host/app=web (1) -> host/app=cache (1 of 3): every port, loopback only\n    \
                  they share a node no longer\n";
    assert!(text.contains(parted), "{text}");
    assert!(text.contains("    they share a node now\n"), "{text}");
}
