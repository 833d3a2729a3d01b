//! How long is waited after a failure, so that no server is asked by all agents at once.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

use kube::runtime::watcher::{Error, Event};

/// After a failure; up to twice that, and each time twice as long, up to half a minute and its double.
const PAUSE: Duration = Duration::from_millis(500);
const DOUBLINGS: u32 = 6;

/// Between the tries of one watch.
///
/// The library's own pauses end with each new try, and so would never grow where a list fails.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
}

impl Pauses {
    /// What is waited after this.
    pub(super) fn after<K>(&mut self, event: &Result<Event<K>, Error>) -> Option<Duration> {
        match event {
            // Each new try begins so, and says nothing yet.
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => {
                self.failures = 0;
                None
            }
            Err(_) => {
                self.failures = self.failures.saturating_add(1).min(DOUBLINGS);
                Some(jittered(PAUSE * 2_u32.pow(self.failures)))
            }
        }
    }
}

/// Not all agents at once.
pub(super) fn jittered(least: Duration) -> Duration {
    least.mul_f64(1.0 + part())
}

/// From 0 to 1, at random.
pub(super) fn part() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u16::try_from(random % 1000).unwrap_or(0)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_something_is_heard() {
        let mut pauses = Pauses::default();
        let mut fails = || {
            // Each try begins, and fails.
            assert_eq!(pauses.after::<()>(&Ok(Event::Init)), None);
            pauses.after::<()>(&Err(Error::NoResourceVersion))
        };
        let told: Vec<u64> = (0..8).filter_map(|_| Some(fails()?.as_secs())).collect();
        let least = [1, 2, 4, 8, 16, 32, 32, 32];
        assert_eq!(told.len(), least.len());
        for (told, least) in told.into_iter().zip(least) {
            assert!((least..2 * least).contains(&told), "{told}, {least}");
        }
        assert_eq!(pauses.after(&Ok(Event::Apply(()))), None);
        let first = pauses.after::<()>(&Err(Error::NoResourceVersion));
        assert_eq!(first.map(|pause| pause.as_secs()), Some(1));
    }
}
