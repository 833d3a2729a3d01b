//! Each field of a filter: what it takes, what it does not, and what is no value of it.

use agent_hubble_proto::flow::{
    HttpHeader, IpVersion, TrafficDirection, flow_filter::Experimental,
};

use super::*;
use crate::hubble::tests::{record, told};

fn flow() -> Flow {
    let mut flow = told(&record(|_| {})).remove(0);
    flow.interface = Some(NetworkInterface {
        index: 7,
        name: "veth7".to_owned(),
    });
    flow.source_names = vec!["gateway.example.com.".to_owned()];
    flow.node_labels = vec!["zone=a".to_owned()];
    flow.source_service = Some(Service {
        name: "front".to_owned(),
        namespace: "edge".to_owned(),
    });
    flow.ip.as_mut().unwrap().source_xlated = "192.0.2.1".to_owned();
    flow
}

#[test]
fn a_service_that_was_asked_for_is_found() {
    let asked = told(&record(|record| {
        record.dst.workload = None;
        record.dst.service = Some("shop/web".into());
    }))
    .remove(0);
    for (pattern, expected) in [
        ("shop/web", true),
        ("shop/", true),
        ("/", true),
        ("web", false),
        ("edge/web", false),
    ] {
        let filter = FlowFilter {
            destination_service: vec![pattern.to_owned()],
            ..FlowFilter::default()
        };
        let filter = Filters::parse(vec![filter], Vec::new()).unwrap();
        assert_eq!(filter.pass(&asked), expected, "{pattern}");
    }
}

fn denied() -> Flow {
    told(&record(|record| {
        record.kind = crate::flow::record::Kind::Deny;
        record.drop_reason = Some("default-deny".into());
    }))
    .remove(0)
}

type Change = Box<dyn Fn(&mut FlowFilter)>;

fn with(change: impl Fn(&mut FlowFilter) + 'static) -> Change {
    Box::new(change)
}

fn filter(change: &Change) -> FlowFilter {
    let mut filter = FlowFilter::default();
    change(&mut filter);
    filter
}

/// A field of text.
macro_rules! text {
    ($field:ident, $value:expr) => {
        with(|filter| filter.$field.push($value.to_owned()))
    };
}

/// A field of anything else.
macro_rules! value {
    ($field:ident, $value:expr) => {
        with(|filter| filter.$field.push($value.into()))
    };
}

fn event(r#type: i32, match_sub_type: bool, sub_type: i32) -> EventTypeFilter {
    EventTypeFilter {
        r#type,
        match_sub_type,
        sub_type,
    }
}

fn workload(kind: &str, name: &str) -> Workload {
    Workload {
        name: name.to_owned(),
        kind: kind.to_owned(),
    }
}

fn interface(index: u32, name: &str) -> NetworkInterface {
    NetworkInterface {
        index,
        name: name.to_owned(),
    }
}

fn flags(syn: bool, ack: bool, rst: bool) -> TcpFlags {
    TcpFlags {
        syn,
        ack,
        rst,
        ..TcpFlags::default()
    }
}

