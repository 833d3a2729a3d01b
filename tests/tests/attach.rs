//! Programs attached, taken over and detached on a real kernel.
//!
//! Each test runs in a network namespace of its own, that of its thread, and in a folder or cgroup
//! of its own; the machine's interfaces are not touched.

use std::{
    collections::BTreeSet,
    fs,
    net::UdpSocket,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use agent_policy::model::EndpointSpec;
use aya::{
    Ebpf, EbpfLoader,
    programs::{
        CgroupSkb, SchedClassifier, TcAttachType, loaded_links,
        tc::{NlOptions, TcAttachOptions},
    },
};
use ringfence::datapath::{
    attach::{
        self, Attached, Holder, Observed, Outcome, Programs, Target, TcHook, attach_cgroup,
        attach_interface, detach_all, detach_others, hand_over, unknown,
    },
    bpffs::BpfDir,
    cgroup::{self, CgroupError, CgroupName, Hierarchy},
    features,
    link::{self, LinkError},
    tc::{self, Number, Side},
};
use ringfence_lab::{
    lab::enter_anonymous,
    wait::{self, patient},
};

// === The ground that tests stand on ===

/// Enters a network namespace that nobody else is in, for good: call it on the test's own thread.
fn enter_new_netns() {
    enter_anonymous();
    run("ip link set lo up");
}

fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder below bpffs that leaves with the test, however it ends.
struct Folder(BpfDir);

impl Folder {
    fn new(name: &str) -> Self {
        let path = format!("/sys/fs/bpf/ringfence-test-{}-{name}", std::process::id());
        Self(BpfDir::prepare(Path::new(&path)).unwrap())
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.0.links()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let detached = detach_all(&self.0);
        let removed = self.0.clone().remove_all();
        if !thread::panicking() {
            detached.unwrap();
            removed.unwrap();
        }
    }
}

/// A peer namespace, alive as long as this value.
struct Peer {
    path: PathBuf,
    _end: mpsc::SyncSender<()>,
}

impl Peer {
    fn new() -> Self {
        let (tell, told) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel::<()>(1);
        thread::spawn(move || {
            enter_new_netns();
            tell.send(thread_id()).unwrap();
            assert!(ended.recv().is_err(), "nothing is ever sent");
        });
        let path = PathBuf::from(format!("/proc/{}/ns/net", told.recv().unwrap()));
        Self { path, _end: end }
    }

    fn netns(&self) -> EndpointSpec {
        EndpointSpec::Netns(self.path.to_str().unwrap().to_owned())
    }

    fn run(&self, command: &str) -> String {
        run(&format!("nsenter --net={} {command}", self.path.display()))
    }

    /// A veth from the test's namespace to this one.
    fn connect(&self, host: &str, inner: &str) -> u32 {
        let tid = self.path.iter().nth(2).unwrap().to_str().unwrap();
        run(&format!(
            "ip link add {host} type veth peer name {inner} netns {tid}"
        ));
        run(&format!("ip link set {host} up"));
        self.run(&format!("ip link set {inner} up"));
        index_of(host)
    }
}

fn index_of(name: &str) -> u32 {
    let links = link::links().unwrap();
    links.iter().find(|link| link.name == name).unwrap().index
}

/// The programs as they come out of the build, over maps of their own: everything is denied.
struct Object(Ebpf);

impl Object {
    fn load() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let object = fs::read(root.join("target/bpf/ringfence.bpf.o"))
            .expect("the BPF object has to be built first");
        Self(EbpfLoader::new().load(&object).unwrap())
    }

    /// Where a program hangs does not depend on what it does: this one is loaded at once.
    fn classifiers(&mut self) -> Programs<'_> {
        self.load_classifiers(NULL)
    }

    /// Without an interface in their map, they drop everything.
    fn dropping_classifiers(&mut self) -> Programs<'_> {
        self.load_classifiers(["from_endpoint", "to_endpoint"])
    }

    fn load_classifiers(&mut self, names: [&str; 2]) -> Programs<'_> {
        for name in BTreeSet::from(names) {
            let program: &mut SchedClassifier =
                self.0.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
        }
        self.programs(names)
    }

    fn cgroup_programs(&mut self) -> Programs<'_> {
        for name in ["cgroup_egress", "cgroup_ingress"] {
            let program: &mut CgroupSkb = self.0.program_mut(name).unwrap().try_into().unwrap();
            program.load().unwrap();
        }
        self.programs(CGROUP_PROGRAMS)
    }

    fn programs(&self, [sends, receives]: [&str; 2]) -> Programs<'_> {
        let fd = |name| self.0.program(name).unwrap().fd().unwrap().as_fd();
        Programs {
            sends: fd(sends),
            receives: fd(receives),
            calls: None,
        }
    }

    fn ids(&self, names: [&str; 2]) -> [u32; 2] {
        names.map(|name| self.0.program(name).unwrap().info().unwrap().id())
    }
}

