use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    thread,
};

use serde_json::json;

use super::*;

/// A pod's environment, with something else in it.
fn environment(changed: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let mut variables = vec![
        ("CNI_COMMAND", "ADD"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=api-0;K8S_POD_UID=a-1",
        ),
    ];
    for (name, value) in changed {
        variables.retain(|(known, _)| known != name);
        variables.push((name, value));
    }
    let variables: Vec<(String, String)> = variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    move |name| {
        let found = variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }
}

fn configuration(version: &str, settings: &Value) -> String {
    json!({
        "cniVersion": version, "name": "pods", "type": "ringfence", "ringfence": settings,
        "prevResult": {"cniVersion": version, "ips": [{"address": "10.0.0.2/24"}], "more": {"a": [1]}},
        "runtimeConfig": {"anything": true},
    })
    .to_string()
}

fn code(done: Result<Option<Value>, Failure>) -> Code {
    done.unwrap_err().code
}

#[test]
fn versions_are_told() {
    let done = run_with(
        environment(&[("CNI_COMMAND", "VERSION")]),
        r#"{"cniVersion":"0.4.0"}"#,
    );
    let expected = json!({
        "cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    });
    assert_eq!(done, Ok(Some(expected)));
}

#[test]
fn taking_down_asks_nobody_whatever_there_is() {
    for command in ["DEL", "GC"] {
        let done = run_with(environment(&[("CNI_COMMAND", command)]), "not even JSON");
        assert_eq!(done, Ok(None));
    }
}

#[test]
fn what_is_wrong_is_told_by_the_codes_of_the_specification() {
    let good = configuration("1.0.0", &json!({}));
    let with = |name: &str, value: &str| code(run_with(environment(&[(name, value)]), &good));
    assert_eq!(with("CNI_COMMAND", "MAKE"), Code::Environment);
    assert_eq!(with("CNI_NETNS", ""), Code::Environment);
    assert_eq!(with("CNI_ARGS", "K8S_POD_NAME=api-0"), Code::Environment);
    let of = |text: &str| code(run_with(environment(&[]), text));
    assert_eq!(of("{"), Code::Json);
    assert_eq!(of(&configuration("0.2.0", &json!({}))), Code::Version);
    assert_eq!(
        of(&configuration("1.0.0", &json!({"onUnavailble": "admit"}))),
        Code::Configuration
    );
    assert_eq!(
        of(&configuration("1.0.0", &json!({"timeoutSeconds": 0}))),
        Code::Configuration
    );
    assert_eq!(
        of(r#"{"cniVersion": "1.0.0", "name": "x", "type": "ringfence"}"#),
        Code::Configuration
    );
    let failure = Failure::new(Code::TryAgainLater, "a", "b").value("1.0.0");
    let expected =
        json!({"cniVersion": "1.0.0", "code": 11, "msg": "ringfence: a", "details": "b"});
    assert_eq!(failure, expected);
}

fn asked() -> Asked {
    Asked::read(&environment(&[])).unwrap()
}

#[test]
fn the_pod_is_named_by_the_runtime() {
    let Asked {
        pod_namespace,
        pod_name,
        pod_uid,
        ..
    } = asked();
    let expected = ("shop", "api-0", Some("a-1"));
    assert_eq!((&*pod_namespace, &*pod_name, pod_uid.as_deref()), expected);
}

#[test]
fn an_agent_that_is_away_holds_a_pod_up_or_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let status = |on: &str| {
        let settings = json!({"socket": socket, "onUnavailable": on});
        let text = configuration("1.1.0", &settings);
        run_with(environment(&[("CNI_COMMAND", "STATUS")]), &text)
    };
    assert_eq!(code(status("refuse")), Code::NotAvailable);
    assert_eq!(status("admit"), Ok(None));
}

#[test]
fn an_agent_that_refuses_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let agent = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(b"{\"error\":\"not yet\"}\n").unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    });
    let request = PodRequest {
        namespace: "shop".to_owned(),
        name: "api-0".to_owned(),
        uid: None,
        interface: Some("veth7".to_owned()),
        addresses: ["10.0.0.7".parse().unwrap()].into(),
        wait_ms: 10_000,
    };
    let error = client::pod(&socket, request).unwrap_err();
    let failure = unavailable(&error, Code::TryAgainLater).value("1.0.0");
    let details = failure["details"].as_str().unwrap();
    assert!(
        details.contains("not yet") && details.contains("admit"),
        "{details}"
    );
    let expected = json!({
        "command": "pod", "namespace": "shop", "name": "api-0", "interface": "veth7",
        "addresses": ["10.0.0.7"], "waitMs": 10_000,
    });
    assert_eq!(agent.join().unwrap(), expected);
}
