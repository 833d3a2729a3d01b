//! Objects of every kind with a few things wrong: the parsers from close by.
//!
//! The first byte chooses a kind, whose example uses each of its fields. The rest is read as edits of
//! that example, with words that mean something somewhere. Beside it stands an inventory, so that a
//! policy that is still valid decides something.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value};

use crate::yaml;

/// An example of each kind, with all of its fields.
pub const KINDS: [&str; 9] = [
    include_str!("../kinds/cluster-network-policy.json"),
    include_str!("../kinds/name-table.json"),
    include_str!("../kinds/namespace.json"),
    include_str!("../kinds/network-policy.json"),
    include_str!("../kinds/node.json"),
    include_str!("../kinds/pod.json"),
    include_str!("../kinds/ringfence-policy.json"),
    include_str!("../kinds/service.json"),
    include_str!("../kinds/workload.json"),
];
pub(crate) const INVENTORY: &str = include_str!("../kinds/inventory.yaml");
/// What the API and its readers know, and what is only close to that; one a line.
pub const WORDS: &str = include_str!("../kinds/words.txt");

const EDITS: usize = 24;
/// Copies of an item in one edit.
const COPIES: usize = 40;

#[derive(Clone, Copy, Debug)]
enum Edit {
    Set,
    Remove,
    Insert,
    Rename,
    Repeat,
    Wrap,
    Copy,
}

pub fn run(bytes: &[u8]) {
    let Some((kind, edits)) = bytes.split_first() else {
        return;
    };
    let example = KINDS[usize::from(*kind) % KINDS.len()];
    let Ok(mut object) = serde_json::from_str(example) else {
        panic!("no JSON: {example}");
    };
    let mut edits = Unstructured::new(edits);
    for _ in 0..EDITS {
        // Whatever was edited before the bytes ran out stays.
        if edits.is_empty() || edit(&mut object, &mut edits).is_err() {
            break;
        }
    }
    yaml::read([object.to_string().as_bytes(), INVENTORY.as_bytes()]);
}

fn edit(object: &mut Value, bytes: &mut Unstructured<'_>) -> Result<()> {
    use Edit::{Copy, Insert, Remove, Rename, Repeat, Set, Wrap};
    let edit = bytes.choose(&[Set, Set, Insert, Remove, Rename, Repeat, Wrap, Copy])?;
    let place = usize::from(bytes.arbitrary::<u8>()?) % count(object);
    match edit {
        Set => {
            let new = scalar(bytes)?;
            if let Some(value) = at(object, place) {
                *value = new;
            }
        }
        Copy => {
            let from = usize::from(bytes.arbitrary::<u8>()?) % count(object);
            let copy = at(object, from).cloned().unwrap_or_default();
            if let Some(value) = at(object, place) {
                *value = copy;
            }
        }
        Wrap => {
            if let Some(value) = at(object, place) {
                *value = Value::Array(vec![value.take()]);
            }
        }
        Insert | Remove | Rename | Repeat => match at(object, place) {
            Some(Value::Array(items)) => edit_list(*edit, items, bytes)?,
            Some(Value::Object(fields)) => edit_fields(*edit, fields, bytes)?,
            _ => {}
        },
    }
    Ok(())
}

fn edit_list(edit: Edit, items: &mut Vec<Value>, bytes: &mut Unstructured<'_>) -> Result<()> {
    let place = bytes.choose_index(items.len() + 1)?;
    match (edit, items.get(place).cloned()) {
        (Edit::Remove, Some(_)) => {
            items.remove(place);
        }
        (Edit::Repeat, Some(item)) => {
            let copies = bytes.int_in_range(1..=COPIES)?;
            items.extend(std::iter::repeat_n(item, copies));
        }
        _ => items.insert(place, scalar(bytes)?),
    }
    Ok(())
}

fn edit_fields(
    edit: Edit,
    fields: &mut Map<String, Value>,
    bytes: &mut Unstructured<'_>,
) -> Result<()> {
    let place = bytes.choose_index(fields.len().max(1))?;
    let key = fields.keys().nth(place).cloned().unwrap_or_default();
    match edit {
        Edit::Remove => {
            fields.remove(&key);
        }
        Edit::Rename => {
            let value = fields.remove(&key).unwrap_or_default();
            fields.insert(word(bytes)?, value);
        }
        _ => {
            let value = if bytes.ratio(1_u8, 3_u8)? {
                fields.get(&key).cloned().unwrap_or_default()
            } else {
                scalar(bytes)?
            };
            fields.insert(word(bytes)?, value);
        }
    }
    Ok(())
}

fn scalar(bytes: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=9_u8)? {
        0 => Value::Null,
        1 => bytes.arbitrary::<bool>()?.into(),
        2 => bytes.arbitrary::<i64>()?.into(),
        3 => bytes.arbitrary::<u8>()?.into(),
        4 => bytes.arbitrary::<u16>()?.into(),
        5 => Value::Array(Vec::new()),
        6 => Value::Object(Map::new()),
        7 => {
            let length = bytes.int_in_range(0..=80_usize)?;
            let text = bytes.bytes(length.min(bytes.len()))?;
            String::from_utf8_lossy(text).into_owned().into()
        }
        _ => word(bytes)?.into(),
    })
}

fn word(bytes: &mut Unstructured<'_>) -> Result<String> {
    let words: Vec<&str> = WORDS.lines().collect();
    Ok((*bytes.choose(&words)?).to_owned())
}

/// Values, containers included, in the order of writing.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0_usize,
    }
}

fn at(value: &mut Value, place: usize) -> Option<&mut Value> {
    let Some(mut place) = place.checked_sub(1) else {
        return Some(value);
    };
    let inner: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for child in inner {
        let size = count(child);
        if place < size {
            return at(child, place);
        }
        place -= size;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_a_place() {
        let mut value: Value = serde_json::from_str(r#"{"a": [1, {"b": 2}], "c": 3}"#).unwrap();
        assert_eq!(count(&value), 6);
        let seen: Vec<String> = (0..7)
            .filter_map(|place| at(&mut value, place).map(|value| value.to_string()))
            .collect();
        assert_eq!(seen[1..], [r#"[1,{"b":2}]"#, "1", r#"{"b":2}"#, "2", "3"]);
    }

    #[test]
    fn words_are_told_apart() {
        let mut words: Vec<&str> = WORDS.lines().collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
        assert!(words.iter().all(|word| word.trim() == *word));
    }
}