const NULL: [&str; 2] = ["null", "null"];

fn attached_as(ids: [u32; 2]) -> [Observed; 2] {
    ids.map(|program| Observed::Attached { program, ahead: 0 })
}

fn links_alive() -> BTreeSet<u32> {
    loaded_links()
        .filter_map(|link| Some(link.ok()?.id()))
        .collect()
}

fn eventually(what: &str, holds: impl FnMut() -> bool) {
    let held = wait::eventually(Duration::from_secs(5), holds);
    assert!(held, "not in time: {what}");
}

/// The ways to hang on an interface that this kernel has, the better one first.
fn hooks() -> Vec<TcHook> {
    match TcHook::of_kernel().unwrap() {
        TcHook::Tcx => vec![TcHook::Tcx, TcHook::Clsact],
        TcHook::Clsact => vec![TcHook::Clsact],
    }
}

/// Whether a test of TCX is one of this kernel, too; says so if it is not.
fn has_tcx() -> bool {
    let has = hooks().contains(&TcHook::Tcx);
    if !has {
        eprintln!("skipped: this kernel has no TCX");
    }
    has
}

fn interface(dir: &BpfDir, index: u32, hook: TcHook, object: &mut Object) -> Attached {
    attach_interface(dir, 1, index, hook, object.classifiers()).unwrap()
}

// === Interfaces ===

fn attached_taken_over_and_detached(hook: TcHook, entries: &[&str]) {
    enter_new_netns();
    let folder = Folder::new(&format!("{hook:?}"));
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    let mut first = Object::load();
    let attached = interface(&folder.0, index, hook, &mut first);
    assert_eq!(attached.outcome(), Outcome::Attached);
    assert_eq!(attached.target(), Target::Interface { index, hook });
    assert_eq!(
        attached.verify(&folder.0).unwrap(),
        attached_as(first.ids(NULL))
    );
    let names = entries
        .iter()
        .map(|name| name.replace("INDEX", &index.to_string()));
    assert_eq!(folder.names(), names.collect());

    // The first agent is gone, and nothing of it but what is pinned.
    drop(first);
    assert!(attached.stands(&folder.0).unwrap());
    let mut second = Object::load();
    let again = interface(&folder.0, index, hook, &mut second);
    assert_eq!(again.outcome(), Outcome::TakenOver);
    assert_eq!(
        again.verify(&folder.0).unwrap(),
        attached_as(second.ids(NULL))
    );

    detach_all(&folder.0).unwrap();
    assert_eq!(again.verify(&folder.0).unwrap(), [Observed::Gone; 2]);
    assert_eq!(folder.names(), BTreeSet::new());
    assert_eq!(run("tc qdisc show dev veth0 clsact"), "");
}

#[test]
fn tcx_links_are_taken_over_and_leave_nothing() {
    if !has_tcx() {
        return;
    }
    attached_taken_over_and_detached(TcHook::Tcx, &["if-1-from", "if-1-to"]);
}

#[test]
fn clsact_filters_are_taken_over_and_leave_nothing() {
    attached_taken_over_and_detached(TcHook::Clsact, &["tc-1-INDEX", "qdisc-INDEX"]);
}

