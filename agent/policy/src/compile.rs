//! From the model to tables: everything that can be resolved before a packet comes.
//!
//! Addresses that no rule tells apart share an identity. A policy set has answers only for the
//! identities that its rules name; all others have the set's default. So the tables grow with the
//! number of distinct answers, never with addresses × ports × rules.
//!
//! Numbers are hashes of what they stand for (`ids`): the same input gives the same tables in any
//! order and on any node, and a small change moves few numbers.

mod ids;
mod peers;
mod ports;
mod select;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use agent_common::table::{Direction as Way, Endpoint, PolicyKey, THIS_NODE, WORLD};
use ipnet::IpNet;

use crate::{
    compile::{
        ids::Ids,
        peers::{Class, PeerLists},
        ports::{NamedPorts, RankedRule, ResolvedPorts, port_table},
        select::matches,
    },
    compiled::{Clock, Compiled, PortTable, Rank, RuleOrigin, Subject, host_prefix},
    model::{
        Direction, NetworkPolicy, ObjectName, Peers, PolicyId, PortMatch, PortSpec, Ports, Rule,
        SubjectName, Workload, World,
    },
    question::RuleId,
};

/// What is compiled: which workloads are judged, and from where.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The workloads whose traffic this node judges.
    pub subjects: BTreeSet<SubjectName>,
    /// Every address of this node itself.
    pub this_node: BTreeSet<IpAddr>,
}

/// Compiles `world` for the subjects of `scope`.
///
/// `held` is what the kernel holds now: a port table number that has other content there is not
/// used again at once.
pub fn compile(
    world: &World,
    scope: &Scope,
    held: &BTreeMap<u32, PortTable>,
    _clock: Clock,
) -> Compiled {
    let selections: BTreeMap<&ObjectName, Selection<'_>> = scope
        .subjects
        .iter()
        .filter_map(SubjectName::workload)
        .filter_map(|name| world.workloads.get(name))
        .map(|workload| (&workload.name, Selection::of(world, workload)))
        .collect();

    let rules = number_rules(&selections);
    let numbers = number_sets(&selections);
    // One selection stands for all that share its set.
    let sets: BTreeMap<u32, &Selection<'_>> = selections
        .iter()
        .filter_map(|(name, selection)| Some((*numbers.get(name)?, selection)))
        .collect();
    let lists = PeerLists::collect(sets.values().flat_map(|selection| selection.all_rules()));
    let used_names = egress_port_names(&sets);
    let classes = peers::classify(world, &lists, &used_names, &scope.this_node);
    let identities = number_classes(&classes);

    let mut compiled = Compiled {
        prefixes: prefixes(&classes, &identities, scope),
        ..Compiled::default()
    };
    let mut tables = Ids::for_tables(held);
    for (&set, selection) in &sets {
        for direction in [Direction::Ingress, Direction::Egress] {
            let answers = Answers {
                selection,
                direction,
                rules: &rules,
                lists: &lists,
            };
            answers.fill(set, &identities, &mut tables, &mut compiled);
        }
    }
    for (name, set) in numbers {
        if let Some(selection) = selections.get(name) {
            compiled
                .subjects
                .insert(name.clone().into(), selection.subject(set));
        }
    }
    compiled.rules = rules
        .iter()
        .filter_map(|(key, number)| Some((*number, key.origin(world)?)))
        .collect();
    compiled
}

/// The policies that select one workload, and its ports by name.
#[derive(Clone, Debug)]
struct Selection<'w> {
    workload: &'w Workload,
    policies: Vec<&'w NetworkPolicy>,
}

/// The policies that select a subject, and the ports that their ingress rules call by name.
type SetContent<'w> = (Vec<&'w ObjectName>, NamedPorts);

/// A rule by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RuleKey<'w> {
    policy: &'w ObjectName,
    direction: Direction,
    index: usize,
}

/// Writes the answers of one policy set in one direction.
struct Answers<'a, 'w> {
    selection: &'a Selection<'w>,
    direction: Direction,
    rules: &'a BTreeMap<RuleKey<'w>, u32>,
    lists: &'a PeerLists<'w>,
}

// === impl Selection ===

