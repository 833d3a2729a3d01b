//! The ways out of the node, watched for frames that processes of confined cgroups make themselves.
//!
//! A hook of a cgroup sees what goes through a socket of IP, and no frame of a packet socket. So while an
//! endpoint is a cgroup, a program at every interface looks for those: the host sides of pods are ways out
//! of the node's services too.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd as _, OwnedFd},
};

use agent_common::table::Endpoint;

use crate::datapath::{
    attach::{
        AttachError,
        outlet::{self, Outlet},
    },
    engine::{Engine, lock},
    link::Link,
    tamper::Tampering,
};

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`: where frames have an Ethernet header.
const WITH_LINK: [u16; 2] = [1, 772];

#[derive(Debug, Default)]
pub(super) struct Guard {
    /// For frames with an Ethernet header, and without.
    programs: Option<[OwnedFd; 2]>,
    outlets: BTreeMap<u32, Outlet>,
    /// Interfaces of which something was noticed that could not be put right.
    unrestored: BTreeSet<u32>,
}

impl Engine {
    /// Sees to it that every way out is watched if an endpoint is a cgroup, and none if not. What is not
    /// watched, and why.
    pub(crate) fn guard(&mut self) -> Vec<String> {
        self.try_guard()
            .unwrap_or_else(|error| vec![format!("at any interface: {error:#}")])
    }

    fn try_guard(&mut self) -> anyhow::Result<Vec<String>> {
        let is_needed = self
            .cgroups
            .iter()
            .any(|(_, endpoint)| !endpoint.has(Endpoint::ONLY_OWN));
        let links: Vec<Link> = if is_needed {
            self.links.iter().cloned().collect()
        } else {
            Vec::new()
        };
        let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        for gone in outlet::attached(&self.dir)?.difference(&there) {
            outlet::release(&self.dir, *gone)?;
        }
        self.guard.outlets.retain(|index, _| there.contains(index));
        self.guard.unrestored.retain(|index| there.contains(index));
        let mut unwatched = Vec::new();
        for link in &links {
            match self.watch(link) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => unwatched.push(format!("at interface {}: {error:#}", link.name)),
            }
        }
        Ok(unwatched)
    }

    fn watch(&mut self, link: &Link) -> anyhow::Result<()> {
        let Some(outlet) = self.guard.outlets.get(&link.index) else {
            return self.let_out(link);
        };
        let Some(kind) = outlet.interference(&self.dir)? else {
            return Ok(());
        };
        let restored = outlet
            .name_again(&self.dir)
            .map_err(anyhow::Error::from)
            .and_then(|()| self.let_out(link));
        let is_known = match &restored {
            Ok(()) => {
                self.guard.unrestored.remove(&link.index);
                false
            }
            Err(error) if is_gone(error) => true,
            Err(_) => !self.guard.unrestored.insert(link.index),
        };
        if !is_known {
            self.noticed.push(Tampering {
                kind,
                what: format!("interface {}", link.name),
                count: 1,
                restored: restored.is_ok(),
            });
        }
        restored
    }

    fn let_out(&mut self, link: &Link) -> anyhow::Result<()> {
        let loaded = match self.guard.programs.take() {
            Some(loaded) => loaded,
            None => lock(&self.programs).of_host()?,
        };
        let [framed, bare] = self.guard.programs.insert(loaded);
        let program = if WITH_LINK.contains(&link.hardware) {
            framed
        } else {
            bare
        };
        let outlet = outlet::attach(&self.dir, link.index, self.hook, program.as_fd())?;
        self.guard.outlets.insert(link.index, outlet);
        Ok(())
    }
}

/// Whether the interface went away meanwhile, and all with it.
fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<AttachError>();
    error.is_some_and(AttachError::target_vanished)
}