/// What hangs at an interface for nobody becomes an endpoint's, and the other way round. The programs are the
/// same, so that a second link of them would be refused.
fn passed_on(hook: TcHook, of_nobody: &[&str], of_endpoint: &[&str]) {
    enter_new_netns();
    let folder = Folder::new(&format!("pass-{hook:?}"));
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    let names = |names: &[&str]| -> BTreeSet<String> {
        let names = names.iter();
        names
            .map(|name| name.replace("INDEX", &index.to_string()))
            .collect()
    };
    let mut object = Object::load();
    let held = unknown::attach(&folder.0, index, hook, object.classifiers()).unwrap();
    let expected = attached_as(object.ids(NULL));
    assert_eq!(held.verify(&folder.0).unwrap(), expected);
    assert_eq!(folder.names(), names(of_nobody));
    assert_eq!(unknown::attached(&folder.0).unwrap(), [index].into());
    assert_eq!(attach::attached(&folder.0).unwrap(), [].into());

    hand_over(
        &folder.0,
        Holder::Unknown(index),
        Holder::Endpoint(1),
        index,
    )
    .unwrap();
    let attached = attach_interface(&folder.0, 1, index, hook, object.programs(NULL)).unwrap();
    assert_eq!(attached.outcome(), Outcome::TakenOver);
    unknown::release(&folder.0, index).unwrap();
    assert_eq!(attached.verify(&folder.0).unwrap(), expected);
    assert_eq!(folder.names(), names(of_endpoint));
    assert_eq!(unknown::attached(&folder.0).unwrap(), [].into());

    hand_over(
        &folder.0,
        Holder::Endpoint(1),
        Holder::Unknown(index),
        index,
    )
    .unwrap();
    let held = unknown::attach(&folder.0, index, hook, object.programs(NULL)).unwrap();
    assert_eq!(held.outcome(), Outcome::TakenOver);
    attach::detach(&folder.0, 1).unwrap();
    assert_eq!(held.verify(&folder.0).unwrap(), expected);
    assert_eq!(folder.names(), names(of_nobody));

    detach_all(&folder.0).unwrap();
    assert_eq!(folder.names(), BTreeSet::new());
    assert_eq!(run("tc qdisc show dev veth0 clsact"), "");
    assert_eq!(held.verify(&folder.0).unwrap(), [Observed::Gone; 2]);
}

#[test]
fn tcx_links_are_passed_on_between_nobody_and_an_endpoint() {
    if !has_tcx() {
        return;
    }
    passed_on(
        TcHook::Tcx,
        &["unknown-INDEX-from", "unknown-INDEX-to"],
        &["if-1-from", "if-1-to"],
    );
}

#[test]
fn filters_are_passed_on_between_nobody_and_an_endpoint() {
    passed_on(
        TcHook::Clsact,
        &["tc-0-INDEX", "qdisc-INDEX"],
        &["tc-1-INDEX", "qdisc-INDEX"],
    );
}

#[test]
fn tc_shows_one_filter_of_ours_on_each_side() {
    enter_new_netns();
    let folder = Folder::new("show");
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    for _ in 0..2 {
        let attached = interface(&folder.0, index, TcHook::Clsact, &mut Object::load());
        assert!(attached.stands(&folder.0).unwrap());
        for side in ["ingress", "egress"] {
            let shown = run(&format!("tc filter show dev veth0 {side}"));
            assert_eq!(shown.matches("handle 0x52460001").count(), 1, "{shown}");
            assert!(
                shown.contains("pref 1 ") && shown.contains("direct-action"),
                "{shown}"
            );
        }
    }
}

/// An interface may go between two requests about it.
#[test]
fn to_remove_what_has_gone_with_its_interface_is_no_error() {
    enter_new_netns();
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    run("ip link del veth0");
    assert!(!tc::remove_clsact(index).unwrap());
    for side in [Side::Ingress, Side::Egress] {
        assert!(!tc::remove_filter(index, side, Number::FIRST).unwrap());
    }
}

