//! The programs, and how they are loaded.

pub mod cost;

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use agent_common::{
    fragment, parse::FRAME_TYPES, refusal, rejection, share, table::Endpoint, verdict::Reason,
};
use anyhow::Context as _;
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, MapData, ProgramArray},
    programs::{
        CgroupSkb, CgroupSockAddr, CgroupSockopt, Iter, LsmCgroup, Program, ProgramError,
        SchedClassifier, TestRun as _, TestRunOptions,
    },
};

use aya_log::EbpfLogger;
use rustix::rand::GetRandomFlags;
use tokio::io::unix::AsyncFd;

use crate::datapath::{
    attach::{self, Calls},
    lsm, maps, process,
    raw::Raw,
    syscall,
    task::Offsets,
    told::Telling,
    withdrawn::Search,
};

/// The object, built by `cargo xtask build`.
pub(crate) static BYTES: &[u8] = aya::include_bytes_aligned!(env!("RINGFENCE_BPF_OBJECT"));

/// Room that the tables are made with; tables that are already pinned keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// At most 65,535.
    pub endpoints: u32,
    /// Prefixes of each family.
    pub prefixes: u32,
    pub policy: u32,
    pub ports: u32,
    pub own_addresses: u32,
    /// Flows of each family.
    pub flows: u32,
    pub denials: u32,
    /// Bytes; a power of two, and a multiple of the page size.
    pub events: u32,
    /// Likewise, of what is said to resolvers and by them; 0: that is not told.
    pub names: u32,
}

/// What the kernel makes a ring of at least, wherever pages are of 4 to 64 KiB.
const SMALLEST_RING: u32 = 1 << 16;

impl Default for Sizes {
    fn default() -> Self {
        Self {
            endpoints: 1024,
            prefixes: 200_000,
            policy: 262_144,
            ports: 65_536,
            own_addresses: 4096,
            flows: 131_072,
            denials: 16_384,
            events: 4 << 20,
            names: 1 << 20,
        }
    }
}

/// Types of frames that pass beside IP and ARP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames([u16; FRAME_TYPES]);

impl Frames {
    /// How many there can be.
    pub(crate) const MOST: usize = FRAME_TYPES;

    /// `None` if they are more than the programs have room for.
    pub fn of(types: impl IntoIterator<Item = u16>) -> Option<Self> {
        let mut frames = Self::default();
        let Self(slots) = &mut frames;
        let mut slots = slots.iter_mut();
        for kind in types {
            *slots.next()? = kind;
        }
        Some(frames)
    }
}

impl Sizes {
    /// An endpoint has one for each class that the addresses of its node are of, and these are few.
    pub(crate) fn sockets(&self) -> u32 {
        self.endpoints.saturating_mul(8)
    }
}

/// The programs for interfaces, loaded.
pub(crate) struct Programs {
    object: Ebpf,
    /// What sockets count is told with it; where there is none, flows are not noted in them.
    telling: Option<Arc<Telling>>,
}

/// The programs for one cgroup, loaded.
pub(crate) struct CgroupPrograms {
    object: Ebpf,
    /// Whether sockets are asked what they ask for; and why not by a security module.
    calls: Option<Result<(), Arc<str>>>,
}

/// What is asked when a socket asks for a connection, of each family.
const CONNECTS: [&str; 2] = ["cgroup_connect4", "cgroup_connect6"];

/// What is asked when a socket asks for an option: by the cgroup, and by a security module.
const OPTIONS: &str = "cgroup_setsockopt";
const OPTIONS_OF_ALL: &str = "cgroup_lsm_setsockopt";
/// Where the latter is asked.
const SET_OPTION: &str = "socket_setsockopt";

/// The programs that note whose sockets are whose, loaded.
pub(crate) struct ProcessPrograms {
    object: Ebpf,
}

