//! What messages have, by the descriptions and not by the types: which numbers there are, and where names lead.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};

use crate::{DESCRIPTORS, wire};

/// Messages by their names, with a dot before them, as in `.flow.Flow`.
#[derive(Debug)]
pub struct Schema(HashMap<String, Vec<Field>>);

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub name: String,
    /// Whose message it holds; `None` if it holds none.
    pub message: Option<String>,
}

pub static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let mut schema = Schema(HashMap::new());
    for file in &set.file {
        for message in &file.message_type {
            schema.add(&format!(".{}", file.package()), message);
        }
    }
    schema
});

impl Schema {
    fn add(&mut self, within: &str, message: &DescriptorProto) {
        let name = format!("{within}.{}", message.name());
        for inner in &message.nested_type {
            self.add(&name, inner);
        }
        let fields = message.field.iter().filter_map(|field| {
            let is_message = field.r#type() == Type::Message;
            Some(Field {
                number: u32::try_from(field.number()).ok()?,
                name: field.name().to_owned(),
                message: is_message.then(|| field.type_name().to_owned()),
            })
        });
        self.0.insert(name, fields.collect());
    }

    pub fn field(&self, message: &str, name: &str) -> Option<&Field> {
        self.0.get(message)?.iter().find(|it| it.name == name)
    }

    fn numbered(&self, message: &str, number: u32) -> Option<&Field> {
        self.0.get(message)?.iter().find(|it| it.number == number)
    }

    /// The number of the first field in there that the description lacks. What is no message has none.
    pub(crate) fn unknown(&self, message: &str, mut bytes: &[u8]) -> Option<u32> {
        while let Some((field, rest)) = wire::next(bytes) {
            bytes = rest;
            let Some(known) = self.numbered(message, field.number) else {
                return Some(field.number);
            };
            let inner = known.message.as_deref().zip(field.content);
            if let Some(number) = inner.and_then(|(name, content)| self.unknown(name, content)) {
                return Some(number);
            }
        }
        None
    }
}