#[test]
fn filters_and_queueing_disciplines_of_others_stay() {
    enter_new_netns();
    let folder = Folder::new("others");
    let peer = Peer::new();
    // Somebody comes to use the clsact that we made.
    let index = peer.connect("veth0", "eth0");
    let attached = interface(&folder.0, index, TcHook::Clsact, &mut Object::load());
    let mut theirs = Object::load();
    let null: &mut SchedClassifier = theirs.0.program_mut("null").unwrap().try_into().unwrap();
    null.load().unwrap();
    let options = NlOptions {
        priority: 9,
        ..NlOptions::default()
    };
    null.attach_with_options(
        "veth0",
        TcAttachType::Egress,
        TcAttachOptions::Netlink(options),
    )
    .unwrap();
    assert!(attached.stands(&folder.0).unwrap());
    attached.detach(&folder.0).unwrap();
    let left = run("tc filter show dev veth0 egress");
    assert!(
        left.contains("pref 9 ") && !left.contains("pref 1 "),
        "{left}"
    );
    assert_eq!(folder.names(), BTreeSet::new());
    // Ours was not the first: it is not ours to remove, though nothing else hangs on it.
    let index = peer.connect("veth1", "eth1");
    run("tc qdisc add dev veth1 clsact");
    let attached = interface(&folder.0, index, TcHook::Clsact, &mut Object::load());
    attached.detach(&folder.0).unwrap();
    assert!(run("tc qdisc show dev veth1").contains("clsact"));
}

/// Two agents that took each other's filters for their own would end what the other enforces.
#[test]
fn filters_of_two_agents_stand_side_by_side() {
    enter_new_netns();
    let folders = [Folder::new("side-one"), Folder::new("side-two")];
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    let mut objects = [Object::load(), Object::load()];
    let attached = [0, 1].map(|agent| {
        interface(
            &folders[agent].0,
            index,
            TcHook::Clsact,
            &mut objects[agent],
        )
    });
    assert_eq!(
        attached.each_ref().map(Attached::outcome),
        [Outcome::Attached; 2]
    );
    assert!(folders[1].names().contains(&format!("tc-1-{index}-2")));
    // Who comes last stands in front.
    for (agent, ahead) in [(0, 1), (1, 0)] {
        let found = attached[agent].verify(&folders[agent].0).unwrap();
        let own = objects[agent].ids(NULL);
        assert_eq!(
            found,
            own.map(|program| Observed::Attached { program, ahead })
        );
    }
    // Each finds its own again.
    let mut later = Object::load();
    let again = interface(&folders[1].0, index, TcHook::Clsact, &mut later);
    assert_eq!(again.outcome(), Outcome::TakenOver);
    assert!(attached[0].stands(&folders[0].0).unwrap());
    // Also without the entry that names it, as long as the agent lives.
    let entry = folders[1].0.links().join(format!("tc-1-{index}-2"));
    fs::remove_dir(&entry).unwrap();
    assert!(again.stands(&folders[1].0).unwrap());
    let programs = later.programs(NULL);
    let again = attach_interface(&folders[1].0, 1, index, TcHook::Clsact, programs).unwrap();
    assert_eq!(again.outcome(), Outcome::TakenOver);
    assert!(entry.is_dir());
    detach_all(&folders[0].0).unwrap();
    assert_eq!(
        attached[0].verify(&folders[0].0).unwrap(),
        [Observed::Gone; 2]
    );
    assert!(again.stands(&folders[1].0).unwrap());
    detach_all(&folders[1].0).unwrap();
    assert!(!run("tc filter show dev veth0 egress").contains("bpf"));
}

#[test]
fn an_ingress_qdisc_in_the_way_is_named() {
    enter_new_netns();
    let folder = Folder::new("taken");
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    run("tc qdisc add dev veth0 ingress");
    let mut object = Object::load();
    let programs = object.classifiers();
    let error = attach_interface(&folder.0, 1, index, TcHook::Clsact, programs).unwrap_err();
    assert!(error.to_string().contains("'ingress'"), "{error}");
    assert_eq!(folder.names(), BTreeSet::new());
}

#[test]
fn a_program_of_others_ahead_of_ours_is_seen() {
    if !has_tcx() {
        return;
    }
    enter_new_netns();
    let folder = Folder::new("ahead");
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    let mut object = Object::load();
    let attached = interface(&folder.0, index, TcHook::Tcx, &mut object);
    // Another of the same kind, which puts itself in front as we do.
    let other = Folder::new("ahead-other");
    let theirs = interface(&other.0, index, TcHook::Tcx, &mut Object::load());
    assert!(theirs.stands(&other.0).unwrap());
    let [from, to] = object.ids(NULL);
    let behind = [from, to].map(|program| Observed::Attached { program, ahead: 1 });
    assert_eq!(attached.verify(&folder.0).unwrap(), behind);
}

