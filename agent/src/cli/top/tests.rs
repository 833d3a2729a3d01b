use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};
use serde_json::{Value, json};

use super::{
    state::{Snapshot, Sort},
    window::WINDOW,
    *,
};
use crate::{control::status::Status, flow::record::Line};

const SIZES: [(u16, u16); 12] = [
    (1, 1),
    (1, 40),
    (2, 3),
    (9, 2),
    (10, 10),
    (40, 1),
    (40, 12),
    (63, 16),
    (64, 16),
    (80, 24),
    (200, 60),
    (400, 3),
];

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Of an agent that has dropped so much at each endpoint, which are of these names.
fn status(pid: u32, names: &[&str], dropped: u64) -> Status {
    let endpoint = |name: &&str| {
        json!({"name": name, "spec": "interface x", "state": "attached", "policies": 1,
               "drops": {"default-deny": dropped}})
    };
    let endpoints: Vec<Value> = names.iter().map(endpoint).collect();
    let all = dropped * names.len() as u64;
    serde_json::from_value(json!({
        "agent_version": "0.1.0", "pid": pid, "uptime_s": 61, "node": "n", "generation": 3, "enforcing": true,
        "endpoints": endpoints, "tables": [], "events": {"seen": 12, "lost": 3},
        "drops": {"default-deny": all, "deny-rule": 1, "malformed": 0},
        "records": {"stream": {"seen": 9, "exported": 9, "lost": 0},
                    "sinks": {"/a/\u{1b}[2Jfile": {"seen": 9, "exported": 8, "lost": 1}}},
        "features": []
    }))
    .unwrap()
}

fn flow(kind: &str, endpoint: &str, more: &Value) -> Line {
    let mut record = json!({
        "schema_version": 1, "seq": 1, "node": "n", "agent_version": "0.1.0", "kind": kind,
        "flow_id": "0000000000000abc", "start": "2023-11-14T22:13:20Z", "src": {}, "dst": {},
        "protocol": {"number": 6, "name": "tcp"}, "direction": "ingress", "initiator_known": true,
        "forward": {"packets": 5, "bytes": 500}, "reverse": {"packets": 1, "bytes": 100},
        "verdict": "allow", "default_deny": false, "endpoint": endpoint
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        record[key] = value.clone();
    }
    Line::parse(&record.to_string()).unwrap()
}

fn denial(rule: &str) -> Line {
    let policy =
        json!({"kind": "RingfencePolicy", "name": rule, "rule": "ingress[0]", "rule_id": 1});
    let more = json!({"verdict": "deny", "drop_reason": "deny-rule", "policy": policy});
    flow("deny", "shop/api", &more)
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

/// One minute old.
fn filled() -> State {
    let mut state = State::default();
    state.heard(
        at(0),
        status(1, &["shop/api", "shop/\u{1b}[2Jdb\n\u{202e}"], 10),
    );
    for second in 1..=60 {
        state.add(at(second), &flow("start", "shop/api", &json!({})));
        state.add(at(second), &flow("end", "shop/api", &json!({})));
        state.add(at(second), &denial("lock\u{9b}down"));
    }
    state.heard(
        at(60),
        status(1, &["shop/api", "shop/\u{1b}[2Jdb\n\u{202e}"], 70),
    );
    state
}

fn drawn(snapshot: &Snapshot, ui: &mut Ui, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| view::draw(frame, snapshot, ui))
        .unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width.max(1));
    let rows = buffer.content().chunks(width);
    let rows = rows.map(|row| {
        row.iter()
            .map(ratatui::buffer::Cell::symbol)
            .collect::<String>()
    });
    rows.map(|row| row.trim_end().to_owned() + "\n").collect()
}

#[test]
fn rates_are_of_the_last_minute() {
    let now = filled().snapshot(at(60), Sort::Name);
    let row = |name: &str| now.endpoints.iter().find(|row| row.name == name).unwrap();
    let api = row("shop/api");
    assert!(close(api.flows, 1.0) && close(api.bytes, 1200.0), "{api:?}");
    assert!(close(api.drops, 1.0) && api.dropped == 70, "{api:?}");
    assert_eq!(now.records.len(), 60);
    assert!(
        now.records.iter().all(|count| *count == 3),
        "{:?}",
        now.records
    );
}

