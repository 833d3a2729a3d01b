//! What the programs cost to load: compared with a listing, so that a jump is seen in review.
//!
//! `UPDATE_GOLDEN=1 cargo xtask test programs_cost` writes the listing of the running kernel anew. It is
//! of the object that ships. How far the verifier walks is the kernel's affair, so on a kernel that has
//! no listing only the stacks are compared, with those of another. And another compiler makes other
//! code, of which only the room is asked.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use ringfence::datapath::{
    object::cost::{self, Build, Cost, Form},
    testbed::Testbed,
};

/// Half of what any kernel since 5.2 walks through before it gives up: others count more steps than
/// those that have a listing.
const ROOM: u32 = 500_000;
/// Whose stacks hold for kernels without a listing.
const REFERENCE: &str = "6.18";

#[test]
fn programs_cost_what_the_listing_says_and_leave_the_verifier_room() {
    let scratch = format!("/sys/fs/bpf/ringfence-test-{}-costs", std::process::id());
    let costs = Testbed::costs(Path::new(&scratch)).unwrap();
    let Build { compiler, form } = cost::build();
    let compiler = compiler.expect("the compiler is named in debug information");
    let series = series();
    let seen = listing(&series, &compiler, &costs);
    eprintln!("{seen}");
    for cost in &costs {
        assert!(cost.verified < ROOM, "too near to the limit: {cost:?}");
    }
    if form == Form::Debug {
        eprintln!("not compared: this object has messages, the listing is of the one that ships");
        return;
    }

    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(&series), &seen).unwrap();
    }
    let own = fs::read_to_string(path(&series)).ok();
    let has_own = own.is_some();
    let known = own.unwrap_or_else(|| fs::read_to_string(path(REFERENCE)).unwrap());
    if !known.contains(&format!("\n{compiler}\n")) {
        eprintln!("not compared: the listing is of another compiler:\n{known}");
    } else if has_own {
        assert!(known == seen, "expected:\n{known}");
    } else {
        assert!(stacks(&known) == stacks(&seen), "expected:\n{known}");
    }
}

fn listing(series: &str, compiler: &str, costs: &[Cost]) -> String {
    let mut text = format!("Linux {series}\n{compiler}\n");
    for Cost {
        program,
        verified,
        stack,
        time: _,
    } in costs
    {
        write!(
            text,
            "\n{program}\n  verified {verified}\n  stack {stack}\n"
        )
        .unwrap();
    }
    text
}

/// The lines that do not depend on the kernel.
fn stacks(listing: &str) -> Vec<&str> {
    let of_kernel = |line: &&str| line.starts_with("Linux ") || line.starts_with("  verified ");
    listing.lines().filter(|line| !of_kernel(line)).collect()
}

/// The kernel's version as far as it is a line of development: `6.18`.
fn series() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.trim().split(['.', '-', '+']);
    let mut next = || numbers.next().expect("a version").to_owned();
    format!("{}.{}", next(), next())
}

fn path(series: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/verifier/{series}.txt"))
}
