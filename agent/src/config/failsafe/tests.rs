use std::path::Path;

use agent_policy::model::IcmpVersion;

use super::*;
use crate::config::{Config, ConfigError, RawConfig};

fn check(text: &str) -> Result<Config, ConfigError> {
    Config::check(RawConfig::parse(Path::new("settings.yaml"), text)?)
}

fn rules(text: &str) -> Vec<Failsafe> {
    check(text).unwrap().failsafe.rules()
}

fn names(rules: &[Failsafe]) -> Vec<(&str, Direction)> {
    rules
        .iter()
        .map(|rule| (rule.name.as_str(), rule.direction))
        .collect()
}

const EVERYTHING: &str = "failsafe:
  managementCidrs: [192.0.2.0/24, '2001:db8::/32']
  apiServers: [10.0.0.1, '10.0.0.2:6443', '[fd00::1]:443']
  dhcp: false
  entries:
  - {name: metrics, direction: ingress, cidrs: [10.9.0.0/16],
     ports: [{tcp: {port: 9100}}, {udp: {port: 1, endPort: 9}}, {sctp: {}}]}
  - {name: ping, direction: egress, cidrs: [0.0.0.0/0],
     ports: [{icmp: {type: 8, code: 0}}, {icmpv6: {}}, {protocol: 47}]}
  - {name: backup, direction: egress, cidrs: [10.8.0.1/32]}
";

#[test]
fn without_settings_there_is_dhcp() {
    for text in ["", "node: a\n", "failsafe: {}\n"] {
        let rules = rules(text);
        let both = [("dhcp", Direction::Ingress), ("dhcp", Direction::Egress)];
        assert_eq!(names(&rules), both, "{text:?}");
        assert_eq!(rules[0].peers, Peers::Every);
        let ports = vec![range(Protocol::Udp, 67, 68), range(Protocol::Udp, 546, 547)];
        assert_eq!(rules[0].ports, Ports::Listed(ports));
    }
}

#[test]
fn every_setting_becomes_a_rule_with_its_place() {
    let rules = rules(EVERYTHING);
    assert_eq!(
        names(&rules),
        [
            ("ssh", Direction::Ingress),
            ("api-server 10.0.0.1", Direction::Egress),
            ("api-server 10.0.0.2:6443", Direction::Egress),
            ("api-server [fd00::1]:443", Direction::Egress),
            ("metrics", Direction::Ingress),
            ("ping", Direction::Egress),
            ("backup", Direction::Egress),
        ]
    );
    let [ssh, any, one, _, metrics, ping, backup] = &rules[..] else {
        panic!("{rules:?}");
    };
    let networks = ["192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap());
    assert_eq!(ssh.peers, blocks(networks));
    assert_eq!(ssh.ports, Ports::Listed(vec![range(Protocol::Tcp, 22, 22)]));
    let every = PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Every,
    };
    assert_eq!(any.ports, Ports::Listed(vec![every]));
    assert_eq!(one.peers, blocks(["10.0.0.2/32".parse().unwrap()]));
    assert_eq!(
        one.ports,
        Ports::Listed(vec![range(Protocol::Tcp, 6443, 6443)])
    );
    let (Ports::Listed(metrics_ports), Ports::Listed(ping_ports)) = (&metrics.ports, &ping.ports)
    else {
        panic!("{metrics:?} {ping:?}");
    };
    assert_eq!(metrics_ports[1], range(Protocol::Udp, 1, 9));
    let echo = PortMatch::Icmp {
        version: IcmpVersion::V4,
        kind: Some(8),
        code: Some(0),
    };
    assert_eq!(
        (ping_ports[0].clone(), ping_ports[2].clone()),
        (echo, PortMatch::Protocol(47))
    );
    assert_eq!(backup.ports, Ports::Every);
    let lines: Vec<u32> = rules.iter().map(|rule| rule.source.line).collect();
    assert_eq!(lines, [2, 3, 3, 3, 6, 8, 10]);
    assert!(
        rules
            .iter()
            .all(|rule| &*rule.source.file == "settings.yaml")
    );
}

