use super::*;
use crate::datapath::object::Frames;

fn parse(text: &str) -> Result<RawConfig, ConfigError> {
    RawConfig::parse(Path::new("settings.yaml"), text)
}

fn check(text: &str) -> Result<Config, ConfigError> {
    Config::check(parse(text).unwrap())
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = check("").unwrap();
    assert_eq!(config.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(config.capacities.flows, 131_072);
    assert_eq!(config.capacities.denials, 16_384);
    assert!(!config.detach_on_exit && !config.node.is_empty());
    assert!(matches!(
        config.with_policies(),
        Err(ConfigError::NoPolicies)
    ));
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = parse("node: a\nsocket: /run/a.sock\npolicies: [x]\n").unwrap();
    let flags = RawConfig {
        node: Some("b".to_owned()),
        policies: Some(vec!["y".into()]),
        ..RawConfig::default()
    };
    let config = Config::check(flags.over(file)).unwrap();
    assert_eq!(
        (config.node.as_str(), config.socket.to_str()),
        ("b", Some("/run/a.sock"))
    );
    assert_eq!(config.policies, [PathBuf::from("y")]);
}

#[test]
fn the_api_is_asked_where_a_flag_or_the_file_says_so() {
    assert_eq!(check("").unwrap().kubernetes, None);
    let file = parse("kubernetes: {kubeconfig: /a}\n").unwrap();
    let flags = RawConfig {
        kubernetes: Some(RawKubernetes::default()),
        ..RawConfig::default()
    };
    let config = Config::check(flags.over(file)).unwrap();
    let kubeconfig = config.kubernetes.clone().unwrap().kubeconfig;
    assert_eq!(kubeconfig, Some(PathBuf::from("/a")));
    // No file is needed beside it.
    config.with_policies().unwrap();
    let none = check("kubernetes: {}\n").unwrap();
    assert_eq!(none.kubernetes, Some(KubernetesConfig::default()));
}

#[test]
fn settings_print_as_a_file_that_gives_them_again() {
    let config = check(
        "policies: [/etc/ringfence]\nnode: 'yes'\ncluster: east-1\nflows: '-'\nlog_format: json\n\
         detach_on_exit: true\ncapacities: {flows: 7}\n\
         frames: {allow: [0x8809, lldp, '0x22f0', 35063], dhcp_client: true}\n\
         workload_interfaces: {names: [veth*, tap0, veth*], unknown: compatible}\n\
         dns: {names: false, resolvers: [10.96.0.10, 'fd00::/64']}\n\
         metrics: '[::1]:9464'\n\
         hubble: {socket: /run/hubble.sock, listen: '0.0.0.0:4244', flows: 9, tls: {cert_file: /c, key_file: /k, \
         client_ca_file: /a}}\n\
         sinks: [{name: siem, file: {path: /var/log/flows, rotate_bytes: 70000, rotate_seconds: 60, keep_bytes: 5, \
         compress: none}, filter: {verdicts: [deny], directions: [egress], namespaces: [a], labels: {b: c}, \
         cidrs: [10.0.0.0/8]}, sample: 10}, {name: all, file: {path: /b}}, \
         {name: u, ipfix: {to: 'a:1', observation_domain: 7, template_seconds: 5, message_bytes: 600, enterprise: 9}}, \
         {name: t, ipfix: {to: '[::1]:1', transport: tcp}}, \
         {name: o, otlp: {endpoint: 'https://a:1', protocol: grpc, \
         headers_file: /h, tls: {ca_file: /c, cert_file: /d, key_file: /e, server_name: f}, compression: gzip, timeout_seconds: 3, metrics: true}}]\n\
         kubernetes: {kubeconfig: /etc/kubernetes/agent.conf}\n",
    )
    .unwrap();
    let allowed = [0x22f0, 0x8809, 0x88cc, 0x88f7];
    assert_eq!(Some(config.frames.frames), Frames::of(allowed));
    let printed = serde_saphyr::to_string(&config).unwrap();
    assert_eq!(check(&printed).unwrap(), config, "{printed}");
    let printed = serde_json::to_string(&config).unwrap();
    assert_eq!(check(&printed).unwrap(), config, "JSON is YAML: {printed}");
}

#[test]
fn what_is_not_understood_is_named_with_its_place() {
    for (text, place, named) in [
        ("node: a\nsockets: /x\n", ":2:", "sockets"),
        ("capacities:\n  flow: 1\n", ":2:", "flow"),
        ("node: a\nnode: b\n", ":2:", "node"),
        ("capacities: {flows: many}\n", ":1:", "u32"),
        ("log_format: loud\n", ":1:", "loud"),
        ("frames: {dhcp: true}\n", ":1:", "dhcp"),
        ("workload_interfaces:\n  name: [a]\n", ":2:", "name"),
        (
            "workload_interfaces:\n  unknown: open\n",
            ":2:",
            "compatible",
        ),
        ("workload_interfaces: {names: veth*}\n", ":1:", "sequence"),
        ("dns: {name: true}\n", ":1:", "name"),
        (
            "sinks:\n- name: a\n  file: {path: /a}\n  filters: {}\n",
            ":4:",
            "filters",
        ),
    ] {
        let message = parse(text).unwrap_err().to_string();
        println!("{message}");
        assert!(
            message.starts_with(&format!("settings.yaml{place}")) && message.contains(named),
            "{text:?}: {message}"
        );
    }
}

#[test]
fn values_that_cannot_work_are_refused_with_what_was_expected() {
    for (text, expected) in [
        (
            "node: ''",
            "`node` is empty, expected the name of this node",
        ),
        (
            "capacities: {flows: 0}",
            "`capacities.flows` is 0, expected 1 to 67108864",
        ),
        (
            "capacities: {endpoints: 65536}",
            "`capacities.endpoints` is 65536, expected 1 to 65535",
        ),
        (
            "metrics: 127.0.0.1:0",
            "`metrics` is 127.0.0.1:0, expected an address and a port, such as 127.0.0.1:9464 or [::1]:9464",
        ),
        (
            "frames: {allow: [lldpp]}",
            "`frames.allow` is `lldpp`, expected a number, as in 0x88cc, or one of profinet, \
             ethercat, lldp, eapol, macsec, ptp, fcoe",
        ),
        (
            "frames: {allow: [0x86dd]}",
            "`frames.allow` is `0x86dd`, IPv6, which policy is about, expected another type",
        ),
        (
            "frames: {allow: [33024]}",
            "`frames.allow` is `33024`, a VLAN tag, behind which anything may come, expected \
             another type",
        ),
        (
            "frames: {allow: [0x05ff]}",
            "`frames.allow` is `0x05ff`, expected at least 0x0600",
        ),
        (
            "frames: {allow: [1537, 1538, 1539, 1540, 1541, 1542, 1543, 1544, 1545, 1546, 1547, \
             1548, 1549, 1550, 1551, 1552, 1553]}",
            "`frames.allow` is 17, expected at most 16",
        ),
    ] {
        assert_eq!(check(text).unwrap_err().to_string(), expected);
    }
    let long = format!("socket: /{}", "x".repeat(200));
    assert!(check(&long).unwrap_err().to_string().contains("201 bytes"));
}

#[test]
fn names_that_are_no_workloads_are_all_told_with_their_places() {
    let error = check("workload_interfaces:\n  names:\n  - '*'\n  - veth*\n  - veth?\n  - lo\n");
    assert_eq!(
        error.unwrap_err().to_string(),
        "settings.yaml:3:5: `workload_interfaces.names` is `*`, expected something before the `*`: \
         the node's own interfaces are not its workloads'\n\
         settings.yaml:5:5: `workload_interfaces.names` is `veth?`, expected a name, as in cali0, or \
         what names begin with, as in cali*\n\
         settings.yaml:6:5: `workload_interfaces.names` is `lo`, expected another name: nothing of a \
         workload is at the loopback interface"
    );
}

#[test]
fn what_is_wrong_with_sinks_is_all_told_with_its_place() {
    let error = check(
        "flows: /b\nsinks:\n- name: 'a b'\n  file: {path: flows.jsonl, rotate_bytes: 7}\n  sample: 0\n\
         - name: b\n  file: {path: /b, rotate_seconds: 1}\n  filter: {cidrs: [10.0.0.1/8, x]}\n\
         - name: b\n  file: {path: /b}\n",
    );
    let expected = "\
        settings.yaml:3:9: `sinks.name` is `a b`, expected a word of letters, digits, `-` and `_`, which status and metrics show\n\
        settings.yaml:4:16: `sinks.file.path` is `flows.jsonl`, expected the path of a file, from the root on, without `..`\n\
        settings.yaml:4:43: `sinks.file.rotate_bytes` is `7`, expected at least 65536\n\
        settings.yaml:5:11: `sinks.sample` is `0`, expected at least 1: one of so many permitted flows is written\n\
        settings.yaml:7:36: `sinks.file.rotate_seconds` is `1`, expected at least 60\n\
        settings.yaml:7:16: `sinks.file.path` is `/b`, expected a file that no other sink writes\n\
        settings.yaml:8:20: `sinks.filter.cidrs` is `10.0.0.1/8`, expected 10.0.0.0/8, without bits of hosts\n\
        settings.yaml:8:32: `sinks.filter.cidrs` is `x`, expected a network, as in 10.0.0.0/8 or fd00::/8\n\
        settings.yaml:9:9: `sinks.name` is `b`, expected a name that no other sink has\n\
        settings.yaml:10:16: `sinks.file.path` is `/b`, expected a file that no other sink writes";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn a_sink_goes_to_one_place() {
    let told = check("sinks:\n- {name: a}\n").unwrap_err().to_string();
    assert!(
        told.contains("settings.yaml:2:3: `sinks` is `0 destinations`"),
        "{told}"
    );
}

#[test]
fn what_is_hashed_is_there() {
    let told = check(
        "sinks:\n- name: a\n  file: {path: /a}\n  privacy: {drop: [workload], hash: [ip, labels]}\n",
    );
    let told = told.unwrap_err().to_string();
    let alone = check("sinks:\n- name: a\n  file: {path: /a}\n  privacy: {key_file: key}\n");
    assert_eq!(
        alone.unwrap_err().to_string(),
        "settings.yaml:4:23: `sinks.privacy.key_file` is `key`, expected the path of a file, from the root on\n\
         settings.yaml:4:23: `sinks.privacy.key_file` is `key`, expected `hash` or `drop` beside it"
    );
    let expected = "settings.yaml:4:42: `sinks.privacy.hash` is `labels`, expected a field that `drop` does not leave out";
    assert_eq!(told, expected);
}

#[test]
fn what_is_wrong_with_a_far_end_is_told_with_its_place() {
    let told = check(
        "sinks:\n- name: a\n  syslog: {to: collector, tls: {cert_file: cert}}\n- name: b\n  syslog: {to: 'b:1', transport: tls}\n  \
         file: {path: /b}\n",
    );
    let expected = "\
        settings.yaml:3:32: `sinks.syslog.tls` is `one of them`, expected `cert_file` and `key_file`, or neither\n\
        settings.yaml:3:32: `sinks.syslog.tls` is `a relative path`, expected paths from the root on\n\
        settings.yaml:3:32: `sinks.syslog.tls` is `given`, expected nothing, or `transport: tls`\n\
        settings.yaml:3:16: `sinks.syslog.to` is `collector`, expected HOST:PORT, as in collector.example:514 or [2001:db8::1]:514\n\
        settings.yaml:4:3: `sinks` is `2 destinations`, expected one of `file`, `parquet`, `syslog`, `ipfix`, `otlp`";
    assert_eq!(told.unwrap_err().to_string(), expected);
}

#[test]
fn pages_of_sinks_show_settings_that_hold() {
    for (page, shown, sinks) in [
        ("sinks", include_str!("../../docs/sinks.md"), 2),
        ("formats", include_str!("../../docs/formats.md"), 1),
        ("syslog", include_str!("../../docs/syslog.md"), 1),
    ] {
        let (_, shown) = shown.split_once("```yaml\n").unwrap();
        let config = check(shown.split_once("```").unwrap().0).unwrap();
        assert_eq!(config.sinks.len(), sinks, "{page}");
    }
}

#[test]
fn what_is_wrong_with_ipfix_is_all_told_with_its_place() {
    let error = check(
        "sinks:\n- name: a\n  ipfix: {to: a, template_seconds: 0, message_bytes: 599, enterprise: 29305}\n\
         - name: b\n  ipfix: {to: 'a:1', transport: tcp, template_seconds: 60, message_bytes: 65536, enterprise: 0}\n\
         - name: c\n  ipfix: {to: 'a:1', message_bytes: 65508}\n  file: {path: /a}\n",
    );
    let expected = "\
        settings.yaml:3:15: `sinks.ipfix.to` is `a`, expected HOST:PORT, an address of IPv6 in brackets\n\
        settings.yaml:3:36: `sinks.ipfix.template_seconds` is `0`, expected 1 to 3600\n\
        settings.yaml:3:54: `sinks.ipfix.message_bytes` is `599`, expected 600 to 65507\n\
        settings.yaml:3:71: `sinks.ipfix.enterprise` is `29305`, expected your own number of IANA's private enterprise numbers; \
        0 and 29305 have another meaning\n\
        settings.yaml:5:56: `sinks.ipfix.template_seconds` is `60`, expected nothing: over TCP, templates are sent once a \
        connection\n\
        settings.yaml:5:75: `sinks.ipfix.message_bytes` is `65536`, expected 600 to 65535\n\
        settings.yaml:5:94: `sinks.ipfix.enterprise` is `0`, expected your own number of IANA's private enterprise numbers; \
        0 and 29305 have another meaning\n\
        settings.yaml:7:37: `sinks.ipfix.message_bytes` is `65508`, expected 600 to 65507\n\
        settings.yaml:6:3: `sinks` is `2 destinations`, expected one of `file`, `parquet`, `syslog`, `ipfix`, `otlp`";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn the_page_of_ipfix_shows_settings_that_hold() {
    let page = include_str!("../../docs/ipfix.md");
    let shown = page.split_once("```yaml\n").unwrap().1;
    let shown = shown.split_once("```").unwrap().0;
    let sinks = check(shown).unwrap().sinks;
    assert_eq!(sinks.len(), 2);
    // The first says by words what the others take by themselves.
    let short = shown.lines().take(4).map(|line| format!("{line}\n"));
    let short: String = short
        .chain(["    observation_domain: 7\n".to_owned()])
        .collect();
    assert_eq!(check(&short).unwrap().sinks.first(), sinks.first());
}

#[test]
fn hubble_is_asked_where_the_file_says_and_keeps_as_many_lines() {
    assert_eq!(
        HubbleConfig::lines(check("").unwrap().hubble.as_ref()),
        4096
    );
    let config = check("hubble: {listen: '127.0.0.1:4244', flows: 65535}\n").unwrap();
    assert_eq!(HubbleConfig::lines(config.hubble.as_ref()), 65_535);
    check("hubble: {listen: '[::]:4244', insecure: true}\n").unwrap();
    check("hubble: {socket: /run/h.sock}\n").unwrap();
}

#[test]
fn what_is_wrong_with_hubble_is_all_told_with_its_place() {
    for (text, expected) in [
        (
            "hubble: {}\n",
            "settings.yaml:1:9: `hubble` is without a place, expected `socket` or `listen`, or both: where it is to be asked",
        ),
        (
            "hubble:\n  listen: 0.0.0.0:4244\n  flows: 0\n",
            "settings.yaml:2:11: `hubble.listen` is `0.0.0.0:4244` without TLS, expected `tls`, or a loopback address, or \
             `insecure: true`: whoever reaches it reads who talks to whom\n\
             settings.yaml:3:10: `hubble.flows` is 0, expected 1 to 65535",
        ),
        (
            "socket: /run/a.sock\nhubble: {socket: /run/a.sock, listen: localhost}\n",
            "settings.yaml:2:39: `hubble.listen` is `localhost`, expected an address and a port, such as 127.0.0.1:4244 or \
             [::1]:4244\n\
             settings.yaml:2:18: `hubble.socket` is `/run/a.sock`, expected another path than that of the control socket",
        ),
        (
            "hubble:\n  socket: run/h.sock\n  tls: {cert_file: c, key_file: /k}\n",
            "settings.yaml:3:8: `hubble.tls` is alone, expected `listen` beside it: the socket is its owner's alone\n\
             settings.yaml:3:20: `hubble.tls.cert_file` is `c`, expected the path of a file, from the root on, without `..`\n\
             settings.yaml:2:11: `hubble.socket` is `run/h.sock`, expected the path of a file, from the root on, without `..`",
        ),
        (
            "hubble: {listen: '[::1]:1', insecure: true, tls: {cert_file: /c, key_file: /k}}\n",
            "settings.yaml:1:50: `hubble.tls` is there, expected one of `tls` and `insecure`",
        ),
    ] {
        assert_eq!(check(text).unwrap_err().to_string(), expected);
    }
    for (text, named) in [
        ("hubble: {listen: '127.0.0.1:1', port: 1}\n", "port"),
        (
            "hubble: {listen: '127.0.0.1:1', tls: {cert_file: /c}}\n",
            "key_file",
        ),
    ] {
        let told = parse(text).unwrap_err().to_string();
        assert!(told.contains(named), "{told}");
    }
}

#[test]
fn the_page_of_hubble_shows_settings_that_hold() {
    let page = include_str!("../../docs/hubble.md");
    let mut shown = 0;
    for block in page.split("```yaml\n").skip(1) {
        let text = block.split_once("```").unwrap().0;
        assert!(check(text).unwrap().hubble.is_some(), "{text}");
        shown += 1;
    }
    assert_eq!(shown, 2);
}

#[test]
fn the_page_of_collectors_shows_settings_that_hold() {
    let page = include_str!("../../docs/otlp.md");
    let shown = page.split_once("```yaml\n").unwrap().1;
    let sinks = check(shown.split_once("```").unwrap().0).unwrap().sinks;
    assert_eq!(sinks.len(), 2);
    let printed = serde_saphyr::to_string(&sinks).unwrap();
    assert!(!printed.contains("blue"), "{printed}");
    let debug = format!("{sinks:?}");
    assert!(!debug.contains("blue"), "{debug}");
}

#[test]
fn what_is_wrong_with_a_collector_is_all_told_with_its_place() {
    let refused = check(
        "sinks:\n- name: a\n  otlp:\n    endpoint: ftp://u:s3cret@a\n    timeout_seconds: 31\n    \
         headers: {Host: s3cret, b: (hidden)}\n  filter: {cidrs: [x]}\n\
         - name: b\n  otlp: {endpoint: 'http://a/b', protocol: grpc, tls: {cert_file: /c, server_name: '-'}}\n\
         - name: c\n  otlp: {endpoint: 'http://a', tls: {}, metrics: true, headers_file: h}\n  privacy: {hash: [node]}\n",
    );
    let expected = "settings.yaml:4:15: `sinks.otlp.endpoint` is `…@a`, expected a URL, as in \
        http://collector.example:4318 or https://collector.example:4318\n\
        settings.yaml:6:21: `sinks.otlp.headers` is `Host: …`, expected another header than `host`, which says how records travel\n\
        settings.yaml:6:32: `sinks.otlp.headers` is `b: …`, expected the value of `b` itself: settings are printed without it\n\
        settings.yaml:5:22: `sinks.otlp.timeout_seconds` is `31`, expected 1 to 30\n\
        settings.yaml:7:20: `sinks.filter.cidrs` is `x`, expected a network, as in 10.0.0.0/8 or fd00::/8\n\
        settings.yaml:9:20: `sinks.otlp.endpoint` is `http://a/b`, expected a URL without a path, as `grpc` has its own\n\
        settings.yaml:9:55: `sinks.otlp.tls` is `one of them`, expected `cert_file` and `key_file`, or neither\n\
        settings.yaml:9:55: `sinks.otlp.tls` is `-`, expected a `server_name` that is a DNS name or an address\n\
        settings.yaml:11:50: `sinks.otlp.metrics` is `true`, expected false where `privacy` hides the node: metrics are of a node\n\
        settings.yaml:11:70: `sinks.otlp.headers_file` is `h`, expected a path from the root on\n\
        settings.yaml:11:37: `sinks.otlp.tls` is `there, and the endpoint is http://`, expected an endpoint that begins with https://, or no `tls`";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

#[cfg(feature = "parquet")]
#[test]
fn the_page_of_parquet_shows_settings_that_hold() {
    let page = include_str!("../../docs/parquet.md");
    let shown = page.split_once("```yaml\n").unwrap().1;
    let config = check(shown.split_once("```").unwrap().0).unwrap();
    let printed = serde_saphyr::to_string(&config).unwrap();
    assert_eq!(check(&printed).unwrap(), config, "{printed}");
}

#[cfg(feature = "parquet")]
#[test]
fn what_is_wrong_with_parquet_is_all_told_with_its_place() {
    let error = check(
        "sinks:\n- name: a\n  parquet: {folder: a, rows: 1, seconds: 4000}\n- name: b\n  parquet: {folder: /b}\n\
         - name: c\n  parquet: {folder: /b}\n- name: d\n  parquet: {folder: /d}\n  file: {path: /e}\n",
    );
    let expected = "\
        settings.yaml:3:21: `sinks.parquet.folder` is `a`, expected the path of a folder, from the root on, without `..`\n\
        settings.yaml:3:30: `sinks.parquet.rows` is `1`, expected 1000 to 10000000\n\
        settings.yaml:3:42: `sinks.parquet.seconds` is `4000`, expected 10 to 3600\n\
        settings.yaml:7:21: `sinks.parquet.folder` is `/b`, expected a folder that no other sink writes\n\
        settings.yaml:8:3: `sinks` is `2 destinations`, expected one of `file`, `parquet`, `syslog`, `ipfix`, `otlp`";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[cfg(not(feature = "parquet"))]
#[test]
fn a_build_without_parquet_says_what_to_do() {
    let error = check("sinks:\n- name: a\n  parquet: {folder: /a}\n");
    let expected = "settings.yaml:3:21: `sinks.parquet` is `parquet`, expected another destination: this build has no Parquet: \
         build with `cargo build --features parquet`";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn names_are_learned_unless_the_file_says_otherwise() {
    assert!(check("").unwrap().dns.names);
    assert!(!check("dns: {names: false}\n").unwrap().dns.names);
    let error = check("dns:\n  resolvers:\n  - 10.0.0.1\n  - dns.example\n  - 10.0.0.0/33\n");
    assert_eq!(
        error.unwrap_err().to_string(),
        "settings.yaml:4:5: `dns.resolvers` is `dns.example`, expected an address or a network, such as 10.96.0.10 or fd00::/64\n\
         settings.yaml:5:5: `dns.resolvers` is `10.0.0.0/33`, expected an address or a network, such as 10.96.0.10 or fd00::/64"
    );
}

#[test]
fn a_cluster_is_named_so_that_it_can_be_part_of_other_names() {
    for wrong in ["''", "a/b", "'a b'", &"a".repeat(64)] {
        let error = check(&format!("cluster: {wrong}\n"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`cluster` is"), "{error}");
    }
    let config = check("cluster: east-1.example_2\n").unwrap();
    assert_eq!(config.cluster.as_deref(), Some("east-1.example_2"));
}
