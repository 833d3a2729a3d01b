//! What the verifier makes of the programs: how many instructions it walks through, and how much
//! stack they use.

use std::{io, path::Path, time::Duration};

use agent_common::table::Endpoint;
use anyhow::{Context as _, bail};
use aya::{
    Btf, VerifierLogLevel,
    programs::{CgroupSockopt, ProgramError},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    BYTES, CONNECTS, Constants, Frames, OPTIONS, Sizes, cgroup_skb, cgroup_sock_addr, classifier,
    iterator, load_process, load_with, program,
};
use crate::datapath::{process, task};

/// What loading a program costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub program: &'static str,
    /// Instructions that the verifier went through, on all ways together.
    pub verified: u32,
    /// Bytes of stack as the verifier tells them: the program's own, then those of each function
    /// that it calls, in the order of the object. At most 512 on any chain of calls.
    pub stack: String,
    /// How long the verifier took.
    pub time: Duration,
}

/// What the object was made of, as far as that changes a cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// As the compiler names itself in debug information.
    pub compiler: Option<String>,
    pub form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it ships.
    Release,
    /// With messages, which cost instructions and stack too.
    Debug,
}

/// The object that is loaded.
pub fn build() -> Build {
    let form = match position(BYTES, b"AYA_LOGS\0") {
        Some(_) => Form::Debug,
        None => Form::Release,
    };
    Build {
        compiler: compiler(BYTES),
        form,
    }
}

/// Has the verifier judge each program that the agent loads.
pub(crate) fn costs(folder: &Path, sizes: &Sizes) -> anyhow::Result<Vec<Cost>> {
    let object = |flags| {
        let constants = Constants {
            endpoint: Endpoint { id: 1, flags },
            frames: &Frames::default(),
            offsets: task::offsets().unwrap_or_default(),
            notes: true,
        };
        load_with(folder, sizes, constants, VerifierLogLevel::STATS)
    };
    let mut service = object(0)?;
    let mut costs = Vec::new();
    let of_interfaces = [
        "from_endpoint",
        "to_endpoint",
        "from_host",
        "from_host_bare",
        "clock",
        "prompt",
    ];
    for name in of_interfaces {
        let program = classifier(&mut service, name)?;
        costs.push(cost(name, || program.load())?);
    }
    let btf = Btf::from_sys_fs().context("the kernel says nothing of its types")?;
    let iterators = [
        ("withdrawn_v4", "bpf_map_elem"),
        ("withdrawn_v6", "bpf_map_elem"),
        ("told_v4", "bpf_sk_storage_map"),
        ("told_v6", "bpf_sk_storage_map"),
    ];
    for (name, kind) in iterators {
        let program = iterator(&mut service, name)?;
        costs.push(cost(name, || program.load(kind, &btf))?);
    }
    for (name, _) in process::HOOKS {
        let program = program(&mut service, name)?;
        costs.push(cost(name, || load_process(program))?);
    }
    // A node's own copy takes other ways than that of a service.
    let mut node = object(Endpoint::ONLY_OWN)?;
    let names = ["cgroup_ingress", "cgroup_egress"];
    let of_node = ["cgroup_ingress of a node", "cgroup_egress of a node"];
    for (object, shown) in [(&mut service, names), (&mut node, of_node)] {
        for (name, shown) in names.into_iter().zip(shown) {
            let program = cgroup_skb(object, name)?;
            costs.push(cost(shown, || program.load())?);
        }
    }
    for name in CONNECTS {
        let program = cgroup_sock_addr(&mut service, name)?;
        costs.push(cost(name, || program.load())?);
    }
    let options: &mut CgroupSockopt = program(&mut service, OPTIONS)?.try_into()?;
    costs.push(cost(OPTIONS, || options.load())?);
    Ok(costs)
}

fn cost(
    program: &'static str,
    load: impl FnOnce() -> Result<(), ProgramError>,
) -> anyhow::Result<Cost> {
    let said = judged(load).with_context(|| format!("failed to load `{program}`"))?;
    figures(program, &said)
        .with_context(|| format!("no figures of `{program}` in what the verifier said: {said}"))
}

/// What the verifier says of a program that it has nothing against.
///
/// aya keeps that only of a program that the kernel refuses. So it has to be refused for another
/// reason: the last step of a load is to give it a descriptor, and there is none.
fn judged(load: impl FnOnce() -> Result<(), ProgramError>) -> anyhow::Result<String> {
    let _full = NoDescriptors::begin().context("failed to limit descriptors")?;
    match load() {
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) if io_error.raw_os_error() == Some(libc::EMFILE) => Ok(verifier_log.to_string()),
        Err(error) => Err(error.into()),
        Ok(()) => bail!("it was given a descriptor, beyond the limit of this process"),
    }
}

/// While it lives, this process is given no new descriptor.
struct NoDescriptors(Rlimit);

impl NoDescriptors {
    fn begin() -> io::Result<Self> {
        let before = getrlimit(Resource::Nofile);
        let none = Rlimit {
            current: Some(0),
            maximum: before.maximum,
        };
        limit(none)?;
        Ok(Self(before))
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        let Self(before) = self;
        if let Err(error) = limit(*before) {
            tracing::warn!(%error, "the limit of descriptors stays at none");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "raises no limit: it lowers one for a moment"
)]
fn limit(descriptors: Rlimit) -> io::Result<()> {
    Ok(setrlimit(Resource::Nofile, descriptors)?)
}

/// The verifier's closing words:
///
/// ```text
/// verification time 7123 usec
/// stack depth 224+0+128
/// processed 1732 insns (limit 1000000) max_states_per_insn 4 …
/// ```
fn figures(program: &'static str, said: &str) -> Option<Cost> {
    let between = |start: &str, end: &str| {
        let rest = said.lines().find_map(|line| line.strip_prefix(start))?;
        rest.strip_suffix(end)
            .or_else(|| Some(rest.split_once(end)?.0))
    };
    Some(Cost {
        program,
        verified: between("processed ", " insns")?.parse().ok()?,
        stack: between("stack depth ", "")?.to_owned(),
        time: Duration::from_micros(between("verification time ", " usec")?.parse().ok()?),
    })
}

/// The compiler in debug information: `clang LLVM (rustc version 1.96.0 (… 2026-05-25))`.
fn compiler(object: &[u8]) -> Option<String> {
    let mark = b"(rustc version ";
    let rest = object.get(position(object, mark)? + mark.len()..)?;
    let text = rest.get(..position(rest, b")\0")?)?;
    let text = std::str::from_utf8(text).ok()?;
    Some(format!("rustc {text}"))
}

fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_verifier_said() {
        let said = "verification time 71 usec\nstack depth 224+0+128\n\
                    processed 1732 insns (limit 1000000) max_states_per_insn 4 total_states 9\n";
        let cost = figures("p", said).unwrap();
        let expected = Cost {
            program: "p",
            verified: 1732,
            stack: "224+0+128".to_owned(),
            time: Duration::from_micros(71),
        };
        assert_eq!(cost, expected);
        assert_eq!(figures("p", "processed 12 insns (limit 1000000)\n"), None);
        assert_eq!(figures("p", ""), None);
    }

    #[test]
    fn the_compiler_is_read_from_the_object() {
        let object = b"\0x\0clang LLVM (rustc version 1.96.0 (ac68 2026-05-25) (tarball))\0core\0";
        let expected = "rustc 1.96.0 (ac68 2026-05-25) (tarball)";
        assert_eq!(compiler(object).as_deref(), Some(expected));
        assert_eq!(compiler(b"clang version 19"), None);
    }
}
