//! From numbers to names: a report becomes a record.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use agent_common::{
    flow::Flow,
    process::Process,
    protocol::{ICMP, ICMPV6, TCP},
    rtt::RoundTrip,
    table,
    verdict::{Action, Reason},
};

use super::{
    addresses::Addresses,
    clock::BootTime,
    community,
    key::{self, FlowId, Key},
    names::{Heard, Names},
    process::Namer,
    record::{
        Direction, End, EndReason, Icmp, Kind, Line, LossRecord, Protocol, Record, RuleRef,
        SCHEMA_VERSION, TamperRecord, Traffic, Verdict, WorkloadRef, WouldBe,
    },
    report::{Count, DenialReport, FlowReport, Report},
    views::{Opinion, OpinionCounts, PolicySets, Views},
};

/// Who is who and what is what, of the policy that is in force. Replaced as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inventory {
    /// When it came into force.
    pub(crate) since: BootTime,
    /// For the peer's side.
    pub(crate) addresses: Addresses,
    /// By the endpoint's number, for its own side: right also where it owns no address. With its name.
    pub(crate) endpoints: HashMap<u16, (Arc<WorkloadRef>, Arc<str>)>,
    /// By the rule's number.
    pub(crate) rules: HashMap<u32, Arc<RuleRef>>,
    /// Likewise: of rules whose policies have any.
    pub(crate) revisions: HashMap<u32, u64>,
    /// By the endpoint's number: of what it is judged by.
    pub(crate) generations: HashMap<u16, u32>,
    /// By the endpoint's number; of those that have any.
    pub(crate) views: HashMap<u16, Views>,
}

impl Inventory {
    /// Endpoints that an earlier one had, and this one has not.
    pub(crate) fn gone_since(&self, earlier: &Self) -> HashSet<u16> {
        let earlier = earlier.endpoints.keys().copied();
        earlier
            .filter(|id| !self.endpoints.contains_key(id))
            .collect()
    }

    fn endpoint(&self, id: u16) -> (Option<&Arc<WorkloadRef>>, Option<&Arc<str>>) {
        self.endpoints
            .get(&id)
            .map(|(workload, name)| (workload, name))
            .unzip()
    }
}

/// What the controller says of who is who.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) inventory: Arc<Inventory>,
    /// Another one is being put into force, and said in a moment: what has happened meanwhile is told by it.
    pub(crate) is_changing: bool,
}

/// The inventories of late. Events wait to be read: what happened before a change is told by who was who then.
#[derive(Debug)]
pub(crate) struct Inventories {
    latest: Arc<Inventory>,
    /// The one before first.
    earlier: VecDeque<Arc<Inventory>>,
}

impl Inventories {
    /// Events wait for less than two changes take. Each has its rules, and may be large.
    const EARLIER: usize = 2;

    pub(crate) fn new(latest: Arc<Inventory>) -> Self {
        Self {
            latest,
            earlier: VecDeque::new(),
        }
    }