#[test]
fn failsafe_prints_as_settings_that_give_it_again() {
    let config = check(EVERYTHING).unwrap();
    for printed in [
        serde_saphyr::to_string(&config).unwrap(),
        serde_json::to_string(&config).unwrap(),
    ] {
        let again = check(&printed).unwrap();
        assert_eq!(again, config, "{printed}");
        assert_eq!(
            names(&again.failsafe.rules()),
            names(&config.failsafe.rules())
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused_where_it_stands() {
    let entry = |rest: &str| {
        format!(
            "failsafe:\n  entries:\n  - {{name: x, direction: egress, cidrs: [10.0.0.0/8], {rest}}}\n"
        )
    };
    let cases = [
        (
            "failsafe: {managementCidrs: [192.0.2.1/24]}\n".to_owned(),
            "settings.yaml:1:30: `failsafe.managementCidrs` is `192.0.2.1/24`, which has host \
             bits, expected `192.0.2.0/24`",
        ),
        (
            "failsafe: {managementCidrs: [here]}\n".to_owned(),
            "settings.yaml:1:30: `failsafe.managementCidrs` is `here`, expected a network, as in \
             192.0.2.0/24",
        ),
        (
            "failsafe:\n  apiServers: ['fd00::1:x']\n".to_owned(),
            "settings.yaml:2:16: `failsafe.apiServers` is `fd00::1:x`, expected an address, or \
             address:port (IPv6: [address]:port)",
        ),
        (
            "failsafe: {entries: [{name: dhcp, direction: egress, cidrs: [10.0.0.0/8]}]}\n"
                .to_owned(),
            "settings.yaml:1:29: `failsafe.entries.name` is `dhcp` once more, expected another name",
        ),
        (
            "failsafe: {entries: [{name: a, direction: egress, cidrs: []}]}\n".to_owned(),
            "settings.yaml:1:22: `failsafe.entries.cidrs` is empty, expected 0.0.0.0/0 and ::/0 \
             for every peer",
        ),
        (
            entry("ports: [{tcp: {}, udp: {}}]"),
            "settings.yaml:3:63: `failsafe.entries.ports` is several at once, expected one of \
             `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` and `protocol`",
        ),
        (
            entry("ports: [{tcp: {port: 5, endPort: 4}}]"),
            "settings.yaml:3:63: `failsafe.entries.ports` is an `endPort` below its `port`, \
             expected the last port of the range",
        ),
        (
            entry("ports: []"),
            "settings.yaml:3:5: `failsafe.entries.ports` is empty, expected at least one port, or \
             no `ports` for every port and protocol",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(check(&text).unwrap_err().to_string(), expected);
    }
    for (text, named) in [
        ("failsafe: {dchp: true}\n", "dchp"),
        ("failsafe:\n  dhcp: maybe\n", "bool"),
        (
            "failsafe: {entries: [{name: x, direction: both, cidrs: []}]}\n",
            "both",
        ),
        ("failsafe: {entries: [{name: x, cidrs: []}]}\n", "direction"),
        (
            "failsafe: {entries: [{name: x, direction: egress}]}\n",
            "cidrs",
        ),
    ] {
        let message = check(text).unwrap_err().to_string();
        assert!(
            message.starts_with("settings.yaml:") && message.contains(named),
            "{text:?}: {message}"
        );
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_in_its_order() {
    let text = "failsafe:
  managementCidrs: [192.0.2.1/24, 192.0.2.0/24, here, '::ffff:10.1.2.3/104']
  apiServers: ['10.0.0.1:0', '[::ffff:10.0.0.1]:443', '::ffff:10.0.0.1', 10.0.0.1]
  entries:
  - {name: '', direction: egress, cidrs: [10.0.0.1/8, 10.0.0.0/8, x],
     ports: [{tcp: {port: 70000}}, {udp: {endPort: 5}}, {}, {icmp: {type: 256}, sctp: {port: -1}}]}
  - {name: a, direction: egress, cidrs: [], ports: []}
  - {name: a, direction: egress, cidrs: [10.0.0.0/8], ports: [{protocol: 300}]}
  - {name: ssh, direction: egress, cidrs: [10.0.0.0/8]}
";
    let told = check(text).unwrap_err().to_string();
    let places: Vec<&str> = told
        .lines()
        .map(|line| line.strip_prefix("settings.yaml:").unwrap())
        .collect();
    let expected = [
        "2:21: `failsafe.managementCidrs` is `192.0.2.1/24`, which has host bits, expected `192.0.2.0/24`",
        "2:49: `failsafe.managementCidrs` is `here`, expected a network, as in 192.0.2.0/24",
        "2:55: `failsafe.managementCidrs` is `::ffff:10.1.2.3/104`, which is IPv4 written as IPv6, expected `10.0.0.0/8`",
        "3:16: `failsafe.apiServers` is `10.0.0.1:0`, with port 0, expected 1 to 65535",
        "3:30: `failsafe.apiServers` is `[::ffff:10.0.0.1]:443`, which is IPv4 written as IPv6, expected `10.0.0.1:443`",
        "3:55: `failsafe.apiServers` is `::ffff:10.0.0.1`, which is IPv4 written as IPv6, expected `10.0.0.1`",
        "5:12: `failsafe.entries.name` is empty, expected a name",
        "5:43: `failsafe.entries.cidrs` is `10.0.0.1/8`, which has host bits, expected `10.0.0.0/8`",
        "5:67: `failsafe.entries.cidrs` is `x`, expected a network, as in 192.0.2.0/24",
        "6:14: `failsafe.entries.ports` is port 70000, expected 1 to 65535",
        "6:36: `failsafe.entries.ports` is an `endPort` alone, expected a `port` with it",
        "6:57: `failsafe.entries.ports` is empty, expected one of `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` and `protocol`",
        "6:61: `failsafe.entries.ports` is several at once, expected one of `tcp`, `udp`, `sctp`, `icmp`, `icmpv6` and `protocol`",
        "6:61: `failsafe.entries.ports` is port -1, expected 1 to 65535",
        "6:61: `failsafe.entries.ports` is a type of 256, expected 0 to 255",
        "7:5: `failsafe.entries.cidrs` is empty, expected 0.0.0.0/0 and ::/0 for every peer",
        "7:5: `failsafe.entries.ports` is empty, expected at least one port, or no `ports` for every port and protocol",
        "8:12: `failsafe.entries.name` is `a` once more, expected another name",
        "8:63: `failsafe.entries.ports` is a protocol of 300, expected 0 to 255",
        "9:12: `failsafe.entries.name` is `ssh` once more, expected another name",
    ];
    assert_eq!(places, expected);
}
