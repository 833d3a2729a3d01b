//! Attaching an endpoint's programs, and taking them off.
//!
//! Everything that is attached has an entry in the folder `links` of the agent's [`BpfDir`], so that
//! the next agent, or a bare `ringfence detach`, knows what there is without asking anybody:
//!
//! | entry | what |
//! |---|---|
//! | `if-<endpoint>-from`, `if-<endpoint>-to` | pinned TCX links |
//! | `cg-<endpoint>-in`, `cg-<endpoint>-out` | pinned cgroup links |
//! | `cg-<endpoint>-connect4`, `cg-<endpoint>-connect6` | likewise, of those that refuse connections |
//! | `cg-<endpoint>-setsockopt`, `cg-<endpoint>-lsm` | likewise, of those that refuse options of sockets |
//! | `unknown-<interface index>-from`, `unknown-<interface index>-to` | pinned TCX links at an interface of which nobody knows yet whose it is, see `unknown` |
//! | `tc-<endpoint>-<interface index>` | an empty folder: our filters hang on that interface's clsact. Where another agent has some too, `-<number>` follows. Of endpoint 0, where nobody knows yet whose the interface is |
//! | `out-<interface index>` | the pinned TCX link at a way out of the node, see `outlet` |
//! | `out-<interface index>-<number>` | an empty folder: our filter there hangs on the interface's clsact |
//! | `qdisc-<interface index>` | an empty folder: the clsact there is our making |
//!
//! What notes processes has entries of its own, see `process`.
//!
//! Nothing here is left to the end of the agent's life: attached is attached until detached.

use std::{
    collections::BTreeSet,
    fmt::Display,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use serde::Serialize;

use crate::datapath::{
    attach::entry::{
        Filters, cgroup_pins, entries, fields, interface, mark, name, number, shown, tcx_pins,
        unmark,
    },
    bpffs::BpfDir,
    cgroup::Cgroup,
    pin::{self, Held, Link},
    process,
    syscall::{self, AttachType, LinkTarget},
    tc::{self, Qdisc, Side},
};

mod entry;
mod observe;
pub(crate) mod outlet;
pub mod unknown;

pub use self::{
    entry::attached,
    observe::{Observed, is_held},
};
pub use crate::datapath::pin::Held as Outcome;

/// Number of an endpoint, as in the contract's `Endpoint::id`.
pub type EndpointId = u16;

/// How programs hang on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TcHook {
    /// Links in the interface's own chain. Minimum kernel: 6.6.
    Tcx,
    /// Filters on a queueing discipline. Minimum kernel: 4.5.
    Clsact,
}

/// What an endpoint's programs hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    Interface { index: u32, hook: TcHook },
    Cgroup { id: u64 },
}

/// Whose programs hang on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    Endpoint(EndpointId),
    /// Nobody's whom we know: those of the interface of this number.
    Unknown(u32),
}

/// An endpoint whose programs have been attached. Dropping it detaches nothing.
#[derive(Debug)]
#[must_use = "what was attached has to be remembered to be verified and detached"]
pub struct Attached {
    endpoint: EndpointId,
    target: Target,
    outcome: Held,
    /// What the endpoint sends, and what it is sent; then what it asks for.
    programs: Vec<u32>,
    /// Of these programs, by the names in the folder; filters have none.
    links: Vec<(PathBuf, Link)>,
    /// Why no security module's program hangs there, of a cgroup that ought to have one.
    unsecured: Option<Arc<str>>,
}

/// The programs of an endpoint, loaded.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// What the endpoint sends: `from_endpoint` or `cgroup_egress`.
    pub sends: BorrowedFd<'a>,
    /// What it is sent: `to_endpoint` or `cgroup_ingress`.
    pub receives: BorrowedFd<'a>,
    /// What its sockets ask for. At an interface there are none.
    pub calls: Option<&'a Calls>,
}

