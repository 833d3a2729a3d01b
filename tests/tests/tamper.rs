//! Somebody changes what the agent has in the kernel: it notices, puts it right, and tells.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use agent_common::abi::ABI_VERSION;
use anyhow::{Context, Result, ensure};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::hold::Hold;
use ringfence_lab::lab::Lab;
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::prober::Prober;
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;

/// For what is to take less than a second, on a busy machine.
const NOTICED: Duration = Duration::from_secs(5);
/// Attempts of a prober in well more than a second.
const WHILE: u64 = 150;

// === What others do ===

fn maps_folder(agent: &Agent) -> PathBuf {
    agent.bpffs().join(format!("maps-v{ABI_VERSION}"))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths.collect()
}

/// The maps of an agent, as anybody with the right to can open them.
struct Maps(PathBuf);

impl Maps {
    fn of(agent: &Agent) -> Self {
        Self(maps_folder(agent))
    }

    fn open(&self, name: &str) -> Result<MapData> {
        MapData::from_pin(self.0.join(name)).with_context(|| format!("no map {name}"))
    }

    fn hash<K: Pod, V: Pod>(&self, name: &str) -> Result<HashMap<MapData, K, V>> {
        Ok(Map::HashMap(self.open(name)?).try_into()?)
    }

    fn trie<K: Pod, V: Pod>(&self, name: &str) -> Result<LpmTrie<MapData, K, V>> {
        Ok(Map::LpmTrie(self.open(name)?).try_into()?)
    }

    fn words(&self, name: &str) -> Result<Array<MapData, u64>> {
        Ok(Map::Array(self.open(name)?).try_into()?)
    }

    /// The states of the first endpoints, as many as a scene has.
    fn all_words(&self) -> Result<Vec<u64>> {
        let words = self.words("WORDS")?;
        let all = (0..8).map(|endpoint| Ok(words.get(&endpoint, 0)?));
        all.collect()
    }

    /// The slot of an address's identity.
    fn slot(&self, address: [u8; 4]) -> Result<u32> {
        Ok(self.hash::<[u8; 4], u32>("HOSTS_V4")?.get(&address, 0)?)
    }
}

const FRIEND: [u8; 4] = [10, 77, 0, 3];
const STRANGER: [u8; 4] = [10, 77, 0, 4];

// === What the agent does ===

fn counted(agent: &Agent, how: &str) -> u64 {
    let status = agent.status().unwrap_or_default();
    status["tampered"][how].as_u64().unwrap_or(0)
}

/// Until it is counted and in the records; whether that came to pass.
fn is_told(agent: &Agent, how: &str, what: &str) -> Result<()> {
    let told = eventually(NOTICED, || {
        let records = agent.flows(1000).unwrap_or_default();
        let is_it = |record: &serde_json::Value| {
            record["kind"] == "tampering"
                && record["how"] == how
                && record["restored"] == true
                && record["what"]
                    .as_str()
                    .is_some_and(|shown| shown.contains(what))
        };
        counted(agent, how) > 0 && records.iter().any(is_it)
    });
    ensure!(
        told,
        "{how} of {what} is not told: {:?}\n{}",
        agent.status().map(|status| status["tampered"].clone()),
        agent.log()
    );
    Ok(())
}

/// Lets a prober go on for a while, and ends it: nothing got through later than [`NOTICED`] after
/// `done`. How late something did, if anything did.
fn closes(prober: Prober, done: Instant) -> Result<Option<Duration>> {
    let is_quiet = |prober: &Prober| -> Result<bool> {
        let before = prober.successes();
        prober.makes(WHILE)?;
        Ok(prober.successes() == before)
    };
    let mut quiet = is_quiet(&prober)?;
    while !quiet && done.elapsed() < 2 * NOTICED {
        quiet = is_quiet(&prober)?;
    }
    let late = prober
        .span_of_success()
        .map(|(_, last)| last.saturating_duration_since(done));
    let (_, successes) = prober.finish();
    ensure!(
        quiet && late.is_none_or(|late| late < NOTICED),
        "{successes} attempts got through, the last after {late:?}"
    );
    Ok(late)
}

fn is_enforced(scene: &Scene) -> Result<()> {
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(protocol, to)?;
            scene.stranger.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

// === Programs and links ===

/// Tampers with all that the programs of the scene's agent hang by, under a prober that must not get through for long.
fn put_right(how: &str, what: &str, tamper: impl Fn(&Hold, &Lab) -> Result<()>) -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let stream = scene.friend.stream(scene.server.v4(PORT))?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(10)?;
    ensure!(prober.successes() == 0, "the stranger is let in");
    let done = Instant::now();
    for hold in Hold::all(&agent)? {
        tamper(&hold, &scene.lab)?;
    }
    is_told(&agent, how, what)?;
    closes(prober, done)?;
    is_enforced(&scene)?;
    stream.advances()?;
    stream.finish().unbroken()
}

