//! Kinds of records: which elements they have, in which order.

use super::element::{Context, Element, Registry, Semantics};

/// A kind of records.
pub(super) struct Table<R: 'static> {
    /// Keeps templates of one kind from those of another.
    pub(super) name: &'static str,
    pub(super) set: TemplateSet,
    /// As many as a [`Shape`] has bits, at most.
    pub(super) groups: &'static [Group<R>],
}

/// Elements that a record has all of, or none.
pub(super) struct Group<R: 'static> {
    is_there: There<R>,
    elements: &'static [Element<R>],
}

enum There<R: 'static> {
    Always,
    If(fn(&R) -> bool),
    /// If it is not empty.
    Text,
}

/// Which set tells of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TemplateSet {
    Template,
    /// What is about the exporter or its elements, and no flow: the first so many fields say about what.
    Options {
        scope: u16,
    },
}

/// Which groups of a table a record has: one template for each shape that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape(u64);

impl<R> Group<R> {
    pub(super) const fn always(elements: &'static [Element<R>]) -> Self {
        Self {
            is_there: There::Always,
            elements,
        }
    }

    pub(super) const fn of(is_there: fn(&R) -> bool, elements: &'static [Element<R>]) -> Self {
        Self {
            is_there: There::If(is_there),
            elements,
        }
    }

    pub(super) const fn text(elements: &'static [Element<R>; 1]) -> Self {
        Self {
            is_there: There::Text,
            elements,
        }
    }

    fn is_in(&self, record: &R) -> bool {
        match self.is_there {
            There::Always => true,
            There::If(is_there) => is_there(record),
            There::Text => self.elements.iter().any(|it| it.has_text(record)),
        }
    }
}

impl<R> Table<R> {
    pub(super) fn shape(&self, record: &R) -> Shape {
        let groups = self.groups.iter().rev();
        Shape(groups.fold(0, |bits, group| {
            (bits << 1) | u64::from(group.is_in(record))
        }))
    }

    /// With all groups.
    pub(super) fn shape_of_all(&self) -> Shape {
        Shape(self.groups.iter().fold(0, |bits, _| (bits << 1) | 1))
    }

    fn elements(&self, shape: Shape) -> impl Iterator<Item = &'static Element<R>> {
        let groups = self.groups.iter().enumerate();
        groups
            .filter(move |(bit, _)| shape.0 >> bit & 1 == 1)
            .flat_map(|(_, group)| group.elements)
    }

    /// The record of a template, by which those of this shape are read.
    pub(super) fn template(&self, shape: Shape, id: u16, context: Context) -> Vec<u8> {
        let mut fields = Vec::new();
        let mut count = 0_u16;
        for element in self.elements(shape) {
            element.specify(context, &mut fields);
            count += 1;
        }
        let mut template = Vec::with_capacity(fields.len() + 6);
        template.extend(id.to_be_bytes());
        template.extend(count.to_be_bytes());
        if let TemplateSet::Options { scope } = self.set {
            template.extend(scope.to_be_bytes());
        }
        template.extend(fields);
        template
    }

    pub(super) fn put(&self, record: &R, shape: Shape, context: Context, out: &mut Vec<u8>) {
        for element in self.elements(shape) {
            element.put(record, context, out);
        }
    }

    /// What others cannot look up.
    pub(super) fn own(&self) -> impl Iterator<Item = Own> {
        let elements = self.groups.iter().flat_map(|group| group.elements);
        elements
            .filter(|element| element.registry == Registry::Own)
            .map(|element| Own {
                number: element.number,
                name: element.name,
                data_type: element.get.data_type(),
                semantics: element.semantics,
            })
    }

    /// Of all groups.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &'static Element<R>> {
        self.groups.iter().flat_map(|group| group.elements)
    }
}

impl TemplateSet {
    /// The number of the set that templates of this kind are in.
    pub(super) fn number(self) -> u16 {
        match self {
            Self::Template => 2,
            Self::Options { .. } => 3,
        }
    }
}

/// An element of our own, to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) number: u16,
    pub(super) name: &'static str,
    pub(super) data_type: u8,
    pub(super) semantics: Semantics,
}
