//! A world that is edited, asked and put back as it was.

use super::{Asked, Edit};
use crate::{
    connection::{Connection, Need, Perspective, Verdict},
    model::World,
    question::{Evaluator, Why},
    reference::Reference,
};

/// One copy of the world for all that is tried: an edit changes one object of it, and that object
/// can be put back.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) world: World,
    perspective: Perspective,
    asked: Asked<'a>,
    /// Those that are kept.
    pub(super) edits: Vec<Edit>,
}

// === impl Trial ===

impl<'a> Trial<'a> {
    pub(super) fn new(world: &World, perspective: Perspective, asked: Asked<'a>) -> Self {
        Self {
            world: world.clone(),
            perspective,
            asked,
            edits: Vec::new(),
        }
    }

    /// What is said of it with one more edit, which is taken back.
    pub(super) fn with<T>(&mut self, edit: &Edit, say: impl FnOnce(&Self) -> T) -> T {
        let (former, perspective) = (edit.object(&self.world), self.perspective);
        edit.apply(&mut self.world, &mut self.perspective);
        let said = say(self);
        self.perspective = perspective;
        if let Some(former) = former {
            self.world.apply(&former);
        }
        said
    }

    pub(super) fn keep(&mut self, edit: Edit) {
        edit.apply(&mut self.world, &mut self.perspective);
        self.edits.push(edit);
    }

    /// `None` if the ends can no longer talk to each other.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        Some(self.connection()?.verdict(&Reference(&self.world)))
    }

    pub(super) fn needs(&self) -> Vec<Need> {
        self.connection()
            .map(|connection| connection.needs())
            .unwrap_or_default()
    }

    pub(super) fn denied(&self) -> Vec<Need> {
        let mut needs = self.needs();
        needs.retain(|need| !self.allows(need));
        needs
    }

    pub(super) fn allows(&self, need: &Need) -> bool {
        Reference(&self.world).answer(&need.asked).allows()
    }

    pub(super) fn why(&self, need: &Need) -> Why {
        Reference(&self.world).answer(&need.asked).why
    }

    fn connection(&self) -> Option<Connection> {
        let Asked { from, to, port } = self.asked;
        Connection::new(&self.world, from, to, port, self.perspective).ok()
    }
}
