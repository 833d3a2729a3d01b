//! Rules and policies that are not there yet.

use super::{
    super::edit::{Edit, PeerWords, exactly},
    Case, spoken, subject,
};
use crate::{
    model::{
        Direction, EndpointSpec, Peer, PolicyKind, Ports, SubjectName, Subjects, TierAction, World,
    },
    question::RuleId,
    reference::Considered,
};

impl Case<'_> {
    /// In the place of a rule of a ranked policy.
    pub(super) fn new_rule(self, place: &RuleId, action: TierAction) -> Option<Edit> {
        let peer = self.other_end(place.policy.kind);
        // The kind of Kubernetes knows no blocks as sources.
        let says_it = place.policy.kind == PolicyKind::RingfencePolicy
            || place.direction == Direction::Egress
            || matches!(peer, Peer::Workloads { .. });
        let (port, ports) = spoken::port(place.policy.kind, self.question).filter(|_| says_it)?;
        Some(Edit::AddRule {
            rule: place.clone(),
            action,
            peer: PeerWords(peer),
            port: Some(port),
            ports: Ports::Listed(vec![ports]),
        })
    }

    /// At the end of a `NetworkPolicy`.
    pub(super) fn one_more_rule(self, policy: &Considered<'_>) -> Option<Edit> {
        let id = &policy.policy;
        if id.kind != PolicyKind::NetworkPolicy {
            return None;
        }
        let (port, ports) = match spoken::port(id.kind, self.question) {
            Some((port, listed)) => (Some(port), Ports::Listed(vec![listed])),
            // This kind cannot list it: only a rule without ports permits it.
            None => (None, Ports::Every),
        };
        let peer = spoken::peer(self.world, self.question.peer, id.namespace.as_deref());
        Some(Edit::AddRule {
            rule: RuleId {
                direction: self.question.direction,
                index: u32::try_from(policy.rules.len()).ok()?,
                policy: id.clone(),
            },
            action: TierAction::Accept,
            peer: PeerWords(peer),
            port,
            ports,
        })
    }

    pub(super) fn isolation(self) -> Option<Edit> {
        let workload = subject(self.world, self.question)?;
        Some(Edit::Isolate {
            workload: workload.name.clone(),
            direction: self.question.direction,
            labels: (*workload.labels).clone(),
        })
    }

    pub(super) fn denying_policy(self) -> Option<Edit> {
        let Self {
            world, question, ..
        } = self;
        let subjects = named(world, &question.subject)?;
        let (port, ports) = spoken::port(PolicyKind::RingfencePolicy, question)?;
        Some(Edit::AddPolicy {
            subject: question.subject.clone(),
            direction: question.direction,
            peer: PeerWords(self.other_end(PolicyKind::RingfencePolicy)),
            port,
            ports,
            subjects,
        })
    }

    /// By the socket, where that is told and the kind can say it.
    fn other_end(self, kind: PolicyKind) -> Peer {
        let Self {
            world, question, ..
        } = self;
        let socket = question.socket.clone().map(SubjectName::Workload);
        let socket = socket.filter(|_| kind == PolicyKind::RingfencePolicy);
        socket
            .and_then(|workload| named(world, &workload))
            .map_or_else(|| spoken::peer(world, question.peer, None), Peer::Local)
    }
}

/// As a ranked policy names it.
fn named(world: &World, subject: &SubjectName) -> Option<Subjects> {
    Some(match subject {
        SubjectName::Node(name) => Subjects::Nodes(exactly(&world.nodes.get(name)?.labels)),
        SubjectName::Workload(name) => {
            let workload = world.workloads.get(name)?;
            match &workload.endpoint {
                Some(EndpointSpec::SystemdUnit(unit)) => Subjects::Units([unit.clone()].into()),
                Some(EndpointSpec::Cgroup(path)) => Subjects::Cgroups([path.clone()].into()),
                Some(EndpointSpec::Interface(_) | EndpointSpec::Netns(_)) | None => {
                    Subjects::Workloads {
                        namespaces: spoken::namespace_called(name.namespace.clone()),
                        workloads: exactly(&workload.labels),
                        host_network: true,
                    }
                }
            }
        }
    })
}
