//! What the core costs on a large cluster: `cargo xtask bench policy`.
//!
//! One node of a cluster that has the size of the target, and of one of a tenth of it. Each figure
//! is a median; time is that of the thread, because a machine does other things too, and the wall's
//! beside it. All is measured against copying the world's maps in the same run, so that figures of
//! different machines can be told apart.

mod allocator;
mod changes;
mod cluster;
mod measure;
mod policies;
mod report;
mod text;

use std::{collections::BTreeMap, hint::black_box};

use agent_policy::{
    compile::{Compiler, compile},
    compiled::Clock,
    load::{assemble, parse_file},
    model::{Time, World},
};

use crate::{
    changes::Case,
    cluster::{Cluster, Size},
    measure::{Rounds, Sample},
    report::{Figure, Report, Tables, Target},
};

/// A Thursday at noon, when schedules of working hours hold.
const NOW: Time = Time::from_unix(1_796_299_200);
const BOOT: Time = Time::from_unix(1_796_000_000);

fn main() {
    let has = |flag: &str| std::env::args().any(|argument| argument == flag);
    let (rounds, sizes) = if has("--quick") {
        (1, &Size::ALL[..1])
    } else {
        (7, &Size::ALL[..])
    };
    let mut report = Report::default();
    for size in sizes {
        bench(*size, Rounds(rounds), &mut report);
    }
    if has("--json") {
        report.lines();
    } else {
        report.table();
    }
}

fn bench(size: Size, rounds: Rounds, report: &mut Report) {
    let cluster = Cluster::new(size);
    let Cluster { world, scope, .. } = &cluster;
    let (held, clock) = (
        BTreeMap::new(),
        Clock {
            now: NOW,
            boot: BOOT,
        },
    );
    let mut put = |name: &'static str, sample: Sample, target: Option<Target>| {
        report.figures.push(Figure {
            size: size.name,
            name,
            sample,
            target,
        });
    };

    put("copy the world's maps", rounds.of(|| world.clone()), None);
    let full = rounds.of(|| compile(world, scope, &held, clock));
    put(
        "compile everything",
        full,
        Some(Target {
            milliseconds: 2_000.0,
            megabytes: Some(300.0),
        }),
    );

    let mut compiler = Compiler::new(world.clone(), scope.clone(), &held, clock);
    for Case {
        name,
        milliseconds,
        there,
        back,
    } in cluster.cases()
    {
        let sample = rounds.there_and_back(|step| {
            let changes = if step.is_forth() { &there } else { &back };
            if let Some(scope) = &changes.scope {
                compiler.set_scope(scope.clone(), &held);
            }
            compiler.apply(&changes.world, &held);
        });
        let target = Target {
            milliseconds,
            megabytes: None,
        };
        put(name, sample, Some(target));
    }
    assert_eq!(compiler.world(), world, "every change was taken back");
    let compiled = compiler.into_compiled();

    let files = [
        ("policies.yaml", text::policies(world)),
        ("inventory.yaml", text::inventory(world)),
    ];
    let mut parsed = Vec::new();
    for ((file, text), name) in files
        .iter()
        .zip(["read the policies", "read the inventory"])
    {
        let bytes = text.as_bytes();
        put(name, rounds.of(|| parse_file((*file).into(), bytes)), None);
        parsed.push(parse_file((*file).into(), bytes));
    }
    put(
        "put the files together",
        rounds.of(|| assemble(&parsed)),
        None,
    );
    let refused = parsed
        .iter()
        .flat_map(|file| &file.diagnostics)
        .filter(|diagnostic| diagnostic.is_error())
        .count();
    let bytes = files.iter().map(|(_, text)| text.len()).sum();
    report
        .tables
        .push(Tables::of(size, world, &compiled, bytes, refused));
    black_box(World::clone(world));
}
