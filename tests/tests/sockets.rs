//! Sockets are ended one by one, and nobody else's.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use ringfence::datapath::sockets::{Connected, Owner, Sockets};
use ringfence_lab::cgroup;

const TCP: u8 = 6;
const UDP: u8 = 17;

fn connected(protocol: u8, local: SocketAddr, remote: SocketAddr) -> Connected {
    Connected {
        protocol,
        local: (local.ip(), local.port()),
        remote: (remote.ip(), remote.port()),
    }
}

/// The group that this process, and so its sockets, belong to.
fn own_group() -> Result<BTreeSet<u64>> {
    let table = fs::read_to_string("/proc/self/cgroup")?;
    let path = table.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = path.context("no group of version 2")?;
    Ok([fs::metadata(cgroup::root()?.join(path))?.ino()].into())
}

#[test]
fn the_owner_of_a_connection_sees_it_end_and_the_listener_stays() -> Result<()> {
    let (sockets, ours_alone) = (Sockets::new()?, own_group()?);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address)?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (_server, _) = listener.accept()?;
        let (ours, theirs) = (client.local_addr()?, client.peer_addr()?);
        ensure!(sockets.end(connected(TCP, ours, theirs), Owner::Groups(&ours_alone))?);
        let error = client.read(&mut [0]).err();
        ensure!(error.map(|error| error.kind()) == Some(ErrorKind::ConnectionAborted));
        // Nobody is connected from there: the kernel finds the listener.
        let nobody = SocketAddr::new(ours.ip(), 1);
        ensure!(!sockets.end(connected(TCP, theirs, nobody), Owner::Groups(&ours_alone))?);
        TcpStream::connect(listener.local_addr()?)?;
    }
    Ok(())
}

#[test]
fn a_connection_over_ipv4_of_an_ipv6_socket_is_found() -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let client = TcpStream::connect(("127.0.0.1", listener.local_addr()?.port()))?;
    let (mut server, _) = listener.accept()?;
    let (ours, theirs) = (client.peer_addr()?, client.local_addr()?);
    ensure!(Sockets::new()?.end(connected(TCP, ours, theirs), Owner::Groups(&own_group()?))?);
    let error = server.read(&mut [0]).err();
    ensure!(error.map(|error| error.kind()) == Some(ErrorKind::ConnectionAborted));
    Ok(())
}

#[test]
fn a_socket_of_another_group_is_left_alone() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (ours, theirs) = (client.local_addr()?, client.peer_addr()?);
    let others: BTreeSet<u64> = own_group()?.into_iter().map(|id| id + 1).collect();
    ensure!(!Sockets::new()?.end(connected(TCP, ours, theirs), Owner::Groups(&others))?);
    Ok(())
}

#[test]
fn a_udp_socket_is_ended_only_if_it_is_connected() -> Result<()> {
    let (sockets, ours_alone) = (Sockets::new()?, own_group()?);
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(server.local_addr()?)?;
    let (ours, theirs) = (client.local_addr()?, server.local_addr()?);
    ensure!(!sockets.end(connected(UDP, theirs, ours), Owner::Groups(&ours_alone))?);
    ensure!(sockets.end(connected(UDP, ours, theirs), Owner::Groups(&ours_alone))?);
    let error = client.recv(&mut [0]).err();
    ensure!(error.map(|error| error.kind()) == Some(ErrorKind::ConnectionAborted));
    server.send_to(b"x", "127.0.0.1:9")?;
    Ok(())
}
