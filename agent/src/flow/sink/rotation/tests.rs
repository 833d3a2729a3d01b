use std::{io::Read as _, time::Instant};

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn rotation(keep_bytes: u64, compress: Compression) -> Rotation {
    Rotation {
        rotate_bytes: 1000,
        rotate_seconds: None,
        keep_bytes,
        compress,
    }
}

#[test]
fn only_files_that_were_moved_aside_are_ours() {
    let own = OsStr::new("flows.jsonl");
    let of = |name: &'static str| suffix_of(OsStr::new(name), own);
    assert_eq!(of("flows.jsonl.20261130T073500.000"), Some(""));
    assert_eq!(of("flows.jsonl.20261130T073500.012.gz"), Some(".gz"));
    assert_eq!(
        of("flows.jsonl.20261130T073500.012.gz.new"),
        Some(".gz.new")
    );
    for other in [
        "flows.jsonl",
        "flows.jsonl.1",
        "flows.jsonl.old",
        "flows.jsonl.20261130T073500",
        "flows.jsonl.2026113T0735000.000",
        "other.jsonl.20261130T073500.000",
        "flows.jsonl2.20261130T073500.000",
        "flows.jsonl.20261130T073500.€",
    ] {
        assert_eq!(of(other), None, "{other}");
    }
}

#[test]
fn the_oldest_go_when_there_is_more_than_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let old = |number: u32| folder.path().join(format!("f.20251130T07350{number}.000"));
    for number in 0..5 {
        fs::write(old(number), [b'x'; 100]).unwrap();
    }
    fs::write(&path, [b'x'; 5000]).unwrap();
    fs::write(folder.path().join("f.1"), [b'x'; 5000]).unwrap();
    // Of a clock that was set back since: the first to go.
    fs::write(folder.path().join("f.20991130T073500.000.gz"), [b'x'; 100]).unwrap();
    // What cannot be removed, or is no file, is in nobody's way.
    fs::create_dir(folder.path().join("f.20251130T073400.000")).unwrap();
    tidy_up(&path, rotation(250, Compression::None));
    let kept = [
        "f",
        "f.1",
        "f.20251130T073400.000",
        "f.20251130T073503.000",
        "f.20251130T073504.000",
    ];
    assert_eq!(names(folder.path()), kept);
}

#[test]
fn what_is_packed_is_the_same_and_what_was_half_packed_is_packed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let text = "a line\n".repeat(10_000);
    let old = folder.path().join("f.20251130T073500.000");
    fs::write(&old, &text).unwrap();
    fs::write(with_suffix(&old, DRAFT), "half").unwrap();
    tidy_up(&path, rotation(10_000, Compression::Gzip));
    assert_eq!(names(folder.path()), ["f.20251130T073500.000.gz"]);
    let packed = fs::read(with_suffix(&old, PACKED)).unwrap();
    assert!(packed.len() < text.len() / 10);
    let mut read = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&*packed);
    decoder.read_to_string(&mut read).unwrap();
    assert_eq!(read, text);
}

#[test]
fn a_file_is_moved_aside_when_it_is_large_or_old() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let rotator = Rotator::start(rotation(1 << 20, Compression::None), path.clone()).unwrap();
    fs::write(&path, [b'x'; 600]).unwrap();
    let file = File::open(&path).unwrap();
    assert!(!rotator.is_due(&file, 400));
    assert!(rotator.is_due(&file, 401));
    rotator.rotate(&file).unwrap();
    assert!(!path.exists());
    let [name] = &names(folder.path())[..] else {
        panic!("{:?}", names(folder.path()))
    };
    assert_eq!(suffix_of(OsStr::new(name), OsStr::new("f")), Some(""));
    // Twice in a second.
    fs::write(&path, "x").unwrap();
    rotator.rotate(&File::open(&path).unwrap()).unwrap();
    assert_eq!(names(folder.path()).len(), 2);

    let old = Rotation {
        rotate_seconds: Some(1),
        ..rotation(1 << 20, Compression::None)
    };
    let rotator = Rotator::start(old, path.clone()).unwrap();
    fs::write(&path, "x").unwrap();
    let file = File::open(&path).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !rotator.is_due(&file, 1) {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(50));
    }
    fs::write(&path, "").unwrap();
    assert!(!rotator.is_due(&file, 5000), "nothing is in it");
}

#[test]
fn a_clock_that_was_set_back_keeps_no_file_for_ever() {
    let now = SystemTime::now();
    let hour = Duration::from_hours(1);
    assert!(!is_as_old(now, now, 3600));
    assert!(!is_as_old(now - hour / 2, now, 3600));
    assert!(is_as_old(now - hour, now, 3600));
    assert!(is_as_old(now + hour, now, 3600));
    assert!(!is_as_old(now + AHEAD, now, 3600), "a server's clock");
}
