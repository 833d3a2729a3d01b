//! Idle ends of connections that are to be asked to speak: when, how often, and not too many at once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::datapath::{
    prompt::{Form, Way},
    sockets::Connected,
};

/// How often an end is asked, in one form and the other by turns: by the first answer the far end hears of it, by
/// the second the end itself.
const TIMES: u8 = 4;

/// Between two questions to one end. A kernel answers the like of them once in half a second.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two turns, and how many are asked in one: 100 a second, as there are answers for an endpoint.
const PACE: Duration = Duration::from_millis(100);
const EACH_TURN: usize = 10;

/// So many wait at the same time; these take two minutes.
const MOST: usize = 4096;

/// Ends by the endpoint that they are of.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    waiting: BTreeMap<(u16, Connected), Waiting>,
    /// The last turn was.
    turned: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    left: u8,
    way: Way,
}

/// An end whose turn it is.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) endpoint: u16,
    pub(super) end: Connected,
    pub(super) form: Form,
    pub(super) way: Way,
}

impl Prompts {
    /// Whether there is room for it. One that waits already is asked as often anew.
    pub(super) fn add(&mut self, endpoint: u16, end: Connected, way: Way, now: Instant) -> bool {
        if self.waiting.len() >= MOST && !self.waiting.contains_key(&(endpoint, end)) {
            return false;
        }
        let waiting = Waiting {
            // Not at once: when the agent starts, its programs may not hang there yet.
            due: now + PAUSE,
            left: TIMES,
            way,
        };
        self.waiting.insert((endpoint, end), waiting);
        true
    }

    /// How long there is nothing to do; `None` while nobody waits.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        let first = self.waiting.values().map(|waiting| waiting.due).min()?;
        let next = self.turned.map_or(first, |turned| first.max(turned + PACE));
        Some(next.saturating_duration_since(now))
    }

    /// Those that are to be asked now, the longest due first.
    pub(super) fn turn(&mut self, now: Instant) -> Vec<Turn> {
        let mut due: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.due <= now)
            .map(|(key, waiting)| (waiting.due, *key))
            .collect();
        due.sort_unstable();
        due.truncate(EACH_TURN);
        if !due.is_empty() {
            self.turned = Some(now);
        }
        let mut asked = Vec::new();
        for (_, key) in due {
            let Some(mut waiting) = self.waiting.remove(&key) else {
                continue;
            };
            let (endpoint, end) = key;
            asked.push(Turn {
                endpoint,
                end,
                form: if waiting.left % 2 == 0 {
                    Form::Bare
                } else {
                    Form::Stamped
                },
                way: waiting.way.clone(),
            });
            waiting.left -= 1;
            if waiting.left > 0 {
                waiting.due = now + PAUSE;
                self.waiting.insert(key, waiting);
            }
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(port: u16) -> Connected {
        Connected {
            protocol: 6,
            local: ("10.0.0.1".parse().unwrap(), 443),
            remote: ("10.0.0.2".parse().unwrap(), port),
        }
    }

    #[test]
    fn an_end_is_asked_so_often_and_no_more() {
        let mut now = Instant::now();
        let mut prompts = Prompts::default();
        assert_eq!(prompts.patience(now), None);
        assert!(prompts.add(1, end(1), Way::default(), now));
        let mut forms = Vec::new();
        while let Some(patience) = prompts.patience(now) {
            now += patience;
            forms.extend(prompts.turn(now).into_iter().map(|turn| turn.form));
        }
        let [bare, stamped] = [Form::Bare, Form::Stamped];
        assert_eq!(forms, [bare, stamped, bare, stamped]);
    }

    #[test]
    fn many_take_turns_and_each_has_its_pause() {
        let begun = Instant::now();
        let mut now = begun;
        let mut prompts = Prompts::default();
        for port in 0..200 {
            assert!(prompts.add(1, end(port), Way::default(), now));
        }
        let mut asked: BTreeMap<Connected, Vec<Instant>> = BTreeMap::new();
        while let Some(patience) = prompts.patience(now) {
            now += patience;
            let turn = prompts.turn(now);
            assert!(turn.len() <= EACH_TURN);
            for Turn { end, .. } in turn {
                asked.entry(end).or_default().push(now);
            }
        }
        assert_eq!(asked.len(), 200);
        for times in asked.values() {
            assert_eq!(times.len(), usize::from(TIMES));
            assert!(times.windows(2).all(|two| two[1] - two[0] >= PAUSE));
        }
        assert!(now - begun >= PACE * 79);
    }

    #[test]
    fn there_is_room_for_so_many() {
        let now = Instant::now();
        let mut prompts = Prompts::default();
        for port in 0..u16::try_from(MOST).unwrap() {
            assert!(prompts.add(1, end(port), Way::default(), now));
        }
        assert!(!prompts.add(1, end(9999), Way::default(), now));
        assert!(prompts.add(1, end(1), Way::default(), now));
    }
}
