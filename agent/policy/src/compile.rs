//! From the model to tables: everything that can be resolved before a packet comes.
//!
//! Addresses that no rule tells apart share an identity. A policy set has answers only for the
//! identities that its rules name; all others have the set's default. So the tables grow with the
//! number of distinct answers, never with addresses × ports × rules.
//!
//! Numbers are hashes of what they stand for (`ids`): the same input gives the same tables on any
//! node, and a small change moves few numbers. There is one way to compile: a [`Compiler`] follows
//! changes, and begins with everything as one change.

mod blocks;
mod classes;
mod compiler;
mod domains;
mod ids;
mod lists;
mod points;
mod policies;
mod ports;
mod program;
mod select;
mod services;
mod sets;
mod timeline;
mod timing;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub(crate) use self::timing::moments;
pub use self::{
    compiler::{Compiler, Delta},
    services::carry_backends,
};
use crate::{
    compiled::{Clock, Compiled, PortTable},
    model::{SubjectName, World},
};

/// What is compiled: who is judged, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those whose traffic this node judges.
    pub subjects: BTreeSet<SubjectName>,
    /// Every address of this node itself.
    pub this_node: BTreeSet<IpAddr>,
}

/// Compiles `world` for the subjects of `scope`.
///
/// `held` is what the kernel holds now: a port table number that has other content there is not
/// used again at once.
pub fn compile(
    world: &World,
    scope: &Scope,
    held: &BTreeMap<u32, PortTable>,
    clock: Clock,
) -> Compiled {
    Compiler::new(world, scope.clone(), held, clock).into_compiled()
}