impl Programs {
    /// Loads the programs; maps are made below `folder`, or taken over from there.
    pub(crate) fn load(folder: &Path, sizes: &Sizes, frames: &Frames) -> anyhow::Result<Self> {
        let log = VerifierLogLevel::default();
        let constants = Constants {
            endpoint: Endpoint::NOBODY,
            frames,
            offsets: Offsets::default(),
            notes: false,
        };
        let mut object = load_with(folder, sizes, constants, log)?;
        for name in ["from_endpoint", "to_endpoint", "clock"] {
            let program: &mut SchedClassifier = classifier(&mut object, name)?;
            program
                .load()
                .with_context(|| format!("the kernel refused program `{name}`"))?;
        }
        let telling = telling(&mut object, folder)
            .inspect_err(|error| {
                let error = format!("{error:#}");
                tracing::info!(error, "packets in cgroups ask the flow tables each time");
            })
            .ok()
            .map(Arc::new);
        Ok(Self { object, telling })
    }

    /// By which the flow tables come to know what sockets have counted.
    pub(crate) fn telling(&self) -> Option<Arc<Telling>> {
        self.telling.clone()
    }

    /// Whether programs for cgroups may note flows in their sockets.
    pub(crate) const fn notes(&self) -> bool {
        self.telling.is_some()
    }

    /// For interfaces.
    pub(crate) fn fds(&self) -> anyhow::Result<attach::Programs<'_>> {
        Ok(attach::Programs {
            sends: fd(&self.object, "from_endpoint")?,
            receives: fd(&self.object, "to_endpoint")?,
            calls: None,
        })
    }

    /// For the ways out of the node: with an Ethernet header, and without. Loaded when first asked for.
    pub(crate) fn of_host(&mut self) -> anyhow::Result<[OwnedFd; 2]> {
        let mut loaded = |name| {
            let program = self.loaded(name);
            let program =
                program.with_context(|| format!("the kernel refused program `{name}`"))?;
            anyhow::Ok(program.fd()?.as_fd().try_clone_to_owned()?)
        };
        Ok([loaded("from_host")?, loaded("from_host_bare")?])
    }

    /// Makes the search for flows that are no longer permitted.
    pub(crate) fn search(&mut self, folder: &Path) -> anyhow::Result<Search> {
        let btf = types()?;
        let mut over = |name, map| {
            let program = iterator(&mut self.object, name)?;
            attach_iterator(program, "bpf_map_elem", &maps::open(folder, map)?, &btf)
        };
        let v4 = over("withdrawn_v4", "FLOWS_V4")?;
        let v6 = over("withdrawn_v6", "FLOWS_V6")?;
        let looked_at = self.object.take_map("LOOKED_AT");
        Search::new(v4, v6, looked_at.context("no map `LOOKED_AT`")?)
    }

    /// A program by its name, loaded when it is first asked for.
    pub(crate) fn loaded(&mut self, name: &str) -> anyhow::Result<&mut SchedClassifier> {
        let program = classifier(&mut self.object, name)?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(program)
    }

    /// Sets what the benchmark's rotating program does, and the program that follows it.
    pub(crate) fn rotate(&mut self, state: [u64; 4], onward: &str) -> anyhow::Result<()> {
        const NO_ROTATION: &str = "the BPF object was built without the benchmark's program";
        let next = self.loaded(onward)?.fd()?.try_clone()?;
        let programs = self.object.map_mut("NEXT").context(NO_ROTATION)?;
        ProgramArray::try_from(programs)?.set(0, &next, 0)?;
        let map = self.object.map_mut("ROTATION").context(NO_ROTATION)?;
        let mut map: Array<_, u64> = Array::try_from(map)?;
        for (index, value) in (0..).zip(state) {
            map.set(index, value, 0)?;
        }
        Ok(())
    }

    /// Passes the messages of a debug object's programs on to the agent's own log; a release
    /// object has none. Needs a tokio runtime.
    pub(crate) fn messages(
        &mut self,
    ) -> anyhow::Result<Option<impl Future<Output = ()> + Send + use<>>> {
        if self.object.map("AYA_LOGS").is_none() {
            return Ok(None);
        }
        let logger = EbpfLogger::init(&mut self.object)?;
        // SAFETY: the logger keeps its descriptor open, and the same, for as long as it lives.
        let mut messages = unsafe { AsyncFd::register(logger) }.map_err(io::Error::from)?;
        Ok(Some(async move {
            while let Ok(mut ready) = messages.readable_mut().await {
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }))
    }

    /// The kernel's jiffies now.
    pub(crate) fn jiffies(&mut self, maps: &maps::FlowMaps) -> anyhow::Result<u64> {
        let program = classifier(&mut self.object, "clock")?;
        // The shortest frame that the kernel takes.
        let frame = [0_u8; 64];
        program.test_run(TestRunOptions {
            data_in: Some(&frame),
            ..TestRunOptions::new()
        })?;
        let Raw(jiffies) = maps.clock.get(&0, 0)?;
        Ok(jiffies)
    }

    /// Jiffies in a second: one of the kernel's build options, so a short look tells.
    pub(crate) fn hertz(&mut self, maps: &maps::FlowMaps) -> anyhow::Result<u64> {
        const CHOICES: [u64; 4] = [100, 250, 300, 1000];
        let (start, from) = (std::time::Instant::now(), self.jiffies(maps)?);
        std::thread::sleep(Duration::from_millis(100));
        let ticks = u128::from(self.jiffies(maps)?.saturating_sub(from));
        let seen = u64::try_from(ticks * 1_000_000 / start.elapsed().as_micros().max(1))?;
        CHOICES
            .into_iter()
            .min_by_key(|choice| choice.abs_diff(seen))
            .context("no choice")
    }
}