/// The programs for what sockets of a cgroup ask for, loaded.
#[derive(Debug)]
pub struct Calls {
    /// Over IPv4 and IPv6: `cgroup_connect4` and `cgroup_connect6`.
    pub connects: [OwnedFd; 2],
    /// `cgroup_setsockopt`.
    pub options: OwnedFd,
    /// `cgroup_lsm_setsockopt`, or why there is none.
    pub options_of_all: Result<OwnedFd, Arc<str>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(
        "interface {index} is held by a queueing discipline '{kind}' where clsact has to be: remove it, or use a kernel with TCX (6.6)"
    )]
    QdiscTaken { index: u32, kind: String },
    #[error("failed to {doing} {what}")]
    Io {
        doing: &'static str,
        what: String,
        #[source]
        source: io::Error,
    },
}

fn failed(doing: &'static str, what: impl Into<String>) -> impl FnOnce(io::Error) -> AttachError {
    let what = what.into();
    move |source| AttachError::Io {
        doing,
        what,
        source,
    }
}

impl Programs<'_> {
    fn ids(self) -> Result<Vec<u32>, AttachError> {
        [self.sends, self.receives].into_iter().map(id_of).collect()
    }
}

fn id_of(program: BorrowedFd<'_>) -> Result<u32, AttachError> {
    syscall::object_id(program).map_err(failed("ask for", "a program"))
}

impl AttachError {
    /// Whether the interface or cgroup went away: waiting for it is all there is to do.
    pub fn target_vanished(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT))
            }
            Self::QdiscTaken { .. } => false,
        }
    }
}

impl TcHook {
    /// The better one of those that the kernel has.
    pub fn of_kernel() -> io::Result<Self> {
        // Every network namespace has its loopback at index 1.
        match syscall::programs_of_interface(1, AttachType::TcxIngress) {
            Ok(_) => Ok(Self::Tcx),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Self::Clsact),
            Err(error) => Err(error),
        }
    }
}

/// Attaches to both directions of an interface, or takes over what an earlier agent attached there.
///
/// # Errors
///
/// One direction may then be attached: calling again, or detaching the endpoint, is right.
pub fn attach_interface(
    dir: &BpfDir,
    endpoint: EndpointId,
    index: u32,
    hook: TcHook,
    programs: Programs<'_>,
) -> Result<Attached, AttachError> {
    let ids = programs.ids()?;
    let (outcome, links) = match hook {
        TcHook::Tcx => {
            let linked = link_to(tcx_pins(dir, endpoint), index, programs)?;
            // They would judge a second time.
            remove_filters(dir, |filters| filters.endpoint == endpoint)?;
            linked
        }
        TcHook::Clsact => (attach_clsact(dir, endpoint, index, programs)?, Vec::new()),
    };
    // An endpoint that was a cgroup before is one no longer.
    for pin in cgroup_pins(dir, endpoint) {
        pin::release(&pin).map_err(failed("detach", shown(&pin)))?;
    }
    Ok(Attached {
        endpoint,
        target: Target::Interface { index, hook },
        outcome,
        programs: ids,
        links,
        unsecured: None,
    })
}

/// By links of these names.
fn link_to(
    [from, to]: [PathBuf; 2],
    index: u32,
    programs: Programs<'_>,
) -> Result<(Held, Vec<(PathBuf, Link)>), AttachError> {
    let mut outcome = Held::TakenOver;
    let mut links = Vec::new();
    for (path, program, attach_type) in [
        (from, programs.sends, AttachType::TcxIngress),
        (to, programs.receives, AttachType::TcxEgress),
    ] {
        let (held, link) = pin::hold(&path, LinkTarget::Interface(index), program, || {
            syscall::link_to_interface(program, index, attach_type)
        })
        .map_err(failed(
            "attach",
            format!("{} to interface {index}", name(&path)),
        ))?;
        outcome = outcome.and(held);
        links.push((path, link));
    }
    Ok((outcome, links))
}

fn attach_clsact(
    dir: &BpfDir,
    endpoint: EndpointId,
    index: u32,
    programs: Programs<'_>,
) -> Result<Held, AttachError> {
    make_clsact(dir, index)?;
    let outcome = put_filters(dir, endpoint, index, programs)?;
    release_filters(dir, |filters| {
        filters.endpoint == endpoint && filters.index != index
    })?;
    for pin in tcx_pins(dir, endpoint) {
        pin::release(&pin).map_err(failed("detach", shown(&pin)))?;
    }
    Ok(outcome)
}

