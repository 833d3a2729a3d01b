use std::{fmt::Write as _, sync::Arc};

use super::*;

fn read_text(text: &str) -> (Vec<Node>, Vec<String>) {
    read_bytes(text.as_bytes())
}

fn read_bytes(bytes: &[u8]) -> (Vec<Node>, Vec<String>) {
    let mut problems = Problems::new(Arc::from("t"));
    let documents = read(bytes, &mut problems);
    (
        documents.roots,
        problems
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
}

fn entry<'n>(node: &'n Node, key: &str) -> &'n Entry {
    let Value::Object(entries) = &node.value else {
        panic!("no object: {node:?}")
    };
    entries.iter().find(|entry| &*entry.key == key).unwrap()
}

#[test]
fn places_count_from_one_and_in_characters() {
    let (documents, problems) = read_text("---\nä: {ö: x}\n---\n- 1\n");
    assert_eq!(problems, Vec::<String>::new());
    let inner = entry(&entry(&documents[0], "ä").value, "ö");
    assert_eq!(inner.at, Position { line: 2, column: 5 });
    assert_eq!(inner.value.at, Position { line: 2, column: 8 });
    assert_eq!(documents[1].at, Position { line: 4, column: 1 });
}

#[test]
fn json_with_tabs_reads_as_yaml() {
    let (documents, problems) =
        read_text("{\n\t\"a\": [\n\t\t\"\\u003cb\\/\",\n\t\t1\n\t],\"c\":{}\n}\n");
    assert_eq!(problems, Vec::<String>::new());
    let Value::List(items) = &entry(&documents[0], "a").value.value else {
        panic!()
    };
    assert_eq!(items[0].value, Value::String(Arc::from("<b/")));
    assert_eq!(items[1].value, Value::Integer(1));
}

#[test]
fn an_alias_is_what_it_refers_to() {
    let (documents, problems) = read_text("a: &x [1, 2]\nb: *x\n");
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        entry(&documents[0], "a").value,
        entry(&documents[0], "b").value
    );
}

#[test]
fn keys_are_names_even_where_they_look_like_numbers() {
    let (documents, problems) = read_text("80: a\ntrue: b\n");
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(
        entry(&documents[0], "true").value.value,
        Value::String(Arc::from("b"))
    );
    entry(&documents[0], "80");
}

#[test]
fn a_billion_laughs_fail_fast() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        writeln!(
            text,
            "a{level}: &a{level} [{}]",
            below.trim_end_matches(", ")
        )
        .unwrap();
    }
    let (_, problems) = read_text(&text);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("error[aliases-explode]"),
        "{}",
        problems[0]
    );
}

#[test]
fn depth_is_limited_also_through_aliases() {
    let flow = "[".repeat(200);
    // Beyond what the scanner itself takes.
    let deeper = "{a: [".repeat(300);
    let block = "- ".repeat(5_000);
    let mut aliases = String::from("a0: &a0 [x]\n");
    for level in 1..80 {
        writeln!(aliases, "a{level}: &a{level} [*a{}]", level - 1).unwrap();
    }
    for text in [flow, deeper, block, aliases] {
        let (_, problems) = read_text(&text);
        assert!(problems[0].contains("error[too-deep]"), "{problems:?}");
    }
}

#[test]
fn an_alias_inside_its_own_anchor_is_refused() {
    let (_, problems) = read_text("a: &x [*x]");
    assert!(problems[0].contains("error[bad-alias]"), "{problems:?}");
}

#[test]
fn what_is_not_text_is_refused_with_its_place() {
    for (bytes, expected) in [
        (
            &b"a: b\nc: \xff"[..],
            "t:2:4: error[not-utf-8]: expected UTF-8, found byte 0xff at offset 8",
        ),
        (
            b"a: \0b",
            "t:1:4: error[control-character]: expected text, found control character U+0000 at \
             offset 3",
        ),
    ] {
        let (documents, problems) = read_bytes(bytes);
        assert_eq!(problems, [expected]);
        assert!(documents.is_empty());
    }
    let (_, problems) = read_bytes(b"\xff\xfea\0");
    assert!(problems[0].ends_with("hint: the file looks like UTF-16; save it as UTF-8"));
}

#[test]
fn documents_before_a_syntax_error_are_given() {
    let (documents, problems) = read_text("a: 1\n---\nb: [");
    assert_eq!(documents.len(), 1);
    assert!(problems[0].contains("error[syntax]"), "{problems:?}");
}
