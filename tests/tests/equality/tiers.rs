//! Ranked policies around the ends of a world: they deny, reject, pass and end.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use agent_policy::{
    model::{
        Denied, Peer, Peers, PolicyId, PolicyKind, PortMatch, PortSpec, Ports, Protocol, Schedule,
        Selector, Source, Subjects, Terms, Tier, TierAction, TierPolicy, TierRule, Time, Weekday,
        When, Window, World,
    },
    strategies::Borders,
};
use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample};

/// Up to three policies for everybody. `now` is when they are compiled.
pub(crate) fn policies(
    world: &World,
    now: Time,
) -> impl Strategy<Value = Vec<(PolicyId, Arc<TierPolicy>)>> + use<> {
    let Borders { peers, ports, .. } = Borders::of(world);
    let rules = vec(rule(peers, ports, now), 0..4);
    let tier = sample::select(vec![Tier::Admin, Tier::Baseline, Tier::Admin]);
    let denied = sample::select(vec![Denied::Drop, Denied::Reject]);
    let one = (tier, denied, rules.clone(), rules, when(now));
    vec(one, 0..3).prop_map(|drafts| {
        let numbered = drafts.into_iter().enumerate();
        numbered
            .map(|(number, (tier, denied, ingress, egress, when))| {
                let id = PolicyId::cluster_wide(PolicyKind::RingfencePolicy, format!("p{number}"));
                let policy = TierPolicy {
                    id: id.clone(),
                    tier,
                    priority: 7,
                    subjects: Subjects::Workloads {
                        namespaces: Selector::default(),
                        workloads: Selector::default(),
                        host_network: true,
                    },
                    ingress,
                    egress,
                    when,
                    terms: Terms {
                        denied,
                        ..Terms::default()
                    },
                    source: source(),
                };
                (id, Arc::new(policy))
            })
            .collect()
    })
}

fn rule(peers: Vec<IpAddr>, ports: Vec<u16>, now: Time) -> impl Strategy<Value = TierRule> + Clone {
    let action = sample::select(vec![
        TierAction::Accept,
        TierAction::Deny,
        TierAction::Deny,
        TierAction::Pass,
    ]);
    let narrow = sample::select(peers).prop_map(|address| {
        let block = Peer::Block {
            cidr: IpNet::from(address),
            except: Vec::new(),
        };
        Peers::listed(vec![block])
    });
    let peers = prop_oneof![Just(Peers::Every), narrow.clone(), narrow];
    let protocol = sample::select(vec![Protocol::Tcp, Protocol::Udp]);
    let port = sample::select(ports).prop_map(|port| port.max(1));
    let listed = (protocol, port).prop_map(|(protocol, first)| {
        let port = PortSpec::Range {
            first,
            last: first.saturating_add(100),
        };
        Ports::Listed(vec![PortMatch::Transport { protocol, port }])
    });
    let ports = prop_oneof![Just(Ports::Every), listed];
    (action, peers, ports, when(now)).prop_map(|(action, peers, ports, when)| TierRule {
        name: None,
        action,
        peers,
        ports,
        when,
        source: source(),
    })
}

/// Always; or with one end that has come and one that has not, or a schedule that goes on.
fn when(now: Time) -> impl Strategy<Value = When> + Clone {
    let moment = sample::select(vec![500, 100_000]);
    let later = move |seconds: i64| Time::from_unix(now.unix() + seconds);
    prop_oneof![
        3 => Just(When::default()),
        1 => moment.clone().prop_map(move |at| When {
            expires: Some(later(at)),
            ..When::default()
        }),
        1 => moment.prop_map(move |at| When {
            not_before: Some(later(at)),
            ..When::default()
        }),
        1 => Just(When {
            schedule: Some(from_the_next_quarter(now)),
            ..When::default()
        }),
    ]
}

/// Begins within a quarter of an hour, every day: the tables do not know when it ends.
fn from_the_next_quarter(now: Time) -> Schedule {
    let minute = now.unix().rem_euclid(86_400) / 60;
    let from = u16::try_from((minute / 15 + 1) * 15 % 1440).expect("minutes of a day");
    Schedule {
        zone: "Etc/UTC".to_owned(),
        windows: vec![Window {
            days: BTreeSet::from(Weekday::ALL),
            from,
            to: (from + 60) % 1440,
        }],
    }
}

fn source() -> Source {
    Source {
        file: "tiers.yaml".into(),
        line: 1,
    }
}
