use std::collections::BTreeMap;

use super::*;
use crate::flow::record::hostile::hostile;

const STREAM: &str = concat!(
    r#"{"schema_version":1,"seq":1,"node":"n","agent_version":"0.1.0","kind":"end","#,
    r#""flow_id":"0000000000000abc","start":"2023-11-14T22:13:20.000000000Z","#,
    r#""end":"2023-11-14T22:13:21.500000000Z","#,
    r#""src":{"ip":"10.0.0.2","port":40000,"workload":{"namespace":"edge","name":"gateway","#,
    r#""kind":"Workload","labels":{"note":"a,\"b\"\n\u009b","zone":"x"}}},"#,
    r#""dst":{"ip":"10.0.0.1","port":8080,"workload":{"namespace":"shop","name":"api","#,
    r#""kind":"Workload"}},"#,
    r#""protocol":{"number":6,"name":"tcp"},"direction":"ingress","initiator_known":true,"#,
    r#""forward":{"packets":5,"bytes":500,"tcp_flags":19},"reverse":{"packets":4,"bytes":4000},"#,
    r#""end_reason":"fin","verdict":"allow","policy":{"kind":"NetworkPolicy","#,
    r#""namespace":"shop","name":"api","rule":"ingress[0]","rule_id":7},"#,
    r#""default_deny":false,"reason":"rule","process":{"pid":812,"comm":"ng\u001b[2Jinx","#,
    r#""uid":33,"cgroup_id":77,"via":"listener"}}"#,
    "\n",
    r#"{"schema_version":1,"seq":2,"node":"n","agent_version":"0.1.0","kind":"deny","#,
    r#""flow_id":"0000000000000abd","start":"2023-11-14T22:13:22Z","#,
    r#""src":{"ip":"fd00::9"},"dst":{"ip":"fd00::1","port":443},"#,
    r#""protocol":{"number":17,"name":"udp"},"direction":"ingress","initiator_known":true,"#,
    r#""forward":{"packets":1,"bytes":60},"reverse":{"packets":0,"bytes":0},"#,
    r#""verdict":"deny","default_deny":true,"drop_reason":"default-deny"}"#,
    "\n",
    r#"{"schema_version":1,"seq":3,"node":"n","kind":"loss","stage":"ring-buffer","#,
    r#""reason":"full","count":7,"first":"2023-11-14T22:13:20Z","last":"2023-11-14T22:13:23Z"}"#,
);

