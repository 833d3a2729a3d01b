//! The kernel's tables, asked from here: by the same function as there.

use std::{net::IpAddr, path::Path};

use agent_common::{
    decide::{Question, Tables, decide},
    protocol::Address,
    table::{Decision, NO_TABLE, PolicyKey, PortKey, Versioned, WORLD},
    verdict::Verdict,
};
use aya::maps::lpm_trie::Key as Prefix;

use crate::datapath::{maps::LookUps, raw::Raw};

/// One look-up is one system call: for single questions, not for each packet.
#[derive(Debug)]
pub(crate) struct KernelTables {
    maps: LookUps,
    /// Nanoseconds of the boot clock.
    now: fn() -> u64,
}

impl KernelTables {
    pub(crate) fn open(folder: &Path, now: fn() -> u64) -> anyhow::Result<Self> {
        Ok(Self {
            maps: LookUps::open(folder)?,
            now,
        })
    }

    pub(crate) fn decide<A: Address>(&self, question: &Question<A>) -> Verdict
    where
        Self: Tables<A>,
    {
        decide(self, question)
    }

    fn identity_at(&self, slot: Option<u32>) -> Versioned {
        slot.map_or(Versioned::settled(WORLD), |slot| {
            Versioned(self.maps.identities.load(slot))
        })
    }

    fn table_for(&self, key: &PolicyKey) -> Versioned {
        let slot = self.maps.policy.get(&Raw(*key), 0);
        slot.map_or(Versioned::settled(NO_TABLE), |Raw(slot)| {
            Versioned(self.maps.answers.load(slot))
        })
    }

    fn decision_for(&self, key: PortKey) -> Decision {
        let key = Prefix::new(PortKey::PORT_BITS, Raw(key));
        let decision = self.maps.ports.get(&key, 0);
        decision.map_or(Decision::NO_MATCH, |Raw(decision)| decision)
    }
}

macro_rules! tables {
    ($address:ty) => {
        impl Tables<$address> for KernelTables {
            fn identity(&self, address: &$address) -> Versioned {
                self.identity_at(self.maps.ipcache.get(IpAddr::from(*address).into()))
            }

            fn port_table(&self, key: &PolicyKey) -> Versioned {
                self.table_for(key)
            }

            fn decision(&self, key: &PortKey) -> Decision {
                self.decision_for(*key)
            }

            fn now(&self) -> u64 {
                (self.now)()
            }
        }
    };
}
tables!([u8; 4]);
tables!([u8; 16]);
