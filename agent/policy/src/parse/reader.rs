//! Reading typed fields out of a tree, without ever stopping at a problem.
//!
//! Each reading method answers `None` after it has reported why, so that a parser goes on with
//! the next field. An [`Object`] remembers which fields were asked for: whatever remains when it
//! is closed is unknown, and the fields that were asked for are the suggestions.

#[cfg(test)]
use std::collections::{BTreeMap, BTreeSet};
use std::{cell::RefCell, fmt};

use super::nearest::nearest;
use crate::{
    diagnostic::{Diagnostic, Position, Problems, Severity},
    model::Source,
    yaml::{Entry, Node, Value, quote},
};

/// Where the problems of a file are collected while several readers look at its tree.
#[derive(Debug)]
pub(crate) struct Report {
    problems: RefCell<Problems>,
    /// The fields that the parsers know, by the path of their object.
    #[cfg(test)]
    known: RefCell<BTreeMap<String, BTreeSet<&'static str>>>,
}

/// Problems of one file that come with a near miss. Finding one costs, and a file can hold a
/// hundred thousand.
const MAX_SUGGESTIONS: usize = 1_000;

/// A value and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Field<'n> {
    report: &'n Report,
    node: &'n Node,
    path: String,
}

#[derive(Debug)]
#[must_use = "close it, or unknown fields go unnoticed"]
pub(crate) struct Object<'n> {
    field: Field<'n>,
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

// === impl Report ===

impl Report {
    pub(crate) fn new(problems: Problems) -> Self {
        Self {
            problems: RefCell::new(problems),
            #[cfg(test)]
            known: RefCell::default(),
        }
    }

    pub(crate) fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }

    pub(crate) fn file(&self) -> std::sync::Arc<str> {
        std::sync::Arc::clone(self.problems.borrow().file())
    }

    #[cfg(test)]
    fn note(&self, path: &str, fields: &[&'static str]) {
        let mut known = self.known.borrow_mut();
        known.entry(path.to_owned()).or_default().extend(fields);
    }

    /// What [`Object::deny_unknown`] would have let pass, by the path of the object.
    #[cfg(test)]
    pub(crate) fn known(&self) -> BTreeMap<String, BTreeSet<&'static str>> {
        self.known.borrow().clone()
    }

    fn suggestion<S: fmt::Display>(&self, suggest: impl FnOnce() -> Option<S>) -> Option<String> {
        if self.problems.borrow().len() >= MAX_SUGGESTIONS {
            return None;
        }
        suggest().map(|near| format!("did you mean `{near}`?"))
    }

    fn push(
        &self,
        severity: Severity,
        at: Position,
        path: &str,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        let mut one = Diagnostic::new(severity, problems.file(), at, code, message).at_path(path);
        one.hint = hint;
        problems.push(one);
    }
}

// === impl Field ===

impl<'n> Field<'n> {
    pub(crate) fn root(report: &'n Report, node: &'n Node) -> Self {
        Self {
            report,
            node,
            path: String::new(),
        }
    }

    pub(crate) fn at(&self) -> Position {
        self.node.at
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn source(&self) -> Source {
        Source {
            file: self.report.file(),
            line: self.at().line,
        }
    }

    pub(crate) fn node(&self) -> &'n Node {
        self.node
    }

    pub(crate) fn error(&self, code: &'static str, message: impl Into<String>) {
        self.report.push(
            Severity::Error,
            self.at(),
            &self.path,
            code,
            message.into(),
            None,
        );
    }

