//! Objects whose fields are asked for one by one.

use std::rc::Rc;

use super::{Dialect, Field, Path};
use crate::{
    diagnostic::Severity,
    parse::nearest::nearest,
    yaml::{Entry, Value, quote},
};

#[derive(Debug)]
#[must_use = "close it, or unknown fields go unnoticed"]
pub(crate) struct Object<'n> {
    field: Field<'n>,
    /// That of the field, shared by the fields of the object.
    path: Rc<Path<'n>>,
    entries: &'n [Entry],
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
}

/// What becomes of fields that nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    Deny,
    Tolerate,
}

/// Fields that mean all there are where they are missing.
const OPENING: [&str; 7] = [
    "from",
    "to",
    "ports",
    "namespaceSelector",
    "selector",
    "matchLabels",
    "matchExpressions",
];

// === impl Object ===

impl<'n> Object<'n> {
    pub(super) fn new(field: Field<'n>, entries: &'n [Entry]) -> Self {
        Self {
            path: Rc::new(field.path.clone()),
            field,
            entries,
            known: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub(crate) fn field(&self) -> &Field<'n> {
        &self.field
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn only_nulls(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| entry.value.value == Value::Null)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| &*entry.key == name)
    }

    /// From now on, by the rules of a dialect.
    pub(crate) fn speak(&mut self, dialect: Dialect) {
        self.field.dialect = dialect;
    }

    /// A field, unless it is missing or null: the API treats both alike. In a kind of ours, null is
    /// refused.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.known.push(name);
        let entry = self.entries.iter().find(|entry| &*entry.key == name)?;
        let field = self.child(entry);
        if entry.value.value != Value::Null {
            return Some(field);
        }
        if field.dialect == Dialect::Ours {
            field.error_with_hint(
                "empty-value",
                format!("{} has no value", field.name()),
                if OPENING.contains(&name) {
                    "write one, or leave the field out, which means all there are"
                } else {
                    "write one, or leave the field out"
                },
            );
        }
        None
    }

    /// A field that is written without a value.
    pub(crate) fn null(&self, name: &str) -> Option<Field<'n>> {
        let entry = self.entries.iter().find(|entry| &*entry.key == name)?;
        (entry.value.value == Value::Null).then(|| self.child(entry))
    }

    /// A field that must be there.
    pub(crate) fn require(&mut self, name: &'static str) -> Option<Field<'n>> {
        let found = self.get(name);
        let refused = self.field.dialect == Dialect::Ours && self.null(name).is_some();
        if found.is_none() && !refused {
            let path = self.path.field(name);
            let message = format!("missing field {}", quote(&path.to_string()));
            let at = self.field.at();
            self.field
                .report
                .push(Severity::Error, at, &path, "missing-field", message, None);
        }
        found
    }

    /// A field that has no place here, for whoever says more about it than that it is unknown.
    pub(crate) fn refused(&mut self, name: &'static str) -> Option<Field<'n>> {
        let entry = self.entries.iter().find(|entry| &*entry.key == name)?;
        self.refused.push(name);
        Some(self.child(entry))
    }

    /// The items of a list, none if the field is missing.
    pub(crate) fn items(&mut self, name: &'static str) -> Vec<Field<'n>> {
        self.get(name)
            .and_then(|field| field.list())
            .unwrap_or_default()
    }

    /// Reports a list that is missing or empty.
    pub(crate) fn require_items(&self, name: &'static str, hint: &str) {
        let path = self.path.field(name);
        let message = format!(
            "missing field {}: expected at least one item",
            quote(&path.to_string())
        );
        self.field.report.push(
            Severity::Error,
            self.field.at(),
            &path,
            "missing-field",
            message,
            Some(hint.to_owned()),
        );
    }

    /// Fields that may stand here and that nobody reads.
    pub(crate) fn tolerate(&mut self, names: &[&'static str]) {
        self.known.extend_from_slice(names);
    }

    pub(crate) fn close(self, unknown: Unknown) {
        match unknown {
            Unknown::Deny => self.deny_unknown(),
            Unknown::Tolerate => self.tolerate_unknown(),
        }
    }

    /// Reports every field that nobody asked for.
    pub(crate) fn deny_unknown(self) {
        self.deny_unknown_with(|_| None);
    }

    /// As [`Self::deny_unknown`]; `meant` knows what to write instead where a near name would not
    /// tell.
    pub(crate) fn deny_unknown_with(self, meant: impl Fn(&Entry) -> Option<String>) {
        let Self {
            field,
            path: own,
            entries,
            known,
            refused,
        } = self;
        #[cfg(test)]
        field.report.note(&field.path(), &known);
        for entry in entries {
            if known.contains(&&*entry.key) || refused.contains(&&*entry.key) {
                continue;
            }
            let path = own.field(&entry.key);
            let place = if field.path.is_root() {
                String::new()
            } else {
                format!(" in {}", field.name())
            };
            let message = format!("unknown field {}{place}", quote(&entry.key));
            let near = || field.report.suggestion(|| nearest(&entry.key, &known));
            let hint = meant(entry).or_else(near);
            field.report.push(
                Severity::Error,
                entry.at,
                &path,
                "unknown-field",
                message,
                hint,
            );
        }
    }

    /// The keys that nobody asked for, so far.
    pub(crate) fn unknown(&self) -> Vec<&'n str> {
        self.entries
            .iter()
            .map(|entry| &*entry.key)
            .filter(|key| !self.known.contains(key) && !self.refused.contains(key))
            .collect()
    }

    /// For objects that are not ours to judge, where newer servers add fields.
    pub(crate) fn tolerate_unknown(self) {
        let Self {
            field: _,
            path: _,
            entries: _,
            known: _,
            refused: _,
        } = self;
    }

    fn child(&self, entry: &'n Entry) -> Field<'n> {
        Field {
            report: self.field.report,
            node: &entry.value,
            path: self.path.field(&entry.key),
            dialect: self.field.dialect,
        }
    }
}
