//! What the fuzzer once found stays mended: `crashes/TARGET/NAME`, replayed.

#![cfg(feature = "strategies")]

use std::{fs, path::Path};

use agent_policy_fuzz::TARGETS;

#[test]
fn what_crashed_once_does_not_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crashes");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let target = TARGETS.iter().find(|target| path.ends_with(target.name));
        let target = target.unwrap_or_else(|| panic!("{} is no target", path.display()));
        for case in fs::read_dir(&path).unwrap() {
            let case = case.unwrap().path();
            println!("{}", case.display());
            (target.run)(&fs::read(&case).unwrap());
        }
    }
}
