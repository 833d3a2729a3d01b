//! Prometheus is answered, by the agent of a real datapath, and reads the answer.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::consumer::{Running, program};
use ringfence_lab::lab::Netns;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

const METRICS: &str = "127.0.0.1:9464";
const PROMETHEUS: &str = "127.0.0.1:9090";
const SOON: Duration = Duration::from_secs(30);

/// The body of what a server in a namespace answers.
fn get(host: &Netns, address: &str, path: &str) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let answer = host.within(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(SOON))?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        anyhow::Ok(answer)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.contains(" 200 OK"), "{head}");
    Ok(body.to_owned())
}

/// The value of a series, by its text before the value.
fn value(scraped: &str, series: &str) -> Option<f64> {
    let line = scraped.lines().find_map(|line| line.strip_prefix(series));
    line?.trim().parse().ok()
}

struct Scraped {
    agent: Agent,
    scene: Scene,
}

impl Scraped {
    fn new() -> Result<Self> {
        let scene = Scene::with(FRIEND_ONLY)?;
        let mut agent = scene.agent()?.with(&["--metrics", METRICS]);
        agent.start()?;
        Ok(Self { agent, scene })
    }

    fn host(&self) -> &Netns {
        self.scene.lab.host()
    }

    fn has(&self, expected: &[(&str, f64)]) -> Result<()> {
        let mut last = String::new();
        let is_so = eventually(SOON, || {
            last = get(self.host(), METRICS, "/metrics").unwrap_or_default();
            let mut expected = expected.iter();
            expected.all(|(series, least)| value(&last, series).is_some_and(|it| it >= *least))
        });
        ensure!(is_so, "{last}\n{}", self.agent.log());
        Ok(())
    }
}

#[test]
fn numbers_follow_traffic() -> Result<()> {
    let scraped = Scraped::new()?;
    let scene = &scraped.scene;
    let (friend, server) = (&scene.friend, &scene.server);
    ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
    ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
    scraped.has(&[
        ("ringfence_enforcing ", 1.0),
        ("ringfence_endpoints{state=\"attached\"} ", 3.0),
        ("ringfence_policies{kind=\"NetworkPolicy\"} ", 1.0),
        ("ringfence_dropped_packets_total{reason=\"default-deny\"} ", 1.0),
        ("ringfence_apply_seconds_count ", 1.0),
        (
            "ringfence_flow_records_total{kind=\"start\",verdict=\"allow\",direction=\"ingress\",reason=\"rule\",\
             policy=\"NetworkPolicy/shop/server\"} ",
            1.0,
        ),
        (
            "ringfence_flow_packets_total{kind=\"deny\",verdict=\"deny\",direction=\"ingress\",\
             reason=\"default-deny\",policy=\"\"} ",
            1.0,
        ),
    ])
}

#[test]
fn who_asks_nothing_keeps_nobody_out_for_long() -> Result<()> {
    let scraped = Scraped::new()?;
    let address: SocketAddr = METRICS.parse()?;
    let silent = scraped.host().within(|| {
        let connections = (0..20).map(|_| TcpStream::connect(address));
        connections.collect::<Result<Vec<_>, _>>()
    })?;
    scraped.has(&[("ringfence_enforcing ", 1.0)])?;
    drop(silent);
    Ok(())
}

#[test]
fn a_prometheus_scrapes_it_and_takes_the_rules() -> Result<()> {
    let Some(mut prometheus) = program("prometheus") else {
        return Ok(());
    };
    let scraped = Scraped::new()?;
    let rules = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../agent/deploy/monitoring/alerts.yaml"
    );
    let configuration = scraped.scene.lab.write(
        "prometheus.yaml",
        &format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{rules}']\n\
             scrape_configs: [{{job_name: ringfence, static_configs: [{{targets: ['{METRICS}']}}]}}]\n"
        ),
    )?;
    let storage = scraped.scene.lab.folder().join("prometheus");
    prometheus
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", storage.display()))
        .arg(format!("--web.listen-address={PROMETHEUS}"));
    let host = scraped.host();
    let _running = Running::start(host, &mut prometheus)?;
    let ask =
        |path: &str| -> Result<Value> { Ok(serde_json::from_str(&get(host, PROMETHEUS, path)?)?) };
    let mut last = Ok(Value::Null);
    let is_scraped = eventually(SOON, || {
        last = ask("/api/v1/query?query=ringfence_enforcing");
        last.as_ref()
            .is_ok_and(|answer| answer["data"]["result"][0]["value"][1] == "1")
    });
    ensure!(is_scraped, "{last:?}\n{:?}", ask("/api/v1/targets"));
    // Histograms are histograms.
    let quantile =
        ask("/api/v1/query?query=histogram_quantile(0.5,ringfence_apply_seconds_bucket)")?;
    ensure!(
        quantile["data"]["result"][0]["value"].is_array(),
        "{quantile}"
    );
    let is_evaluated = eventually(SOON, || {
        last = ask("/api/v1/rules");
        let Ok(answer) = &last else { return false };
        let rules = answer["data"]["groups"][0]["rules"].as_array();
        rules
            .is_some_and(|rules| rules.len() > 4 && rules.iter().all(|rule| rule["health"] == "ok"))
    });
    ensure!(is_evaluated, "{last:?}");
    let rules = last?;
    let firing = rules["data"]["groups"][0]["rules"].as_array();
    let quiet = firing.is_some_and(|rules| rules.iter().all(|rule| rule["state"] == "inactive"));
    ensure!(quiet, "{rules}");

    let (friend, server) = (&scraped.scene.friend, &scraped.scene.server);
    ensure!(friend.probe(Protocol::Tcp, server.v4(PORT)) == Outcome::Allowed);
    ensure!(friend.probe(Protocol::Tcp, server.v4(OTHER_PORT)) == Outcome::TimedOut);
    for expression in expressions_of_the_dashboard()? {
        let path = format!("/api/v1/query?query={}", percent_encoded(&expression));
        // This agent has no Kubernetes API.
        let may_be_empty = expression.contains("ringfence_kubernetes_");
        let mut drawn = Ok(Value::Null);
        let is_drawn = eventually(SOON, || {
            drawn = ask(&path);
            drawn.as_ref().is_ok_and(|answer| {
                let series = answer["data"]["result"].as_array();
                answer["status"] == "success"
                    && series.is_some_and(|it| may_be_empty || !it.is_empty())
            })
        });
        ensure!(is_drawn, "{expression}: {drawn:?}");
    }
    Ok(())
}

/// With all instances, over as long as a test may wait for.
fn expressions_of_the_dashboard() -> Result<Vec<String>> {
    let text = include_str!("../../agent/deploy/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(text)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let expressions: Vec<_> = targets
        .filter_map(|target| target["expr"].as_str())
        .map(|text| {
            text.replace("$instance", ".+")
                .replace("$__rate_interval", "1m")
        })
        .collect();
    ensure!(expressions.len() > 10, "{expressions:?}");
    Ok(expressions)
}

fn percent_encoded(text: &str) -> String {
    let encoded = text.bytes().map(|byte| match byte {
        b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    encoded.collect()
}