/// By which field, with which value, and whether it takes [`flow`].
type Case = (&'static str, Change, bool);

fn of_ends() -> Vec<Case> {
    vec![
        ("source_ip", text!(source_ip, "10.0.0.2"), true),
        ("source_ip", text!(source_ip, "10.0.0.0/24"), true),
        ("source_ip", text!(source_ip, "10.0.0.9/24"), true),
        ("source_ip", text!(source_ip, "10.0.0.1"), false),
        ("source_ip", text!(source_ip, "::/0"), false),
        ("destination_ip", text!(destination_ip, "10.0.0.1"), true),
        ("destination_ip", text!(destination_ip, "10.0.0.2"), false),
        (
            "source_ip_xlated",
            text!(source_ip_xlated, "192.0.2.0/24"),
            true,
        ),
        (
            "source_ip_xlated",
            text!(source_ip_xlated, "10.0.0.2"),
            false,
        ),
        ("source_pod", text!(source_pod, "edge/gateway"), true),
        ("source_pod", text!(source_pod, "edge/gate"), true),
        ("source_pod", text!(source_pod, "edge/"), true),
        ("source_pod", text!(source_pod, "/gateway"), true),
        ("source_pod", text!(source_pod, "/"), true),
        // A name alone is one of the namespace `default`.
        ("source_pod", text!(source_pod, "gateway"), false),
        ("source_pod", text!(source_pod, "edg/"), false),
        ("source_pod", text!(source_pod, "shop/gateway"), false),
        ("destination_pod", text!(destination_pod, "shop/api"), true),
        ("destination_pod", text!(destination_pod, "edge/"), false),
        ("source_service", text!(source_service, "edge/fro"), true),
        ("source_service", text!(source_service, "front"), false),
        (
            "destination_service",
            text!(destination_service, "/"),
            false,
        ),
        ("source_fqdn", text!(source_fqdn, "*.Example.com"), true),
        (
            "source_fqdn",
            text!(source_fqdn, "gateway.example.com."),
            true,
        ),
        ("source_fqdn", text!(source_fqdn, "example.com"), false),
        ("destination_fqdn", text!(destination_fqdn, "*"), false),
        ("source_label", text!(source_label, "app=gateway"), true),
        ("source_label", text!(source_label, "host:app"), true),
        ("source_label", text!(source_label, "app=api"), false),
        (
            "destination_label",
            text!(destination_label, "app in (api,db)"),
            true,
        ),
        (
            "destination_label",
            text!(destination_label, "app!=api"),
            false,
        ),
        ("source_port", text!(source_port, "40000"), true),
        ("source_port", text!(source_port, "8080"), false),
        ("destination_port", text!(destination_port, "8080"), true),
        ("destination_port", text!(destination_port, "0"), false),
    ]
}

fn of_who_they_are() -> Vec<Case> {
    let source = flow().source.unwrap().identity;
    let destination = flow().destination.unwrap().identity;
    vec![
        (
            "source_identity",
            with(move |it| it.source_identity.push(source)),
            true,
        ),
        ("source_identity", value!(source_identity, 2_u32), false),
        (
            "destination_identity",
            with(move |it| it.destination_identity.push(destination)),
            true,
        ),
        (
            "destination_identity",
            value!(destination_identity, 2_u32),
            false,
        ),
        (
            "source_workload",
            value!(source_workload, workload("", "gateway")),
            true,
        ),
        (
            "source_workload",
            value!(source_workload, workload("Workload", "")),
            true,
        ),
        (
            "source_workload",
            value!(source_workload, workload("Pod", "gateway")),
            false,
        ),
        (
            "destination_workload",
            value!(destination_workload, workload("", "api")),
            true,
        ),
        (
            "destination_workload",
            value!(destination_workload, workload("", "gateway")),
            false,
        ),
        (
            "source_cluster_name",
            text!(source_cluster_name, "east.1"),
            true,
        ),
        (
            "source_cluster_name",
            text!(source_cluster_name, "east*"),
            false,
        ),
        (
            "destination_cluster_name",
            text!(destination_cluster_name, "east.1"),
            true,
        ),
        (
            "destination_cluster_name",
            text!(destination_cluster_name, "other"),
            false,
        ),
    ]
}

fn of_the_whole() -> Vec<Case> {
    let uuid = flow().uuid;
    let verdict = |it: Verdict| with(move |filter| filter.verdict.push(it.into()));
    vec![
        ("verdict", verdict(Verdict::Forwarded), true),
        ("verdict", verdict(Verdict::Dropped), false),
        ("event_type", value!(event_type, event(5, false, 9)), true),
        ("event_type", value!(event_type, event(5, true, 0)), true),
        ("event_type", value!(event_type, event(0, false, 0)), true),
        ("event_type", value!(event_type, event(4, false, 0)), false),
        ("event_type", value!(event_type, event(5, true, 1)), false),
        ("protocol", text!(protocol, "TCP"), true),
        ("protocol", text!(protocol, "icmp"), false),
        ("reply", value!(reply, false), true),
        ("reply", value!(reply, true), false),
        (
            "tcp_flags",
            value!(tcp_flags, flags(true, true, false)),
            true,
        ),
        (
            "tcp_flags",
            value!(tcp_flags, flags(true, false, false)),
            true,
        ),
        (
            "tcp_flags",
            value!(tcp_flags, flags(true, false, true)),
            false,
        ),
        ("node_name", text!(node_name, "node-1"), true),
        ("node_name", text!(node_name, "east.1/NODE-*"), true),
        ("node_name", text!(node_name, "east.1/"), true),
        ("node_name", text!(node_name, "*/node-1"), true),
        ("node_name", text!(node_name, "other/"), false),
        ("node_name", text!(node_name, "node"), false),
        ("node_labels", text!(node_labels, "zone=a"), true),
        ("node_labels", text!(node_labels, "zone=b"), false),
        ("ip_version", value!(ip_version, IpVersion::IPv4), true),
        ("ip_version", value!(ip_version, IpVersion::IPv6), false),
        (
            "uuid",
            with(move |filter| filter.uuid.push(uuid.clone())),
            true,
        ),
        ("uuid", text!(uuid, ""), false),
        (
            "traffic_direction",
            value!(traffic_direction, TrafficDirection::Ingress),
            true,
        ),
        (
            "traffic_direction",
            value!(traffic_direction, TrafficDirection::Egress),
            false,
        ),
        // It was not dropped.
        ("drop_reason_desc", value!(drop_reason_desc, 0), false),
        ("interface", value!(interface, interface(7, "")), true),
        ("interface", value!(interface, interface(0, "veth7")), true),
        ("interface", value!(interface, interface(7, "veth8")), false),
        ("encrypted", value!(encrypted, false), true),
        ("encrypted", value!(encrypted, true), false),
    ]
}

#[test]
fn each_field_takes_what_it_names_and_nothing_else() {
    let cases = [of_ends(), of_who_they_are(), of_the_whole()];
    for (field, change, takes) in cases.iter().flatten() {
        let filter = filter(change);
        let allowing = Filters::parse(vec![filter.clone()], Vec::new()).unwrap();
        assert_eq!(allowing.pass(&flow()), *takes, "{field}: {filter:?}");
        let denying = Filters::parse(Vec::new(), vec![filter.clone()]).unwrap();
        assert_eq!(denying.pass(&flow()), !takes, "not {field}: {filter:?}");
    }
}

#[test]
fn a_field_that_cannot_be_judged_is_refused_and_so_is_what_is_no_value() {
    let header = HttpHeader::default();
    let expression = Experimental {
        cel_expression: vec!["true".to_owned()],
    };
    let cases: Vec<(&str, Change)> = vec![
        ("http_status_code", text!(http_status_code, "5+")),
        ("http_method", text!(http_method, "GET")),
        ("http_path", text!(http_path, "/")),
        ("http_url", text!(http_url, "/")),
        (
            "http_header",
            with(move |filter| filter.http_header.push(header.clone())),
        ),
        ("dns_query", text!(dns_query, ".*")),
        ("trace_id", text!(trace_id, "a")),
        ("ip_trace_id", value!(ip_trace_id, 1_u64)),
        (
            "cel_expression",
            with(move |filter| filter.experimental = Some(expression.clone())),
        ),
        ("source_ip", text!(source_ip, "10.0.0")),
        ("destination_ip", text!(destination_ip, "")),
        ("source_ip_xlated", text!(source_ip_xlated, "x")),
        ("source_pod", text!(source_pod, "")),
        ("destination_pod", text!(destination_pod, "a/b/c")),
        ("source_service", text!(source_service, "")),
        ("destination_service", text!(destination_service, "")),
        ("source_fqdn", text!(source_fqdn, "")),
        ("destination_fqdn", text!(destination_fqdn, "a b")),
        ("source_label", text!(source_label, "")),
        ("destination_label", text!(destination_label, "a=b=c")),
        ("source_port", text!(source_port, "http")),
        ("destination_port", text!(destination_port, "65536")),
        ("source_cluster_name", text!(source_cluster_name, "")),
        (
            "destination_cluster_name",
            text!(destination_cluster_name, ""),
        ),
        ("protocol", text!(protocol, "http")),
        ("protocol", text!(protocol, "6")),
        ("node_name", text!(node_name, "a/b/c")),
        ("node_labels", text!(node_labels, "=")),
    ];
    for (field, change) in &cases {
        for is_allowing in [true, false] {
            let (mut allow, mut deny) = (Vec::new(), Vec::new());
            let list = if is_allowing { &mut allow } else { &mut deny };
            list.push(filter(change));
            let error = Filters::parse(allow, deny).unwrap_err();
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
    }
    let empty = FlowFilter {
        experimental: Some(Experimental::default()),
        ..FlowFilter::default()
    };
    assert!(
        Filters::parse(vec![empty], Vec::new()).is_ok(),
        "it says nothing"
    );
}

#[test]
fn fields_add_up_and_values_are_a_choice() {
    let pass = |allow: Vec<FlowFilter>, deny: Vec<FlowFilter>| {
        Filters::parse(allow, deny).unwrap().pass(&flow())
    };
    let all = FlowFilter::default;
    assert!(pass(vec![], vec![]) && pass(vec![all()], vec![]));
    assert!(!pass(vec![], vec![all()]), "it hides everything");
    let ports = |ports: &[&str]| FlowFilter {
        destination_port: ports.iter().map(|&port| port.to_owned()).collect(),
        ..all()
    };
    assert!(pass(vec![ports(&["1", "8080"])], vec![]));
    assert!(pass(vec![ports(&["1"]), ports(&["8080"])], vec![]));
    let pod_and_port = |port: &str| FlowFilter {
        destination_pod: vec!["shop/".to_owned()],
        ..ports(&[port])
    };
    assert!(pass(vec![pod_and_port("8080")], vec![]));
    assert!(!pass(vec![pod_and_port("1")], vec![]));
    assert!(pass(vec![], vec![pod_and_port("1")]));
    assert!(!pass(vec![ports(&["8080"])], vec![pod_and_port("8080")]));
}

#[test]
fn what_is_dropped_is_no_reply_and_has_a_reason() {
    let pass = |filter| {
        Filters::parse(vec![filter], Vec::new())
            .unwrap()
            .pass(&denied())
    };
    let reply = |reply| FlowFilter {
        reply: vec![reply],
        ..FlowFilter::default()
    };
    assert_eq!(denied().is_reply, None);
    assert!(pass(reply(false)) && !pass(reply(true)));
    let reason = |reason| FlowFilter {
        drop_reason_desc: vec![reason],
        ..FlowFilter::default()
    };
    assert!(pass(reason(133)) && !pass(reason(181)));
}

#[test]
fn a_flow_of_which_little_is_known_fits_little() {
    let bare = Flow::default();
    let source = |label: &str| FlowFilter {
        source_label: vec![label.to_owned()],
        ..FlowFilter::default()
    };
    let pass = |filter| {
        Filters::parse(vec![filter], Vec::new())
            .unwrap()
            .pass(&bare)
    };
    assert!(pass(source("app!=web")) && !pass(source("app=web")));
    for change in [
        text!(source_pod, "/"),
        text!(source_ip, "0.0.0.0/0"),
        text!(source_port, "0"),
        text!(protocol, "tcp"),
        value!(source_identity, 0_u32),
        value!(event_type, event(0, false, 0)),
        value!(reply, false),
        value!(interface, interface(0, "")),
        value!(tcp_flags, flags(false, false, false)),
        value!(encrypted, false),
        value!(source_workload, workload("", "")),
    ] {
        let filter = filter(&change);
        assert!(!pass(filter.clone()), "{filter:?}");
    }
}

#[test]
fn a_request_has_a_bounded_number_of_values() {
    let many = FlowFilter {
        uuid: vec![String::new(); VALUES],
        ..FlowFilter::default()
    };
    let error = Filters::parse(vec![many.clone()], Vec::new()).unwrap_err();
    assert!(matches!(error, Refused::TooMany(_)), "{error}");
    let empty = vec![FlowFilter::default(); VALUES + 1];
    assert!(Filters::parse(Vec::new(), empty).is_err());
}
