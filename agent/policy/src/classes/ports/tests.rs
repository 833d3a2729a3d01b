use super::*;

fn tcp(first: u16, last: u16) -> PortRange {
    PortRange {
        protocol: Some(6),
        first,
        last,
    }
}

#[test]
fn ranges_come_out_as_they_went_in_and_joined() {
    let set = PortSet::of(&[tcp(80, 80), tcp(81, 90), tcp(0, 0)]);
    assert_eq!(set.ranges(), [tcp(0, 0), tcp(80, 90)]);
    assert_eq!(set.to_string(), "TCP/0, TCP/80-90");
    assert_eq!(PortSet::every().to_string(), "every port");
    assert_eq!(PortSet::of(&[]).ranges(), []);
    let all = PortSet::every()
        .as_map()
        .zip(set.as_map(), |every, some| *every && !some);
    assert_eq!(
        PortSet::new(all).to_string(),
        "every port but TCP/0, TCP/80-90"
    );
}

#[test]
fn a_map_answers_what_it_was_asked() {
    let borders = [(6, [80, 81].into()), (17, [53].into())].into();
    let map = PortMap::ask(&borders, |port| {
        (port.protocol, port.number) == (6, 80) || port.protocol == 17
    });
    for (protocol, number, expected) in [
        (6, 79, false),
        (6, 80, true),
        (6, 81, false),
        (17, 0, true),
        (47, 0, false),
    ] {
        assert_eq!(
            *map.at(Port { protocol, number }),
            expected,
            "{protocol} {number}"
        );
    }
    assert_eq!(map.find(|is_in| *is_in), Some("TCP/80".parse().unwrap()));
    assert_eq!(map.find(|is_in| !is_in), Some("TCP/1".parse().unwrap()));
    assert_eq!(PortSet::new(map).to_string(), "TCP/80, UDP");
}

#[test]
fn single_ports_may_have_other_values() {
    let port = |text: &str| -> Port { text.parse().unwrap() };
    let low = PortSet::of(&[tcp(0, 80)]);
    let others = ["TCP/80", "TCP/81", "TCP/65535", "UDP/53"].map(|text| (port(text), true));
    let with = |others| PortSet::new(low.as_map().with(&others)).to_string();
    assert_eq!(with([].into()), "TCP/0-80");
    assert_eq!(with(others.into()), "TCP/0-81, TCP/65535, UDP/53");
    assert_eq!(with([(port("TCP/1"), false)].into()), "TCP/0, TCP/2-80");
}

#[test]
fn a_range_is_read_as_it_is_printed() {
    for text in [
        "TCP/80",
        "TCP/80-90",
        "UDP",
        "ICMP",
        "ICMP/*",
        "ICMPv6/*",
        "ICMP/3/1",
        "protocol/47",
    ] {
        assert_eq!(PortRange::parse(text).unwrap().to_string(), text);
    }
    for text in ["", "http", "TCP/90-80", "ICMP/1-2", "TCP/0", "TCP/1-", "-"] {
        assert_eq!(PortRange::parse(text), None, "{text}");
    }
}

#[test]
fn icmp_types_have_their_own_way_to_be_written() {
    let icmp = |first, last| PortRange {
        protocol: Some(1),
        first,
        last,
    };
    assert_eq!(icmp(0x0800, 0x0800).to_string(), "ICMP");
    assert_eq!(icmp(0x0300, 0x03ff).to_string(), "ICMP/3");
    assert_eq!(icmp(0, u16::MAX).to_string(), "ICMP/*");
}

#[test]
fn icmp_belongs_to_one_family() {
    let parse = |texts: &[&str]| -> PortSet {
        let ranges: Vec<_> = texts
            .iter()
            .map(|text| PortRange::parse(text).unwrap())
            .collect();
        PortSet::of(&ranges)
    };
    let both = parse(&["ICMP/*", "ICMPv6/*", "TCP/80"]);
    assert_eq!(both.over(true).to_string(), "ICMP/*, TCP/80");
    assert_eq!(both.over(false).to_string(), "TCP/80, ICMPv6/*");
    assert!(parse(&["ICMPv6"]).over(true).is_empty());
}

#[test]
fn many_ranges_make_one_set_in_any_order() {
    let ranges: Vec<PortRange> = (0..30_000_u16)
        .rev()
        .map(|number| PortRange {
            protocol: Some(6),
            first: number * 2 + 1,
            last: number * 2 + 1,
        })
        .chain(PortRange::parse("TCP/100-65535"))
        .collect();
    let all = PortSet::of(&ranges);
    assert_eq!(all.ranges().len(), 50);
    assert_eq!(all.ranges().last().unwrap().to_string(), "TCP/99-65535");
}

#[test]
fn as_json_every_protocol_that_is_left_out_is_named() {
    let but = |texts: &[&str]| {
        let ranges: Vec<_> = texts
            .iter()
            .map(|text| PortRange::parse(text).unwrap())
            .collect();
        let left = PortSet::of(&ranges)
            .as_map()
            .zip(&PortMap::constant(true), |is_out, is_in| *is_in && !is_out);
        serde_json::to_string(&PortSet::new(left)).unwrap()
    };
    assert_eq!(but(&[]), r#"["other protocols"]"#);
    assert_eq!(but(&["TCP"]), r#"["no TCP","other protocols"]"#);
    assert_eq!(
        but(&["TCP/80-65535", "SCTP"]),
        r#"["no SCTP","TCP/0-79","other protocols"]"#
    );
}
