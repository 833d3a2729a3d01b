//! What the programs cost to load.

use std::path::PathBuf;

use ringfence::datapath::{object::Cost, testbed::Testbed};

/// Half of what any kernel since 5.2 walks through before it gives up: others count more steps than
/// the one that this was measured on.
const ROOM: u32 = 500_000;

#[test]
fn every_program_leaves_the_verifier_room() {
    let path = PathBuf::from(format!(
        "/sys/fs/bpf/ringfence-test-{}-costs",
        std::process::id()
    ));
    for cost in Testbed::costs(&path).unwrap() {
        let Cost {
            program, verified, ..
        } = cost;
        // Told by kernels from 5.16 on.
        let steps = verified.unwrap_or_default();
        eprintln!("{program}: {steps}");
        assert!(steps < ROOM, "{program} takes {steps} steps to verify");
    }
}
