//! Policy sets: the policies that some subjects share, as programs, and their answers as rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use agent_common::{
    table::{Direction as Way, PolicyKey, THIS_NODE, WORLD},
    verdict::{Action, RuleId},
};

use crate::{
    compile::{
        classes::{Class, Classes},
        ids::Ids,
        policies::{Lowered, LoweredRule, Order},
        ports::{NamedPorts, ResolvedPorts},
        program::{Effect, Program, Step, StepPorts},
        timeline::Outcome,
    },
    compiled::{Clock, Compiled, PortTable, Rank},
    model::{Denied, Direction, PolicyId, TierAction},
};

/// What tells a policy set from others. The policies by name: what they say may change while the
/// set stays the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SetContent {
    pub(super) policies: BTreeSet<PolicyId>,
    /// The subjects' own ports that ingress rules call by name.
    pub(super) named: NamedPorts,
    pub(super) addresses: Addresses,
}

/// Whether a subject's addresses lead to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Addresses {
    Own,
    /// Those of its node: failsafe speaks about it.
    OfNode,
}

/// The programs of a set.
#[derive(Debug)]
pub(super) struct PolicySet {
    pub(super) content: SetContent,
    ingress: Program,
    egress: Program,
    /// What the set has to say to its own node, if anything.
    own_node: Option<Program>,
}

/// A policy that is in use, with the numbers of its rules and of their peer lists.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) lowered: Lowered,
    pub(super) ingress: Vec<Numbers>,
    pub(super) egress: Vec<Numbers>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) rule: u32,
    pub(super) list: Option<u32>,
}

/// The failsafe entries of both directions, as rules.
#[derive(Debug, Default)]
pub(super) struct FailsafeRules {
    pub(super) ingress: Vec<(LoweredRule, Numbers)>,
    pub(super) egress: Vec<(LoweredRule, Numbers)>,
}

/// The port tables in use.
#[derive(Debug)]
pub(super) struct Tables {
    ids: Ids<PortTable>,
    times: BTreeMap<u32, usize>,
}

/// Where rows are written.
pub(super) struct Rows<'a> {
    pub(super) compiled: &'a mut Compiled,
    pub(super) tables: &'a mut Tables,
    /// What the kernel holds.
    pub(super) held: &'a BTreeMap<u32, PortTable>,
    pub(super) changed: &'a mut BTreeSet<PolicyKey>,
    pub(super) clock: Clock,
}