#[test]
fn a_link_that_is_cut_is_put_back() -> Result<()> {
    put_right("detached", "interface veth-server", |hold, lab| {
        hold.cut(lab.host())
    })
}

#[test]
fn a_program_that_is_replaced_is_put_back() -> Result<()> {
    put_right("replaced", "interface veth-server", |hold, lab| {
        hold.let_all_pass(lab.host(), &lab.bpffs().join("all-pass"))
    })
}

#[test]
fn a_link_that_loses_its_name_goes_on_and_is_pinned_again() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(10)?;
    let before = Hold::all(&agent)?;
    for hold in &before {
        hold.unname()?;
    }
    is_told(&agent, "unpinned", "interface veth-server")?;
    ensure!(Hold::all(&agent)?.len() == before.len(), "pins are missing");
    // Nothing was off for a moment, and it outlives the agent as before.
    agent.kill()?;
    prober.makes(WHILE)?;
    prober.finish_denied()?;
    is_enforced(&scene)
}

#[test]
fn what_hung_on_a_clsact_that_is_flushed_is_put_back() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(10)?;
    let done = Instant::now();
    // Where the kernel has TCX there is none, and making one takes nothing away.
    let flush = ["qdisc", "delete", "dev", scene.server.interface(), "clsact"];
    let flushed = scene.lab.host().ask("tc", &flush).is_ok();
    if flushed {
        is_told(&agent, "detached", "interface veth-server")?;
    } else {
        let interface = scene.server.interface();
        let add = ["qdisc", "add", "dev", interface, "clsact"];
        scene.lab.host().ask("tc", &add)?;
        scene.lab.host().ask("tc", &flush)?;
    }
    closes(prober, done)?;
    is_enforced(&scene)
}

#[test]
fn a_group_whose_links_are_cut_is_confined_again() -> Result<()> {
    let lab = Lab::bridged()?;
    let stranger = lab.peer("stranger", 3)?;
    let _service = stranger.serve_udp(PORT)?;
    let group = Cgroup::create(&lab, "service", env!("CARGO_BIN_EXE_lab-peer"))?;
    let inventory = manifest::cgroup(group.name(), "shop", "service", &[("app", "server")]);
    lab.write("policies/inventory.yaml", &inventory)?;
    let closed = FRIEND_ONLY.replace("ingress:", "policyTypes: [Ingress, Egress]\n  ingress:");
    lab.write("policies/policy.yaml", &closed)?;
    let agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
    let confined = || {
        let seen = group.probe(lab.host(), Protocol::Udp, stranger.v4(PORT));
        seen.is_ok_and(|seen| seen != Outcome::Allowed)
    };
    ensure!(confined(), "the group is not confined to begin with");
    for hold in Hold::all(&agent)? {
        hold.cut(lab.host())?;
    }
    is_told(&agent, "detached", group.name())?;
    ensure!(confined(), "the group is not confined again");
    Ok(())
}

/// An interface that goes and comes back is the node's daily life.
#[test]
fn an_interface_that_goes_is_no_tampering() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let gone = scene.lab.peer("other", 9)?;
    let inventory = manifest::interface(&gone, "shop", &[("app", "other")]);
    scene.lab.write("policies/other.yaml", &inventory)?;
    let state = |state: &str| {
        agent.status_eventually(NOTICED, |status| {
            let endpoints = status["endpoints"].as_array().cloned().unwrap_or_default();
            let is_it = |endpoint: &serde_json::Value| {
                endpoint["name"] == "shop/other" && endpoint["state"] == state
            };
            endpoints.iter().any(is_it)
        })
    };
    ensure!(state("attached"), "not attached: {:?}", agent.status());
    drop(gone);
    ensure!(state("waiting"), "not waiting: {:?}", agent.status());
    let _back = scene.lab.peer("other", 9)?;
    ensure!(
        state("attached"),
        "not attached again: {:?}",
        agent.status()
    );
    let status = agent.status()?;
    ensure!(status["tampered"].is_null(), "{}", status["tampered"]);
    Ok(())
}

// === Names of maps ===

