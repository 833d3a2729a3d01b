//! A pod of another node that policies let in: from its creation until what it sends is let in; and from its deletion
//! until it is not.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::Result;
use ringfence_lab::report::Report;

use crate::cluster::{ALWAYS, Cluster, NAMESPACE, at_once};
use crate::objects;
use crate::probe::Heard;

/// Of addresses of the lab's network, the first that no peer has.
const FIRST: u32 = 20;

pub(crate) fn measure(cluster: &Cluster, times: u32, report: &mut Report) -> Result<()> {
    let heard = Heard::new();
    let _listens = heard.listen(&cluster.server, ALWAYS)?;
    let mut calls = cluster.proxy.connect()?;
    let (mut created, mut running, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..times {
        let address = Ipv4Addr::new(10, 77, 0, u8::try_from(FIRST + number)?);
        cluster
            .client
            .ip(&format!("addr add {address}/24 dev eth0"))?;
        let _sends = heard.send(&cluster.client, number, address, cluster.server.v4(ALWAYS));
        let name = format!("arrival-{number}");
        let pod = objects::pod(NAMESPACE, &name, "node-1", &objects::measured("client"));
        heard.expect(number, Instant::now());
        let all = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let path = objects::path(NAMESPACE, &name);
        let made = calls.must("POST", &all, &pod)?;
        let runs = calls.must(
            "PATCH",
            &(path.clone() + "/status"),
            &objects::running(address),
        )?;
        let opened = heard.opens(number)?;
        created.push(opened.saturating_duration_since(made.sent));
        running.push(opened.saturating_duration_since(runs.sent));
        heard.expect(number, Instant::now());
        let gone = calls.must("DELETE", &path, &at_once())?;
        deleted.push(heard.closes(number)?.saturating_duration_since(gone.sent));
    }
    let name = "pod_creation_reachability_latency_seconds";
    report.metric(&format!("{name}, of a pod elsewhere"), "", created);
    report.times("  from when its address was told", "", running);
    report.times("a pod elsewhere deleted to no longer let in", "", deleted);
    Ok(())
}
