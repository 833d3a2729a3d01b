//! Polling with a deadline: the only place in these tests that sleeps.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks. Short against every deadline, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(10);

/// How many times longer than usual everything may take: where a machine is emulated.
pub const SLOWNESS: &str = "RINGFENCE_TEST_SLOWNESS";

/// What [`SLOWNESS`] says: 1 on a machine of usual speed.
///
/// # Panics
/// If it says something other than a number.
pub fn slowness() -> u32 {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    *FACTOR.get_or_init(|| {
        let set = std::env::var(SLOWNESS).ok();
        set.map_or(1, |text| text.parse().expect(SLOWNESS))
    })
}

/// A deadline as long as this machine needs it.
pub fn patient(deadline: Duration) -> Duration {
    deadline * slowness()
}

/// Whether `condition` became true within `deadline`, on a machine of usual speed. It is looked at
/// once more when time is up, so a machine that stops for a while does not fail what has happened
/// meanwhile.
pub fn eventually(deadline: Duration, condition: impl FnMut() -> bool) -> bool {
    eventually_exactly(patient(deadline), condition)
}

/// [`eventually`], with a deadline that is the same on every machine.
pub fn eventually_exactly(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
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

/// The first `Some` that `look` gives within `deadline`, on a machine of usual speed.
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
    !eventually_exactly(span, || !condition())
}