/// Sees to it that the interface has a clsact.
fn make_clsact(dir: &BpfDir, index: u32) -> Result<(), AttachError> {
    match tc::qdisc(index).map_err(failed("read the queueing disciplines of", interface(index)))? {
        Qdisc::Clsact => {}
        Qdisc::Other(kind) => return Err(AttachError::QdiscTaken { index, kind }),
        Qdisc::None => {
            let entry = dir.links().join(format!("qdisc-{index}"));
            mark(&entry)?;
            if let Err(error) = tc::add_clsact(index) {
                unmark(&entry)?;
                return Err(failed("add clsact for", interface(index))(error));
            }
        }
    }
    Ok(())
}

/// The filters of this folder on both sides: replaced if they are there, whichever endpoint had them.
fn put_filters(
    dir: &BpfDir,
    endpoint: EndpointId,
    index: u32,
    programs: Programs<'_>,
) -> Result<Held, AttachError> {
    let what = format!("filters to interface {index}");
    let sends = syscall::object_id(programs.sends).map_err(failed("ask for", "a program"))?;
    let known = match number(dir, index)? {
        Some(number) => Some(number),
        // Somebody may have removed the entry, and the filter is there.
        None => tc::filter_of(index, Side::Ingress, sends)
            .map_err(failed("ask for", &what))?
            .map(|filter| filter.number),
    };
    let number = match known {
        Some(number) => number,
        None => tc::free_number(index).map_err(failed("ask for", &what))?,
    };
    // The entry first: a filter without one would be forgotten if the agent dies in between.
    let entry = Filters {
        endpoint,
        index,
        number,
    };
    mark(&entry.path(dir))?;
    let mut outcome = Held::TakenOver;
    for (side, program) in [
        (Side::Ingress, programs.sends),
        (Side::Egress, programs.receives),
    ] {
        let there = match known {
            Some(_) => tc::filter(index, side, number).map_err(failed("ask for", &what))?,
            None => None,
        };
        let (put, held) = match there {
            Some(_) => (
                tc::replace_filter(index, side, number, program),
                Held::TakenOver,
            ),
            None => (tc::add_filter(index, side, number, program), Held::Attached),
        };
        match put {
            Ok(()) => outcome = outcome.and(held),
            Err(error) => {
                // Another agent was quicker to take the number, and what is there is that one's: the
                // next attempt looks for another number.
                if known.is_none() && error.kind() == io::ErrorKind::AlreadyExists {
                    if side == Side::Egress {
                        tc::remove_filter(index, Side::Ingress, number)
                            .map_err(failed("remove the filters of", interface(index)))?;
                    }
                    unmark(&entry.path(dir))?;
                }
                return Err(failed("attach", &what)(error));
            }
        }
    }
    // They are this one's now, whoever had the interface before, and go with it.
    for other in entries(dir)? {
        let is_same = |filters: &Filters| (filters.index, filters.number) == (index, number);
        if other != entry.path(dir) && Filters::at(&other).is_some_and(|other| is_same(&other)) {
            unmark(&other)?;
        }
    }
    Ok(outcome)
}

/// Who may set options all the same, where no security module is asked.
fn by_32_bits(why: impl Display) -> Arc<str> {
    let by = "where it is made so by a system call of 32 bits, which any process can make, and of which no program of a cgroup \
              is told";
    Arc::from(format!("{by}: {why}"))
}