impl CgroupPrograms {
    /// Loads copies of the programs that stand for one endpoint.
    pub(crate) fn load(
        folder: &Path,
        sizes: &Sizes,
        endpoint: Endpoint,
        notes: bool,
    ) -> anyhow::Result<Self> {
        let log = VerifierLogLevel::default();
        let constants = Constants {
            endpoint,
            frames: &Frames::default(),
            offsets: Offsets::default(),
            notes,
        };
        let mut object = load_with(folder, sizes, constants, log)?;
        for name in ["cgroup_ingress", "cgroup_egress"] {
            cgroup_skb(&mut object, name)?
                .load()
                .with_context(|| format!("the kernel refused program `{name}`"))?;
        }
        // What a node's sockets ask for may be another namespace's affair, which only the packet tells.
        let calls = if endpoint.has(Endpoint::ONLY_OWN) {
            None
        } else {
            Some(load_calls(&mut object)?)
        };
        Ok(Self { object, calls })
    }

    /// A program by its name, loaded when it is first asked for.
    pub(crate) fn loaded(&mut self, name: &str) -> anyhow::Result<&mut CgroupSkb> {
        let program = cgroup_skb(&mut self.object, name)?;
        if program.fd().is_err() {
            program.load()?;
        }
        Ok(program)
    }

    /// For the endpoint's cgroup: what it sends, and what it is sent.
    pub(crate) fn fds(&self) -> anyhow::Result<[BorrowedFd<'_>; 2]> {
        Ok([
            fd(&self.object, "cgroup_egress")?,
            fd(&self.object, "cgroup_ingress")?,
        ])
    }

    /// And what its sockets ask for.
    pub(crate) fn calls(&self) -> anyhow::Result<Option<Calls>> {
        let Some(of_all) = &self.calls else {
            return Ok(None);
        };
        let owned = |name| anyhow::Ok(fd(&self.object, name)?.try_clone_to_owned()?);
        let [v4, v6] = CONNECTS;
        Ok(Some(Calls {
            connects: [owned(v4)?, owned(v6)?],
            options: owned(OPTIONS)?,
            options_of_all: match of_all {
                Ok(()) => Ok(owned(OPTIONS_OF_ALL)?),
                Err(why) => Err(Arc::clone(why)),
            },
        }))
    }
}

/// Loads what is asked about what sockets ask for; why not for a security module.
fn load_calls(object: &mut Ebpf) -> anyhow::Result<Result<(), Arc<str>>> {
    for name in CONNECTS {
        cgroup_sock_addr(object, name)?
            .load()
            .with_context(|| format!("the kernel refused program `{name}`"))?;
    }
    let options: &mut CgroupSockopt = program(object, OPTIONS)?.try_into()?;
    options
        .load()
        .with_context(|| format!("the kernel refused program `{OPTIONS}`"))?;
    let of_all: &mut LsmCgroup = program(object, OPTIONS_OF_ALL)?.try_into()?;
    Ok(lsm::require().and_then(|()| {
        let btf = Btf::from_sys_fs().map_err(|error| Arc::from(error.to_string()))?;
        of_all
            .load(SET_OPTION, &btf)
            .map_err(|error| Arc::from(lsm::refused(&error)))
    }))
}

