//! Reading typed fields out of a tree, without ever stopping at a problem.
//!
//! Each reading method answers `None` after it has reported why, so that a parser goes on with
//! the next field. An [`Object`] remembers which fields were asked for: whatever remains when it
//! is closed is unknown, and the fields that were asked for are the suggestions.

mod object;
mod path;

#[cfg(test)]
use std::collections::BTreeMap;
use std::{cell::RefCell, collections::BTreeSet, fmt, rc::Rc};

pub(crate) use self::object::{Object, Unknown};
use self::path::Path;
use crate::{
    diagnostic::{Diagnostic, Position, Problems, Severity},
    model::Source,
    yaml::{Entry, Node, Value, is_digits, quote},
};

/// Where the problems of a file are collected while several readers look at its tree.
#[derive(Debug)]
pub(crate) struct Report {
    problems: RefCell<Problems>,
    /// Sorted; [`yaml::Documents::words`](crate::yaml::Documents).
    words: Vec<Position>,
    /// Where the names of objects stand that say no namespace.
    without_namespace: RefCell<BTreeSet<Position>>,
    /// The fields that the parsers know, by the path of their object.
    #[cfg(test)]
    known: RefCell<BTreeMap<String, BTreeSet<&'static str>>>,
}

/// Problems of one file that come with a near miss. Finding one costs, and a file can hold a
/// hundred thousand.
const MAX_SUGGESTIONS: usize = 100;

/// A value and the way to it.
#[derive(Clone, Debug)]
pub(crate) struct Field<'n> {
    report: &'n Report,
    node: &'n Node,
    path: Path<'n>,
    dialect: Dialect,
}

/// Whose rules a document follows where they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The API takes null for missing.
    Kubernetes,
    /// Null is a slip: what is missing mostly means everybody, and nobody writes so that by nothing
    /// behind a colon.
    Ours,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(problems: Problems, words: Vec<Position>) -> Self {
        Self {
            words,
            problems: RefCell::new(problems),
            without_namespace: RefCell::default(),
            #[cfg(test)]
            known: RefCell::default(),
        }
    }

    pub(crate) fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }

    pub(crate) fn take_without_namespace(&self) -> BTreeSet<Position> {
        self.without_namespace.take()
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
        path: &Path<'_>,
        code: &'static str,
        message: String,
        hint: Option<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        let mut one =
            Diagnostic::new(severity, problems.file(), at, code, message).at_path(path.to_string());
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
            path: Path::root(),
            dialect: Dialect::Kubernetes,
        }
    }

    pub(crate) fn at(&self) -> Position {
        self.node.at
    }

    pub(crate) fn path(&self) -> String {
        self.path.to_string()
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
    pub(crate) fn error_at_key(&self, entry: &'n Entry, code: &'static str, message: String) {
        let path = Rc::new(self.path.clone()).key(&entry.key);
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

    /// For strings that an API server would get as booleans, if they stand without quotes.
    pub(crate) fn warn_of_word(&self, at: Position, text: &str) {
        if self.dialect == Dialect::Kubernetes && self.report.words.binary_search(&at).is_ok() {
            let message = format!(
                "{} is a boolean where YAML 1.1 is read, as by `kubectl`, and would be refused",
                quote(text)
            );
            let hint = Some("put it in quotes".to_owned());
            self.report.push(
                Severity::Warning,
                at,
                &self.path,
                "unquoted-word",
                message,
                hint,
            );
        }
    }

    /// The object whose name stands there says no namespace.
    pub(crate) fn without_namespace(&self, name: Position) {
        self.report.without_namespace.borrow_mut().insert(name);
    }

    /// The path in backticks, for messages; the document itself has none.
    pub(crate) fn name(&self) -> String {
        if self.path.is_root() {
            "the document".to_owned()
        } else {
            quote(&self.path())
        }
    }

    /// The name of the field itself.
    pub(crate) fn last(&self) -> &'n str {
        self.path.last()
    }

    pub(crate) fn wrong_type(&self, expected: &str) {
        let message = format!(
            "{}: expected {expected}, found {}",
            self.name(),
            self.node.describe()
        );
        let hint = self.respelled(expected);
        self.report.push(
            Severity::Error,
            self.at(),
            &self.path,
            "wrong-type",
            message,
            hint,
        );
    }

    /// What to write where the spelling of a value alone is wrong.
    fn respelled(&self, expected: &str) -> Option<String> {
        match (expected, &self.node.value) {
            (
                "string",
                Value::Integer(_) | Value::LeadingZero(_) | Value::Float(_) | Value::Bool(_),
            ) => Some("put it in quotes".to_owned()),
            ("object", Value::String(text)) => {
                let field = match self.last() {
                    "ipBlock" => "cidr",
                    "cidr" => "block",
                    _ => return None,
                };
                let block = quote(&format!("{{{field}: {text}}}"));
                Some(format!("write {block}"))
            }
            (_, Value::LeadingZero(text)) => {
                let digits = text.trim_start_matches(['+', '-', '0']);
                let meant = if digits.is_empty() { "0" } else { digits };
                Some(format!(
                    "write {}; where YAML 1.1 is read, as by `kubectl`, the zero makes it octal",
                    quote(meant)
                ))
            }
            ("boolean", Value::String(text)) => {
                // With what other versions of YAML take for a boolean.
                let meant = match text.to_ascii_lowercase().as_str() {
                    "true" | "yes" | "y" | "on" => "true",
                    "false" | "no" | "n" | "off" => "false",
                    _ => return None,
                };
                Some(format!("write `{meant}`, without quotes"))
            }
            ("integer", Value::String(text)) if is_digits(text) => {
                Some("write it without quotes".to_owned())
            }
            // A fraction of nothing.
            (_, Value::Float(value)) if value.fract() == 0.0 && value.abs() < 1e6 => {
                Some(format!("write `{value}`"))
            }
            _ => None,
        }
    }

    pub(crate) fn object(&self) -> Option<Object<'n>> {
        Some(Object::new(self.clone(), self.entries()?))
    }

    /// Whether a part of this object has been refused because it is null.
    pub(crate) fn has_refused_null(&self) -> bool {
        let Value::Object(entries) = &self.node.value else {
            return false;
        };
        let is_null = |entry: &Entry| entry.value.value == Value::Null;
        self.dialect == Dialect::Ours && entries.iter().any(is_null)
    }

    fn entries(&self) -> Option<&'n [Entry]> {
        let Value::Object(entries) = &self.node.value else {
            self.wrong_type("object");
            return None;
        };
        Some(entries)
    }

    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        let Value::List(items) = &self.node.value else {
            self.wrong_type("list");
            return None;
        };
        let path = Rc::new(self.path.clone());
        let item = |(index, node)| Self {
            report: self.report,
            node,
            path: path.item(index),
            dialect: self.dialect,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The pairs of a free map such as `labels`.
    pub(crate) fn pairs(&self) -> Option<Vec<(&'n Entry, Self)>> {
        let path = Rc::new(self.path.clone());
        let pair = |entry: &'n Entry| {
            let field = Self {
                report: self.report,
                node: &entry.value,
                path: path.key(&entry.key),
                dialect: self.dialect,
            };
            (entry, field)
        };
        Some(self.entries()?.iter().map(pair).collect())
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