/// Attaches to both directions of a cgroup, and to what its sockets ask for, for all sockets in it and below; or takes over.
///
/// Minimum kernel: 5.7, for the link.
///
/// # Errors
///
/// As [`attach_interface`].
pub fn attach_cgroup(
    dir: &BpfDir,
    endpoint: EndpointId,
    cgroup: &Cgroup,
    programs: Programs<'_>,
) -> Result<Attached, AttachError> {
    let [
        incoming,
        outgoing,
        connect4,
        connect6,
        options,
        options_of_all,
    ] = cgroup_pins(dir, endpoint);
    let mut wanted = vec![
        (outgoing, programs.sends, AttachType::CgroupEgress),
        (incoming, programs.receives, AttachType::CgroupIngress),
    ];
    let mut outcome = Held::TakenOver;
    let (mut ids, mut links, mut unsecured) = (Vec::new(), Vec::new(), None);
    let mut hang = |path: PathBuf, program: BorrowedFd<'_>, attach_type| {
        let id = id_of(program)?;
        let (held, link) = pin::hold(&path, LinkTarget::Cgroup(cgroup.id()), program, || {
            syscall::link_to_cgroup(program, cgroup.as_fd(), attach_type)
        })
        .map_err(failed(
            "attach",
            format!("{} to {}", name(&path), cgroup.path().display()),
        ))?;
        outcome = outcome.and(held);
        ids.push(id);
        links.push((path, link));
        Ok::<_, AttachError>(())
    };
    let mut unwanted = Vec::new();
    let (mut of_options, mut of_all) = (None, None);
    match programs.calls {
        Some(calls) => {
            let Calls {
                connects: [v4, v6],
                options: sets,
                options_of_all: sets_of_all,
            } = calls;
            wanted.extend([
                (connect4, v4.as_fd(), AttachType::CgroupConnect4),
                (connect6, v6.as_fd(), AttachType::CgroupConnect6),
            ]);
            of_options = Some((options, sets));
            of_all = Some((options_of_all, sets_of_all));
        }
        None => unwanted.extend([connect4, connect6, options, options_of_all]),
    }
    for (path, program, attach_type) in wanted {
        hang(path, program, attach_type)?;
    }
    // The kernel, or whose program hangs there, has the last word on these two, and the rest is in force without.
    let mut hang_if_let = |path, program, attach_type| match hang(path, program, attach_type) {
        Ok(()) => Ok(None),
        Err(error) if error.target_vanished() => Err(error),
        Err(error) => Ok(Some(format!("{:#}", anyhow::Error::from(error)))),
    };
    match of_all {
        Some((path, Ok(program))) => {
            unsecured = hang_if_let(path, program.as_fd(), AttachType::LsmCgroup)?.map(by_32_bits);
        }
        Some((path, Err(why))) => {
            unwanted.push(path);
            unsecured = Some(by_32_bits(why));
        }
        None => {}
    }
    if let Some((path, program)) = of_options
        && let Some(why) = hang_if_let(path, program.as_fd(), AttachType::CgroupSetsockopt)?
        && unsecured.is_some()
    {
        unsecured = Some(Arc::from(format!("where anybody makes it so: {why}")));
    }
    for pin in &unwanted {
        pin::release(pin).map_err(failed("detach", shown(pin)))?;
    }
    // An endpoint that was an interface before is one no longer.
    for pin in tcx_pins(dir, endpoint) {
        pin::release(&pin).map_err(failed("detach", shown(&pin)))?;
    }
    release_filters(dir, |filters| filters.endpoint == endpoint)?;
    Ok(Attached {
        endpoint,
        target: Target::Cgroup { id: cgroup.id() },
        outcome,
        programs: ids,
        links,
        unsecured,
    })
}

impl Attached {
    pub fn endpoint(&self) -> EndpointId {
        self.endpoint
    }

    pub fn target(&self) -> Target {
        self.target
    }

    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Why a security module has no part in what the endpoint's sockets are refused.
    pub(crate) fn unsecured(&self) -> Option<&str> {
        self.unsecured.as_deref()
    }

    pub fn detach(self, dir: &BpfDir) -> Result<(), AttachError> {
        detach(dir, self.endpoint)
    }
}

/// Makes the links on an interface those of another holder; they stay attached throughout. Names that it
/// has for links to other interfaces are taken from those.
///
/// Filters on a clsact need no such thing: they are the interface's, not the endpoint's.
pub fn hand_over(
    dir: &BpfDir,
    from: Holder,
    to: Holder,
    interface: u32,
) -> Result<(), AttachError> {
    let target = LinkTarget::Interface(interface);
    for (old, new) in from.pins(dir).iter().zip(to.pins(dir)) {
        let leads_there = |pin: &PathBuf| {
            let info = pin::info(pin).map_err(failed("read", shown(pin)))?;
            Ok(info.is_some_and(|info| info.target == target))
        };
        // Without a link of the other there is nothing to hand over, or it has been.
        if leads_there(&new)? || !leads_there(old)? {
            continue;
        }
        std::fs::rename(old, &new).map_err(failed("hand over", shown(old)))?;
    }
    Ok(())
}

