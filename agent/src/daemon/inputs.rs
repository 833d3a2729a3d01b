//! What policy comes from: files, and the Kubernetes API. Both add to one world.

mod files;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_policy::model::{Failsafe, World};

use self::files::Files;
pub(crate) use self::files::{InputError, Reload};
use crate::source::{kubernetes::store::Store, watch::Places};

#[derive(Debug)]
pub(crate) struct Inputs {
    files: Files,
    /// `None` if the API is not asked.
    api: Option<Arc<Store>>,
    world: Arc<World>,
    /// See [`Self::sandboxes`].
    sandboxes: BTreeSet<String>,
}

impl Inputs {
    /// Reads everything for the first time.
    ///
    /// # Errors
    ///
    /// If anything is wrong with a file: there is no good version to keep.
    pub(crate) fn read(
        paths: Vec<PathBuf>,
        failsafe: Vec<Failsafe>,
        api: Option<Arc<Store>>,
    ) -> Result<Self, InputError> {
        let files = Files::read(paths, failsafe)?;
        let mut inputs = Self {
            world: files.world(),
            files,
            api,
            sandboxes: BTreeSet::new(),
        };
        if inputs.api.is_some() {
            inputs.world = Arc::default();
            inputs.compose();
        }
        Ok(inputs)
    }

    /// What was wrong with the files when they were last read; the last good version of them is in the world.
    pub(crate) fn errors(&self) -> &[String] {
        self.files.errors()
    }

    /// Where files may come, go and change: folders that were seen, and files that are named themselves.
    pub(crate) fn places(&self) -> Places {
        self.files.places()
    }

    /// Each file and folder that was looked at, and whether it is a folder.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&Path, bool)> {
        self.files.seen()
    }

    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world)
    }

    /// Interfaces that lead to pods of this node that the API has not told of, or not told anything good.
    pub(crate) fn sandboxes(&self) -> &BTreeSet<String> {
        &self.sandboxes
    }

    /// Says that what was read last is in force, for whoever asks the API.
    pub(crate) fn in_force(&self, generation: u32, enforcing: bool) {
        if let Some(store) = &self.api {
            store.settle(generation, enforcing);
        }
    }

    /// Says why it is not.
    pub(crate) fn refused(&self, why: &str) {
        if let Some(store) = &self.api {
            store.refuse(why);
        }
    }

    /// Reads again what has changed; `None` if nothing has.
    pub(crate) fn reload(&mut self) -> Option<Reload> {
        let reload = self.files.reload();
        if self.api.is_none() {
            let reload = reload?;
            self.world = Arc::clone(&reload.world);
            return Some(reload);
        }
        let is_other = self.compose();
        (is_other || reload.is_some()).then(|| Reload {
            world: self.world(),
            errors: self.files.errors().to_vec(),
        })
    }

    /// Puts files and API together, once there is a state of the API; before, the files are all there is.
    fn compose(&mut self) -> bool {
        let files = self.files.world();
        let (composed, sandboxes) = match &self.api {
            Some(store) if store.is_ready() => {
                let (world, sandboxes) = store.compose(&self.world, &files);
                (world.map(Arc::new), sandboxes)
            }
            Some(_) | None => {
                let is_other = !Arc::ptr_eq(&self.world, &files);
                (is_other.then_some(files), BTreeSet::new())
            }
        };
        let is_other = composed.is_some() || sandboxes != self.sandboxes;
        self.sandboxes = sandboxes;
        if let Some(world) = composed {
            self.world = world;
        }
        is_other
    }
}
