//! Of what is wrong, what this agent tells of, and when.
//!
//! A thousand agents see the same. Asking the server who has told of it already costs as much as telling, so they agree
//! without a word: the nodes of the cluster are known to each, and what is wrong with an object is told of by the agents
//! of a few of them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use crate::source::kubernetes::{kind::Key, store::Trouble};

/// An Event lives for an hour: it is told anew while it is so.
pub(super) const AGAIN: Duration = Duration::from_mins(50);

/// As many agents tell of what all see: on a node there may be none.
const TELLERS: usize = 3;

/// In one look.
const AT_ONCE: usize = 10;

/// In the time until something is told anew. Whoever makes a thousand policies that are wrong learns it by those of the
/// first, and by `status`.
const IN_ALL: usize = 50;

/// Of these for one namespace: nobody silences the others.
const IN_A_NAMESPACE: usize = 10;

#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Or left to others.
    told: BTreeMap<(Key, String), Instant>,
    sent: VecDeque<(String, Instant)>,
}

impl Turn {
    /// What is to be told now. What is put right meanwhile is not told of.
    pub(super) fn next(
        &mut self,
        wrong: Vec<Trouble>,
        own: &str,
        nodes: &BTreeSet<String>,
        now: Instant,
    ) -> Vec<Trouble> {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < AGAIN;
        self.sent.retain(|(_, at)| is_recent(at));
        let is_so: BTreeSet<_> = wrong.iter().map(what).collect();
        self.told
            .retain(|told, at| is_recent(at) && is_so.contains(told));
        let room = IN_ALL.saturating_sub(self.sent.len()).min(AT_ONCE);
        let mut next: Vec<Trouble> = Vec::new();
        let mut of: BTreeMap<String, usize> = BTreeMap::new();
        for (namespace, _) in &self.sent {
            *of.entry(namespace.clone()).or_default() += 1;
        }
        for trouble in wrong {
            let what = what(&trouble);
            if self.told.contains_key(&what) {
                continue;
            }
            if trouble.is_everybodys && !is_told_by(own, nodes, &trouble) {
                self.told.insert(what, now);
            } else if next.len() < room {
                let of = of.entry(trouble.key.namespace.clone()).or_default();
                if *of < IN_A_NAMESPACE {
                    *of += 1;
                    next.push(trouble);
                }
            }
        }
        next
    }

    pub(super) fn told(&mut self, trouble: &Trouble, now: Instant) {
        self.told.insert(what(trouble), now);
        self.sent.push_back((trouble.key.namespace.clone(), now));
    }
}

fn what(trouble: &Trouble) -> (Key, String) {
    (trouble.key.clone(), trouble.message.clone())
}

/// Whether the agent of this node is one of those who tell. One whose node the API does not have cannot know.
fn is_told_by(own: &str, nodes: &BTreeSet<String>, trouble: &Trouble) -> bool {
    let weight = |node: &str| {
        let mut hasher = DefaultHasher::new();
        (node, trouble.key.to_string(), &trouble.message).hash(&mut hasher);
        hasher.finish()
    };
    let mine = weight(own);
    let before = nodes.iter().filter(|node| weight(node) > mine);
    !nodes.contains(own) || before.count() < TELLERS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::kubernetes::kind::Kind;

    fn trouble(name: usize, is_everybodys: bool) -> Trouble {
        Trouble {
            key: Key {
                kind: Kind::NetworkPolicy,
                namespace: format!("n-{}", name % 10),
                name: format!("{name}"),
            },
            uid: "u".into(),
            message: "wrong".to_owned(),
            is_everybodys,
        }
    }

    #[test]
    fn what_a_thousand_agents_see_three_tell() {
        let nodes: BTreeSet<String> = (0..1000).map(|number| format!("node-{number}")).collect();
        let now = Instant::now();
        for name in 0..5 {
            let tellers = nodes.iter().filter(|own| {
                let next = Turn::default().next(vec![trouble(name, true)], own, &nodes, now);
                !next.is_empty()
            });
            assert_eq!(tellers.count(), TELLERS);
        }
        let stranger = Turn::default().next(vec![trouble(0, true)], "other", &nodes, now);
        assert_eq!(stranger.len(), 1);
    }

    #[test]
    fn however_much_is_wrong_and_put_right_again_no_more_is_told() {
        let (mut turn, nodes, begun) = (Turn::default(), BTreeSet::new(), Instant::now());
        let mut told = 0;
        for look in 0..200 {
            let now = begun + Duration::from_secs(5) * look;
            // Each look at others.
            let first = usize::try_from(look).unwrap() * 100;
            let wrong = (first..first + 100).map(|name| trouble(name, false));
            for trouble in turn.next(wrong.collect(), "a", &nodes, now) {
                turn.told(&trouble, now);
                told += 1;
            }
        }
        assert_eq!(told, IN_ALL);
        assert!(turn.told.len() <= AT_ONCE);
        let later = begun + 2 * AGAIN;
        assert_eq!(
            turn.next(vec![trouble(0, false)], "a", &nodes, later).len(),
            1
        );
    }

    #[test]
    fn one_namespace_leaves_room_for_others() {
        let (mut turn, nodes, now) = (Turn::default(), BTreeSet::new(), Instant::now());
        let mut tells = |names: &mut dyn Iterator<Item = usize>| {
            let wrong = names.map(|name| trouble(name, false)).collect();
            let next = turn.next(wrong, "a", &nodes, now);
            for trouble in &next {
                turn.told(trouble, now);
            }
            next.len()
        };
        assert_eq!(tells(&mut (0..100).step_by(10)), IN_A_NAMESPACE);
        assert_eq!(tells(&mut (100..200).step_by(10)), 0);
        assert_eq!(tells(&mut [100, 101].into_iter()), 1);
    }

    #[test]
    fn what_was_told_is_told_again_while_it_is_so() {
        let (mut turn, nodes, begun) = (Turn::default(), BTreeSet::new(), Instant::now());
        let mut tells = |now| {
            let next = turn.next(vec![trouble(0, false)], "a", &nodes, now);
            for trouble in &next {
                turn.told(trouble, now);
            }
            next.len()
        };
        assert_eq!(tells(begun), 1);
        assert_eq!(tells(begun + AGAIN / 2), 0);
        assert_eq!(tells(begun + AGAIN), 1);
    }
}
