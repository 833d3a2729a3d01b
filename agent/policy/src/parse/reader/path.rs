//! The way to a value, written out only where somebody reads it.
//!
//! A list of thousands below a key of megabytes would otherwise hold the key as often as it has
//! items, and so would the problems of each of them.

use std::{fmt, rc::Rc};

/// A step and, shared with its siblings, the way to where it begins.
#[derive(Clone, Debug)]
pub(super) struct Path<'n> {
    before: Option<Rc<Self>>,
    step: Step<'n>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'n> {
    /// The document itself.
    Root,
    /// A field, as in `spec.ports`.
    Field(&'n str),
    /// A key of a free map, as in `labels[app]`.
    Key(&'n str),
    Item(usize),
}

/// Of one step, in characters: more than any name that is valid has.
const SHOWN: usize = 320;

impl<'n> Path<'n> {
    pub(super) fn root() -> Self {
        Self {
            before: None,
            step: Step::Root,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        matches!(self.step, Step::Root)
    }

    pub(super) fn field(self: &Rc<Self>, name: &'n str) -> Self {
        self.then(Step::Field(name))
    }

    pub(super) fn key(self: &Rc<Self>, name: &'n str) -> Self {
        self.then(Step::Key(name))
    }

    pub(super) fn item(self: &Rc<Self>, index: usize) -> Self {
        self.then(Step::Item(index))
    }

    fn then(self: &Rc<Self>, step: Step<'n>) -> Self {
        Self {
            before: (!self.is_root()).then(|| Rc::clone(self)),
            step,
        }
    }

    /// The name of the last step; items of a list have none.
    pub(super) fn last(&self) -> &'n str {
        match self.step {
            Step::Field(name) | Step::Key(name) => name,
            Step::Root | Step::Item(_) => "",
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(before) = &self.before {
            before.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => {
                if self.before.is_some() {
                    f.write_str(".")?;
                }
                write_cut(f, name)
            }
            Step::Key(name) => {
                f.write_str("[")?;
                write_cut(f, name)?;
                f.write_str("]")
            }
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

fn write_cut(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    match name.char_indices().nth(SHOWN) {
        None => f.write_str(name),
        Some((end, _)) => write!(f, "{}…", name.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_people_write_it_and_long_steps_are_cut() {
        let spec = Rc::new(Path::root()).field("spec");
        let names = Rc::new(spec).field("names");
        let key = Rc::new(Rc::new(names).key("a.b"));
        assert_eq!(key.item(3).to_string(), "spec.names[a.b][3]");
        assert_eq!(key.last(), "a.b");
        let long = "ä".repeat(SHOWN + 1);
        let cut = Rc::new(Path::root()).field(&long).to_string();
        assert_eq!(cut, "ä".repeat(SHOWN) + "…");
    }
}
