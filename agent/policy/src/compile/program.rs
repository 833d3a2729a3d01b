//! What one policy set says in one direction: steps in order of rank, and what they come to.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use agent_common::{
    table::Decision,
    verdict::{Action, RuleId},
};

use crate::{
    compile::{
        classes::{Base, Class, Translations},
        ports::{NamedPorts, Place, Range, ResolvedPorts, names, port_table},
        services::FrontendPort,
        timing::Timing,
    },
    compiled::{Clock, PortTable},
    model::{Direction, Ports, Time},
};

/// Steps in order of rank; the last one decides whatever gets there.
#[derive(Debug)]
pub(super) struct Program {
    direction: Direction,
    pub(super) steps: Vec<Step>,
    /// Tables by the steps that have a say, where nothing else does.
    memo: BTreeMap<Vec<u32>, Arc<PortTable>>,
    default: Option<Arc<PortTable>>,
}

#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The peer list that it is about; `None`: everybody.
    pub(super) list: Option<u32>,
    pub(super) ports: StepPorts,
    pub(super) timing: Option<Arc<Timing>>,
    pub(super) effect: Effect,
}

#[derive(Clone, Debug)]
pub(super) enum StepPorts {
    Resolved(ResolvedPorts),
    /// By names that each peer has for its own ports.
    OfPeer(Ports),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Decide(Outcome),
    /// On with the step of this number.
    Leave(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) action: Action,
    pub(super) rule: u32,
}

/// The steps that have a say about one peer.
struct Walk<'p>(Vec<(usize, &'p Step, Cow<'p, ResolvedPorts>)>);

impl StepPorts {
    /// `own` are the subject's ports, where the packet arrives there.
    pub(super) fn new(ports: &Ports, own: Option<&NamedPorts>) -> Self {
        match own {
            Some(own) => Self::Resolved(ResolvedPorts::of(ports, own)),
            None if names(ports).next().is_some() => Self::OfPeer(ports.clone()),
            None => Self::Resolved(ResolvedPorts::of(ports, &NamedPorts::default())),
        }
    }
}

impl Outcome {
    pub(super) const NOT_ISOLATED: Self = Self {
        action: Action::Allow,
        rule: RuleId::NONE.0,
    };

    fn allows(self) -> bool {
        self.action == Action::Allow
    }
}

impl Program {
    pub(super) fn new(direction: Direction, steps: Vec<Step>) -> Self {
        Self {
            direction,
            steps,
            memo: BTreeMap::new(),
            default: None,
        }
    }

    /// Whether some step without a peer list calls ports by the names of the peer.
    pub(super) fn asks_everybody_for_names(&self) -> bool {
        self.steps
            .iter()
            .any(|step| step.list.is_none() && matches!(step.ports, StepPorts::OfPeer(_)))
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = u32> {
        self.steps.iter().filter_map(|step| step.list)
    }

    pub(super) fn is_timed(&self) -> bool {
        self.steps.iter().any(|step| step.timing.is_some())
    }

    /// What holds for those whom no rule tells from others.
    pub(super) fn default_table(&mut self, clock: Clock) -> Arc<PortTable> {
        if let Some(known) = &self.default {
            return Arc::clone(known);
        }
        let table = Arc::new(self.compute(&Class::default(), clock));
        self.default = Some(Arc::clone(&table));
        table
    }

    pub(super) fn table(&mut self, class: &Class, clock: Clock) -> Arc<PortTable> {
        // Where ports are called by name, or translated, each class has a say of its own.
        let mut is_special = !self.frontends(class).is_empty();
        let mut chosen = Vec::new();
        for (index, step) in (0..).zip(&self.steps) {
            if step.concerns(&class.base) {
                chosen.push(index);
                is_special |= matches!(step.ports, StepPorts::OfPeer(_));
            }
        }
        if is_special {
            return Arc::new(self.compute(class, clock));
        }
        if let Some(known) = self.memo.get(&chosen) {
            return Arc::clone(known);
        }
        let table = Arc::new(self.compute(class, clock));
        self.memo.insert(chosen, Arc::clone(&table));
        table
    }

    fn compute(&self, class: &Class, clock: Clock) -> PortTable {
        let own = self.walk(&class.base);
        let translated: BTreeMap<FrontendPort, Vec<(Walk<'_>, u16)>> = self
            .frontends(class)
            .iter()
            .map(|(frontend, backends)| {
                let walks = backends.iter().map(|(base, port)| (self.walk(base), *port));
                (*frontend, walks.collect())
            })
            .collect();

        let mut ranges = own.ranges();
        ranges.extend(translated.keys().map(|frontend| Range {
            protocol: frontend.protocol,
            first: frontend.port,
            last: frontend.port,
        }));
        let backends = || translated.values().flatten().map(|(walk, _)| walk);
        let walks = || std::iter::once(&own).chain(backends());
        // A rule that ends long after the moments of a schedule that are known may uncover it then.
        let known_until = walks().filter_map(Walk::known_until).min();
        let mut times: Vec<Time> = walks().flat_map(Walk::changes).collect();
        times.sort_unstable();
        times.dedup();
        let unknown_from =
            known_until.and_then(|end| times.iter().find(|time| **time > end).copied());

        let outcome = |place, at| match place {
            Place::Port { protocol, port } => translated
                .get(&FrontendPort { protocol, port })
                .map_or_else(|| own.outcome(place, at), |to| every(to, protocol, at)),
            Place::Unnamed => own.outcome(place, at),
        };
        port_table(&ranges, |place| {
            decision(&times, unknown_from, clock, |at| outcome(place, at))
        })
    }

    /// What comes from the address of a Service is not translated.
    fn frontends<'c>(&self, class: &'c Class) -> &'c Translations {
        static NONE: Translations = Translations::new();
        match self.direction {
            Direction::Egress => &class.frontends,
            Direction::Ingress => &NONE,
        }
    }