#[test]
fn maps_that_lose_their_names_are_pinned_again_for_the_next_agent() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let stream = scene.friend.stream(scene.server.v4(PORT))?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    let words = Maps::of(&agent).all_words()?;
    let maps = files(&maps_folder(&agent))?;
    for map in &maps {
        fs::remove_file(map).with_context(|| format!("cannot remove {}", map.display()))?;
    }
    is_told(&agent, "unpinned", "map POLICY")?;
    let again = eventually(NOTICED, || {
        files(&maps_folder(&agent)).is_ok_and(|now| now.len() == maps.len())
    });
    ensure!(again, "maps are missing");
    // The next agent finds the same tables, and no endpoint to be judged otherwise.
    agent.kill()?;
    agent.start()?;
    let now = Maps::of(&agent).all_words()?;
    ensure!(now == words, "{now:?}, not {words:?}\n{}", agent.log());
    prober.finish_denied()?;
    stream.advances()?;
    stream.finish().unbroken()
}

#[test]
fn a_folder_that_is_removed_is_made_again() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    for folder in [maps_folder(&agent), agent.bpffs().join("links")] {
        match fs::remove_dir_all(&folder) {
            // The agent was quicker to put some of it back.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => removed?,
        }
    }
    is_told(&agent, "unpinned", "map WORDS")?;
    is_told(&agent, "unpinned", "interface veth-server")?;
    agent.kill()?;
    prober.makes(WHILE)?;
    prober.finish_denied()?;
    agent.start()?;
    is_enforced(&scene)
}

// === What stands in maps ===

/// Writes to a map while somebody who must not get in tries: he is not in for long, not with what he
/// has begun meanwhile either.
fn written(map: &str, write: impl Fn(&Maps) -> Result<()>) -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(10)?;
    ensure!(prober.successes() == 0, "the stranger is let in");
    let done = Instant::now();
    write(&Maps::of(&agent))?;
    is_told(&agent, "written", &format!("map {map}"))?;
    closes(prober, done).with_context(|| agent.log())?;
    is_enforced(&scene)?;
    let status = agent.status()?;
    let written = counted(&agent, "written");
    // It was put right at once, and nothing of the agent's own has been taken for somebody else's.
    ensure!(written < 100, "{}", status["tampered"]);
    Ok(())
}

#[test]
fn a_word_is_put_back() -> Result<()> {
    // Every endpoint becomes one that no policy selects.
    written("WORDS", |maps| {
        let mut words = maps.words("WORDS")?;
        let all = maps.all_words()?;
        for (at, _) in (0..).zip(&all).filter(|(_, word)| **word != 0) {
            words.set(at, 0xffff_ffff_0000_0001, 0)?;
        }
        Ok(())
    })
}

#[test]
fn an_interface_that_is_forgotten_is_known_again() -> Result<()> {
    written("INTERFACES", |maps| {
        let mut interfaces = maps.hash::<u32, [u8; 4]>("INTERFACES")?;
        let known: Vec<u32> = interfaces.keys().collect::<Result<_, _>>()?;
        for index in known {
            interfaces.remove(&index)?;
        }
        Ok(())
    })
}

#[test]
fn an_interface_that_is_led_elsewhere_is_led_back() -> Result<()> {
    // Each leads to an endpoint that there is not.
    written("LEADS", |maps| {
        let mut leads = maps.words("LEADS")?;
        let all: Vec<u64> = leads.iter().collect::<Result<_, _>>()?;
        for (at, lead) in (0..).zip(all).filter(|(_, lead)| *lead != 0) {
            leads.set(at, lead & 0xffff_ffff | 77 << 32, 0)?;
        }
        Ok(())
    })
}

#[test]
fn an_address_that_is_given_anothers_identity_gets_its_own_back() -> Result<()> {
    written("HOSTS_V4", |maps| {
        let mut hosts = maps.hash::<[u8; 4], u32>("HOSTS_V4")?;
        Ok(hosts.insert(STRANGER, maps.slot(FRIEND)?, 0)?)
    })
}

#[test]
fn an_address_that_is_added_goes_again() -> Result<()> {
    written("IPCACHE_V4", |maps| {
        let mut trie = maps.trie::<[u8; 4], u32>("IPCACHE_V4")?;
        Ok(trie.insert(&Key::new(24, [192, 0, 2, 0]), maps.slot(FRIEND)?, 0)?)
    })?;
    written("IPCACHE_V6", |maps| {
        let mut trie = maps.trie::<[u8; 16], u32>("IPCACHE_V6")?;
        Ok(trie.insert(&Key::new(32, [0x20; 16]), maps.slot(FRIEND)?, 0)?)
    })?;
    // Whole addresses stand in tables of their own.
    written("IPCACHE_V4", |maps| {
        let mut trie = maps.trie::<[u8; 4], u32>("IPCACHE_V4")?;
        Ok(trie.insert(&Key::new(32, [192, 0, 2, 1]), maps.slot(FRIEND)?, 0)?)
    })?;
    written("HOSTS_V6", |maps| {
        let mut hosts = maps.hash::<[u8; 16], u32>("HOSTS_V6")?;
        Ok(hosts.insert([0x20; 16], maps.slot(FRIEND)?, 0)?)
    })
}