impl Holder {
    fn pins(self, dir: &BpfDir) -> [PathBuf; 2] {
        match self {
            Self::Endpoint(endpoint) => tcx_pins(dir, endpoint),
            Self::Unknown(index) => unknown::pins(dir, index),
        }
    }
}

/// Detaches whatever is attached for this endpoint, by whichever agent.
pub fn detach(dir: &BpfDir, endpoint: EndpointId) -> Result<(), AttachError> {
    for pin in tcx_pins(dir, endpoint)
        .into_iter()
        .chain(cgroup_pins(dir, endpoint))
    {
        pin::release(&pin).map_err(failed("detach", shown(&pin)))?;
    }
    release_filters(dir, |filters| filters.endpoint == endpoint)
}

/// Detaches every endpoint that is not in `keep`: what an earlier agent knew and this one does not.
/// Returns those detached.
pub fn detach_others(
    dir: &BpfDir,
    keep: &BTreeSet<EndpointId>,
) -> Result<BTreeSet<EndpointId>, AttachError> {
    let others: BTreeSet<_> = &attached(dir)? - keep;
    for endpoint in &others {
        detach(dir, *endpoint)?;
    }
    Ok(others)
}

/// Detaches everything of this folder. Needs neither the programs nor their maps.
pub fn detach_all(dir: &BpfDir) -> Result<(), AttachError> {
    for index in outlet::attached(dir)? {
        outlet::release(dir, index)?;
    }
    for index in unknown::attached(dir)? {
        unknown::release(dir, index)?;
    }
    process::detach(dir).map_err(failed("detach", "what notes processes"))?;
    detach_others(dir, &BTreeSet::new())?;
    tidy(dir, &BTreeSet::new())
}

/// Removes filters that nobody else has, and the clsact with them.
fn release_filters(dir: &BpfDir, these: impl Fn(&Filters) -> bool) -> Result<(), AttachError> {
    for index in remove_filters(dir, these)? {
        release_qdisc(dir, index)?;
    }
    Ok(())
}

/// Removes filters that nobody else has; the interfaces that they were at.
///
/// The clsact stays: with it, the kernel takes the queues of an interface that is up away for a moment
/// (`qdisc_graft`), and what is sent there then is lost. See [`tidy`].
fn remove_filters(
    dir: &BpfDir,
    these: impl Fn(&Filters) -> bool,
) -> Result<BTreeSet<u32>, AttachError> {
    let mut left = BTreeSet::new();
    let entries = entries(dir)?;
    for path in &entries {
        let Some(filters) = Filters::at(path) else {
            continue;
        };
        if !these(&filters) {
            continue;
        }
        let Filters { index, number, .. } = filters;
        // Another endpoint has the interface now: the filters there are its.
        let passed_on = entries.iter().any(|other| {
            other != path
                && other.is_dir()
                && Filters::at(other).is_some_and(|other| other.index == index)
        });
        if !passed_on {
            for side in [Side::Ingress, Side::Egress] {
                tc::remove_filter(index, side, number)
                    .map_err(failed("remove the filters of", interface(index)))?;
            }
            left.insert(index);
        }
        unmark(path)?;
    }
    Ok(left)
}

/// Removes each clsact of ours where nothing of ours hangs any more, but at the interfaces of `keep`.
pub(crate) fn tidy(dir: &BpfDir, keep: &BTreeSet<u32>) -> Result<(), AttachError> {
    for path in entries(dir)? {
        if let Some(["qdisc", index]) = fields(&path).as_deref()
            && let Ok(index) = index.parse()
            && !keep.contains(&index)
        {
            release_qdisc(dir, index)?;
        }
    }
    Ok(())
}

/// Removes a clsact that we made, unless somebody else has come to use it. While something of ours hangs there, it
/// is remembered as ours.
fn release_qdisc(dir: &BpfDir, index: u32) -> Result<(), AttachError> {
    let path = dir.links().join(format!("qdisc-{index}"));
    if !path.is_dir() || number(dir, index)?.is_some() || outlet::has_filter(dir, index)? {
        return Ok(());
    }
    let gone = matches!(tc::qdisc(index), Ok(Qdisc::None) | Err(_));
    if !gone && tc::is_empty(index).map_err(failed("read the filters of", interface(index)))? {
        tc::remove_clsact(index).map_err(failed("remove clsact of", interface(index)))?;
    }
    unmark(&path)
}