    fn walk<'p>(&'p self, base: &Base) -> Walk<'p> {
        let concerned = self.steps.iter().enumerate();
        Walk(
            concerned
                .filter(|(_, step)| step.concerns(base))
                .map(|(index, step)| {
                    let ports = match &step.ports {
                        StepPorts::Resolved(ports) => Cow::Borrowed(ports),
                        StepPorts::OfPeer(ports) => {
                            Cow::Owned(ResolvedPorts::of(ports, &base.named))
                        }
                    };
                    (index, step, ports)
                })
                .collect(),
        )
    }
}

impl Step {
    fn concerns(&self, base: &Base) -> bool {
        self.list.is_none_or(|list| base.is_in(list))
    }
}

impl Walk<'_> {
    fn ranges(&self) -> Vec<Range> {
        let ports = self.0.iter().map(|(_, _, ports)| ports.ranges());
        ports.flatten().copied().collect()
    }

    fn changes(&self) -> impl Iterator<Item = Time> {
        let timings = self
            .0
            .iter()
            .filter_map(|(_, step, _)| step.timing.as_ref());
        timings.flat_map(|timing| timing.changes.iter().copied())
    }

    fn known_until(&self) -> Option<Time> {
        let timings = self.0.iter();
        timings
            .filter_map(|(_, step, _)| step.timing.as_ref()?.known_until)
            .min()
    }

    fn outcome(&self, place: Place, at: Time) -> Outcome {
        let mut from = 0;
        for (index, step, ports) in &self.0 {
            let applies = *index >= from
                && ports.covers(place)
                && step.timing.as_ref().is_none_or(|timing| timing.holds(at));
            match step.effect {
                Effect::Decide(outcome) if applies => return outcome,
                Effect::Leave(to) if applies => from = to,
                Effect::Decide(_) | Effect::Leave(_) => {}
            }
        }
        // The last step of a program decides.
        Outcome {
            action: Action::Deny,
            rule: RuleId::NONE.0,
        }
    }
}

/// The first backend that is denied, or else the first one.
fn every(backends: &[(Walk<'_>, u16)], protocol: u8, at: Time) -> Outcome {
    let mut first = None;
    for (walk, port) in backends {
        let place = Place::Port {
            protocol,
            port: *port,
        };
        let outcome = walk.outcome(place, at);
        if !outcome.allows() {
            return outcome;
        }
        first.get_or_insert(outcome);
    }
    // A frontend has a backend.
    first.unwrap_or(Outcome {
        action: Action::Deny,
        rule: RuleId::NONE.0,
    })
}

/// What holds now, until when, and what then. What changes once more later is not known to the
/// tables: they close rather than to permit for too long.
fn decision(
    times: &[Time],
    unknown_from: Option<Time>,
    clock: Clock,
    outcome: impl Fn(Time) -> Outcome,
) -> Decision {
    let Outcome { action, rule } = outcome(clock.now);
    let now = Decision::new(action, RuleId(rule));
    let mut next: Option<(Time, Outcome)> = None;
    for time in times {
        let then = outcome(*time);
        let stale = RuleId::NONE;
        if unknown_from == Some(*time) {
            return match next {
                Some((at, after)) if after.allows() => {
                    now.until(clock.boot_nanos(at), Action::Stale, stale)
                }
                Some((at, after)) => {
                    now.until(clock.boot_nanos(at), after.action, RuleId(after.rule))
                }
                None if then.allows() => now.until(clock.boot_nanos(*time), Action::Stale, stale),
                None => now.until(clock.boot_nanos(*time), then.action, RuleId(then.rule)),
            };
        }
        match next {
            None if then != (Outcome { action, rule }) => next = Some((*time, then)),
            Some((at, after)) if then != after => {
                if after.allows() {
                    return now.until(clock.boot_nanos(at), Action::Stale, stale);
                }
                break;
            }
            None | Some(_) => {}
        }
    }
    match next {
        None => now,
        Some((at, Outcome { action, rule })) => {
            now.until(clock.boot_nanos(at), action, RuleId(rule))
        }
    }
}
