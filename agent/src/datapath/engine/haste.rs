//! Interfaces that appear while the agent runs: their programs hang by what is quickest, and then by what is best.
//!
//! To link a program to an interface by TCX, the kernel waits until no processor runs what hung there before
//! (`tcx_entry_sync`, since 6.6): 8 to 16 ms for each direction at 250 ticks a second, with its lock over all
//! set-up of interfaces held, so that one direction cannot be linked while the other is waited for. A
//! filter on a clsact waits for nothing. So an interface that appears gets filters, and when nothing else
//! is to be done, links, and then the filters go: in between both judge, and agree. The clsact stays, because an
//! interface loses packets when one is taken from it, and comes before the interface is up for the same reason.

use crate::datapath::{
    attach::{self, AttachError, Attached, Programs, Target, TcHook, unknown},
    engine::{Engine, Unreached, lock},
};

impl Engine {
    /// From now on, what appears is attached at once.
    pub(crate) fn hasten(&mut self) {
        self.hastens = true;
    }

    /// Hangs an interface's programs by links that hang by filters for now; of several, one. Whether
    /// there was one.
    ///
    /// # Errors
    ///
    /// The filters are there still.
    pub(crate) fn improve(&mut self) -> Result<bool, Unreached> {
        if self.hook == TcHook::Clsact {
            return Ok(false);
        }
        let mut failed = None;
        let endpoints = self.attached.iter();
        let endpoints: Vec<_> = endpoints
            .filter_map(|(endpoint, attached)| Some((*endpoint, filtered(attached)?)))
            .collect();
        for (endpoint, index) in endpoints {
            let attached = self.hang_by(self.hook, |hook, programs| {
                attach::attach_interface(&self.dir, endpoint, index, hook, programs)
            });
            match attached {
                Ok(attached) => {
                    self.attached.insert(endpoint, attached);
                    return Ok(true);
                }
                // The others are not to wait for it.
                Err(error) => failed = Some(error),
            }
        }
        let unknown: Vec<_> = self.unknown.held().filter_map(filtered).collect();
        for index in unknown {
            let attached = self.hang_by(self.hook, |hook, programs| {
                unknown::attach(&self.dir, index, hook, programs)
            });
            match attached {
                Ok(attached) => {
                    self.unknown.keep(index, attached);
                    return Ok(true);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// By what programs hang on an interface, or are to hang.
    pub(super) fn hook_at(&self, index: u32) -> TcHook {
        if !self.hastens {
            return self.hook;
        }
        let mut attached = self.attached.values().chain(self.unknown.held());
        let hook = attached.find_map(|attached| match attached.target() {
            Target::Interface { index: its, hook } if its == index => Some(hook),
            Target::Interface { .. } | Target::Cgroup { .. } => None,
        });
        // The kernel takes the queues of an interface that is up away while a clsact comes to it.
        let is_new = self.links.get(index).is_some_and(|link| !link.is_up);
        hook.unwrap_or(if is_new { TcHook::Clsact } else { self.hook })
    }

    /// Attaches an interface's programs by [`Engine::hook_at`], or by the better one if that cannot be.
    pub(super) fn hang(
        &self,
        index: u32,
        attach: impl Fn(TcHook, Programs<'_>) -> Result<Attached, AttachError>,
    ) -> Result<Attached, Unreached> {
        let hook = self.hook_at(index);
        match self.hang_by(hook, &attach) {
            // Somebody has another queueing discipline there, or the kernel has none of this kind, which it says
            // as if the interface had gone.
            Err(_) if hook != self.hook => self.hang_by(self.hook, &attach),
            attached => attached,
        }
    }

    fn hang_by(
        &self,
        hook: TcHook,
        attach: impl Fn(TcHook, Programs<'_>) -> Result<Attached, AttachError>,
    ) -> Result<Attached, Unreached> {
        let programs = lock(&self.programs);
        let fds = programs.fds().map_err(|error| Unreached::failed(&error))?;
        attach(hook, fds).map_err(Unreached::of_attach)
    }
}

/// The interface, if what hangs there are filters.
fn filtered(attached: &Attached) -> Option<u32> {
    match attached.target() {
        Target::Interface {
            index,
            hook: TcHook::Clsact,
        } => Some(index),
        Target::Interface { .. } | Target::Cgroup { .. } => None,
    }
}