    /// What was the latest is then an earlier one.
    pub(crate) fn push(&mut self, latest: Arc<Inventory>) {
        let before = std::mem::replace(&mut self.latest, latest);
        self.earlier.push_front(before);
        self.earlier.truncate(Self::EARLIER);
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Inventory>> {
        std::iter::once(&self.latest).chain(&self.earlier)
    }

    /// Who was who at a moment; before all that are known, at the first of them.
    fn at(&self, moment: BootTime) -> &Inventory {
        let then = self.all().find(|it| it.since <= moment);
        then.or(self.earlier.back()).unwrap_or(&self.latest)
    }

    /// A rule as it was `then`, or else of any of them: a flow that was cut names the one that had permitted it, which there may
    /// be no more.
    fn rule(&self, number: u32, then: &Inventory) -> Option<Arc<RuleRef>> {
        let all = self.all().map(|it| &**it);
        let mut rules = std::iter::once(then)
            .chain(all)
            .filter_map(|it| it.rules.get(&number));
        rules.next().cloned()
    }

    /// Of a rule's policy, in the state that the endpoint had when it judged by this generation. When that was does not tell: a
    /// change takes its time, and while it does the endpoint is judged by either.
    fn revision(&self, endpoint: u16, generation: u32, rule: u32) -> Option<u64> {
        let mut all = self.all();
        let judged = all.find(|it| it.generations.get(&endpoint) == Some(&generation))?;
        judged.revisions.get(&rule).copied()
    }
}

/// What the lines of one agent have in common.
#[derive(Debug)]
pub(crate) struct Enricher {
    node: Arc<str>,
    cluster: Option<Arc<str>>,
    seq: u64,
    sets: Box<dyn PolicySets>,
    opinions: Arc<OpinionCounts>,
    namer: Namer,
    called: Names,
}

/// For how long records of a flow have the name that was over since it began, unless room is needed.
const NAMED: Duration = Duration::from_hours(1);

const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");

impl Enricher {
    pub(crate) fn new(
        (node, cluster): (Arc<str>, Option<Arc<str>>),
        sets: Box<dyn PolicySets>,
        opinions: Arc<OpinionCounts>,
        namer: Namer,
        called: Names,
    ) -> Self {
        Self {
            node,
            cluster,
            seq: 0,
            sets,
            opinions,
            namer,
            called,
        }
    }

    pub(crate) fn hear(&mut self, heard: &Heard) {
        self.called.hear(heard);
    }

    /// Names that have been over for long.
    pub(crate) fn drop_ended(&mut self, now: BootTime) {
        self.called.drop_ended(now, NAMED);
    }

    /// Endpoints that there are no more.
    pub(crate) fn forget(&mut self, gone: &HashSet<u16>) {
        self.called.forget(gone);
    }

    pub(crate) fn line(&mut self, report: Report, inventories: &Inventories) -> Line {
        self.seq += 1;
        match report {
            Report::Flow(report) => Line::Flow(self.flow(&report, inventories)),
            Report::Denials(report) => Line::Flow(self.denials(&report, inventories)),
            Report::Loss(loss) => Line::Loss(LossRecord::new(
                Arc::clone(&self.node),
                Some(self.seq),
                loss,
            )),
            Report::Tampering(tampering) => Line::Tampering(TamperRecord::new(
                Arc::clone(&self.node),
                self.seq,
                tampering,
            )),
        }
    }