#[test]
fn an_interface_that_comes_back_is_attached_anew() {
    for hook in hooks() {
        thread::spawn(move || {
            enter_new_netns();
            let folder = Folder::new(&format!("back-{hook:?}"));
            let peer = Peer::new();
            let index = peer.connect("veth0", "eth0");
            let mut object = Object::load();
            let attached = interface(&folder.0, index, hook, &mut object);
            run("ip link del veth0");
            assert!(!attached.stands(&folder.0).unwrap());
            let index = peer.connect("veth0", "eth0");
            let attached = interface(&folder.0, index, hook, &mut Object::load());
            assert_eq!(attached.outcome(), Outcome::Attached);
            assert!(attached.stands(&folder.0).unwrap());
            attached.detach(&folder.0).unwrap();
            assert_eq!(folder.names(), BTreeSet::new());
        })
        .join()
        .unwrap();
    }
}

#[test]
fn endpoints_that_are_no_more_are_detached_and_others_kept() {
    enter_new_netns();
    let folder = Folder::new("keep");
    let peer = Peer::new();
    let [a, b, c] = ["0", "1", "2"]
        .map(|number| peer.connect(&format!("veth{number}"), &format!("eth{number}")));
    let mut object = Object::load();
    let programs = object.classifiers();
    let best = hooks()[0];
    let kept = attach_interface(&folder.0, 1, a, best, programs).unwrap();
    let left = attach_interface(&folder.0, 2, b, best, programs).unwrap();
    let filters = attach_interface(&folder.0, 3, c, TcHook::Clsact, programs).unwrap();
    assert_eq!(
        attach::attached(&folder.0).unwrap(),
        BTreeSet::from([1, 2, 3])
    );
    let gone = detach_others(&folder.0, &BTreeSet::from([1])).unwrap();
    assert_eq!(gone, BTreeSet::from([2, 3]));
    assert!(kept.stands(&folder.0).unwrap());
    assert!(!left.stands(&folder.0).unwrap());
    assert!(!filters.stands(&folder.0).unwrap());
}

#[test]
fn no_packet_passes_while_programs_are_replaced() {
    enter_new_netns();
    let folder = Folder::new("gap");
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    run("ip addr add 10.99.0.1/24 dev veth0");
    peer.run("ip addr add 10.99.0.2/24 dev eth0");
    let inner = peer.run("ip -o link show eth0");
    let mac = inner
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .unwrap();
    run(&format!(
        "ip neigh replace 10.99.0.2 lladdr {mac} dev veth0 nud permanent"
    ));
    let received = || {
        let statistics = peer.run("ip -s -o -4 link show eth0");
        let rx = statistics.split("RX:").nth(1).unwrap();
        rx.split_whitespace()
            .filter_map(|word| word.parse::<u64>().ok())
            .nth(1)
            .unwrap()
    };

    let socket = UdpSocket::bind("10.99.0.1:0").unwrap();
    let before = received();
    socket.send_to(b"x", "10.99.0.2:9").unwrap();
    eventually("a packet passes without programs", || received() > before);

    let mut objects = [Object::load(), Object::load()];
    let [a, b] = &mut objects;
    let programs = [a.dropping_classifiers(), b.dropping_classifiers()];
    let hooks = hooks();
    let attached = attach_interface(&folder.0, 1, index, hooks[0], programs[0]).unwrap();
    assert!(attached.stands(&folder.0).unwrap());
    let before = received();
    let (end, ended) = mpsc::sync_channel::<()>(1);
    let flood = thread::spawn(move || {
        let mut sent = 0u64;
        while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
            // Refused by the hook or not: what counts is what arrives.
            sent += u64::from(socket.send_to(b"x", "10.99.0.2:9").is_ok());
        }
        sent
    });
    for round in 0..200 {
        let hook = hooks[round / 50 % hooks.len()];
        let again = attach_interface(&folder.0, 1, index, hook, programs[round % 2]).unwrap();
        assert!(again.stands(&folder.0).unwrap());
    }
    drop(end);
    let sent = flood.join().unwrap();
    assert!(sent > 1000, "{sent} packets are no flood");
    assert_eq!(received() - before, 0, "of {sent} packets");

    detach_all(&folder.0).unwrap();
    let socket = UdpSocket::bind("10.99.0.1:0").unwrap();
    socket.send_to(b"x", "10.99.0.2:9").unwrap();
    eventually("a packet passes after detaching", || received() > before);
}

