//! Finds flows that policy no longer permits: the kernel goes through its tables and judges them.
//!
//! A change may touch an endpoint with a hundred thousand flows, and end one: asked from here, each
//! would cost a system call or two. See [ADR 18](../../docs/adr/0018-flows-found-in-the-kernel.md).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    net::IpAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use agent_common::{abi::Abi, flow::FlowKey, withdrawn::TOUCHED};
use aya::maps::{Array, Map, MapData};

use crate::datapath::{
    raw::{self, Raw},
    sockets::Connected,
    syscall,
};

/// Programs that go through the flow tables, attached for as long as this lives.
pub(crate) struct Search {
    v4: OwnedFd,
    v6: OwnedFd,
    looked_at: Array<MapData, Raw<u32>>,
}

/// The sockets of flows that are no longer permitted, by endpoint.
pub(crate) type Withdrawn = BTreeMap<u16, Vec<Connected>>;

/// What the kernel hands over at a time, at most.
const READ: usize = 1 << 16;

// === impl Search ===

impl Search {
    /// From one iterator for each family, and the map that they ask which endpoints are meant.
    pub(crate) fn new(v4: OwnedFd, v6: OwnedFd, looked_at: Map) -> anyhow::Result<Self> {
        let looked_at = looked_at.try_into()?;
        Ok(Self { v4, v6, looked_at })
    }

    /// Of these endpoints, given with their flags.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked.
    pub(crate) fn withdrawn(
        &mut self,
        endpoints: &BTreeMap<u16, u16>,
    ) -> anyhow::Result<Withdrawn> {
        let mut found = Withdrawn::new();
        let gone_through = self.go_through(endpoints, &mut found);
        // They would be looked at for nothing with the next change of others.
        for endpoint in endpoints.keys() {
            self.looked_at.set(u32::from(*endpoint), Raw(0), 0)?;
        }
        gone_through.map(|()| found)
    }

    fn go_through(
        &mut self,
        endpoints: &BTreeMap<u16, u16>,
        found: &mut Withdrawn,
    ) -> anyhow::Result<()> {
        for (endpoint, flags) in endpoints {
            let looked_at = Raw(u32::from(*flags) | TOUCHED);
            self.looked_at.set(u32::from(*endpoint), looked_at, 0)?;
        }
        collect::<[u8; 4]>(syscall::iterate(self.v4.as_fd())?, found)?;
        collect::<[u8; 16]>(syscall::iterate(self.v6.as_fd())?, found)?;
        Ok(())
    }
}

/// Takes what an iterator writes: keys, one behind the other.
fn collect<A: Into<IpAddr>>(mut iterator: File, found: &mut Withdrawn) -> io::Result<()>
where
    FlowKey<A>: Abi,
{
    let size = size_of::<FlowKey<A>>();
    let mut bytes = vec![0; READ];
    let mut held = 0;
    loop {
        let read = match iterator.read(bytes.get_mut(held..).unwrap_or_default()) {
            Ok(0) => return Ok(()),
            Ok(read) => held + read,
            Err(error) if syscall::is_to_be_asked_again(&error) => continue,
            Err(error) => return Err(error),
        };
        let whole = read - read % size;
        let keys = bytes.get(..whole).unwrap_or_default().chunks_exact(size);
        for key in keys.filter_map(raw::read::<FlowKey<A>>) {
            let connected = Connected {
                protocol: key.protocol,
                local: (key.local.into(), key.local_port),
                remote: (key.remote.into(), key.remote_port),
            };
            found.entry(key.endpoint).or_default().push(connected);
        }
        bytes.copy_within(whole..read, 0);
        held = read - whole;
    }
}