#[test]
fn a_window_of_which_a_part_is_over_counts_that_part() {
    let mut state = State::default();
    state.heard(at(100), status(1, &["shop/api"], 0));
    for _ in 0..20 {
        state.add(at(103), &flow("start", "shop/api", &json!({})));
    }
    assert!(close(
        state.snapshot(at(104), Sort::Name).endpoints[0].flows,
        5.0
    ));
    assert!(close(
        state.snapshot(at(110), Sort::Name).endpoints[0].flows,
        2.0
    ));
    let idle = state.snapshot(at(103 + WINDOW), Sort::Name);
    assert!(close(idle.endpoints[0].flows, 0.0), "it is forgotten");
    assert!(idle.records.iter().all(|count| *count == 0));
}

#[test]
fn a_reason_is_followed_by_its_rules() {
    let now = filled().snapshot(at(60), Sort::Name);
    let rows: Vec<_> = now
        .denied
        .iter()
        .map(|row| (&*row.what, row.is_rule, row.total))
        .collect();
    assert_eq!(
        rows,
        [
            ("default-deny", false, Some(140)),
            ("deny-rule", false, Some(1)),
            ("lock\u{9b}down ingress[0]", true, None),
        ]
    );
    assert!(close(now.denied[0].rate, 2.0) && close(now.denied[2].rate, 6.0));
}

#[test]
fn what_was_lost_is_told_by_stage_and_sink() {
    let mut state = filled();
    let loss = json!({
        "schema_version": 1, "node": "n", "kind": "loss", "stage": "client", "reason": "too-slow", "count": 4,
        "first": "2023-11-14T22:13:20Z", "last": "2023-11-14T22:13:20Z"
    });
    state.add(at(60), &Line::parse(&loss.to_string()).unwrap());
    state.misunderstood();
    let now = state.snapshot(at(60), Sort::Name);
    let rows: Vec<_> = now
        .losses
        .iter()
        .map(|row| (&*row.stage, row.seen, row.lost))
        .collect();
    assert_eq!(
        rows,
        [
            ("events", Some(12), 3),
            ("flow table full", None, 0),
            ("process names", None, 0),
            ("records", Some(9), 0),
            ("to /a/\u{1b}[2Jfile", Some(9), 1),
            ("this view, too slow", None, 4),
            ("this view, not understood", None, 1),
        ]
    );
}

#[test]
fn an_agent_that_is_away_is_told_from_one_that_is_back() {
    let mut state = filled();
    state.away(at(61), &anyhow::anyhow!("no agent\n\u{1b}[2J"));
    state.away(at(70), &anyhow::anyhow!("no agent"));
    let now = state.snapshot(at(75), Sort::Name);
    assert_eq!(now.away, Some((at(14), "no agent".to_owned())));
    let picture = text(&drawn(&now, &mut Ui::default(), (80, 24)));
    assert!(
        picture.starts_with("AGENT AWAY for 14 s: no agent\n"),
        "{picture}"
    );
    // What was known of it stays to be seen.
    assert!(picture.contains("shop/api"), "{picture}");

    // Another one counts from the beginning.
    state.heard(at(80), status(2, &["shop/api"], 5));
    let now = state.snapshot(at(81), Sort::Name);
    assert_eq!(now.away, None);
    assert!(close(now.endpoints[0].drops, 0.0), "{:?}", now.endpoints);
}

#[test]
fn endpoints_are_in_the_order_that_is_asked_for() {
    let mut state = State::default();
    state.heard(at(0), status(1, &["b", "a", "c"], 0));
    state.add(at(1), &flow("update", "c", &json!({})));
    state.add(
        at(1),
        &flow(
            "start",
            "gone",
            &json!({"forward": {"packets": 0, "bytes": 0}}),
        ),
    );
    let mut names = |sort| -> String {
        let rows = state.snapshot(at(10), sort).endpoints;
        rows.iter().map(|row| row.name.clone() + " ").collect()
    };
    assert_eq!(names(Sort::Name), "a b c gone ");
    assert_eq!(names(Sort::Bytes), "c gone a b ");
    assert_eq!(names(Sort::Flows), "gone a b c ");
    assert_eq!(names(Sort::Drops), "a b c gone ");
    let mut sort = Sort::default();
    for _ in 0..4 {
        sort = sort.next();
    }
    assert_eq!(sort, Sort::default());
}

