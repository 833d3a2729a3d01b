//! Parser events to trees, with every limit checked before memory is spent.
//!
//! Iterative: the depth of the input never becomes the depth of our stack.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{
    Documents, Entry, MAX_ALIAS_BYTES, MAX_ALIAS_NODES, MAX_DEPTH, MAX_NODES, Node, Value, quote,
    scalar,
};
use crate::diagnostic::{Diagnostic, Position, Problems, Severity};

/// A finished node with its weight once all aliases are expanded.
#[derive(Clone)]
struct Built {
    node: Node,
    weight: Weight,
    depth: u32,
}

#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: u64,
    /// Of keys and scalars.
    bytes: u64,
}

/// A collection that is still open.
struct Open {
    at: Position,
    anchor: usize,
    weight: Weight,
    depth: u32,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Object {
        entries: Vec<Entry>,
        seen: BTreeMap<Arc<str>, Position>,
        key: Option<Key>,
    },
}

/// A key that waits for its value.
enum Key {
    Named(Arc<str>, Position),
    /// Already diagnosed; its value is read for its own problems, then dropped.
    Refused,
}

/// The file can not be read further; the reason is among the problems.
struct Stop;

struct Builder<'p> {
    problems: &'p mut Problems,
    read: Documents,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    written: u64,
    from_aliases: Weight,
}

pub(super) fn documents(
    mut parser: Parser<'_, StrInput<'_>>,
    problems: &mut Problems,
) -> Documents {
    let mut builder = Builder {
        problems,
        read: Documents::default(),
        open: Vec::new(),
        anchors: HashMap::new(),
        written: 0,
        from_aliases: Weight::default(),
    };
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => builder.event(event, place(&span.start)),
            Err(error) => {
                builder.syntax(&error);
                Err(Stop)
            }
        };
        if step.is_err() {
            break;
        }
    }
    builder.read
}

fn place(marker: &Marker) -> Position {
    Position::new(marker.line(), marker.col() + 1)
}

// === impl Weight ===

