//! What the programs cost to load: compared with a listing, so that a jump is seen in review.
//!
//! `UPDATE_GOLDEN=1 cargo xtask test programs_cost` writes the listing of the running kernel anew. It is
//! of the object that ships. How far the verifier walks is the kernel's affair: by a little in another
//! release of the series, by much in another series, so if that has no listing only the stacks are
//! compared, with those of the reference. And another compiler makes other code, of which only the room
//! is asked.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use ringfence::datapath::{
    object::cost::{self, Build, Cost, Form},
    testbed::Testbed,
};

/// Four fifths of what any kernel since 5.2 walks through before it gives up: older ones count more steps than
/// those that have a listing.
const ROOM: u32 = 800_000;
/// Releases of one series differ by less than one in so many instructions.
const NEAR: u32 = 10;
const VERIFIED: &str = "  verified ";
const STACK: &str = "  stack ";
/// Whose stacks hold for kernels without a listing.
const REFERENCE: &str = "6.18";

#[test]
fn programs_cost_what_the_listing_says_and_leave_the_verifier_room() {
    let scratch = format!("/sys/fs/bpf/ringfence-test-{}-costs", std::process::id());
    let costs = Testbed::costs(Path::new(&scratch)).unwrap();
    let Build { compiler, form } = cost::build();
    let compiler = compiler.expect("the compiler is named in debug information");
    let (series, release) = kernel();
    let seen = listing(&release, &compiler, &costs);
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
        return;
    }
    assert_eq!(without_kernel(&known), without_kernel(&seen));
    if known.lines().next() == seen.lines().next() {
        assert!(known == seen, "expected:\n{known}");
    } else if has_own {
        for (known, seen) in verified(&known).zip(verified(&seen)) {
            let difference = known.abs_diff(seen);
            assert!(
                difference * NEAR <= known,
                "{known} instructions became {seen}"
            );
        }
    }
}

fn listing(kernel: &str, compiler: &str, costs: &[Cost]) -> String {
    let mut text = format!("Linux {kernel}\n{compiler}\n");
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

/// What does not depend on the kernel: stacks in whole words, as newer ones tell them.
fn without_kernel(listing: &str) -> Vec<String> {
    let of_kernel = |line: &&str| line.starts_with("Linux ") || line.starts_with(VERIFIED);
    let lines = listing.lines().filter(|line| !of_kernel(line));
    let in_words = |depth: &str| {
        depth
            .parse::<u32>()
            .unwrap()
            .next_multiple_of(8)
            .to_string()
    };
    lines
        .map(|line| match line.strip_prefix(STACK) {
            Some(stack) => stack.split('+').map(in_words).collect::<Vec<_>>().join("+"),
            None => line.to_owned(),
        })
        .collect()
}

fn verified(listing: &str) -> impl Iterator<Item = u32> {
    let counts = listing
        .lines()
        .filter_map(|line| line.strip_prefix(VERIFIED));
    counts.map(|count| count.parse().unwrap())
}

/// The kernel's version: its series, `6.18`, and its release in there, `6.18.44`.
fn kernel() -> (String, String) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version = release.split(['-', '+']).next().unwrap().trim();
    let mut numbers = version.splitn(3, '.');
    let series = [numbers.next(), numbers.next()].map(|number| number.expect("a version"));
    (series.join("."), version.to_owned())
}

fn path(series: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/verifier/{series}.txt"))
}