impl<'w> Selection<'w> {
    fn of(world: &'w World, workload: &'w Workload) -> Self {
        // A host-network pod is not selected: its traffic is its node's.
        let policies = world
            .network_policies
            .values()
            .map(AsRef::as_ref)
            .filter(|policy| {
                !workload.host_network
                    && policy.name.namespace == workload.name.namespace
                    && matches(&policy.subject, &workload.labels)
            })
            .collect();
        Self { workload, policies }
    }

    /// What tells this selection's policy set from others.
    fn set_content(&self) -> SetContent<'w> {
        let names = self
            .rules(Direction::Ingress)
            .into_iter()
            .flatten()
            .flat_map(|(_, rule)| port_names(rule))
            .collect();
        let policies = self.policies.iter().map(|policy| &policy.name).collect();
        (policies, NamedPorts::of(self.workload, &names))
    }

    /// The rules of a direction in order, or `None` if no policy isolates it.
    fn rules(&self, direction: Direction) -> Option<Vec<(RuleKey<'w>, &'w Rule)>> {
        let mut isolated = false;
        let mut all = Vec::new();
        for &policy in &self.policies {
            if let Some(rules) = policy.rules(direction) {
                isolated = true;
                all.extend(rules.iter().enumerate().map(|(index, rule)| {
                    (
                        RuleKey {
                            policy: &policy.name,
                            direction,
                            index,
                        },
                        rule,
                    )
                }));
            }
        }
        isolated.then_some(all)
    }

    fn all_rules(&self) -> impl Iterator<Item = &'w Rule> {
        [Direction::Ingress, Direction::Egress]
            .into_iter()
            .filter_map(|direction| self.rules(direction))
            .flatten()
            .map(|(_, rule)| rule)
    }

    fn subject(&self, set: u32) -> Subject {
        let owns = self.workload.owns_its_addresses();
        Subject {
            set,
            audit: None,
            staged: None,
            flags: if owns {
                Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE
            } else {
                0
            },
            addresses: self.workload.addresses.clone(),
            policies: self
                .policies
                .iter()
                .map(|policy| PolicyId::network_policy(&policy.name))
                .collect(),
        }
    }
}

// === impl RuleKey ===

impl RuleKey<'_> {
    fn origin(self, world: &World) -> Option<RuleOrigin> {
        let Self {
            policy,
            direction,
            index,
        } = self;
        let policy = world.network_policies.get(policy)?;
        let rule = policy.rules(direction)?.get(index)?;
        Some(RuleOrigin {
            id: RuleId {
                policy: PolicyId::network_policy(&policy.name),
                direction,
                index: u32::try_from(index).ok()?,
            },
            rank: Rank::NetworkPolicy,
            name: None,
            terms: policy.terms.clone(),
            source: rule.source.clone(),
        })
    }
}

// === impl Answers ===

impl Answers<'_, '_> {
    fn fill(
        &self,
        set: u32,
        identities: &BTreeMap<&Class, u32>,
        tables: &mut Ids<PortTable>,
        compiled: &mut Compiled,
    ) {
        let direction = match self.direction {
            Direction::Ingress => Way::Ingress,
            Direction::Egress => Way::Egress,
        };
        let mut put = |identity: u32, content: PortTable| {
            let number = tables.number(&content);
            let key = PolicyKey {
                set,
                direction: direction as u32,
                identity,
            };
            compiled.policy.insert(key, number);
            compiled.port_tables.entry(number).or_insert(content);
        };

        let Some(rules) = self.selection.rules(self.direction) else {
            put(WORLD, PortTable::not_isolated());
            return;
        };
        let default = self.table(&rules, &Class::default());
        // Rules often give many identities the same ports: compute each combination once.
        let mut known: BTreeMap<(Vec<usize>, &NamedPorts), PortTable> = BTreeMap::new();
        for (class, &identity) in identities {
            let chosen: Vec<usize> = rules
                .iter()
                .enumerate()
                .filter(|(_, (_, rule))| self.admits(rule, class))
                .map(|(position, _)| position)
                .collect();
            let content = known
                .entry((chosen, &class.named_ports))
                .or_insert_with(|| self.table(&rules, class));
            if *content != default {
                put(identity, content.clone());
            }
        }
        put(WORLD, default);
    }

    fn admits(&self, rule: &Rule, class: &Class) -> bool {
        match &rule.peers {
            Peers::Every => true,
            Peers::Listed(list) => self
                .lists
                .number(list)
                .is_some_and(|list| class.lists.contains(&list)),
        }
    }

