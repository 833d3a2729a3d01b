//! The first process of a virtual machine that runs tests: see the library's module `guest`.

use anyhow::{Result, ensure};

fn main() -> Result<()> {
    ensure!(
        std::process::id() == 1,
        "this powers its machine off; it runs as the first process of a virtual one, by `cargo xtask vm-test`"
    );
    ringfence_lab::guest::live()
}
