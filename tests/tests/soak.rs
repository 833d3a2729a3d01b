//! The soak, for so long that it stays alive: `cargo xtask soak` is the one that finds something.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::soak::{Plan, run};

#[test]
fn a_short_soak() -> Result<()> {
    let plan = Plan {
        span: Duration::from_secs(8),
        // Its first phase has something of everything.
        seed: 341,
        helper: env!("CARGO_BIN_EXE_lab-peer").into(),
    };
    let mut phases = 0;
    let report = run(&plan, |_| {
        phases += 1;
        Ok(())
    })?;
    eprintln!("{report}");
    ensure!(phases > 0, "nothing happened");
    Ok(())
}
