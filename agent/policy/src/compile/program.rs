//! What one policy set says in one direction: steps in order of rank, and what they come to.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use crate::{
    compile::{
        classes::{Base, Class, Translations},
        ports::{NamedPorts, Place, Range, ResolvedPorts, names, port_table},
        services::FrontendPort,
        timeline::{Moment, Outcome, Spell, Timeline},
        timing::Timing,
        walk::{Concerned, Walk, earliest},
    },
    compiled::{Clock, PortTable},
    model::{Direction, Ports},
};

/// Steps in order of rank; the last one decides whatever gets there.
#[derive(Debug)]
pub(super) struct Program {
    direction: Direction,
    pub(super) steps: Vec<Step>,
    /// The numbers of steps by their lists, and of those without, in order.
    by_list: BTreeMap<u32, Vec<usize>>,
    of_everybody: Vec<usize>,
    /// Whether some of these call ports by the names of the peer.
    pub(super) asks_everybody_for_names: bool,
    /// Tables by the steps with lists that have a say, where nothing else does.
    memo: BTreeMap<Vec<usize>, Arc<PortTable>>,
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

impl Program {
    pub(super) fn new(direction: Direction, steps: Vec<Step>) -> Self {
        let mut by_list: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        let mut of_everybody = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            match step.list {
                Some(list) => by_list.entry(list).or_default().push(index),
                None => of_everybody.push(index),
            }
        }
        Self {
            direction,
            asks_everybody_for_names: steps
                .iter()
                .any(|step| step.list.is_none() && step.asks_for_names()),
            steps,
            by_list,
            of_everybody,
            memo: BTreeMap::new(),
            default: None,
        }
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = u32> {
        self.by_list.keys().copied()
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
        let chosen = self.listed(&class.base);
        let is_special = !self.frontends(class).is_empty()
            || self.asks_everybody_for_names
            || chosen
                .iter()
                .filter_map(|index| self.steps.get(*index))
                .any(Step::asks_for_names);
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
        // Many frontends lead to the same few.
        let mut serving: BTreeMap<&Base, Walk<'_>> = BTreeMap::new();
        for (base, _) in self.frontends(class).values().flatten() {
            serving.entry(base).or_insert_with(|| self.walk(base));
        }
        let translated: BTreeMap<FrontendPort, Vec<(&Walk<'_>, u16)>> = self
            .frontends(class)
            .iter()
            .filter(|(_, backends)| !backends.is_empty())
            .map(|(frontend, backends)| {
                let walks = backends
                    .iter()
                    .filter_map(|(base, port)| Some((serving.get(&**base)?, *port)));
                (*frontend, walks.collect())
            })
            .collect();

        let mut ranges: Vec<Range> = own.ranges().collect();
        ranges.extend(translated.keys().map(|frontend| Range {
            protocol: frontend.protocol,
            first: frontend.port,
            last: frontend.port,
        }));
        let walks = std::iter::once(&own).chain(serving.values());
        let timeline = Timeline::new(clock, walks.flat_map(Walk::timings));
        port_table(&ranges, |place| {
            timeline.decision(|moment| match place {
                Place::Port { protocol, port } => translated
                    .get(&FrontendPort { protocol, port })
                    .map_or_else(
                        || own.spell(place, moment),
                        |to| every(to, protocol, moment),
                    ),
                Place::Unnamed => own.spell(place, moment),
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

    fn walk(&self, base: &Base) -> Walk<'_> {
        let mut concerned = self.listed(base);
        concerned.extend(&self.of_everybody);
        concerned.sort_unstable();
        let steps = concerned.into_iter().filter_map(|index| {
            let step = self.steps.get(index)?;
            let ports = match &step.ports {
                StepPorts::Resolved(ports) => Cow::Borrowed(ports),
                StepPorts::OfPeer(ports) => Cow::Owned(ResolvedPorts::of(ports, &base.named)),
            };
            Some(Concerned { index, step, ports })
        });
        Walk::new(steps.collect())
    }

    /// The steps with a list that admits somebody, in order.
    fn listed(&self, base: &Base) -> Vec<usize> {
        // Either may be a hundred thousand.
        let mut found: Vec<usize> = if self.by_list.len() < base.lists.len() {
            let admitting = self.by_list.iter().filter(|(list, _)| base.is_in(**list));
            admitting.flat_map(|(_, steps)| steps).copied().collect()
        } else {
            let known = base.lists.iter().filter_map(|list| self.by_list.get(list));
            known.flatten().copied().collect()
        };
        found.sort_unstable();
        found
    }
}

impl Step {
    fn asks_for_names(&self) -> bool {
        matches!(self.ports, StepPorts::OfPeer(_))
    }
}

/// The first backend that is denied, or else the first one.
fn every(backends: &[(&Walk<'_>, u16)], protocol: u8, moment: Moment) -> Spell {
    let mut first = None;
    let mut until = None;
    for (walk, port) in backends {
        let place = Place::Port {
            protocol,
            port: *port,
        };
        let spell = walk.spell(place, moment);
        until = earliest(until, spell.until);
        if !spell.outcome.allows() {
            return Spell { until, ..spell };
        }
        first.get_or_insert(spell.outcome);
    }
    // A frontend has a backend.
    let outcome = first.unwrap_or(Outcome::CLOSED);
    Spell { outcome, until }
}