impl InUse {
    fn numbers(&self, direction: Direction) -> &[Numbers] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl FailsafeRules {
    fn of(&self, direction: Direction) -> &[(LoweredRule, Numbers)] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

impl PolicySet {
    pub(super) fn new(
        content: SetContent,
        in_use: &BTreeMap<PolicyId, InUse>,
        failsafe: &FailsafeRules,
    ) -> Self {
        let mut policies: Vec<&InUse> = content
            .policies
            .iter()
            .filter_map(|id| in_use.get(id))
            .collect();
        policies.sort_by(|a, b| a.lowered.order.cmp(&b.lowered.order));
        let ingress = program(&content, &policies, failsafe, Direction::Ingress);
        let egress = program(&content, &policies, failsafe, Direction::Egress);
        let own_node = match content.addresses {
            Addresses::OfNode => None,
            Addresses::Own => quarantine(&ingress, &policies),
        };
        Self {
            content,
            ingress,
            egress,
            own_node,
        }
    }

    pub(super) fn is_timed(&self) -> bool {
        self.ingress.is_timed() || self.egress.is_timed()
    }

    /// Writes the answers for every class.
    pub(super) fn fill(&mut self, set: u32, classes: &Classes, rows: &mut Rows<'_>) {
        for direction in Direction::BOTH {
            let program = self.program(direction);
            let mut wanted: BTreeMap<u32, Arc<PortTable>> = BTreeMap::new();
            let default = program.default_table(rows.clock);
            for number in candidates(program, direction, classes) {
                if let Some(class) = classes.get(number) {
                    let table = program.table(class, rows.clock);
                    if *table != *default {
                        wanted.insert(number, table);
                    }
                }
            }
            wanted.insert(WORLD, default);
            if direction == Direction::Ingress
                && let Some(own_node) = &mut self.own_node
            {
                wanted.insert(THIS_NODE, own_node.default_table(rows.clock));
            }
            rows.replace(set, direction, &wanted);
        }
    }

    /// Writes the answers for a class that is new.
    pub(super) fn answer(
        &mut self,
        set: u32,
        number: u32,
        class: &Arc<Class>,
        rows: &mut Rows<'_>,
    ) {
        for direction in Direction::BOTH {
            let program = self.program(direction);
            let default = program.default_table(rows.clock);
            let table = program.table(class, rows.clock);
            let row = (*table != *default).then_some(&*table);
            rows.put(key(set, direction, number), row);
        }
    }

    fn program(&mut self, direction: Direction) -> &mut Program {
        match direction {
            Direction::Ingress => &mut self.ingress,
            Direction::Egress => &mut self.egress,
        }
    }
}

/// Those classes that may be answered otherwise than all others.
fn candidates(program: &Program, direction: Direction, classes: &Classes) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = program
        .lists()
        .flat_map(|list| classes.in_list(list))
        .collect();
    if direction == Direction::Egress {
        found.extend(&classes.fronted);
    }
    if program.asks_everybody_for_names {
        found.extend(&classes.named);
    }
    found
}

fn program(
    content: &SetContent,
    policies: &[&InUse],
    failsafe: &FailsafeRules,
    direction: Direction,
) -> Program {
    let own_names = (direction == Direction::Ingress).then_some(&content.named);
    let mut steps: Vec<Step> = Vec::new();
    if content.addresses == Addresses::OfNode {
        for (rule, numbers) in failsafe.of(direction) {
            steps.push(rule.step(*numbers, Denied::Drop, own_names, 0));
        }
    }
    let isolating: Vec<Denied> = policies
        .iter()
        .filter(|policy| policy.lowered.side(direction).isolates)
        .map(|policy| policy.lowered.denied)
        .collect();
    for rank in [
        Rank::Quarantine,
        Rank::Admin,
        Rank::NetworkPolicy,
        Rank::Baseline,
    ] {
        let of_rank: Vec<&&InUse> = policies
            .iter()
            .filter(|policy| is_of(&policy.lowered.order, rank))
            .collect();
        let rules: usize = of_rank
            .iter()
            .map(|policy| policy.lowered.side(direction).rules.len())
            .sum();
        let next_rank = steps.len() + rules;
        for policy in of_rank {
            let lowered = &policy.lowered;
            let side = lowered.side(direction).rules.iter();
            for (rule, numbers) in side.zip(policy.numbers(direction)) {
                steps.push(rule.step(*numbers, lowered.denied, own_names, next_rank));
            }
        }
        if rank == Rank::NetworkPolicy && !isolating.is_empty() {
            let all_reject = isolating.iter().all(|denied| *denied == Denied::Reject);
            steps.push(everything(Outcome {
                action: if all_reject {
                    Action::Reject
                } else {
                    Action::Deny
                },
                rule: RuleId::NONE.0,
            }));
        }
    }
    steps.push(everything(Outcome::NOT_ISOLATED));
    Program::new(direction, steps)
}

/// A quarantine closes even what no other policy takes away: the way from the own node.
fn quarantine(ingress: &Program, policies: &[&InUse]) -> Option<Program> {
    let rules: usize = policies
        .iter()
        .filter(|policy| is_of(&policy.lowered.order, Rank::Quarantine))
        .map(|policy| policy.lowered.ingress.rules.len())
        .sum();
    // A subject with addresses of its own has no failsafe: quarantine comes first.
    let mut steps: Vec<Step> = ingress.steps.iter().take(rules).cloned().collect();
    if steps.is_empty() {
        return None;
    }
    steps.push(everything(Outcome::NOT_ISOLATED));
    Some(Program::new(Direction::Ingress, steps))
}

fn is_of(order: &Order, rank: Rank) -> bool {
    order.rank == rank
}

fn everything(outcome: Outcome) -> Step {
    Step {
        list: None,
        ports: StepPorts::Resolved(ResolvedPorts::Every),
        timing: None,
        effect: Effect::Decide(outcome),
    }
}

impl LoweredRule {
    /// The rule as a step; a pass goes on with the step `next_rank`.
    fn step(
        &self,
        numbers: Numbers,
        denied: Denied,
        own_names: Option<&NamedPorts>,
        next_rank: usize,
    ) -> Step {
        let Numbers { rule, list } = numbers;
        let decide = |action| Effect::Decide(Outcome { action, rule });
        Step {
            list,
            ports: StepPorts::new(&self.ports, own_names),
            timing: self.timing.clone(),
            effect: match (self.action, denied) {
                (TierAction::Accept, _) => decide(Action::Allow),
                (TierAction::Deny, Denied::Drop) => decide(Action::Deny),
                (TierAction::Deny, Denied::Reject) => decide(Action::Reject),
                (TierAction::Pass, _) => Effect::Leave(next_rank),
            },
        }
    }
}

impl Tables {
    pub(super) fn new() -> Self {
        Self {
            ids: Ids::for_tables(),
            times: BTreeMap::new(),
        }
    }