impl ProcessPrograms {
    pub(crate) fn load(folder: &Path, sizes: &Sizes, offsets: Offsets) -> anyhow::Result<Self> {
        let constants = Constants {
            endpoint: Endpoint::NOBODY,
            frames: &Frames::default(),
            offsets,
            notes: false,
        };
        let mut object = load_with(folder, sizes, constants, VerifierLogLevel::default())?;
        for (name, _) in process::HOOKS {
            load_process(program(&mut object, name)?)
                .with_context(|| format!("the kernel refused program `{name}`"))?;
        }
        Ok(Self { object })
    }

    pub(crate) fn fd(&self, name: &str) -> anyhow::Result<BorrowedFd<'_>> {
        fd(&self.object, name)
    }
}

/// Whether the answer of a program at an interface lets a packet go on. One that is sent back, as the
/// answer to itself, does not.
pub(crate) fn passes_interface(answer: u32) -> anyhow::Result<bool> {
    const UNSPECIFIED: i32 = -1;
    const SHOT: i32 = 2;
    match answer.cast_signed() {
        UNSPECIFIED => Ok(true),
        SHOT | SENT_BACK => Ok(false),
        other => anyhow::bail!("a program at an interface answered {other}"),
    }
}

/// `TC_ACT_REDIRECT`.
pub(crate) const SENT_BACK: i32 = 7;

/// Whether the answer of a program in a cgroup lets a packet go on.
pub(crate) fn passes_cgroup(answer: u32) -> anyhow::Result<bool> {
    match answer {
        1 => Ok(true),
        0 => Ok(false),
        other => anyhow::bail!("a program in a cgroup answered {other}"),
    }
}

/// What a copy of the programs has as constants.
struct Constants<'f> {
    endpoint: Endpoint,
    frames: &'f Frames,
    offsets: Offsets,
    /// Flows are noted in their sockets.
    notes: bool,
}

/// `log` is what the verifier tells, should it refuse a program.
fn load_with(
    folder: &Path,
    sizes: &Sizes,
    Constants {
        endpoint,
        frames,
        offsets,
        notes,
    }: Constants<'_>,
    log: VerifierLogLevel,
) -> anyhow::Result<Ebpf> {
    let Sizes {
        endpoints,
        prefixes,
        policy,
        ports,
        own_addresses,
        flows,
        denials,
        events,
        names,
    } = *sizes;
    let sockets = sizes.sockets();
    let Frames(frames) = frames;
    let mark = mark().context("failed to draw a number")?;
    let (notes, spoken) = (u32::from(notes), u32::from(names > 0));
    let mut loader = EbpfLoader::new();
    loader
        .verifier_log_level(log)
        // As many again may be of nobody.
        .map_max_entries("INTERFACES", endpoints.saturating_mul(2))
        .map_max_entries("WORDS", endpoints)
        .map_max_entries("OBSERVED_UNTIL", endpoints)
        .map_max_entries("HOSTS_V4", prefixes)
        .map_max_entries("HOSTS_V6", prefixes)
        .map_max_entries("IPCACHE_V4", prefixes)
        .map_max_entries("IPCACHE_V6", prefixes)
        // A plan holds the old and the new entries of both families at once.
        .map_max_entries("IDENTITIES", prefixes * 2 + sockets)
        .map_max_entries("SOCKETS", sockets)
        .map_max_entries("CGROUPS", endpoints)
        .map_max_entries("POLICY", policy)
        .map_max_entries("ANSWERS", policy)
        .map_max_entries("PORTS", ports)
        .map_max_entries("ADDRESSES", own_addresses)
        .map_max_entries("FLOWS_V4", flows)
        .map_max_entries("FLOWS_V6", flows)
        .map_max_entries("FRAGMENTS", endpoints * fragment::PLACES)
        .map_max_entries("HELD", endpoints * share::FAMILIES)
        .map_max_entries("DENIALS", denials)
        .map_max_entries("COUNTERS", endpoints * Reason::SLOTS)
        .map_max_entries("REJECTIONS", endpoints * rejection::DIRECTIONS)
        .map_max_entries("EVENTS", events)
        .map_max_entries("SPOKEN", endpoints)
        .map_max_entries("DNS", names.max(SMALLEST_RING))
        // For interfaces alone, and for the search, of which cgroups' copies have none.
        .map_max_entries(
            "REFUSED",
            if endpoint.id == 0 { refusal::PLACES } else { 1 },
        )
        .map_max_entries("LOOKED_AT", if endpoint.id == 0 { endpoints } else { 1 })
        .override_global("ENDPOINT", &endpoint.id, true)
        .override_global("FLAGS", &endpoint.flags, true)
        .override_global("FRAMES", frames.as_slice(), true)
        .override_global("MARK", &mark, true)
        .override_global("NOTES", &notes, true)
        .override_global("NAMES", &spoken, true)
        .override_global("PROCESS_AT", &offsets.process, true)
        .override_global("STARTED_AT", &offsets.started, true);
    for name in maps::NAMES {
        loader.map_pin_path(name, folder.join(name));
    }
    loader.load(BYTES).context("failed to load the BPF object")
}