// === Cgroups ===

/// A cgroup that leaves with the test.
struct TestCgroup {
    name: CgroupName,
    path: PathBuf,
}

impl TestCgroup {
    fn new(hierarchy: &Hierarchy, name: &str) -> Self {
        let name = format!("ringfence-test-{}-{name}", std::process::id());
        let path = hierarchy.root().join(&name);
        fs::create_dir(&path).unwrap();
        Self {
            name: CgroupName::path(&name).unwrap(),
            path,
        }
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        if self.path.exists() {
            fs::remove_dir(&self.path).unwrap();
        }
    }
}

const CGROUP_PROGRAMS: [&str; 2] = ["cgroup_egress", "cgroup_ingress"];

#[test]
fn cgroup_links_are_taken_over_and_leave_nothing() {
    let folder = Folder::new("cgroup");
    let hierarchy = Hierarchy::find().unwrap();
    let place = TestCgroup::new(&hierarchy, "links");
    let cgroup = hierarchy.open(&place.name).unwrap();
    let mut first = Object::load();
    let attached = attach_cgroup(&folder.0, 7, &cgroup, first.cgroup_programs()).unwrap();
    assert_eq!(attached.outcome(), Outcome::Attached);
    assert_eq!(attached.target(), Target::Cgroup { id: cgroup.id() });
    assert_eq!(
        attached.verify(&folder.0).unwrap(),
        attached_as(first.ids(CGROUP_PROGRAMS))
    );
    assert_eq!(
        folder.names(),
        ["cg-7-in", "cg-7-out"].map(String::from).into()
    );

    drop(first);
    let mut second = Object::load();
    let again = attach_cgroup(&folder.0, 7, &cgroup, second.cgroup_programs()).unwrap();
    assert_eq!(again.outcome(), Outcome::TakenOver);
    assert_eq!(
        again.verify(&folder.0).unwrap(),
        attached_as(second.ids(CGROUP_PROGRAMS))
    );

    detach_all(&folder.0).unwrap();
    assert_eq!(again.verify(&folder.0).unwrap(), [Observed::Gone; 2]);
    assert_eq!(folder.names(), BTreeSet::new());
}

#[test]
fn a_cgroup_that_comes_back_is_another_and_attached_anew() {
    let folder = Folder::new("cgroup-back");
    let hierarchy = Hierarchy::find().unwrap();
    let place = TestCgroup::new(&hierarchy, "back");
    let cgroup = hierarchy.open(&place.name).unwrap();
    let attached = attach_cgroup(&folder.0, 7, &cgroup, Object::load().cgroup_programs()).unwrap();
    fs::remove_dir(&place.path).unwrap();
    assert!(matches!(
        hierarchy.open(&place.name),
        Err(CgroupError::Absent { .. })
    ));
    eventually("the link lost its cgroup", || {
        !attached.stands(&folder.0).unwrap()
    });
    fs::create_dir(&place.path).unwrap();
    let reborn = hierarchy.open(&place.name).unwrap();
    assert_ne!(reborn.id(), cgroup.id());
    let attached = attach_cgroup(&folder.0, 7, &reborn, Object::load().cgroup_programs()).unwrap();
    assert_eq!(attached.outcome(), Outcome::Attached);
    assert!(attached.stands(&folder.0).unwrap());
}

#[test]
fn an_attached_cgroup_drops_and_a_detached_one_does_not() {
    enter_new_netns();
    let folder = Folder::new("cgroup-drop");
    let hierarchy = Hierarchy::find().unwrap();
    let place = TestCgroup::new(&hierarchy, "drop");
    let cgroup = hierarchy.open(&place.name).unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let port = receiver.local_addr().unwrap().port();
    let procs = place.path.join("cgroup.procs");
    let script = format!(
        "echo $$ > {}; echo x > /dev/udp/127.0.0.1/{port}",
        procs.display()
    );
    let passes = || {
        // What comes of a refused packet in bash does not matter; what arrives does.
        Command::new("bash").args(["-c", &script]).output().unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    };
    assert!(passes());
    let attached = attach_cgroup(&folder.0, 7, &cgroup, Object::load().cgroup_programs()).unwrap();
    assert!(!passes());
    attached.detach(&folder.0).unwrap();
    assert!(passes());
}

