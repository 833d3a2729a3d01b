//! What this process may do: a capability is given up as soon as nothing needs it any more.
//!
//! Each thread has capabilities of its own, so all of this is done before there is a second one.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Programs and maps, where they hang, and what programs may look at.
const ENFORCING: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::PERFMON);

/// To enter network namespaces, and to find those that only processes lead to.
pub(crate) const VISITING: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::SYS_PTRACE);

/// To read what belongs to others, and to write it too: the lesser first.
const FILES: [CapabilitySet; 2] = [CapabilitySet::DAC_READ_SEARCH, CapabilitySet::DAC_OVERRIDE];
const ALL_FILES: CapabilitySet = CapabilitySet::DAC_READ_SEARCH.union(CapabilitySet::DAC_OVERRIDE);

/// What a process keeps for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// What it may do at once.
    pub(crate) effective: CapabilitySet,
    pub(crate) permitted: CapabilitySet,
    /// What programs that it starts get.
    pub(crate) handed_on: CapabilitySet,
}

/// A capability that is kept for the sake of some file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForFiles<P> {
    pub(crate) capability: CapabilitySet,
    /// The first that it is needed for.
    pub(crate) path: P,
}

/// What this thread holds.
pub(crate) fn held() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// Of what is held, what an agent needs from its start to its end.
///
/// `CAP_SYS_ADMIN` stands for the two that were split off it in 5.8 where they are not held: who gives
/// a container only the old one gets an agent that keeps it.
pub(crate) fn of_agent(held: CapabilitySet) -> CapabilitySet {
    let is_split = held.contains(CapabilitySet::BPF | CapabilitySet::PERFMON);
    let old = if is_split {
        CapabilitySet::empty()
    } else {
        CapabilitySet::SYS_ADMIN
    };
    held & (ENFORCING | old)
}

/// Those that an agent needs and that are not held.
pub(crate) fn missing(held: CapabilitySet) -> Vec<String> {
    let stood_in = if held.contains(CapabilitySet::SYS_ADMIN) {
        CapabilitySet::BPF | CapabilitySet::PERFMON
    } else {
        CapabilitySet::empty()
    };
    names(ENFORCING - held - stood_in)
}

/// As `capabilities(7)` has them.
pub(crate) fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names()
        .map(|(name, _)| format!("CAP_{name}"))
        .collect()
}

/// Gives up all but `kept`, for good: no program that is started from here gets more.
///
/// Taking a capability out of the bounding set needs `CAP_SETPCAP`. Without it the set stays: it only
/// says what could be gained, and `NoNewPrivs` says that nothing can.
pub(crate) fn restrict(kept: Kept) -> io::Result<()> {
    let Kept {
        effective,
        permitted,
        handed_on,
    } = kept;
    if held()?.contains(CapabilitySet::SETPCAP) {
        for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
            match capability_is_in_bounding_set(capability) {
                Ok(true) if !permitted.contains(capability) => {
                    remove_capability_from_bounding_set(capability)?;
                }
                Ok(_) => {}
                // The kernel knows no more.
                Err(_) => break,
            }
        }
    }
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective,
            permitted,
            inheritable: handed_on,
        },
    )?;
    for capability in handed_on.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(set_no_new_privs(true)?)
}

/// Has programs that are started from here get these, whoever the user is, until [`restrict`].
pub(crate) fn hand_on(set: CapabilitySet) -> io::Result<()> {
    let sets = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            inheritable: sets.inheritable | set,
            ..sets
        },
    )?;
    for capability in set.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// The least of the capabilities over files by which as much can be reached as by all of them; `None` if
/// that is as much as by none.
///
/// `unreachable` tells what the calling thread cannot reach now.
pub(crate) fn for_files<P: Clone + PartialEq>(
    held: CapabilitySet,
    unreachable: impl Fn() -> Vec<P>,
) -> io::Result<Option<ForFiles<P>>> {
    let sets = capabilities(None)?;
    let with = |some: CapabilitySet| {
        let effective = (sets.effective - ALL_FILES) | (held & some);
        set_capabilities(None, CapabilitySets { effective, ..sets })?;
        io::Result::Ok(unreachable())
    };
    let outcome = || {
        let all = with(ALL_FILES)?;
        let none = with(CapabilitySet::empty())?;
        let Some(path) = none.into_iter().find(|path| !all.contains(path)) else {
            return Ok(None);
        };
        for capability in FILES {
            if with(capability)? == all {
                return Ok(Some(ForFiles { capability, path }));
            }
        }
        Ok(None)
    };
    let found = outcome();
    set_capabilities(None, sets)?;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(missing(ENFORCING).is_empty());
        let old = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert!(missing(old).is_empty());
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), ["CAP_NET_ADMIN"]);
        assert_eq!(
            missing(CapabilitySet::NET_ADMIN),
            ["CAP_PERFMON", "CAP_BPF"]
        );
    }

    #[test]
    fn an_agent_keeps_three_and_the_old_one_only_where_it_stands_for_them() {
        assert_eq!(of_agent(CapabilitySet::all()), ENFORCING);
        assert_eq!(of_agent(ENFORCING | VISITING), ENFORCING);
        let old = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert_eq!(of_agent(old | CapabilitySet::CHOWN), old);
    }
}
