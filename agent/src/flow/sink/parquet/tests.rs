//! Files of Parquet, and what goes wrong with them.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
};

use super::{
    ParquetSettings,
    columns::{COLUMNS, Column, Get},
    lines,
    tables::{Tables, convert},
};
use crate::flow::{
    clock::WallTime,
    record::{Kind, Line, hostile::hostile},
    sink::output::{Failure, Output, Settled},
};

/// 2026-11-30, 10 h.
const TEN: i64 = 1_796_032_800_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

/// A record with all that a record may have.
const FULL: &str = concat!(
    r#"{"schema_version":1,"seq":7,"node":"node-1","cluster":"east","agent_version":"0.1.0","kind":"end","flow_id":"0000000000000abc","#,
    r#""community_id":"1:abc=","start":"2026-11-30T10:00:00.000001000Z","end":"2026-11-30T10:00:01.5Z","#,
    r#""src":{"ip":"10.0.0.2","port":40000,"workload":{"namespace":"edge","name":"gateway","kind":"Workload","owner":"Deployment/gateway","#,
    r#""labels":{"a":"\"'ä","b":""}},"dns_name":"gateway.example"},"#,
    r#""dst":{"ip":"fd00::1","port":65535,"workload":{"name":"node-2","kind":"Node","owner":"x/y","labels":{"c":"d"}},"service":"shop/web","dns_name":"node.example"},"#,
    r#""protocol":{"number":6,"name":"tcp"},"icmp":{"type":8,"code":255},"direction":"ingress","initiator_known":true,"#,
    r#""forward":{"packets":5,"bytes":9223372036854775807,"tcp_flags":255},"#,
    r#""reverse":{"packets":0,"bytes":4000,"tcp_flags":19},"rtt_us":4294967295,"end_reason":"fin","verdict":"deny","#,
    r#""policy":{"kind":"RingfencePolicy","namespace":"shop","name":"api","rule":"ingress[0]","rule_id":4294967295,"#,
    r#""tier":"Admin","rule_name":"r","reason":"because","approved_by":"a","owner":"o"},"policy_revision":12,"default_deny":true,"#,
    r#""reason":"rule","drop_reason":"revoked","#,
    r#""would_be":[{"view":"audit","verdict":"deny","policy":{"kind":"NetworkPolicy","namespace":"shop","name":"x","#,
    r#""rule":"egress[1]","rule_id":1},"reason":"deny-rule"},{"view":"staged","verdict":"allow","reason":"rule"}],"#,
    r#""ifindex":4294967295,"generation":7,"endpoint":"shop/api","process":{"pid":4294967295,"#,
    r#""start_time":"2026-11-29T00:00:00Z","comm":"ng\u001b[2J","exe":"/n","uid":4294967295,"cgroup_id":77,"cgroup":"/a","container_id":"0a","#,
    r#""via":"listener"},"sampling":10}"#
);

const LOSS: &str = concat!(
    r#"{"schema_version":1,"seq":40,"node":"node-1","kind":"loss","stage":"ring-buffer","reason":"full","#,
    r#""count":17,"first":"2026-11-30T10:00:00Z","last":"2026-11-30T10:00:05Z"}"#
);

const TAMPERING: &str = concat!(
    r#"{"schema_version":1,"seq":41,"node":"node-1","kind":"tampering","how":"written","what":"map POLICY","#,
    r#""count":2,"at":"2026-11-30T10:00:07Z","restored":true}"#
);

fn parse(text: &str) -> Line {
    Line::parse(text).unwrap()
}

fn record(number: u64, kind: &str, end: i64) -> Line {
    let end = WallTime(end);
    parse(&format!(
        r#"{{"schema_version":1,"seq":{number},"node":"node-1","agent_version":"0.1.0","kind":"{kind}",
        "flow_id":"{number:016x}","start":"{end}","end":"{end}","src":{{"ip":"10.0.0.2","port":40000}},
        "dst":{{"ip":"10.0.0.1","port":53}},"protocol":{{"number":17,"name":"udp"}},"direction":"egress",
        "initiator_known":true,"forward":{{"packets":1,"bytes":60}},"reverse":{{"packets":0,"bytes":0}},
        "verdict":"allow","default_deny":false}}"#
    ))
}

