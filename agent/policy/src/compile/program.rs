//! What one policy set says in one direction: steps in order of rank, and what they come to.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

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

/// When a program is asked about.
#[derive(Clone, Copy)]
enum Moment {
    At(Time),
    /// What is permitted then is permitted at any time; what is denied may be so at none.
    Whenever,
}

/// The moments at which something may change.
struct Timeline {
    clock: Clock,
    times: BTreeSet<Time>,
    /// From here on, a schedule may have moments that are not listed.
    unknown_from: Option<Time>,
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

    /// What no step of a program can be.
    const CLOSED: Self = Self {
        action: Action::Deny,
        rule: RuleId::NONE.0,
    };

    const STALE: Self = Self {
        action: Action::Stale,
        rule: RuleId::NONE.0,
    };

    fn allows(self) -> bool {
        self.action == Action::Allow
    }

    fn decision(self) -> Decision {
        let Self { action, rule } = self;
        Decision::new(action, RuleId(rule))
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
        let times: BTreeSet<Time> = walks().flat_map(Walk::changes).collect();
        let timeline = Timeline {
            clock,
            unknown_from: known_until
                .and_then(|end| times.iter().find(|time| **time > end).copied()),
            times,
        };
        port_table(&ranges, |place| {
            timeline.decision(|moment| match place {
                Place::Port { protocol, port } => translated
                    .get(&FrontendPort { protocol, port })
                    .map_or_else(
                        || own.outcome(place, moment),
                        |to| every(to, protocol, moment),
                    ),
                Place::Unnamed => own.outcome(place, moment),
            })
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

    fn outcome(&self, place: Place, moment: Moment) -> Outcome {
        let mut from = 0;
        for (index, step, ports) in &self.0 {
            if *index < from || !ports.covers(place) {
                continue;
            }
            let holds = match (&step.timing, moment, step.effect) {
                (None, ..) => true,
                (Some(timing), Moment::At(at), _) => timing.holds(at),
                // It may not be there.
                (Some(_), Moment::Whenever, Effect::Decide(outcome)) if outcome.allows() => false,
                // It may be there, and then permits nothing.
                (Some(_), Moment::Whenever, _) => return Outcome::CLOSED,
            };
            match step.effect {
                Effect::Decide(outcome) if holds => return outcome,
                Effect::Leave(to) if holds => from = to,
                Effect::Decide(_) | Effect::Leave(_) => {}
            }
        }
        // The last step of a program decides.
        Outcome::CLOSED
    }
}

/// The first backend that is denied, or else the first one.
fn every(backends: &[(Walk<'_>, u16)], protocol: u8, moment: Moment) -> Outcome {
    let mut first = None;
    for (walk, port) in backends {
        let place = Place::Port {
            protocol,
            port: *port,
        };
        let outcome = walk.outcome(place, moment);
        if !outcome.allows() {
            return outcome;
        }
        first.get_or_insert(outcome);
    }
    // A frontend has a backend.
    first.unwrap_or(Outcome::CLOSED)
}

impl Timeline {
    /// What holds now, until when, and what then.
    ///
    /// What changes once more later has no room in a decision: unless it is permitted whatever the
    /// time, the tables close rather than to permit for too long.
    fn decision(&self, outcome: impl Fn(Moment) -> Outcome) -> Decision {
        let Self {
            clock,
            times,
            unknown_from,
        } = self;
        let now = outcome(Moment::At(clock.now));
        let changes = |at: Time, then: Outcome| {
            let decision = now.decision();
            if then == now {
                return decision;
            }
            decision.until(clock.boot_nanos(at), then.action, RuleId(then.rule))
        };
        let at_most = |then: Outcome| {
            if then.allows() && !outcome(Moment::Whenever).allows() {
                Outcome::STALE
            } else {
                then
            }
        };
        let mut next: Option<(Time, Outcome)> = None;
        for time in times {
            let then = outcome(Moment::At(*time));
            if unknown_from.is_some_and(|unknown| *time >= unknown) {
                let (at, then) = next.unwrap_or((*time, then));
                return changes(at, at_most(then));
            }
            match next {
                None if then != now => next = Some((*time, then)),
                Some((at, after)) if then != after => return changes(at, at_most(after)),
                None | Some(_) => {}
            }
        }
        next.map_or_else(|| now.decision(), |(at, then)| changes(at, then))
    }
}
