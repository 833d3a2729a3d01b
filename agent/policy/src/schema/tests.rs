use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::parse::known_fields;

/// Fields by the path of their object, where an item of a list is `[]`.
type Fields = BTreeMap<String, BTreeSet<String>>;

/// Both directions at once: a field that only one of them knows makes the sets differ.
#[test]
fn schemas_and_parsers_know_the_same_fields() {
    for kind in Kind::ALL {
        let schema = of(kind);
        let mut listed = Fields::new();
        let full = walk(&schema, &schema, "", &mut listed);
        let known: Fields = known_fields(&full.to_string())
            .into_iter()
            .map(|(path, fields)| {
                let fields = fields.into_iter().map(str::to_owned).collect();
                (without_numbers(&path), fields)
            })
            .collect();
        assert_eq!(known, listed, "{kind}");
    }
}

/// Notes the fields of every object and makes a document that has them all, once.
///
/// It is no valid document: fields that exclude one another are all there. The parsers read on.
fn walk(root: &Value, schema: &Value, path: &str, listed: &mut Fields) -> Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').unwrap();
        return walk(root, root.pointer(pointer).unwrap(), path, listed);
    }
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        // The first tier has no rules.
        return words.last().unwrap().clone();
    }
    if let Some(items) = schema.get("items") {
        return json!([walk(root, items, &format!("{path}[]"), listed)]);
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        assert_eq!(schema["additionalProperties"], false, "{path}");
        let names = properties.keys().cloned().collect();
        listed.insert(path.to_owned(), names);
        let separator = if path.is_empty() { "" } else { "." };
        return properties
            .iter()
            .map(|(name, schema)| {
                let path = format!("{path}{separator}{name}");
                (name.clone(), walk(root, schema, &path, listed))
            })
            .collect();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => json!({}),
        Some("integer") => json!(1),
        _ => json!("a"),
    }
}

fn without_numbers(path: &str) -> String {
    let mut shown = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = c == '[' || (inside && c != ']');
        if !inside || c == '[' {
            shown.push(c);
        }
    }
    shown
}

#[test]
fn every_reference_leads_somewhere_and_every_definition_is_used() {
    for schema in Kind::ALL.map(of).into_iter().chain([of_all()]) {
        let text = schema.to_string();
        let definitions = schema["$defs"].as_object().unwrap();
        for (name, _) in definitions {
            assert!(text.contains(&format!("\"#/$defs/{name}\"")), "{name}");
        }
        for reference in text.split("\"#/$defs/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(definitions.contains_key(name), "{name}");
        }
    }
}