fn render<const N: usize>(mut table: FlowTable<N>) -> String {
    let mut out = Vec::new();
    table.write_header(&mut out).unwrap();
    for line in STREAM.lines() {
        table.write(&Line::parse(line).unwrap(), &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn records_are_rows_with_names_and_the_rule_or_reason() {
    let expected = "\
TIME           KIND    VERDICT  SOURCE                    DESTINATION               PROTO  BYTES        PROCESS           RULE/REASON
22:13:21.500Z  end     allow    edge/gateway:40000        shop/api:8080             TCP    500/4000     ng\\u{1b}[2Jinx (812)  shop/api ingress[0] (fin)
22:13:22.000Z  deny    deny     fd00::9                   [fd00::1]:443             UDP    60/0         -                     default-deny
22:13:23.000Z  loss    -        -                         -                         -      -            -                     7 lost at ring-buffer: full
";
    assert_eq!(render(FlowTable::narrow(Paint::Plain)), expected);
}

#[test]
fn a_service_hides_nobody_whose_address_it_has() {
    let line = |end: &str| {
        let flow = STREAM.lines().nth(1).unwrap();
        let flow = flow.replace(r#"{"ip":"fd00::1","port":443}"#, end);
        let mut out = Vec::new();
        let flow = Line::parse(&flow).unwrap();
        FlowTable::narrow(Paint::Plain)
            .write(&flow, &mut out)
            .unwrap();
        FlowTable::wide(Paint::Plain)
            .write(&flow, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    };
    let end =
        |more: &str| format!(r#"{{"ip":"192.0.2.1","port":30443,"service":"shop/web"{more}}}"#);
    let of_nobody = line(&end(""));
    assert!(
        of_nobody.contains(" 192.0.2.1:30443 (service/shop/web) "),
        "{of_nobody}"
    );
    let node = r#","dns_name":"x.example","workload":{"name":"node-1","kind":"Node"}"#;
    let of_a_node = line(&end(node));
    for shown in [
        " node/node-1:30443 (service/shop/web) ",
        " node/node-1 (service/shop/web) ",
    ] {
        assert!(of_a_node.contains(shown), "{of_a_node}");
    }
    assert!(!of_a_node.contains("x.example"), "{of_a_node}");
}

#[test]
fn colours_do_not_move_columns() {
    let text = render(FlowTable::narrow(Paint::Colours));
    let plain: String = text
        .replace("\x1b[31m", "")
        .replace("\x1b[32m", "")
        .replace("\x1b[33m", "");
    assert_ne!(text, plain);
    assert_eq!(
        plain.replace("\x1b[0m", ""),
        render(FlowTable::narrow(Paint::Plain))
    );
}

#[test]
fn who_has_room_sees_more() {
    let text = render(FlowTable::wide(Paint::Plain));
    let words: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        words,
        [
            "TIME NODE KIND VERDICT DIRECTION SOURCE ADDRESS DESTINATION ADDRESS PROTO PACKETS BYTES FLAGS PROCESS UID FLOW \
             RULE/REASON",
            "2023-11-14T22:13:21.500Z n end allow ingress edge/gateway 10.0.0.2:40000 shop/api 10.0.0.1:8080 TCP 5/4 \
             500/4000 FSA/- ng\\u{1b}[2Jinx (812) 33 0000000000000abc shop/api ingress[0] (fin)",
            "2023-11-14T22:13:22.000Z n deny deny ingress - fd00::9 - [fd00::1]:443 UDP 1/0 60/0 -/- - - \
             0000000000000abd default-deny",
            "2023-11-14T22:13:23.000Z n loss - - - - - - - - - - - - - 7 lost at ring-buffer: full",
        ]
    );
}

/// As another reader of RFC 4180 takes it apart.
fn csv_rows(lines: &[Line]) -> Vec<BTreeMap<String, String>> {
    let mut out = Vec::new();
    let mut writer = CsvWriter::of_records(&mut out).unwrap();
    for line in lines {
        writer.record(line).unwrap();
    }
    writer.flush().unwrap();
    drop(writer);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches("\r\n").count(), lines.len() + 1, "{text}");
    assert_eq!(text.matches('\n').count(), lines.len() + 1, "{text}");
    let is_loud = |c: char| c.is_control() && c != '\r' && c != '\n';
    assert!(!text.contains(is_loud), "{text:?}");
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_spreadsheet_reads_rows_and_obeys_none() {
    let mut lines: Vec<Line> = STREAM.lines().map(|it| Line::parse(it).unwrap()).collect();
    for begin in ["=", "+", "-", "@", "\t=", "＝"] {
        let Line::Flow(mut record) = lines[0].clone() else {
            panic!("not a flow");
        };
        record.process.as_mut().unwrap().comm = format!("{begin}cmd|' /C calc'!A0");
        lines.push(Line::Flow(record));
    }
    let rows = csv_rows(&lines);
    for (column, expected) in [
        ("kind", "end"),
        ("src_labels", "note=a,\"b\"\\n\\u{9b};zone=x"),
        ("dst_name", "api"),
        ("protocol", "tcp"),
        ("forward_tcp_flags", "19"),
        ("reverse_tcp_flags", ""),
        ("comm", "ng\\u{1b}[2Jinx"),
        ("policy_rule", "ingress[0]"),
        ("start", "2023-11-14T22:13:20.000000000Z"),
        ("stage", ""),
    ] {
        assert_eq!(rows[0][column], expected, "{column}");
    }
    assert_eq!(rows[1]["drop_reason"], "default-deny");
    for (column, expected) in [("kind", "loss"), ("stage", "ring-buffer"), ("count", "7")] {
        assert_eq!(rows[2][column], expected, "{column}");
    }
    for row in &rows[3..] {
        let is_formula = |c: char| "=+-@＝\t\r\n".contains(c);
        assert!(!row["comm"].starts_with(is_formula), "{:?}", row["comm"]);
    }
}

#[test]
fn no_value_however_long_breaks_a_row() {
    let line = hostile(&Line::parse(STREAM.lines().next().unwrap()).unwrap());
    let rows = csv_rows(&[line.clone(), line]);
    assert_eq!(rows[0], rows[1]);
    assert!(rows[0]["src_name"].len() > 64 << 10);
    assert_eq!(rows[0]["container_id"], "");
}

#[test]
fn who_reads_csv_may_have_seen_enough() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut writer = CsvWriter::of_records(Closed).unwrap();
    let line = Line::parse(STREAM.lines().next().unwrap()).unwrap();
    let written = (0..1000).try_for_each(|_| writer.record(&line));
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

/// The page names the columns, in their order: it is what readers of the format go by.
#[test]
fn the_page_has_the_columns() {
    let page = include_str!("../../../docs/reading.md");
    let (_, listed) = page.split_once("```csv\n").unwrap();
    let (listed, _) = listed.split_once("```").unwrap();
    let mut out = Vec::new();
    CsvWriter::of_records(&mut out).unwrap().flush().unwrap();
    let listed: String = listed.split_whitespace().collect();
    assert_eq!(listed, String::from_utf8(out).unwrap().trim_end());
}

#[test]
fn words_that_were_there_before_still_are() {
    for (word, format) in [
        ("human", FlowFormat::Table),
        ("table", FlowFormat::Table),
        ("json", FlowFormat::Json),
    ] {
        assert_eq!(FlowFormat::from_str(word, false), Ok(format));
    }
}
