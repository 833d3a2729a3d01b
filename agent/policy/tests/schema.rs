//! The schemas beside the parsers: what these take, those take; what those refuse, these refuse.

use std::{
    fs, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use agent_policy::{
    load::{InputFile, load},
    schema::{self, Kind},
};
use jsonschema::Validator;
use serde_json::{Value, json};

#[derive(Debug)]
struct Document {
    file: PathBuf,
    number: usize,
    value: Value,
}

/// The documents of our kinds in a folder.
fn documents(folder: &str) -> Vec<Document> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml" || e == "json"));
    files.sort();
    let mut documents = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        // Some files are bad because they are no YAML.
        let values: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_default();
        let ours = values
            .into_iter()
            .enumerate()
            .filter(|(_, value)| kind(value).is_some());
        documents.extend(ours.map(|(number, value)| Document {
            file: file.clone(),
            number,
            value,
        }));
    }
    assert!(!documents.is_empty());
    documents
}

fn good() -> Vec<Document> {
    [
        "tests/good",
        "../../policies/samples",
        "../../policies/demo",
    ]
    .into_iter()
    .flat_map(documents)
    .collect()
}

fn kind(value: &Value) -> Option<Kind> {
    if value["apiVersion"] != "ringfence.io/v1alpha1" {
        return None;
    }
    Kind::ALL
        .into_iter()
        .find(|kind| value["kind"] == kind.name())
}

/// The schemas, ready to be asked.
struct Schemas {
    all: Validator,
    kinds: Vec<(Kind, Validator)>,
}

impl Schemas {
    fn new() -> Self {
        let validator = |schema: &Value| jsonschema::draft202012::new(schema).unwrap();
        Self {
            all: validator(&schema::of_all()),
            kinds: Kind::ALL
                .into_iter()
                .map(|kind| (kind, validator(&schema::of(kind))))
                .collect(),
        }
    }

    /// What is wrong by the schema of the kind, with which that of all kinds must agree.
    fn problems(&self, kind: Kind, value: &Value) -> Vec<String> {
        let (_, one) = self.kinds.iter().find(|(known, _)| *known == kind).unwrap();
        assert_eq!(one.is_valid(value), self.all.is_valid(value), "{value}");
        one.iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }
}

fn is_loaded(value: &Value) -> bool {
    let loaded = load([InputFile {
        name: Arc::from("document"),
        bytes: value.to_string().into_bytes(),
    }]);
    !loaded.has_errors()
}

#[test]
fn the_schemas_are_schemas() {
    for schema in Kind::ALL
        .map(schema::of)
        .into_iter()
        .chain([schema::of_all()])
    {
        jsonschema::draft202012::meta::validate(&schema).unwrap();
    }
}

#[test]
fn every_good_document_is_valid() {
    let schemas = Schemas::new();
    for document in good() {
        let problems = schemas.problems(kind(&document.value).unwrap(), &document.value);
        assert!(problems.is_empty(), "{document:?}: {problems:#?}");
    }
}

#[test]
fn every_bad_document_is_invalid() {
    let schemas = Schemas::new();
    for document in documents("tests/bad") {
        let problems = schemas.problems(kind(&document.value).unwrap(), &document.value);
        assert_eq!(
            is_loaded(&document.value),
            problems.is_empty(),
            "{document:?}: {problems:#?}"
        );
    }
}

/// One thing wrong at a time: whatever the parsers still take, the schema takes as well, and a field
/// that is missing, unknown or of another type is refused by both or by none.
#[test]
fn schemas_and_parsers_judge_every_slip_alike() {
    let schemas = Schemas::new();
    let mut judged = 0;
    for document in good() {
        let kind = kind(&document.value).unwrap();
        for (what, slip) in slips(&document.value) {
            let loaded = is_loaded(&slip);
            let problems = schemas.problems(kind, &slip);
            assert_eq!(
                loaded,
                problems.is_empty(),
                "{} document {}: {what}: {problems:#?}",
                document.file.display(),
                document.number
            );
            judged += 1;
        }
    }
    assert!(judged > 1_000, "{judged}");
}

/// Each part of a document gone, beside something unknown, or replaced by another type.
fn slips(document: &Value) -> Vec<(String, Value)> {
    let mut slips = Vec::new();
    let mut pointers = Vec::new();
    pointers_below(document, "/spec", &mut pointers);
    for pointer in pointers {
        for other in [
            json!({}),
            json!([]),
            json!(7),
            json!(true),
            json!("?"),
            json!(null),
        ] {
            let mut slip = document.clone();
            let place = slip.pointer_mut(&pointer).unwrap();
            if mem::discriminant(place) == mem::discriminant(&other) && !place.is_object() {
                continue;
            }
            *place = other;
            slips.push((format!("{pointer} replaced"), slip));
        }
        let mut slip = document.clone();
        if let Some(object) = slip.pointer_mut(&pointer).unwrap().as_object_mut() {
            object.insert("unknown?".to_owned(), json!({}));
            slips.push((format!("{pointer} with an unknown field"), slip));
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut slip = document.clone();
        match slip.pointer_mut(parent).unwrap() {
            Value::Object(object) => {
                object.remove(name).unwrap();
            }
            Value::Array(items) => {
                items.remove(name.parse().unwrap());
            }
            other => panic!("no parent: {other}"),
        }
        slips.push((format!("{pointer} gone"), slip));
    }
    slips
}

fn pointers_below(document: &Value, pointer: &str, found: &mut Vec<String>) {
    let Some(value) = document.pointer(pointer) else {
        return;
    };
    found.push(pointer.to_owned());
    let names: Vec<String> = match value {
        // Labels and names of the DNS are data with `/` and `~` in them.
        Value::Object(object) => object
            .keys()
            .filter(|key| !key.contains('/'))
            .cloned()
            .collect(),
        Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
        _ => Vec::new(),
    };
    for name in names {
        pointers_below(document, &format!("{pointer}/{name}"), found);
    }
}