#[test]
fn names_without_end_take_memory_that_has_one() {
    let mut state = State::default();
    state.heard(at(0), status(1, &[], 0));
    for number in 0..2000 {
        state.add(at(1), &flow("start", &format!("ns/{number}"), &json!({})));
        state.add(at(1), &denial(&number.to_string()));
    }
    let now = state.snapshot(at(2), Sort::Name);
    assert!(now.endpoints.len() < 600, "{}", now.endpoints.len());
    let flows: f64 = now.endpoints.iter().map(|row| row.flows).sum();
    assert!(close(flows, 1000.0), "{flows}: none is left out");
    assert!(now.denied.len() < 600, "{}", now.denied.len());
}

#[test]
fn every_size_is_drawn_with_nothing_that_a_terminal_obeys() {
    let full = filled().snapshot(at(60), Sort::Bytes);
    let mut away = full.clone();
    away.away = Some((at(1), "\u{1b}[2J".repeat(50)));
    for snapshot in [&full, &away, &Snapshot::default()] {
        for size in SIZES {
            let mut ui = Ui::default();
            for key in [
                Key::End,
                Key::PageUp,
                Key::Down,
                Key::Sort,
                Key::PageDown,
                Key::Up,
                Key::Home,
            ] {
                let buffer = drawn(snapshot, &mut ui, size);
                for cell in buffer.content() {
                    let is_loud = |c: char| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}');
                    assert!(!cell.symbol().contains(is_loud), "{size:?}");
                }
                ui.press(key);
            }
        }
    }
}

#[test]
fn a_terminal_of_usual_size_shows_all() {
    let now = filled().snapshot(at(60), Sort::Name);
    let picture = text(&drawn(&now, &mut Ui::default(), (80, 24)));
    let expected = "\
ringfence 0.1.0 on n: enforcing, generation 3, up 1 min 1 s
ENDPOINT (2)                          STATE    FLOWS/S  BYTES/S DROPS/S  DROPPED
";
    assert!(picture.starts_with(expected), "{picture}");
    for line in [
        r"shop/\u{1b}[2Jdb\n\u{202e}            attached       0        0     1.0       70",
        "shop/api                              attached     1.0     1.2k     1.0       70",
        "DENIED BY               DROPS/S    TOTAL  RECORDS: 3 in the last second",
        r"  lock\u{9b}down ingres     6.0",
        "STAGE              SEEN    LOST LOST/S",
        "events               12       3      0",
        "q quit  s sort (by bytes)  ↑↓ scroll   rates are of the last minute",
    ] {
        assert!(picture.contains(line), "{line}\n{picture}");
    }
}

#[test]
fn endpoints_beyond_the_screen_are_scrolled_to() {
    let names: Vec<String> = (0..30).map(|number| format!("ns/{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut state = State::default();
    state.heard(at(0), status(1, &names, 0));
    let now = state.snapshot(at(1), Sort::Name);
    let mut ui = Ui::default();
    let mut first_and_last = |keys: &[Key]| {
        for key in keys {
            ui.press(*key);
        }
        let picture = text(&drawn(&now, &mut ui, (80, 12)));
        let rows: Vec<String> = picture
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| word.starts_with("ns/"))
            .map(str::to_owned)
            .collect();
        (rows[0].clone(), rows[rows.len() - 1].clone())
    };
    let rows = |first: &str, last: &str| (first.to_owned(), last.to_owned());
    assert_eq!(first_and_last(&[]), rows("ns/00", "ns/08"));
    assert_eq!(first_and_last(&[Key::Up]), rows("ns/00", "ns/08"));
    assert_eq!(
        first_and_last(&[Key::Down, Key::Down]),
        rows("ns/02", "ns/10")
    );
    assert_eq!(first_and_last(&[Key::PageDown]), rows("ns/11", "ns/19"));
    assert_eq!(first_and_last(&[Key::End]), rows("ns/21", "ns/29"));
    assert_eq!(
        first_and_last(&[Key::Down, Key::Up]),
        rows("ns/20", "ns/28")
    );
    assert_eq!(first_and_last(&[Key::Home]), rows("ns/00", "ns/08"));
}

#[test]
fn who_has_no_terminal_is_told() {
    // Tests may have one or none: the message is the same either way.
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        return;
    }
    let args = TopArgs {
        socket: PathBuf::from("/nonexistent"),
    };
    let error = run(&args).unwrap_err().to_string();
    assert!(error.contains("draws on a terminal"), "{error}");
}