#[test]
fn an_identity_is_put_back() -> Result<()> {
    written("IDENTITIES", |maps| {
        // The friend is nobody that policy knows any more.
        let mut identities = maps.words("IDENTITIES")?;
        Ok(identities.set(maps.slot(FRIEND)?, 0, 0)?)
    })
}

/// The identity of whom policy does not tell apart, as the stranger.
const NOBODY: u32 = 0;

/// The middle 24 bits of a slot's word.
fn after(word: u64) -> u32 {
    u32::try_from(word >> 16 & 0xff_ffff).unwrap_or(0)
}

#[test]
fn a_policy_entry_that_is_added_goes_again() -> Result<()> {
    written("POLICY", |maps| {
        let friend = after(maps.words("IDENTITIES")?.get(&maps.slot(FRIEND)?, 0)?);
        let mut policy = maps.hash::<[u32; 3], u32>("POLICY")?;
        let entries: Vec<_> = policy.iter().collect::<Result<_, _>>()?;
        for ([set, direction, identity], slot) in entries {
            if identity == friend {
                policy.insert([set, direction, NOBODY], slot, 0)?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_answer_is_put_back() -> Result<()> {
    written("ANSWERS", |maps| {
        let policy = maps.hash::<[u32; 3], u32>("POLICY")?;
        let mut answers = maps.words("ANSWERS")?;
        for entry in &policy {
            let (_, slot) = entry?;
            // Nobody is let in any more.
            answers.set(slot, 0, 0)?;
        }
        Ok(())
    })
}

/// Decisions that permit everything, 24 bytes: rule, action, until, what follows.
fn permitted() -> [u64; 3] {
    const ALLOW: u64 = 1;
    [ALLOW << 32 | 1, u64::MAX, 0]
}

#[test]
fn a_port_that_is_added_goes_again_whatever_its_key() -> Result<()> {
    for bits in [0, 56] {
        let scene = Scene::with(FRIEND_ONLY)?;
        let agent = scene.enforced()?;
        let to = scene.server.v4(OTHER_PORT);
        let prober = scene.friend.prober(Protocol::Udp, to);
        prober.makes(10)?;
        ensure!(prober.successes() == 0, "the other port is open");
        let done = Instant::now();
        let mut ports = Maps::of(&agent).trie::<[u8; 8], [u64; 3]>("PORTS")?;
        let held: Vec<_> = ports.keys().collect::<Result<_, _>>()?;
        for key in held {
            let [a, b, c, d, _, _, _, _] = key.data();
            let [high, low] = OTHER_PORT.to_be_bytes();
            let other = [a, b, c, d, 17, high, low, 0];
            ports.insert(&Key::new(bits, other), permitted(), 0)?;
        }
        is_told(&agent, "written", "map PORTS")?;
        closes(prober, done)?;
        scene.friend.is_dropped_to(Protocol::Udp, to)?;
        is_enforced(&scene)?;
    }
    Ok(())
}

#[test]
fn addresses_groups_and_sockets_that_are_added_go_again() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    let maps = Maps::of(&agent);
    let mut addresses = maps.hash::<[u32; 5], u32>("ADDRESSES")?;
    let mut groups = maps.hash::<u64, u32>("CGROUPS")?;
    let mut sockets = maps.hash::<[u32; 2], u32>("SOCKETS")?;
    let before = addresses.keys().count();
    addresses.insert([1, 0, 0, 0xffff_0000, 0x0100_000a], 1, 0)?;
    groups.insert(1, 1, 0)?;
    sockets.insert([1, 7], 0, 0)?;
    for map in ["ADDRESSES", "CGROUPS", "SOCKETS"] {
        is_told(&agent, "written", &format!("map {map}"))?;
    }
    ensure!(addresses.keys().count() == before, "an address stays");
    ensure!(groups.keys().count() == 0, "a group stays");
    ensure!(sockets.keys().count() == 0, "a socket stays");
    is_enforced(&scene)
}