fn thread_id() -> i32 {
    rustix::thread::gettid().as_raw_pid()
}

#[test]
fn a_cgroup_that_appears_and_vanishes_is_told_in_time() {
    let hierarchy = Hierarchy::find().unwrap();
    let parent = TestCgroup::new(&hierarchy, "watch");
    let below = parent
        .path
        .strip_prefix(hierarchy.root())
        .unwrap()
        .join("a/b");
    let name = CgroupName::path(below.to_str().unwrap()).unwrap();
    let path = hierarchy.root().join(&below);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut watch = cgroup::Watch::new(hierarchy);
        watch.set([name.clone()]);
        let quiet = tokio::time::timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(quiet.is_err(), "nothing is there: {quiet:?}");
        fs::create_dir_all(&path).unwrap();
        let told = tokio::time::timeout(patient(Duration::from_secs(2)), watch.changed())
            .await
            .unwrap();
        assert!(matches!(told.as_slice(), [change] if change.name == name && change.now.is_some()));
        fs::remove_dir(&path).unwrap();
        let told = tokio::time::timeout(patient(Duration::from_secs(2)), watch.changed())
            .await
            .unwrap();
        assert_eq!(told, [cgroup::Change { name, now: None }]);
    });
    fs::remove_dir(path.parent().unwrap()).unwrap();
}

// === Finding interfaces ===