    pub(crate) fn error_with_hint(
        &self,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint) = (message.into(), Some(hint.into()));
        self.report
            .push(Severity::Error, self.at(), &self.path, code, message, hint);
    }

    /// As [`Self::error`]; what was probably meant is only looked for where somebody reads it.
    pub(crate) fn error_with_suggestion<S: fmt::Display>(
        &self,
        code: &'static str,
        message: impl Into<String>,
        suggest: impl FnOnce() -> Option<S>,
    ) {
        match self.report.suggestion(suggest) {
            Some(hint) => self.error_with_hint(code, message, hint),
            None => self.error(code, message),
        }
    }

    /// As [`Self::error`], for a key of this object.
    pub(crate) fn error_at_key(&self, entry: &Entry, code: &'static str, message: String) {
        let path = format!("{}[{}]", self.path, entry.key);
        self.report
            .push(Severity::Error, entry.at, &path, code, message, None);
    }

    pub(crate) fn warn(
        &self,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let (message, hint) = (message.into(), Some(hint.into()));
        self.report.push(
            Severity::Warning,
            self.at(),
            &self.path,
            code,
            message,
            hint,
        );
    }

    /// The path in backticks, for messages; the document itself has none.
    pub(crate) fn name(&self) -> String {
        if self.path.is_empty() {
            "the document".to_owned()
        } else {
            quote(&self.path)
        }
    }

    /// The last part of the path.
    pub(crate) fn last(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    pub(crate) fn wrong_type(&self, expected: &str) {
        let message = format!(
            "{}: expected {expected}, found {}",
            self.name(),
            self.node.describe()
        );
        let quotable = expected == "string"
            && matches!(
                self.node.value,
                Value::Integer(_) | Value::Float(_) | Value::Bool(_)
            );
        let hint = quotable.then(|| "put it in quotes".to_owned());
        self.report.push(
            Severity::Error,
            self.at(),
            &self.path,
            "wrong-type",
            message,
            hint,
        );
    }

    pub(crate) fn object(&self) -> Option<Object<'n>> {
        let Value::Object(entries) = &self.node.value else {
            self.wrong_type("object");
            return None;
        };
        Some(Object {
            field: self.clone(),
            entries,
            known: Vec::new(),
            refused: Vec::new(),
        })
    }

    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else {
            self.wrong_type("list");
            return None;
        };
        let item = |(index, node)| Self {
            report: self.report,
            node,
            path: format!("{}[{index}]", self.path),
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The pairs of a free map such as `labels`.
    pub(crate) fn pairs(&self) -> Option<Vec<(&'n Entry, Self)>> {
        let Object { entries, .. } = self.object()?;
        let pair = |entry: &'n Entry| {
            let path = format!("{}[{}]", self.path, entry.key);
            (
                entry,
                Self {
                    report: self.report,
                    node: &entry.value,
                    path,
                },
            )
        };
        Some(entries.iter().map(pair).collect())
    }

    /// Whether a list has no items; `None` if it is no list.
    pub(crate) fn list_is_empty(&self) -> Option<bool> {
        match &self.node.value {
            Value::List(items) => Some(items.is_empty()),
            _ => None,
        }
    }

    pub(crate) fn string(&self) -> Option<&'n str> {
        let Value::String(text) = &self.node.value else {
            self.wrong_type("string");
            return None;
        };
        Some(text)
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        let Value::Bool(value) = self.node.value else {
            self.wrong_type("boolean");
            return None;
        };
        Some(value)
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        let Value::Integer(value) = self.node.value else {
            self.wrong_type("integer");
            return None;
        };
        Some(value)
    }
}

// === impl Object ===

impl<'n> Object<'n> {
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

    /// A field, unless it is missing or null: the API treats both alike.
    pub(crate) fn get(&mut self, name: &'static str) -> Option<Field<'n>> {
        self.known.push(name);
        let entry = self.entries.iter().find(|entry| &*entry.key == name)?;
        if entry.value.value == Value::Null {
            return None;
        }
        Some(self.child(entry))
    }

    /// A field that must be there.
    pub(crate) fn require(&mut self, name: &'static str) -> Option<Field<'n>> {
        let found = self.get(name);
        if found.is_none() {
            let path = join(&self.field.path, name);
            let message = format!("missing field {}", quote(&path));
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
        let Self {
            field,
            entries,
            known,
            refused,
        } = self;
        #[cfg(test)]
        field.report.note(&field.path, &known);
        for entry in entries {
            if known.contains(&&*entry.key) || refused.contains(&&*entry.key) {
                continue;
            }
            let path = join(&field.path, &entry.key);
            let place = if field.path.is_empty() {
                String::new()
            } else {
                format!(" in {}", field.name())
            };
            let message = format!("unknown field {}{place}", quote(&entry.key));
            let hint = field.report.suggestion(|| nearest(&entry.key, &known));
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
            entries: _,
            known: _,
            refused: _,
        } = self;
    }

    fn child(&self, entry: &'n Entry) -> Field<'n> {
        let path = join(&self.field.path, &entry.key);
        Field {
            report: self.field.report,
            node: &entry.value,
            path,
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
