//! No input, however broken, may take the daemon down.

use std::sync::Arc;

use agent_policy::load::{InputFile, load};
use proptest::prelude::*;

const VALID: [&str; 12] = [
    include_str!("good/plain-host.yaml"),
    include_str!("good/kubectl-list.json"),
    include_str!("bad/between-objects.yaml"),
    include_str!("bad/declared-twice.yaml"),
    include_str!("bad/ringfence-rules.yaml"),
    include_str!("bad/cnp-peers.yaml"),
    include_str!("bad/cnp-protocols.yaml"),
    include_str!("bad/when.yaml"),
    include_str!("../../../policies/samples/cluster-guardrails.yaml"),
    include_str!("../../../policies/samples/host-maintenance.yaml"),
    include_str!("../../../policies/samples/quarantine.yaml"),
    include_str!("../../../policies/samples/names-of-the-outside.yaml"),
];

/// Pieces that mean something to YAML, or that sit at the edge of a range.
const PIECES: [&[u8]; 18] = [
    b"&a ", b"*a", b"<<: ", b"- ", b": ", b"[", b"]", b"{", b"}", b"\n---\n", b"\"", b"!!int ",
    b"70000", b"-1", b"null", b"\xff", b"\0", b"\t",
];

fn try_load(bytes: Vec<u8>) {
    let loaded = load([InputFile {
        name: Arc::from("any"),
        bytes,
    }]);
    for diagnostic in &loaded.diagnostics {
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
        diagnostic.render(&mut String::new()).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Insert(prop::sample::Index, usize),
    Remove(prop::sample::Index, usize),
    Copy(prop::sample::Index, prop::sample::Index, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (any::<prop::sample::Index>(), 0..PIECES.len()).prop_map(|(at, p)| Edit::Insert(at, p)),
        (any::<prop::sample::Index>(), 1..40_usize).prop_map(|(at, n)| Edit::Remove(at, n)),
        (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            1..80_usize
        )
            .prop_map(|(from, to, n)| Edit::Copy(from, to, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    if bytes.is_empty() {
        return;
    }
    let end = |at: usize, n: usize| (at + n).min(bytes.len());
    match edit {
        Edit::Insert(at, piece) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, PIECES[*piece].iter().copied());
        }
        Edit::Remove(at, n) => {
            let at = at.index(bytes.len());
            bytes.drain(at..end(at, *n));
        }
        Edit::Copy(from, to, n) => {
            let from = from.index(bytes.len());
            let part = bytes[from..end(from, *n)].to_vec();
            let to = to.index(bytes.len());
            bytes.splice(to..to, part);
        }
    }
}

proptest! {
    #[test]
    fn on_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        try_load(bytes);
    }

    #[test]
    fn on_arbitrary_text(text in r#"[ \t\n\-:\[\]{}&*!|>'"%@#?,a-c0-9é]{0,200}"#) {
        try_load(text.into_bytes());
    }

    #[test]
    fn on_mutated_documents(
        start in 0..VALID.len(),
        edits in prop::collection::vec(edit(), 1..8),
    ) {
        let mut bytes = VALID[start].as_bytes().to_vec();
        for edit in &edits {
            apply(&mut bytes, edit);
        }
        try_load(bytes);
    }
}
