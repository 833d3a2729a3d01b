//! Any bytes as a file: what is wrong with them is said, and nothing else happens.

use std::sync::Arc;

use agent_policy::load::{InputFile, load};

use crate::agreement::{check, seed_of};

const QUESTIONS: usize = 24;

pub fn run(bytes: &[u8]) {
    read([bytes]);
}

/// Reads files; what has no error also compiles, and means what it says.
pub(crate) fn read<const FILES: usize>(files: [&[u8]; FILES]) {
    let loaded = load(files.map(|bytes| InputFile {
        name: Arc::from("fuzzed.yaml"),
        bytes: bytes.to_vec(),
    }));
    for diagnostic in &loaded.diagnostics {
        assert!(
            diagnostic.line >= 1 && diagnostic.column >= 1,
            "{diagnostic:?}"
        );
        assert!(!diagnostic.message.is_empty(), "{diagnostic:?}");
        let mut text = String::new();
        assert!(diagnostic.render(&mut text).is_ok(), "{diagnostic:?}");
    }
    if !loaded.has_errors() {
        check(&loaded.world, seed_of(&files.concat()), QUESTIONS);
    }
}