fn settings(folder: &Path) -> ParquetSettings {
    ParquetSettings::to(folder.to_owned())
}

fn write(tables: &mut Tables, lines: &[Line]) -> Result<Settled, Failure> {
    let lines: Vec<_> = lines.iter().map(Cow::Borrowed).collect();
    tables.write(&lines)
}

/// All files below, and those among them that readers take.
fn files(folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    let is_taken = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "parquet");
    let taken = found.iter().filter(is_taken).cloned().collect();
    (found, taken)
}

/// What readers find, in the order of names.
fn held(folder: &Path) -> Vec<Line> {
    let (_, taken) = files(folder);
    taken
        .iter()
        .flat_map(|path| lines(path).unwrap())
        .map(Result::unwrap)
        .collect()
}

fn numbers(lines: &[Line]) -> Vec<u64> {
    let flows = lines.iter().filter_map(Line::flow);
    flows.map(|flow| flow.seq).collect()
}

#[test]
fn lines_come_back_as_they_were_to_the_microsecond() {
    let folder = tempfile::tempdir().unwrap();
    let mut written: Vec<Line> = [FULL, LOSS, TAMPERING].map(parse).into();
    let page = include_str!("../../../../docs/flow-record.md");
    let examples = page.split("```json\n").skip(1);
    for example in examples.filter_map(|rest| Some(rest.split_once("```")?.0)) {
        // Its times have more digits than those of Parquet.
        let micro: String = example.split_inclusive("Z\"").map(to_micros).collect();
        written.push(parse(&micro));
    }
    written.push(record(8, "start", TEN));
    written.push(hostile(&record(9, "start", TEN)));
    let count = convert(
        folder.path().to_owned(),
        written.clone().into_iter().map(Ok),
    )
    .unwrap();
    assert_eq!(count, written.len() as u64);
    let read = held(folder.path());
    for line in &written {
        assert!(read.contains(line), "{line:?}\nis not in\n{read:#?}");
    }
    assert_eq!(read.len(), written.len());
}

fn to_micros(text: &str) -> String {
    match text.strip_suffix("Z\"") {
        Some(time) if time.contains('.') => format!("{}000Z\"", &time[..time.len() - 3]),
        _ => text.to_owned(),
    }
}

#[test]
fn each_column_has_a_line_that_fills_it_and_a_row_on_the_page() {
    let page = include_str!("../../../../docs/parquet.md");
    let pod = FULL.replace(r#"{"name":"node-2""#, r#"{"namespace":"a","name":"node-2""#);
    let all = [FULL, &pod, LOSS, TAMPERING].map(parse);
    let mut names = BTreeSet::new();
    for Column { name, get, .. } in COLUMNS {
        let (is_there, kind) = match get {
            Get::Flag(get) => (all.iter().any(|it| get(it).is_some()), "boolean"),
            Get::Number(get) => (all.iter().any(|it| get(it).is_some()), "int32"),
            Get::Count(get) => (all.iter().any(|it| get(it).is_some()), "int64"),
            Get::Time(get) => (all.iter().any(|it| get(it).is_some()), "timestamp"),
            Get::Text(get) => (all.iter().any(|it| get(it).is_some()), "string"),
            Get::Json(get) => (all.iter().any(|it| get(it).is_some()), "JSON"),
        };
        assert!(is_there, "{name}");
        assert!(
            page.contains(&format!("\n| `{name}` | {kind} | ")),
            "{name}: {kind}"
        );
        assert!(names.insert(name), "{name} is there twice");
    }
}

#[test]
fn records_are_exported_when_their_file_has_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(ParquetSettings {
        rows: 3,
        ..settings(folder.path())
    })
    .unwrap();
    let two = [record(1, "start", TEN), record(2, "deny", TEN)];
    assert_eq!(write(&mut tables, &two).unwrap(), Settled::default());
    assert_eq!(files(folder.path()).1.len(), 0);
    let settled = write(&mut tables, &[parse(LOSS), record(3, "end", TEN)]).unwrap();
    assert_eq!(settled.exported, 3, "a loss is no record");
    assert_eq!(files(folder.path()).1.len(), 1);
    write(&mut tables, &[record(4, "end", TEN)]).unwrap();
    assert_eq!(tables.finish().exported, 1);
    assert_eq!(numbers(&held(folder.path())), [1, 2, 3, 4]);
    // By age, also where nothing comes.
    let mut tables = {
        drop(tables);
        Tables::open(ParquetSettings {
            seconds: 0,
            ..settings(folder.path())
        })
        .unwrap()
    };
    write(&mut tables, &[record(5, "end", TEN)]).unwrap();
    tables.tick();
    assert_eq!(numbers(&held(folder.path())), [1, 2, 3, 4, 5]);
}

