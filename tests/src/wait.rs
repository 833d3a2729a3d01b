//! Polling with a deadline: the only place in these tests that sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks. Short against every deadline, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(10);

/// Whether `condition` became true within `deadline`. It is looked at once more when time is up,
/// so a machine that stops for a while does not fail what has happened meanwhile.
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= until {
            return condition();
        }
        thread::sleep(PAUSE);
    }
}

/// The first `Some` that `look` gives within `deadline`.
pub fn eventually_some<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut found = None;
    eventually(deadline, || {
        found = look();
        found.is_some()
    });
    found
}

/// Whether `condition` stays true for all of `span`.
pub fn always(span: Duration, mut condition: impl FnMut() -> bool) -> bool {
    !eventually(span, || !condition())
}
