//! What time it is, as the kernel tells it: by the boot clock, and by when that stood at zero.
//!
//! The moments that tables hold are of the boot clock. They hang on one number, the wall clock's
//! lead in whole seconds, which is kept as long as it is nearly right: were it read anew each time,
//! rounding alone would rewrite every timed entry now and then. It is kept in the state folder, so
//! that the next agent finds its own tables as it would make them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use agent_policy::{compiled::Clock, model::Time};

use crate::{
    daemon::file,
    flow::clock::{BootTime, WallTime},
};

/// From this difference on, the wall clock has been set, or has drifted for too long.
const TOLERANCE: i128 = 2 * SECOND;
const SECOND: i128 = 1_000_000_000;

/// Keeps the moment at which the boot clock stood at zero.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    path: PathBuf,
    boot: Option<Time>,
}

impl Timekeeper {
    /// Takes up what an earlier agent kept; whatever is no number is as good as none.
    pub(crate) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join("boot");
        let kept = fs::read_to_string(&path)
            .inspect_err(|error| {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the time of boot");
                }
            })
            .ok();
        let boot = kept.and_then(|text| text.trim().parse().ok());
        Self {
            boot: boot.map(Time::from_unix),
            path,
        }
    }

    pub(crate) fn read(&mut self) -> Clock {
        let (wall, boot) = (WallTime::now(), BootTime::now());
        let clock = reading(self.boot, wall, boot);
        if self.boot != Some(clock.boot) {
            self.boot = Some(clock.boot);
            if let Err(error) = file::replace(&self.path, clock.boot.unix().to_string().as_bytes())
            {
                // The next agent may round otherwise, and write timed entries once more.
                tracing::warn!(path = %self.path.display(), %error, "cannot keep the time of boot");
            }
        }
        clock
    }
}

/// Both clocks now, with the kept time of boot where that is still right.
fn reading(kept: Option<Time>, wall: WallTime, boot: BootTime) -> Clock {
    let lead = i128::from(wall.0) - i128::from(boot.0);
    let right = |kept: &Time| (i128::from(kept.unix()) * SECOND - lead).abs() < TOLERANCE;
    let nearest = (lead + SECOND / 2).div_euclid(SECOND);
    let began = kept
        .filter(right)
        .unwrap_or_else(|| Time::from_unix(i64::try_from(nearest).unwrap_or(i64::MAX)));
    let up = i64::try_from(i128::from(boot.0) / SECOND).unwrap_or(i64::MAX);
    Clock {
        // Not the wall clock: what is in force must be what the kernel takes to be in force.
        now: Time::from_unix(began.unix().saturating_add(up)),
        boot: began,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_700_000_000_400_000_000;
    const UP: u64 = 100_000_000_000;
    const BOOT: Time = Time::from_unix(1_699_999_900);

    fn began(kept: Option<Time>, wall: i64) -> i64 {
        reading(kept, WallTime(wall), BootTime(UP)).boot.unix() - BOOT.unix()
    }

    #[test]
    fn a_time_of_boot_is_kept_until_the_wall_clock_is_set() {
        assert_eq!(began(None, WALL), 0);
        assert_eq!(began(None, WALL + 200_000_000), 1, "the nearest second");
        // Rounding would say another second; what is kept is near enough.
        assert_eq!(began(Some(BOOT), WALL + 200_000_000), 0);
        assert_eq!(began(Some(BOOT), WALL + 1_599_999_999), 0);
        assert_eq!(began(Some(BOOT), WALL + 1_600_000_000), 2);
        assert_eq!(began(Some(BOOT), WALL - 2_300_000_000), 0);
        assert_eq!(began(Some(BOOT), WALL - 2_400_000_000), -2);
    }

    #[test]
    fn it_is_as_late_as_the_kernel_takes_it_to_be() {
        let clock = reading(Some(BOOT), WallTime(WALL + 1_500_000_000), BootTime(UP));
        assert_eq!(clock.boot_nanos(clock.now), UP);
        let later = reading(Some(BOOT), WallTime(WALL), BootTime(UP + 999_999_999));
        assert_eq!(later.now, clock.now, "whole seconds");
    }

    #[test]
    fn the_next_agent_takes_up_the_time_of_boot() {
        let folder = tempfile::tempdir().unwrap();
        let first = Timekeeper::open(folder.path()).read().boot;
        let mut second = Timekeeper::open(folder.path());
        assert_eq!(second.boot, Some(first));
        fs::write(folder.path().join("boot"), "yesterday").unwrap();
        assert_eq!(Timekeeper::open(folder.path()).boot, None);
        // One second beside is what rounding does: kept, not written anew.
        second.boot = Some(Time::from_unix(first.unix() + 1));
        assert_eq!(second.read().boot.unix(), first.unix() + 1);
    }
}
