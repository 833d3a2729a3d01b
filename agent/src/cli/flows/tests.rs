use super::*;

const STREAM: &str = concat!(
    r#"{"schema_version":1,"seq":1,"node":"n","agent_version":"0.1.0","kind":"end","#,
    r#""flow_id":"0000000000000abc","start":"2023-11-14T22:13:20.000000000Z","#,
    r#""end":"2023-11-14T22:13:21.500000000Z","#,
    r#""src":{"ip":"10.0.0.2","port":40000,"workload":{"namespace":"edge","name":"gateway","#,
    r#""kind":"Workload"}},"#,
    r#""dst":{"ip":"10.0.0.1","port":8080,"workload":{"namespace":"shop","name":"api","#,
    r#""kind":"Workload"}},"#,
    r#""protocol":{"number":6,"name":"tcp"},"direction":"ingress","initiator_known":true,"#,
    r#""forward":{"packets":5,"bytes":500},"reverse":{"packets":4,"bytes":4000},"#,
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

fn render(paint: Paint) -> String {
    let mut table = FlowTable::new(paint);
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
    assert_eq!(render(Paint::Plain), expected);
}

#[test]
fn colours_do_not_move_columns() {
    let text = render(Paint::Colours);
    let plain: String = text
        .replace("\x1b[31m", "")
        .replace("\x1b[32m", "")
        .replace("\x1b[33m", "");
    assert_ne!(text, plain);
    assert_eq!(plain.replace("\x1b[0m", ""), render(Paint::Plain));
}
