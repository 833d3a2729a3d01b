//! What the fuzzer drives: each target is a function of bytes that panics where a promise is broken.
//!
//! `cargo xtask fuzz` runs them under libFuzzer; without it they are plain code, so that a crash
//! that was once found is replayed by an ordinary test (`agent/policy/tests/crashes`).

pub mod agreement;
pub mod decide;
pub mod packet;
pub mod parse;
pub mod seeds;
pub mod yaml;

/// A target, by the name of its program and of its folders.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

pub const TARGETS: [Target; 4] = [
    Target {
        name: "decide",
        run: decide::run,
        seeds: seeds::decide,
    },
    Target {
        name: "packet",
        run: packet::run,
        seeds: seeds::packet,
    },
    Target {
        name: "parse",
        run: parse::run,
        seeds: seeds::parse,
    },
    Target {
        name: "yaml",
        run: yaml::run,
        seeds: seeds::yaml,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds_and_survives_them() {
        for Target { name, run, seeds } in TARGETS {
            let seeds = seeds();
            assert!(seeds.len() > 5, "{name}");
            for seed in seeds {
                run(&seed);
            }
        }
    }

    #[test]
    fn no_target_needs_any_bytes() {
        for target in TARGETS {
            (target.run)(b"");
            (target.run)(b"\0");
        }
    }
}