impl Weight {
    /// One node.
    fn of(text: &str) -> Self {
        Self {
            nodes: 1,
            bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
        }
    }

    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

// === impl Builder ===

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {
                Ok(())
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Alias(id) => self.alias(id, at),
            Event::Scalar(text, style, anchor, tag) => {
                if style == ScalarStyle::Plain && tag.is_none() && scalar::is_word(&text) {
                    self.read.words.push(at);
                }
                let value = self.scalar(&text, style, tag.as_deref(), at);
                self.count_written(at)?;
                self.finish(
                    Built {
                        node: Node { at, value },
                        weight: Weight::of(&text),
                        depth: 0,
                    },
                    anchor,
                );
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(at, anchor, tag, "seq", Content::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let content = Content::Object {
                    entries: Vec::new(),
                    seen: BTreeMap::new(),
                    key: None,
                };
                self.open(at, anchor, tag, "map", content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open {
                    at,
                    anchor,
                    weight,
                    depth,
                    content,
                }) = self.open.pop()
                else {
                    return Err(Stop);
                };
                let value = match content {
                    Content::List(items) => Value::List(Arc::new(items)),
                    Content::Object { entries, .. } => Value::Object(Arc::new(entries)),
                };
                self.finish(
                    Built {
                        node: Node { at, value },
                        weight,
                        depth,
                    },
                    anchor,
                );
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        at: Position,
        anchor: usize,
        tag: Option<Cow<'_, Tag>>,
        expected: &str,
        content: Content,
    ) -> Result<(), Stop> {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == expected)
        {
            self.unsupported_tag(&tag, at);
        }
        self.count_written(at)?;
        self.check_depth(1, at)?;
        self.open.push(Open {
            at,
            anchor,
            weight: Weight::of(""),
            depth: 1,
            content,
        });
        Ok(())
    }

    /// Gives a finished node its name, if it has an anchor, and puts it where it belongs.
    fn finish(&mut self, built: Built, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, built.clone());
        }
        self.place(built);
    }

    fn place(&mut self, built: Built) {
        let Built {
            node,
            weight,
            depth,
        } = built;
        let Some(parent) = self.open.last_mut() else {
            self.read.roots.push(node);
            return;
        };
        parent.weight.add(weight);
        parent.depth = parent.depth.max(depth.saturating_add(1));
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Object { entries, seen, key } => match key.take() {
                Some(Key::Named(key, at)) => entries.push(Entry {
                    key,
                    at,
                    value: node,
                }),
                Some(Key::Refused) => {}
                None => *key = Some(key_of(&node, seen, self.problems)),
            },
        }
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<(), Stop> {
        let Some(built) = self.anchors.get(&id).cloned() else {
            self.problems.error(
                at,
                "bad-alias",
                "the alias stands inside of what it refers to",
            );
            return Err(Stop);
        };
        self.from_aliases.add(built.weight);
        let Weight { nodes, bytes } = self.from_aliases;
        if nodes > MAX_ALIAS_NODES || bytes > MAX_ALIAS_BYTES {
            let message = if nodes > MAX_ALIAS_NODES {
                format!("aliases expand to more than {MAX_ALIAS_NODES} values")
            } else {
                format!("aliases expand to more than {MAX_ALIAS_BYTES} bytes of text")
            };
            self.problems.error(at, "aliases-explode", message);
            return Err(Stop);
        }
        self.check_depth(built.depth, at)?;
        self.place(built);
        Ok(())
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Value {
        let string = || Value::String(Arc::from(text));
        let Some(tag) = tag else {
            // A key is a name even if it looks like a number.
            let plain = style == ScalarStyle::Plain && !self.expects_key();
            return if plain {
                scalar::resolve(text)
            } else {
                string()
            };
        };
        let known = tag.is_yaml_core_schema();
        let value = scalar::resolve(text);
        let fits = match (tag.suffix.as_str(), &value) {
            ("str", _) if known => return string(),
            ("null", Value::Null)
            | ("bool", Value::Bool(_))
            | ("int", Value::Integer(_))
            | ("float", Value::Float(_) | Value::Integer(_)) => known,
            _ => false,
        };
        if !fits {
            self.unsupported_tag(tag, at);
        }
        value
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                content: Content::Object { key: None, .. },
                ..
            })
        )
    }

    fn count_written(&mut self, at: Position) -> Result<(), Stop> {
        self.written += 1;
        if self.written > MAX_NODES {
            let message = format!("the file holds more than {MAX_NODES} values");
            self.problems.error(at, "too-many-values", message);
            return Err(Stop);
        }
        Ok(())
    }

    fn check_depth(&mut self, more: u32, at: Position) -> Result<(), Stop> {
        let depth = u32::try_from(self.open.len())
            .unwrap_or(u32::MAX)
            .saturating_add(more);
        if depth > MAX_DEPTH {
            self.too_deep(at);
            return Err(Stop);
        }
        Ok(())
    }

    fn too_deep(&mut self, at: Position) {
        let message = format!("expected at most {MAX_DEPTH} levels of objects and lists");
        self.problems.error(at, "too-deep", message);
    }

    fn unsupported_tag(&mut self, tag: &Tag, at: Position) {
        let message = format!("unsupported tag {}", quote(&tag.to_string()));
        self.problems.error(at, "unsupported-tag", message);
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = place(error.marker());
        let info = error.info();
        // The scanner has a limit of its own, and looks ahead: it may come to it before we do.
        if info.contains("recursion limit") {
            return self.too_deep(at);
        }
        let mut one = Diagnostic::new(
            Severity::Error,
            self.problems.file(),
            at,
            "syntax",
            info.trim(),
        );
        if info.contains("Unicode character escape") {
            one = one.with_hint("write the character itself instead of a surrogate pair");
        } else if info.contains("unknown anchor") {
            one = one.with_hint("an anchor is known only in its own document");
        } else if info.contains("tab") {
            one = one.with_hint("indent with spaces");
        }
        self.problems.push(one);
    }
}

/// Makes a finished node a key, or says why it can not be one.
fn key_of(node: &Node, seen: &mut BTreeMap<Arc<str>, Position>, problems: &mut Problems) -> Key {
    let name: Arc<str> = match &node.value {
        Value::String(name) => Arc::clone(name),
        Value::Integer(number) => Arc::from(number.to_string()),
        Value::Null
        | Value::Bool(_)
        | Value::LeadingZero(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Object(_) => {
            let message = format!("expected a string as key, found {}", node.describe());
            problems.error(node.at, "bad-key", message);
            return Key::Refused;
        }
    };
    if &*name == "<<" {
        let message = "merge keys (`<<`) are not part of YAML 1.2";
        let one = Diagnostic::new(
            Severity::Error,
            problems.file(),
            node.at,
            "merge-key",
            message,
        );
        problems.push(one.with_hint("write the fields out"));
        return Key::Refused;
    }
    if let Some(first) = seen.get(&name) {
        let Position { line, column } = first;
        let message = format!("duplicate key {}, first at {line}:{column}", quote(&name));
        problems.error(node.at, "duplicate-key", message);
        return Key::Refused;
    }
    seen.insert(Arc::clone(&name), node.at);
    Key::Named(name, node.at)
}