#[test]
fn an_agent_that_is_killed_leaves_nothing_that_readers_take() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(settings(folder.path())).unwrap();
    for number in 0..40_000 {
        write(&mut tables, &[record(number, "start", TEN)]).unwrap();
    }
    // As when it is killed: nobody finishes it.
    drop(tables);
    let (all, taken) = files(folder.path());
    assert_eq!((all.len(), taken.len()), (1, 0));
    assert!(all[0].metadata().unwrap().len() > 4, "a group is on disk");
    let name = all[0].file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with('.') && !name.ends_with(".parquet"),
        "{name}"
    );
    assert!(lines(&all[0]).is_err(), "it is not whole");

    let other = folder.path().join(".other.parquet.new");
    fs::write(&other, "").unwrap();
    Tables::open(settings(folder.path())).unwrap();
    assert_eq!(files(folder.path()).0, [other]);
}

#[test]
fn a_clock_that_is_set_back_and_flows_that_end_late_go_to_their_hours() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(settings(folder.path())).unwrap();
    let mut exported = 0;
    for number in 0..100_u64 {
        // Around ten, back to nine, with some hours before and one far away.
        let back = i64::try_from(number).unwrap() % 6;
        let at = if number == 50 {
            i64::MIN
        } else {
            TEN - back * HOUR
        };
        exported += write(&mut tables, &[record(number, "end", at)])
            .unwrap()
            .exported;
    }
    exported += tables.finish().exported;
    assert_eq!(exported, 100);
    let read = held(folder.path());
    let numbers: BTreeSet<u64> = numbers(&read).into_iter().collect();
    assert_eq!((read.len(), numbers.len()), (100, 100));
    for path in files(folder.path()).1 {
        for line in lines(&path).unwrap() {
            let record = line.unwrap().flow().unwrap().clone();
            let time = record.end.unwrap().to_string();
            let (date, hour) = (&time[..10], &time[11..13]);
            let expected = format!("date={date}/hour={hour}/");
            // Microseconds of the far one are cut.
            assert!(
                path.display().to_string().contains(&expected),
                "{expected} {path:?}"
            );
        }
    }
}

#[test]
fn one_batch_of_many_hours_is_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(settings(folder.path())).unwrap();
    let batch: Vec<_> = (0..20_i64)
        .map(|it| record(it.unsigned_abs(), "end", TEN + it * HOUR))
        .collect();
    let settled = write(&mut tables, &batch).unwrap();
    assert_eq!(settled.exported, 16, "four are open");
    assert_eq!(tables.finish().exported, 4);
    assert_eq!(held(folder.path()).len(), 20);
}

#[test]
fn a_folder_that_is_deleted_costs_counted_records_and_a_loss_goes_on() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("flows");
    fs::create_dir(&folder).unwrap();
    let mut tables = Tables::open(settings(&folder)).unwrap();
    let lines = [record(1, "start", TEN), record(2, "deny", TEN), parse(LOSS)];
    write(&mut tables, &lines).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let settled = tables.tick();
    let lost = |kind: Kind| settled.lost[kind as usize];
    assert_eq!((lost(Kind::Start), lost(Kind::Deny)), (1, 1));
    assert_eq!(settled.lost.iter().sum::<u64>(), 2);
    assert_eq!(tables.late_loss(), "write-failed");
    let failed = write(&mut tables, &[record(3, "start", TEN)]);
    assert!(matches!(failed, Err(Failure::Broken(_))), "{failed:?}");

    fs::create_dir(&folder).unwrap();
    write(&mut tables, &[record(4, "start", TEN)]).unwrap();
    assert!(
        Tables::open(settings(&folder)).is_err(),
        "the new one is locked"
    );
    assert_eq!(tables.finish().exported, 1);
    let read = held(&folder);
    assert_eq!(numbers(&read), [4]);
    assert!(read.contains(&parse(LOSS)));
}

