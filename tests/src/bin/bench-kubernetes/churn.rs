//! Pods that change, at a rate.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use ringfence_lab::api_server::proxy::Connection;
use ringfence_lab::report::Report;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Size, address, at_once};
use crate::objects;

/// Connections that share the rate.
const CONNECTIONS: u32 = 4;

pub(crate) struct Churn {
    begun: Instant,
    made: Arc<AtomicU32>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Churn {
    /// As many changes a second, each told by the API: of four, one pod comes, runs, has another label, and goes.
    pub(crate) fn start(cluster: &Cluster, rate: u32) -> Result<Self> {
        let (made, done) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let mut threads = Vec::new();
        let every = Duration::from_secs(1) * CONNECTIONS / rate;
        for lane in 0..CONNECTIONS {
            let lane = Lane {
                number: lane,
                size: cluster.size,
                calls: cluster.proxy.connect()?,
                made: Arc::clone(&made),
                done: Arc::clone(&done),
                next: Instant::now() + every * lane / CONNECTIONS,
                every,
            };
            threads.push(thread::spawn(move || lane.run()));
        }
        Ok(Self {
            begun: Instant::now(),
            made,
            done,
            threads,
        })
    }

    pub(crate) fn stop(self, report: &mut Report) -> Result<()> {
        let Self {
            begun,
            made,
            done,
            threads,
        } = self;
        let rate = f64::from(made.load(Ordering::Relaxed)) / begun.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().expect("no panic")?;
        }
        report.figure("pod changes made", "100", "a second", vec![("rate", rate)]);
        Ok(())
    }
}

struct Lane {
    number: u32,
    size: Size,
    calls: Connection,
    made: Arc<AtomicU32>,
    done: Arc<AtomicBool>,
    next: Instant,
    every: Duration,
}

impl Lane {
    fn run(mut self) -> Result<()> {
        let mut number = 1_000_000 + self.number;
        while !self.done.load(Ordering::Relaxed) {
            // Beside those that fill the cluster, and never on our node.
            let (namespace, mut pod) = objects::filler(number, self.size);
            pod["spec"]["nodeName"] = json!("node-1");
            pod["metadata"]["name"] = json!(format!("churn-{number}"));
            let path = objects::path(&namespace, &format!("churn-{number}"));
            let all = format!("/api/v1/namespaces/{namespace}/pods");
            let label = json!({"metadata": {"labels": {"app": "app-7", "tier": "front"}}});
            let running = objects::running(address(number));
            self.change("POST", &all, &pod)?;
            self.change("PATCH", &(path.clone() + "/status"), &running)?;
            self.change("PATCH", &path, &label)?;
            self.change("DELETE", &path, &at_once())?;
            number += CONNECTIONS;
        }
        Ok(())
    }

    /// Once it is due.
    fn change(&mut self, method: &str, path: &str, body: &Value) -> Result<()> {
        let (_alive, beat) = mpsc::sync_channel::<()>(1);
        let rest = self.next.saturating_duration_since(Instant::now());
        let _due = beat.recv_timeout(rest).is_ok();
        self.next += self.every;
        self.calls.must(method, path, body)?;
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
