//! Those who share the addresses of a host, over loopback.

use super::*;

fn rows(old: &str, new: &str) -> Vec<String> {
    let [old, new] =
        [old, new].map(|denied| example::loaded(&example::HOST.replace("DENIED", denied)));
    let text = text(&old, &new);
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