#[test]
fn the_host_side_is_found_from_the_namespace() {
    enter_new_netns();
    let peer = Peer::new();
    let other = Peer::new();
    let seen = || link::resolve(&peer.netns()).unwrap();
    assert!(matches!(seen(), Err(error @ LinkError::NoHostSide(_)) if error.may_pass()));
    other.connect("other0", "eth0");
    assert!(matches!(seen(), Err(LinkError::NoHostSide(_))));
    let index = peer.connect("veth0", "eth0");
    let link = seen().unwrap();
    assert_eq!((link.index, link.name.as_str()), (index, "veth0"));
    peer.connect("veth1", "eth1");
    match seen() {
        Err(LinkError::Several { mut names, .. }) => {
            names.sort();
            assert_eq!(names, ["veth0", "veth1"]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_endpoint_is_refused_by_name() {
    enter_new_netns();
    let error = |spec: EndpointSpec| link::resolve(&spec).unwrap().unwrap_err();
    let own = format!("/proc/{}/ns/net", thread_id());
    assert!(matches!(
        error(EndpointSpec::Netns(own)),
        LinkError::OwnNamespace(_)
    ));
    let file = EndpointSpec::Netns("/proc/self/status".to_owned());
    assert!(matches!(error(file), LinkError::NotANamespace(_)));
    let absent = EndpointSpec::Netns("/run/netns/ringfence-none".to_owned());
    assert!(matches!(error(absent), LinkError::NoNamespace(_)));
    let lo = error(EndpointSpec::Interface("lo".to_owned()));
    assert!(
        matches!(&lo, LinkError::NotEthernet { hardware: 772, .. }),
        "{lo:?}"
    );
    assert!(!lo.may_pass());
    let none = error(EndpointSpec::Interface("none0".to_owned()));
    assert_eq!(none.to_string(), "interface none0 does not exist");
    assert!(none.may_pass());
}

#[test]
fn addresses_and_changes_are_told() {
    enter_new_netns();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut watch = link::Watch::new().unwrap();
        run("ip link add d0 type veth peer name d1");
        run("ip addr add 10.98.0.1 peer 10.98.0.2/32 dev d0");
        run("ip link del d0");
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(link::Change::LinkGone(link)) if link.name == "d0") {
            let next = tokio::time::timeout(patient(Duration::from_secs(2)), watch.changed());
            seen.extend(next.await.unwrap().unwrap());
        }
        let appeared = |change: &link::Change| {
            matches!(change, link::Change::Link(link) if link.name == "d0")
        };
        assert!(seen.iter().any(appeared), "{seen:?}");
        assert!(seen.contains(&link::Change::Addresses), "{seen:?}");
        // More than the socket's buffer holds, unread.
        for _ in 0..40 {
            let script = "for i in $(seq 60); do echo addr add 10.98.1.$i/32 dev lo; done; echo addr flush dev lo scope global";
            run_shell(&format!("({script}) | ip -batch -"));
        }
        let mut lost = false;
        while !lost {
            let next = tokio::time::timeout(patient(Duration::from_secs(2)), watch.changed());
            lost = next.await.expect("lost changes are told").unwrap().contains(&link::Change::Lost);
        }
    });
    run("ip addr add 10.98.0.1 peer 10.98.0.2/32 dev lo");
    let addresses = link::addresses().unwrap();
    assert!(
        addresses.contains(&"10.98.0.1".parse().unwrap()),
        "{addresses:?}"
    );
    assert!(
        !addresses.contains(&"10.98.0.2".parse().unwrap()),
        "{addresses:?}"
    );
    assert!(addresses.contains(&"::1".parse().unwrap()), "{addresses:?}");
}

fn run_shell(script: &str) {
    let status = Command::new("sh").args(["-c", script]).status().unwrap();
    assert!(status.success(), "{script}");
}

// === The folder, and the kernel ===

#[test]
fn a_bpf_filesystem_is_mounted_where_missing_and_taken_back() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("deep/bpf");
    assert_eq!(BpfDir::existing(&path).unwrap(), None);
    let dir = BpfDir::prepare(&path).unwrap();
    assert!(dir.links().is_dir() && dir.maps().is_dir());
    assert_eq!(
        BpfDir::prepare(&path).unwrap(),
        dir,
        "a second agent finds it made"
    );
    let old = path.join("maps-v0");
    fs::create_dir(&old).unwrap();
    assert_eq!(dir.foreign_maps().unwrap(), [old]);
    assert_eq!(BpfDir::existing(&path).unwrap(), Some(dir.clone()));
    dir.remove_all().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_folder_that_holds_something_is_not_hidden_by_a_mount() {
    let temporary = tempfile::tempdir().unwrap();
    fs::write(temporary.path().join("precious"), "x").unwrap();
    let error = BpfDir::prepare(temporary.path()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
}

#[test]
fn what_others_keep_in_the_folder_stays() {
    let folder = Folder::new("foreign");
    let foreign = folder.0.path().join("theirs");
    fs::create_dir(&foreign).unwrap();
    let error = folder.0.clone().remove_all().unwrap_err();
    assert!(error.to_string().contains("theirs"), "{error}");
    assert!(foreign.is_dir() && !folder.0.links().exists());
    fs::remove_dir(&foreign).unwrap();
}

#[test]
fn this_kernel_has_what_is_required() {
    features::privileges().unwrap();
    let features = features::require().unwrap();
    assert!(
        features
            .iter()
            .all(|feature| feature.available || !feature.required)
    );
    let tcx = features
        .iter()
        .find(|feature| feature.name == "TCX")
        .unwrap();
    assert_eq!(tcx.available, TcHook::of_kernel().unwrap() == TcHook::Tcx);
}

#[test]
fn links_go_with_their_last_name() {
    if !has_tcx() {
        return;
    }
    enter_new_netns();
    let folder = Folder::new("last");
    let peer = Peer::new();
    let index = peer.connect("veth0", "eth0");
    let before = links_alive();
    let attached = interface(&folder.0, index, TcHook::Tcx, &mut Object::load());
    let made: BTreeSet<_> = &links_alive() - &before;
    assert!(made.len() >= 2, "{made:?}");
    let [from, to] = ["if-1-from", "if-1-to"].map(|name| folder.0.links().join(name));
    assert!(from.exists() && to.exists());
    attached.detach(&folder.0).unwrap();
    eventually("the kernel frees the links", || {
        SchedClassifier::query_tcx("veth0", TcAttachType::Ingress)
            .is_ok_and(|(_, programs)| programs.is_empty())
    });
}