    /// Tables are immutable in the kernel: a number keeps its content for as long as it is there.
    fn take(&mut self, table: &PortTable, held: &BTreeMap<u32, PortTable>) -> u32 {
        let number = self.ids.number_unless(table, |number| {
            held.get(&number).is_some_and(|known| known != table)
        });
        *self.times.entry(number).or_default() += 1;
        number
    }

    /// True if nobody uses the table any more.
    fn give_back(&mut self, number: u32, table: &PortTable) -> bool {
        let Some(times) = self.times.get_mut(&number) else {
            return false;
        };
        *times = times.saturating_sub(1);
        if *times > 0 {
            return false;
        }
        self.times.remove(&number);
        self.ids.release(table);
        true
    }
}

impl Rows<'_> {
    /// Takes out all that a set says.
    pub(super) fn clear(&mut self, set: u32) {
        for direction in Direction::BOTH {
            self.replace(set, direction, &BTreeMap::new());
        }
    }

    fn replace(&mut self, set: u32, direction: Direction, wanted: &BTreeMap<u32, Arc<PortTable>>) {
        let (first, last) = (key(set, direction, 0), key(set, direction, u32::MAX));
        let known: Vec<PolicyKey> = self
            .compiled
            .policy
            .range(first..=last)
            .map(|(key, _)| *key)
            .collect();
        for (identity, table) in wanted {
            self.put(key(set, direction, *identity), Some(table));
        }
        for gone in known {
            if !wanted.contains_key(&gone.identity) {
                self.put(gone, None);
            }
        }
    }

    pub(super) fn put(&mut self, key: PolicyKey, table: Option<&PortTable>) {
        let Self {
            compiled,
            tables,
            held,
            changed,
            clock: _,
        } = self;
        let before = compiled.policy.get(&key).copied();
        let content = before.and_then(|number| compiled.port_tables.get(&number));
        if content == table {
            return;
        }
        changed.insert(key);
        if let Some(table) = table {
            let number = tables.take(table, held);
            compiled.policy.insert(key, number);
            compiled
                .port_tables
                .entry(number)
                .or_insert_with(|| table.clone());
        } else {
            compiled.policy.remove(&key);
        }
        if let Some(number) = before
            && let Some(content) = compiled.port_tables.get(&number)
            && tables.give_back(number, content)
        {
            compiled.port_tables.remove(&number);
        }
    }
}

pub(super) fn key(set: u32, direction: Direction, identity: u32) -> PolicyKey {
    let way = match direction {
        Direction::Ingress => Way::Ingress,
        Direction::Egress => Way::Egress,
    };
    PolicyKey {
        set,
        direction: way as u32,
        identity,
    }
}
