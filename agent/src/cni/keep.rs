//! Keeps the plugin in a node's configuration: whoever owns that writes it anew now and then, without us.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::install::{self, InstallError, Options, Outcome};
use crate::source::watch::{Places, Watch};

/// Between two looks that nothing hinted at: a file behind a link changes unseen.
const BACKSTOP: Duration = Duration::from_secs(10);

/// From a hint to the look. Several files may be written at once.
const SETTLED: Duration = Duration::from_millis(50);

/// After a change of ours; twice as long after the next one, up to [`LONGEST`]. Somebody may put the configuration back
/// each time, and would not end.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_mins(1);

/// So long nobody has changed it: the next change is the first one.
const QUIET: Duration = Duration::from_mins(5);

/// Looks at the folder for ever, and tells of each change of ours, and of what is in the way when that is another.
pub(crate) async fn keep(
    configurations: &Path,
    binaries: &Path,
    options: &Options,
    tell: impl Fn(&Result<Outcome, InstallError>),
) {
    let mut watch = Watch::new();
    let mut pause = PAUSE;
    let mut changed = Instant::now();
    let mut amiss = None;
    loop {
        // Before the look: what happens from here on is hinted at.
        watch.set(place(configurations));
        let looked = look(configurations, binaries, options);
        match &looked {
            Ok(Outcome::Unchanged(_)) => {
                amiss = None;
                if changed.elapsed() >= QUIET {
                    pause = PAUSE;
                }
            }
            Ok(Outcome::Changed(_)) => {
                amiss = None;
                changed = Instant::now();
                tell(&looked);
                sleep(pause).await;
                pause = LONGEST.min(pause * 2);
            }
            Err(error) => {
                let said = Some(error.to_string());
                if amiss != said {
                    tell(&looked);
                }
                amiss = said;
            }
        }
        tokio::select! {
            () = watch.changed() => sleep(SETTLED).await,
            () = sleep(BACKSTOP) => {}
        }
    }
}

/// First what the configuration names.
fn look(
    configurations: &Path,
    binaries: &Path,
    options: &Options,
) -> Result<Outcome, InstallError> {
    if !binaries.join(super::NAME).exists() {
        install::copy_binary(binaries)?;
    }
    install::install(configurations, options)
}

/// None while it is not there: it is looked for then.
fn place(folder: &Path) -> Places {
    let metadata = fs::metadata(folder).ok();
    let identity = metadata.map(|metadata| (metadata.dev(), metadata.ino()));
    let place = identity.map(|identity| (folder.to_path_buf(), identity));
    place.into_iter().collect()
}
