//! The lab itself, without an agent: everything reaches everything, and nothing stays behind.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::cgroup::{self, Cgroup};
use ringfence_lab::kernel::Objects;
use ringfence_lab::lab::{FOLDER, Lab, Peer, Wiring};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::wait::eventually;

const PORT: u16 = 8080;

fn everybody_reaches_everybody(wiring: Wiring) -> Result<()> {
    let lab = Lab::new(wiring)?;
    let peers = [lab.peer("a", 2)?, lab.peer("b", 3)?, lab.outside("world")?];
    let mut services = Vec::new();
    for netns in peers.iter().map(|peer| &**peer).chain([lab.host()]) {
        for protocol in Protocol::ALL {
            services.push(netns.serve(protocol, PORT)?);
        }
    }
    for (index, from) in peers.iter().enumerate() {
        // The service answers a datagram from the address nearest to the asker, so the world,
        // which is asked from elsewhere, would not know the reply as one.
        let host = lab.host_addresses().into_iter().filter(|_| index < 2);
        let to = peers.iter().flat_map(Peer::addresses).chain(host);
        for to in to {
            for protocol in Protocol::ALL {
                let seen = from.probe(protocol, (to, PORT).into());
                ensure!(
                    seen == Outcome::Allowed,
                    "{} {protocol} {to}: {seen}",
                    from.role()
                );
            }
            let seen = from.ping(to);
            ensure!(
                seen == Outcome::Allowed,
                "{} ping {to}: {seen}",
                from.role()
            );
        }
    }
    Ok(())
}

#[test]
fn on_a_bridge_everybody_reaches_everybody() -> Result<()> {
    everybody_reaches_everybody(Wiring::Bridged)
}

#[test]
fn over_routed_links_everybody_reaches_everybody() -> Result<()> {
    everybody_reaches_everybody(Wiring::Routed)
}

#[test]
fn a_closed_port_is_refused_and_a_missing_host_is_not_reached() -> Result<()> {
    let lab = Lab::routed()?;
    let (a, b) = (lab.peer("a", 2)?, lab.peer("b", 3)?);
    for to in b.at(PORT) {
        let seen = a.tcp(to);
        ensure!(matches!(seen, Outcome::Refused(_)), "a closed port: {seen}");
    }
    // A hole in the lab's own route table stands for what drops without a word.
    lab.host().ip("route replace blackhole 203.0.113.7/32")?;
    let seen = lab.outside("world")?.udp("203.0.113.7:9".parse()?);
    ensure!(seen != Outcome::Allowed, "nothing is there, yet: {seen}");
    Ok(())
}

#[test]
fn a_stream_and_a_prober_count_what_passes() -> Result<()> {
    let lab = Lab::bridged()?;
    let (a, b) = (lab.peer("a", 2)?, lab.peer("b", 3)?);
    let _services = (b.serve_tcp(PORT)?, b.serve_udp(PORT)?);
    let stream = a.stream(b.v6(PORT))?;
    let probers = Protocol::ALL.map(|protocol| a.prober(protocol, b.v4(PORT)));
    stream.advances()?;
    for prober in probers {
        prober.makes(20)?;
        let (attempts, successes) = prober.finish();
        ensure!(successes == attempts, "{successes} of {attempts}");
    }
    let progress = stream.finish();
    progress.unbroken()?;
    ensure!(progress.sent == progress.echoed, "{progress:?}");
    Ok(())
}

#[test]
fn a_stream_notices_that_its_way_is_cut() -> Result<()> {
    let lab = Lab::bridged()?;
    let (a, b) = (lab.peer("a", 2)?, lab.peer("b", 3)?);
    let _service = b.serve_tcp(PORT)?;
    let stream = a.stream(b.v4(PORT))?;
    let prober = a.prober(Protocol::Tcp, b.v4(PORT));
    stream.advances()?;
    lab.host().ip("link set veth-b nomaster")?;
    prober.makes(1)?;
    let before = prober.successes();
    ensure!(
        stream.advances().is_err(),
        "the stream goes on without a wire"
    );
    prober.makes(50)?;
    ensure!(
        prober.successes() <= before + 1,
        "attempts succeed without a wire"
    );
    ensure!(
        stream.finish().unbroken().is_err(),
        "no loss without a wire"
    );
    Ok(())
}

#[test]
fn a_process_in_a_control_group_talks_both_ways() -> Result<()> {
    let lab = Lab::bridged()?;
    let peer = lab.peer("a", 2)?;
    let group = Cgroup::create(&lab, "group", env!("CARGO_BIN_EXE_lab-peer"))?;
    for protocol in Protocol::ALL {
        let _service = peer.serve(protocol, PORT)?;
        let _confined = group.serve(lab.host(), protocol, PORT)?;
        for to in peer.at(PORT) {
            let seen = group.probe(lab.host(), protocol, to)?;
            ensure!(seen == Outcome::Allowed, "{protocol} {to}: {seen}");
        }
        for to in lab.host_addresses() {
            let seen = peer.probe(protocol, (to, PORT).into());
            ensure!(seen == Outcome::Allowed, "{protocol} {to}: {seen}");
        }
    }
    let path = cgroup::root()?.join(group.name());
    drop(group);
    ensure!(!path.exists(), "{} is still there", path.display());
    Ok(())
}

#[test]
fn a_peer_can_go_and_come_back() -> Result<()> {
    let lab = Lab::bridged()?;
    for _ in 0..3 {
        let peer = lab.peer("a", 2)?;
        ensure!(
            lab.host().ask("ip", &["link"])?.contains(peer.interface()),
            "no interface"
        );
        drop(peer);
        ensure!(
            !lab.host().ask("ip", &["link"])?.contains("veth-a"),
            "the interface stayed"
        );
    }
    Ok(())
}

#[test]
fn nothing_of_a_lab_stays_behind() -> Result<()> {
    let lab = Lab::bridged()?;
    let peer = lab.peer("a", 2)?;
    let service = peer.serve_tcp(PORT)?;
    let (prefix, folder) = (lab.prefix().to_owned(), lab.folder().to_owned());
    let namespaces = || -> Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(FOLDER)? {
            // The separator keeps lab 1 apart from lab 10.
            let name = entry?.file_name().to_string_lossy().into_owned();
            count += usize::from(name.starts_with(&format!("{prefix}-")));
        }
        Ok(count)
    };
    ensure!(namespaces()? == 2, "one for the host and one for the peer");
    drop((service, peer, lab));
    ensure!(namespaces()? == 0, "namespaces are left of {prefix}");
    ensure!(!folder.exists(), "{} is left", folder.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&prefix), "a mount is left of {prefix}");
    Ok(())
}

#[test]
fn the_kernel_lists_its_bpf_objects() -> Result<()> {
    let before = Objects::now()?;
    ensure!(
        before.without(&before).is_empty(),
        "a set without itself is empty"
    );
    ensure!(
        eventually(Duration::ZERO, || true),
        "a condition is looked at even without time"
    );
    Ok(())
}
