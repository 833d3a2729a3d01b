use std::collections::BTreeMap;

use super::*;
use crate::{
    control::status::{EventCounts, Hook, RecordCounts},
    flow::clock::WallTime,
};

fn endpoint(name: &str, state: EndpointState) -> EndpointStatus {
    EndpointStatus {
        name: name.to_owned(),
        spec: format!("interface veth-{}", name.len()),
        state,
        hook: None,
        ifindex: None,
        cgroup_id: None,
        policies: 1,
        drops: BTreeMap::new(),
        unremembered: 0,
        unjudged: Vec::new(),
        rejections: RejectionSums::default(),
        message: None,
    }
}

fn privileges() -> PrivilegeStatus {
    PrivilegeStatus {
        capabilities: vec!["CAP_NET_ADMIN".to_owned(), "CAP_BPF".to_owned()],
        helper: Some(HelperStatus {
            pid: Some(43),
            restarts: 2,
            ended: false,
        }),
        messages: vec!["CAP_SYS_PTRACE is missing".to_owned()],
    }
}

fn unknown_interfaces() -> UnknownLinks {
    UnknownLinks {
        mode: "strict".to_owned(),
        interfaces: vec![
            UnknownLink {
                name: "veth1b".to_owned(),
                ifindex: 12,
                state: UnknownState::Denied,
                hook: Some(Hook::Tcx),
                message: None,
            },
            UnknownLink {
                name: "veth-up".to_owned(),
                ifindex: 3,
                state: UnknownState::LeftAlone,
                hook: None,
                message: Some("a default route of the node leads there".to_owned()),
            },
        ],
        drops: [("not-programmed".to_owned(), 9)].into(),
        observed: 0,
    }
}

fn hubble() -> HubbleStatus {
    HubbleStatus {
        streams: 1,
        refused: 0,
        told: 40,
        missed: 2,
    }
}

fn status() -> Status {
    let stage = |lost| StageCounts {
        seen: 12,
        exported: 12 - lost,
        lost,
        lost_by_kind: BTreeMap::from([("update".to_owned(), lost)]),
        left_out: 0,
    };
    Status {
        agent_version: "0.1.0".to_owned(),
        pid: 42,
        uptime_s: 3723,
        node: "node-1".to_owned(),
        generation: 3,
        enforcing: true,
        kubernetes: None,
        last_load: Some(Load {
            at: WallTime(1_700_000_000_000_000_000),
            ok: false,
            errors: vec!["api.yaml:3:5: unknown field `prots`\nhint: `ports`".to_owned()],
        }),
        policies: BTreeMap::from([
            ("NetworkPolicy".to_owned(), 2),
            ("RingfencePolicy".to_owned(), 1),
        ]),
        next_change: Some("2023-12-31T18:00:00Z".to_owned()),
        failsafe: vec![
            FailsafeStatus {
                name: "dhcp".to_owned(),
                direction: "egress".to_owned(),
                peers: None,
                ports: Some(vec!["UDP/67-68".to_owned(), "UDP/546-547".to_owned()]),
            },
            FailsafeStatus {
                name: "ssh".to_owned(),
                direction: "ingress".to_owned(),
                peers: Some(vec!["192.0.2.0/24".to_owned()]),
                ports: None,
            },
        ],
        endpoints: vec![
            EndpointStatus {
                hook: Some(Hook::Tcx),
                ifindex: Some(9),
                drops: [("default-deny".to_owned(), 5), ("fragment".to_owned(), 2)].into(),
                ..endpoint("shop/api-0", EndpointState::Attached)
            },
            EndpointStatus {
                message: Some("the interface does not exist".to_owned()),
                ..endpoint("shop/db", EndpointState::Waiting)
            },
        ],
        unknown_interfaces: Some(unknown_interfaces()),
        tables: vec![
            TableFill {
                name: "flows_v4".to_owned(),
                used: 1311,
                capacity: 131_072,
            },
            TableFill {
                name: "policy".to_owned(),
                used: 3,
                capacity: 262_144,
            },
        ],
        events: EventCounts { seen: 14, lost: 0 },
        processes: ProcessStatus {
            noted: true,
            lost: 2,
            messages: vec!["only a part is seen".to_owned()],
        },
        drops: BTreeMap::from([("default-deny".to_owned(), 4), ("fragment".to_owned(), 0)]),
        unremembered: 0,
        rejections: RejectionSums::default(),
        would_be: [("audit-deny".to_owned(), 3)].into(),
        tampered: BTreeMap::from([("detached".to_owned(), 1), ("written".to_owned(), 3)]),
        names: NameStatus::default(),
        hubble: Some(hubble()),
        records: RecordCounts {
            stream: StageCounts {
                seen: 12,
                exported: 12,
                ..StageCounts::default()
            },
            sinks: BTreeMap::from([("flows.jsonl".to_owned(), stage(2))]),
        },
        privileges: privileges(),
        features: vec![
            Feature {
                name: "tcx".to_owned(),
                available: true,
                note: None,
            },
            Feature {
                name: "ring buffer".to_owned(),
                available: false,
                note: Some("no records".to_owned()),
            },
        ],
    }
}