/// By which the two programs of an interface know answers to denied packets: nobody else is to.
fn mark() -> io::Result<u32> {
    let mut bytes = [0; 4];
    loop {
        rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
        // 0 is what a packet has that nobody has marked.
        if bytes != [0; 4] {
            return Ok(u32::from_ne_bytes(bytes));
        }
    }
}

fn classifier<'o>(object: &'o mut Ebpf, name: &str) -> anyhow::Result<&'o mut SchedClassifier> {
    let program = object
        .program_mut(name)
        .with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn program<'o>(object: &'o mut Ebpf, name: &str) -> anyhow::Result<&'o mut Program> {
    object
        .program_mut(name)
        .with_context(|| format!("no program `{name}`"))
}

fn cgroup_skb<'o>(object: &'o mut Ebpf, name: &str) -> anyhow::Result<&'o mut CgroupSkb> {
    let program = object
        .program_mut(name)
        .with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn cgroup_sock_addr<'o>(
    object: &'o mut Ebpf,
    name: &str,
) -> anyhow::Result<&'o mut CgroupSockAddr> {
    let program = object
        .program_mut(name)
        .with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
}

/// Loads one of those that note processes.
fn load_process(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Makes the programs that tell the flow tables what sockets have counted.
fn telling(object: &mut Ebpf, folder: &Path) -> anyhow::Result<Telling> {
    let btf = types()?;
    let mut over = |name, map| {
        let program = iterator(object, name)?;
        attach_iterator(
            program,
            "bpf_sk_storage_map",
            &maps::open(folder, map)?,
            &btf,
        )
    };
    let v4 = over("told_v4", "SOCKET_FLOWS_V4")?;
    let v6 = over("told_v6", "SOCKET_FLOWS_V6")?;
    Ok(Telling([v4, v6]))
}

fn types() -> anyhow::Result<Btf> {
    Btf::from_sys_fs().context("the kernel has no types of its own (BTF)")
}

/// Loads an iterator over maps of a kind, and attaches it to one.
fn attach_iterator(
    program: &mut Iter,
    kind: &str,
    map: &MapData,
    btf: &Btf,
) -> anyhow::Result<OwnedFd> {
    program
        .load(kind, btf)
        .with_context(|| format!("the kernel refused an iterator (`{kind}`)"))?;
    syscall::link_to_map(program.fd()?.as_fd(), map.fd().as_fd())
        .with_context(|| format!("the kernel refused to attach an iterator (`{kind}`)"))
}

fn iterator<'o>(object: &'o mut Ebpf, name: &str) -> anyhow::Result<&'o mut Iter> {
    let program = object
        .program_mut(name)
        .with_context(|| format!("no program `{name}`"))?;
    Ok(program.try_into()?)
}

fn fd<'o>(object: &'o Ebpf, name: &str) -> anyhow::Result<BorrowedFd<'o>> {
    let program = object
        .program(name)
        .with_context(|| format!("no program `{name}`"))?;
    Ok(program.fd()?.as_fd())
}