    fn flow(&mut self, report: &FlowReport, inventories: &Inventories) -> Record {
        let FlowReport {
            kind,
            id,
            key,
            direction,
            origin,
            opened,
            at,
            start,
            end,
            delta: [forward, reverse],
            tcp_flags: [forward_flags, reverse_flags],
            rtt,
            end_reason,
            reason,
            rule,
            generation,
            process,
            ifindex,
        } = *report;
        let protocol = key.protocol();
        let icmp = icmp(protocol, key.responder_port(direction));
        let inventory = inventories.at(at);
        let (workload, name) = inventory.endpoint(key.endpoint());
        let side = |(ip, port): (IpAddr, u16), workload: Option<&Arc<WorkloadRef>>| End {
            ip: Some(ip),
            port: icmp.is_none().then_some(port),
            workload: workload.cloned(),
            service: None,
            dns_name: None,
        };
        let local = side(key.local(), workload);
        let (address, port) = key.remote();
        let remote = End {
            service: service(inventory, direction, address, (protocol, port)),
            dns_name: self.called.of(key.endpoint(), address, opened),
            ..side((address, port), inventory.addresses.owner(address))
        };
        let (src, dst) = in_order(direction, local, remote);
        let community_id = community_id(&src, &dst, protocol, icmp);
        let verdict = if kind == Kind::Deny {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        let why = Why::new(verdict, reason);
        let revision = match end_reason {
            // What has cut a flow is not what had permitted it.
            Some(EndReason::Revoked) => None,
            _ => inventories.revision(key.endpoint(), generation, rule),
        };
        Record {
            schema_version: SCHEMA_VERSION,
            seq: self.seq,
            node: Arc::clone(&self.node),
            cluster: self.cluster.clone(),
            agent_version: Cow::Borrowed(AGENT_VERSION),
            kind,
            flow_id: id,
            community_id,
            start,
            end,
            src,
            dst,
            protocol: Protocol::of(protocol, reason),
            icmp,
            direction: wire_direction(direction),
            initiator_known: origin & Flow::ADOPTED == 0,
            forward: traffic(protocol, forward, forward_flags),
            reverse: traffic(protocol, reverse, reverse_flags),
            rtt_us: (rtt != 0).then(|| RoundTrip(rtt).micros()),
            end_reason,
            verdict,
            policy: inventories.rule(rule, inventory),
            policy_revision: revision,
            default_deny: why.default_deny,
            reason: why.reason,
            drop_reason: why.drop_reason,
            would_be: self.would_be(report, inventory),
            ifindex: (ifindex != 0).then_some(ifindex),
            // A flow that is judged with every packet is not of one generation.
            generation: (generation != Flow::NEVER).then_some(generation),
            endpoint: name.cloned(),
            process: self.namer.name(&process, direction),
            sampling: None,
        }
    }

    fn would_be(&self, report: &FlowReport, inventory: &Inventory) -> Vec<WouldBe> {
        let Some(views) = inventory.views.get(&report.key.endpoint()) else {
            return Vec::new();
        };
        let opinions = views.of(report, self.sets.as_ref()).into_iter();
        opinions
            .map(|opinion| {
                self.opinions.add(opinion);
                let Opinion {
                    view,
                    allows,
                    reason,
                    rule,
                } = opinion;
                WouldBe {
                    view,
                    verdict: if allows {
                        Verdict::Allow
                    } else {
                        Verdict::Deny
                    },
                    policy: inventory.rules.get(&rule.0).cloned(),
                    reason: Cow::Borrowed(reason.name()),
                }
            })
            .collect()
    }

    fn denials(&self, report: &DenialReport, inventories: &Inventories) -> Record {
        let inventory = &*inventories.latest;
        let DenialReport {
            key,
            since,
            start,
            end,
            delta,
        } = *report;
        let direction = if key.direction == table::Direction::Ingress as u8 {
            table::Direction::Ingress
        } else {
            table::Direction::Egress
        };
        let icmp = icmp(key.protocol, key.port);
        let responder_port = icmp.is_none().then_some(key.port);
        let (local_port, remote_port) = match direction {
            table::Direction::Ingress => (responder_port, None),
            table::Direction::Egress => (None, responder_port),
        };
        let (workload, name) = inventory.endpoint(key.endpoint);
        let address = key::address(key.family, key.remote);
        let local = End {
            ip: None,
            port: local_port,
            workload: workload.cloned(),
            service: None,
            dns_name: None,
        };
        let remote = End {
            ip: Some(address),
            port: remote_port,
            workload: inventory.addresses.owner(address).cloned(),
            service: service(inventory, direction, address, (key.protocol, key.port)),
            dns_name: self.called.of(key.endpoint, address, since),
        };
        let (src, dst) = in_order(direction, local, remote);
        let why = Why::new(Verdict::Deny, key.reason);
        Record {
            schema_version: SCHEMA_VERSION,
            seq: self.seq,
            node: Arc::clone(&self.node),
            cluster: self.cluster.clone(),
            agent_version: Cow::Borrowed(AGENT_VERSION),
            kind: Kind::Deny,
            flow_id: FlowId::new(&Key::of_denial(&key), 0),
            // One of its addresses is folded.
            community_id: None,
            start,
            end: Some(end),
            src,
            dst,
            protocol: Protocol::of(key.protocol, key.reason),
            icmp,
            direction: wire_direction(direction),
            initiator_known: true,
            forward: traffic(key.protocol, delta, 0),
            reverse: traffic(key.protocol, Count::default(), 0),
            rtt_us: None,
            end_reason: None,
            verdict: Verdict::Deny,
            policy: inventories.rule(key.rule, inventory),
            // Of many, perhaps, as the generation.
            policy_revision: None,
            default_deny: why.default_deny,
            reason: why.reason,
            drop_reason: why.drop_reason,
            would_be: self.would_be(&as_flow(report), inventory),
            ifindex: None,
            generation: None,
            endpoint: name.cloned(),
            // Of many, perhaps: the first one's has been told.
            process: None,
            sampling: None,
        }
    }
}

/// Denied packets of one kind as a flow of theirs: what policy asks about is the same for all.
fn as_flow(report: &DenialReport) -> FlowReport {
    let DenialReport {
        key,
        since,
        start,
        end,
        delta,
    } = *report;
    let is_ingress = key.direction == table::Direction::Ingress as u8;
    FlowReport {
        kind: Kind::Deny,
        id: FlowId(0),
        key: Key::of_denied(&key),
        direction: if is_ingress {
            table::Direction::Ingress
        } else {
            table::Direction::Egress
        },
        origin: 0,
        opened: since,
        at: since,
        start,
        end: Some(end),
        delta: [delta, Count::default()],
        tcp_flags: [0; 2],
        rtt: 0,
        end_reason: None,
        reason: key.reason,
        rule: key.rule,
        generation: 0,
        process: Process::NOBODY,
        ifindex: 0,
    }
}

/// Why a packet passed or was dropped, as records say it.
struct Why {
    default_deny: bool,
    reason: Option<Cow<'static, str>>,
    drop_reason: Option<Cow<'static, str>>,
}

impl Why {
    fn new(verdict: Verdict, number: u8) -> Self {
        let known = Reason::from_number(number);
        let name = known.map_or_else(
            || Cow::Owned(format!("unknown({number})")),
            |reason| Cow::Borrowed(reason.name()),
        );
        match verdict {
            Verdict::Deny => Self {
                default_deny: known == Some(Reason::DefaultDeny),
                reason: None,
                drop_reason: Some(name),
            },
            // A flow that was cut carries the reason of the cut: it is not why it was permitted.
            Verdict::Allow => Self {
                default_deny: false,
                reason: known
                    .is_none_or(|reason| reason.action() == Action::Allow)
                    .then_some(name),
                drop_reason: None,
            },
        }
    }
}

fn community_id(src: &End, dst: &End, protocol: u8, icmp: Option<Icmp>) -> Option<String> {
    community::id((src.ip?, src.port), (dst.ip?, dst.port), protocol, icmp)
}

/// What the endpoint has asked for. Who asks an endpoint has been led to it already.
fn service(
    inventory: &Inventory,
    direction: table::Direction,
    address: IpAddr,
    (protocol, port): (u8, u16),
) -> Option<Arc<str>> {
    if direction != table::Direction::Egress {
        return None;
    }
    inventory
        .addresses
        .service(address, protocol, port)
        .cloned()
}

/// The initiator first.
fn in_order(direction: table::Direction, local: End, remote: End) -> (End, End) {
    match direction {
        table::Direction::Egress => (local, remote),
        table::Direction::Ingress => (remote, local),
    }
}

fn wire_direction(direction: table::Direction) -> Direction {
    match direction {
        table::Direction::Egress => Direction::Egress,
        table::Direction::Ingress => Direction::Ingress,
    }
}

/// The responder's port of an ICMP exchange is type × 256 + code of what the initiator sent.
fn icmp(protocol: u8, responder_port: u16) -> Option<Icmp> {
    let [kind, code] = responder_port.to_be_bytes();
    (protocol == ICMP || protocol == ICMPV6).then_some(Icmp { kind, code })
}

fn traffic(protocol: u8, count: Count, tcp_flags: u8) -> Traffic {
    let Count { packets, bytes } = count;
    let tcp_flags = (protocol == TCP && tcp_flags != 0).then_some(tcp_flags);
    Traffic {
        packets,
        bytes,
        tcp_flags,
    }
}

#[cfg(test)]
mod tests;