    fn table(&self, rules: &[(RuleKey<'_>, &Rule)], class: &Class) -> PortTable {
        let ranked: Vec<RankedRule> = rules
            .iter()
            .filter(|(_, rule)| self.admits(rule, class))
            .map(|(key, rule)| RankedRule {
                rule: self.rules.get(key).copied().unwrap_or_default(),
                ports: match self.direction {
                    // A name is resolved where the packet arrives.
                    Direction::Ingress => {
                        ResolvedPorts::of(&rule.ports, &self.selection.workload.ports)
                    }
                    Direction::Egress => ResolvedPorts::of(&rule.ports, class.named_ports.ports()),
                },
            })
            .collect();
        port_table(&ranked)
    }
}

fn number_rules<'w>(
    selections: &BTreeMap<&'w ObjectName, Selection<'w>>,
) -> BTreeMap<RuleKey<'w>, u32> {
    let keys: BTreeSet<RuleKey<'w>> = selections
        .values()
        .flat_map(|selection| {
            [Direction::Ingress, Direction::Egress]
                .into_iter()
                .filter_map(|direction| selection.rules(direction))
                .flatten()
                .map(|(key, _)| key)
        })
        .collect();
    let mut ids = Ids::for_rules();
    keys.into_iter()
        .map(|key| (key, ids.number(&key)))
        .collect()
}

/// Subjects that the same policies select, and that call the ports in question the same, share
/// their policy set.
fn number_sets<'w>(
    selections: &BTreeMap<&'w ObjectName, Selection<'w>>,
) -> BTreeMap<&'w ObjectName, u32> {
    let contents: BTreeMap<&ObjectName, _> = selections
        .iter()
        .map(|(name, selection)| (*name, selection.set_content()))
        .collect();
    let distinct: BTreeSet<_> = contents.values().cloned().collect();
    let mut ids = Ids::for_sets();
    // Numbered in the order of the contents, so that the order of the subjects has no say.
    let numbers: BTreeMap<_, u32> = distinct
        .into_iter()
        .map(|content| (content.clone(), ids.number(&content)))
        .collect();
    contents
        .into_iter()
        .filter_map(|(name, content)| Some((name, *numbers.get(&content)?)))
        .collect()
}

fn number_classes(classes: &BTreeMap<IpNet, Class>) -> BTreeMap<&Class, u32> {
    let distinct: BTreeSet<&Class> = classes.values().collect();
    let mut ids = Ids::for_identities();
    distinct
        .into_iter()
        .filter(|class| **class != Class::default())
        .map(|class| (class, ids.number(&class)))
        .collect()
}

/// Each prefix with its identity, without those that the prefix around them already says.
fn prefixes(
    classes: &BTreeMap<IpNet, Class>,
    identities: &BTreeMap<&Class, u32>,
    scope: &Scope,
) -> BTreeMap<IpNet, u32> {
    let this_node: BTreeSet<IpNet> = scope.this_node.iter().copied().map(host_prefix).collect();
    let mut kept: BTreeMap<IpNet, u32> = BTreeMap::new();
    let mut around: Vec<(IpNet, u32)> = Vec::new();
    for (prefix, class) in classes {
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(prefix))
        {
            around.pop();
        }
        let mut identity = identities.get(class).copied().unwrap_or(WORLD);
        if this_node.contains(prefix) {
            identity |= THIS_NODE;
        }
        if around.last().map_or(WORLD, |(_, outer)| *outer) != identity {
            kept.insert(*prefix, identity);
        }
        around.push((*prefix, identity));
    }
    kept
}

fn port_names(rule: &Rule) -> impl Iterator<Item = &str> {
    let ports = match &rule.ports {
        Ports::Every => &[][..],
        Ports::Listed(ports) => ports,
    };
    ports.iter().filter_map(|port| match port {
        PortMatch::Transport {
            port: PortSpec::Name(name),
            ..
        } => Some(name.as_str()),
        _ => None,
    })
}

/// Names of ports that egress rules use: peers that resolve them differently are told apart.
fn egress_port_names<'w>(sets: &BTreeMap<u32, &Selection<'w>>) -> BTreeSet<&'w str> {
    sets.values()
        .filter_map(|selection| selection.rules(Direction::Egress))
        .flatten()
        .flat_map(|(_, rule)| port_names(rule))
        .collect()
}

#[cfg(test)]
mod tests;