#[test]
fn what_a_full_disk_does_not_take_is_kept_until_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(settings(folder.path())).unwrap();
    write(&mut tables, &[record(1, "start", TEN)]).unwrap();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let real = tables.drafts()[0].swap(full());
    // A group is written when it is full.
    let mut taken = 1;
    let refused = loop {
        let batch: Vec<_> = (taken..taken + 256)
            .map(|it| record(it + 1, "start", TEN))
            .collect();
        match write(&mut tables, &batch) {
            Ok(settled) => assert_eq!(settled, Settled::default()),
            Err(error) => break error,
        }
        taken += 256;
    };
    assert!(matches!(&refused, Failure::Broken(error) if error.to_string().contains("No space")));
    assert_eq!(tables.tick(), Settled::default(), "nothing is lost");
    // With room it goes on by itself.
    tables.drafts()[0].swap(real);
    tables.tick();
    write(&mut tables, &[record(taken + 1, "end", TEN)]).unwrap();
    assert_eq!(tables.finish().exported, taken + 1);
    let all = numbers(&held(folder.path()));
    assert_eq!(all, (1..=taken + 1).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_a_full_disk_when_the_agent_ends_is_lost_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(settings(folder.path())).unwrap();
    write(&mut tables, &[record(1, "update", TEN)]).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    tables.drafts()[0].swap(full);
    let settled = tables.finish();
    assert_eq!(
        (settled.exported, settled.lost[Kind::Update as usize]),
        (0, 1)
    );
    assert_eq!(
        files(folder.path()).0,
        Vec::<PathBuf>::new(),
        "no draft stays"
    );
}

#[test]
fn the_oldest_files_are_removed_and_nobody_elses() {
    let folder = tempfile::tempdir().unwrap();
    let mut tables = Tables::open(settings(folder.path())).unwrap();
    // Long ago, by any clock.
    let batch: Vec<_> = (0..6_i64)
        .map(|it| record(it.unsigned_abs(), "end", (it + 9) * HOUR))
        .collect();
    write(&mut tables, &batch).unwrap();
    tables.finish();
    drop(tables);
    let (_, written) = files(folder.path());
    let other = written[0].with_file_name("other.parquet");
    fs::write(&other, "x").unwrap();
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    let keep_bytes = written[4..].iter().map(size).sum();
    drop(Tables::open(ParquetSettings {
        keep_bytes,
        ..settings(folder.path())
    }));
    let (_, left) = files(folder.path());
    assert_eq!(left, [&[other][..], &written[4..]].concat());
    assert!(!written[1].parent().unwrap().exists(), "an empty hour");
}

#[test]
fn no_file_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let all = [FULL, LOSS, TAMPERING].map(|text| Ok(parse(text)));
    convert(folder.path().to_owned(), all.into_iter()).unwrap();
    let (_, taken) = files(folder.path());
    let whole = fs::read(&taken[0]).unwrap();
    let path = folder.path().join("x.parquet");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        lines(&path).map(|lines| lines.filter(Result::is_err).count())
    };
    assert_eq!(read(&whole).unwrap(), 0);
    for length in [0, 1, 4, 8, 12, whole.len() / 2, whole.len() - 1] {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    for at in (0..whole.len()).step_by(89) {
        let mut torn = whole.clone();
        torn[at] ^= 0x55;
        // Whatever it says, it says it.
        drop(read(&torn));
    }
}

#[test]
fn a_file_of_others_is_none_of_flow_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    File::create(&path).unwrap();
    let told = format!("{:#}", lines(&path).err().unwrap());
    assert!(told.contains("no whole file of Parquet"), "{told}");
}
