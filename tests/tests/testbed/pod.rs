//! A pod at a hook that is given packets by hand.

use std::{collections::BTreeMap, path::PathBuf};

use agent_common::table::Endpoint;
use agent_policy::{
    compile::{Scope, compile},
    compiled::Clock,
    load::{InputFile, load},
    model::SubjectName,
};
use anyhow::{Context as _, Result, ensure};
use ringfence::datapath::{object::Sizes, testbed::Testbed};

/// The number of the endpoint.
pub(crate) const ID: u16 = 1;

/// The first workload of a policy file, at the interface of a testbed.
pub(crate) struct Pod {
    pub(crate) bed: Testbed,
    endpoints: BTreeMap<u16, SubjectName>,
}

impl Pod {
    pub(crate) fn new(name: &str, policy: &str) -> Result<Self> {
        let path = format!("/sys/fs/bpf/ringfence-test-{}-{name}", std::process::id());
        let bed = Testbed::new(&PathBuf::from(path), Sizes::default())?;
        let mut pod = Self {
            bed,
            endpoints: BTreeMap::new(),
        };
        pod.policy(policy)?;
        Ok(pod)
    }

    /// Puts this in force instead.
    pub(crate) fn policy(&mut self, text: &str) -> Result<()> {
        let loaded = load([InputFile {
            name: "policy.yaml".into(),
            bytes: text.as_bytes().to_vec(),
        }]);
        ensure!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        let pod = loaded.world.workloads.keys().next().context("a workload")?;
        let pod: SubjectName = pod.clone().into();
        let scope = Scope {
            subjects: [pod.clone()].into(),
            ..Scope::default()
        };
        let compiled = compile(&loaded.world, &scope, &BTreeMap::new(), Clock::default());
        self.endpoints.insert(ID, pod);
        self.bed.apply(&compiled, &self.endpoints)?;
        let subject = compiled.subjects.values().next().context("a subject")?;
        self.bed.place(Endpoint {
            id: ID,
            flags: subject.flags,
        })
    }
}
