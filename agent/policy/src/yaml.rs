//! Bytes to a generic tree that remembers where everything was written.
//!
//! YAML 1.2 with its core schema, several documents to a file; JSON is read by the same road, as
//! YAML 1.2 contains it. The tree keeps places and the order of keys, which is why no serde data
//! format stands here (`docs/adr/0002-yaml.md` of the agent).
//!
//! Imported by `parse`; imports only `diagnostic` and `shown` of ours.

mod build;
mod scalar;

use std::sync::Arc;

use saphyr_parser::Parser;

use crate::{
    diagnostic::{Diagnostic, Position, Problems, Severity},
    shown::shown,
};

/// The largest file that is read; a caller that knows the size refuses before it reads.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Nodes written out in one file. A list of five thousand pods has some two million.
pub const MAX_NODES: u64 = 8_000_000;
/// Nodes that aliases may add to those written out.
pub const MAX_ALIAS_NODES: u64 = 1_000_000;
/// Bytes of text that aliases may add: an alias of a megabyte is one node.
pub const MAX_ALIAS_BYTES: u64 = MAX_FILE_BYTES;
/// Objects and lists inside one another, aliases expanded.
pub const MAX_DEPTH: u32 = 64;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// Shared below collections, so that an alias costs a reference and not a copy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// A whole number as it is written, which not every reader takes for the same number.
    LeadingZero(Arc<str>),
    /// Also whole numbers beyond 64 bits.
    Float(f64),
    String(Arc<str>),
    List(Arc<Vec<Node>>),
    Object(Arc<Vec<Entry>>),
}

/// Keys are unique in their object, and kept as written: `80: x` has the key `80`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) at: Position,
    pub(crate) value: Node,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    pub(crate) roots: Vec<Node>,
    /// Where `yes`, `off` and their like stand without quotes, in order: strings here, and booleans
    /// where YAML 1.1 is read.
    pub(crate) words: Vec<Position>,
}

/// Reads every document of a file; those before a syntax error are still given.
pub(crate) fn read(bytes: &[u8], problems: &mut Problems) -> Documents {
    match text(bytes) {
        Ok(text) => build::documents(Parser::new_from_str(text), problems),
        Err(refusal) => {
            let Refusal {
                at,
                code,
                message,
                hint,
            } = refusal;
            let mut one = Diagnostic::new(Severity::Error, problems.file(), at, code, message);
            one.hint = hint.map(str::to_owned);
            problems.push(one);
            Documents::default()
        }
    }
}

/// The one diagnostic for a file that is too large, also for callers that only know its size.
pub fn too_large(file: &Arc<str>, bytes: u64) -> Diagnostic {
    let message = format!("the file has {bytes} bytes, expected at most {MAX_FILE_BYTES}");
    Diagnostic::new(
        Severity::Error,
        file,
        Position::START,
        "file-too-large",
        message,
    )
    .with_hint("split it, or leave out what no policy speaks about")
}

struct Refusal {
    at: Position,
    code: &'static str,
    message: String,
    hint: Option<&'static str>,
}

/// Only printable text: the parser below takes a NUL for the end of the file, which would
/// silently leave out every policy behind it.
fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = error.valid_up_to();
            let before = bytes
                .get(..good)
                .and_then(|good| std::str::from_utf8(good).ok());
            let bad = bytes.get(good).copied().unwrap_or_default();
            let utf16 = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
            return Err(Refusal {
                at: Position::after(before.unwrap_or_default()),
                code: "not-utf-8",
                message: format!("expected UTF-8, found byte 0x{bad:02x} at offset {good}"),
                hint: utf16.then_some("the file looks like UTF-16; save it as UTF-8"),
            });
        }
    };
    let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}');
    match text.char_indices().find(|(_, c)| control(c)) {
        None => Ok(text),
        Some((offset, c)) => Err(Refusal {
            at: Position::after(text.get(..offset).unwrap_or_default()),
            code: "control-character",
            message: format!(
                "expected text, found control character U+{:04X} at offset {offset}",
                u32::from(c)
            ),
            hint: None,
        }),
    }
}

// === impl Node ===

impl Node {
    /// The value as messages name it: its type, and the value where it is short.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("boolean {value}"),
            Value::Integer(value) => format!("integer {value}"),
            Value::LeadingZero(text) => format!("{} with a leading zero", quote(text)),
            // As `5.0`, not as 5: what is wrong must be seen.
            Value::Float(value) => format!("number {value:?}"),
            Value::String(value) => format!("string {}", quote(value)),
            Value::List(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }
}

/// Whether a text would be a number without its quotes.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Backticks around user input, and an end to input that is too long to be read in a message.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        None => format!("`{}`", shown(text)),
        Some((end, _)) => format!("`{}…`", shown(text.get(..end).unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests;