#[test]
fn what_is_not_judged_is_said_once_with_whose_it_is() {
    let gap = "frames of packet sockets".to_owned();
    let of = |name: &str| EndpointStatus {
        unjudged: vec![gap.clone()],
        ..endpoint(name, EndpointState::Attached)
    };
    let status = Status {
        endpoints: vec![of("host/a"), of("host/b")],
        ..status()
    };
    let shown = render_plain(&status);
    let expected = "\nNOT JUDGED\n  host/a, host/b: frames of packet sockets\n";
    assert!(shown.contains(expected), "{shown}");
}

fn render_plain(status: &Status) -> String {
    let mut out = Vec::new();
    render(status, Paint::Plain, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_status_says_what_is_enforced_and_what_is_amiss() {
    let expected = "\
ringfence 0.1.0 on node-1: enforcing, generation 3
process 42, up 1 h 2 min
policy not loaded at 2023-11-14T22:13:20.000000000Z; what was in force before still is
  api.yaml:3:5: unknown field `prots`
  hint: `ports`
policies: 2 NetworkPolicy, 1 RingfencePolicy
next change by time at 2023-12-31T18:00:00Z

ENDPOINT    AT                      STATE     HOOK  POLICIES  DROPS  NOTE
shop/api-0  interface veth-10 (#9)  attached  tcx   1         7
shop/db     interface veth-7        waiting   -     1         0      the interface does not exist

UNKNOWN  strict: 2 interfaces, 9 packets dropped, 0 observed
INTERFACE     STATE       HOOK  NOTE
veth1b (#12)  denied      tcx
veth-up (#3)  left alone  -     a default route of the node leads there

FAILSAFE  DIRECTION  PEERS         PORTS
dhcp      egress     any           UDP/67-68, UDP/546-547
ssh       ingress    192.0.2.0/24  any

TABLE     USED  CAPACITY  FILL
flows_v4  1311  131072    1 %
policy    3     262144    0 %

EVENTS   seen 14, lost 0
SOCKETS  processes named in records; 2 sockets had no room for it
  only a part is seen
RECORDS  seen 12, exported 12, lost 0
  to flows.jsonl: seen 12, exported 10, lost 2 (update 2)
HUBBLE   streams 1, refused 0; flows told 40, lines missed 2
WOULD BE audit-deny in 3 records
TAMPERED detached 1, written 3
DROPS
  default-deny: 4
PRIVILEGES CAP_NET_ADMIN, CAP_BPF; helper process 43, replaced 2 times; CAP_SYS_PTRACE is missing
KERNEL
  tcx: yes
  ring buffer: no (no records)
";
    assert_eq!(render_plain(&status()), expected);
}

#[test]
fn what_is_shown_is_also_json() {
    let status = status();
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
}

#[test]
fn an_agent_without_endpoints_says_so() {
    let status = Status {
        endpoints: Vec::new(),
        enforcing: false,
        ..status()
    };
    let text = render_plain(&status);
    assert!(text.contains("not enforcing") && text.contains("no endpoints on this node"));
}
