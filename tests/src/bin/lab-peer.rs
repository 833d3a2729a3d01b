//! A peer as a process of its own, for what is known by its control group:
//! `lab-peer probe TCP|UDP ADDRESS:PORT` prints the outcome, `lab-peer connect …` that of connecting a
//! socket, over UDP without a word, `lab-peer serve TCP|UDP PORT` echoes, and
//! `lab-peer hold TCP|UDP ADDRESS:PORT` keeps a connection and prints how it ends: `closed` is also that
//! something has arrived. `lab-peer connect-handed …` and `lab-peer send-handed UDP …` do so
//! with a socket that somebody else has made: their standard input.
//!
//! `lab-peer frame INTERFACE BYTES` sends a frame, in hexadecimal digits; `lab-peer frame-past INTERFACE BYTES`
//! sends it past the interface's queueing discipline, and `lab-peer ping UDP ADDRESS:0` sends an echo request
//! from a raw socket and prints the outcome.

use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use ringfence_lab::probe::{Protocol, connect, echo, probe};
use ringfence_lab::serve;
use ringfence_lab::wire::Wire;
use rustix::net::SendFlags;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, protocol, object] = arguments.as_slice() else {
        bail!(
            "usage: lab-peer probe|connect|hold|connect-handed|send-handed|serve|ping TCP|UDP ADDRESS:PORT|PORT"
        );
    };
    if verb == "frame" || verb == "frame-past" {
        return send_frame(verb, protocol, object);
    }
    let protocol = match protocol.as_str() {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        other => bail!("not a protocol: {other}"),
    };
    match verb.as_str() {
        "probe" => {
            let to = object
                .parse()
                .with_context(|| format!("not an address: {object}"))?;
            println!("{}", probe(protocol, to));
            Ok(())
        }
        "ping" => {
            let to: SocketAddr = object
                .parse()
                .with_context(|| format!("not an address: {object}"))?;
            println!("{}", echo(to.ip()));
            Ok(())
        }
        "connect" => {
            let to = object
                .parse()
                .with_context(|| format!("not an address: {object}"))?;
            println!("{}", connect(protocol, to));
            Ok(())
        }
        "hold" => {
            let to: SocketAddr = object
                .parse()
                .with_context(|| format!("not an address: {object}"))?;
            let came = match protocol {
                Protocol::Tcp => {
                    let mut stream = TcpStream::connect(to)?;
                    println!("connected");
                    stream.read(&mut [0])
                }
                Protocol::Udp => {
                    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(any)?;
                    socket.connect(to)?;
                    socket.send(b"hello")?;
                    println!("connected");
                    socket.recv(&mut [0])
                }
            };
            match came {
                Ok(_) => println!("closed"),
                Err(error) => println!("{:?}", error.kind()),
            }
            Ok(())
        }
        "connect-handed" => {
            let (handed, to): (_, SocketAddr) = (std::io::stdin(), object.parse()?);
            rustix::net::connect(handed.as_fd(), &to)?;
            if protocol == Protocol::Udp {
                rustix::net::send(handed.as_fd(), b"hello", SendFlags::empty())?;
            }
            Ok(())
        }
        "send-handed" => {
            let (handed, to): (_, SocketAddr) = (std::io::stdin(), object.parse()?);
            rustix::net::sendto(handed.as_fd(), b"hello", SendFlags::empty(), &to)?;
            Ok(())
        }
        "serve" => {
            let port = object
                .parse()
                .with_context(|| format!("not a port: {object}"))?;
            serve::forever(protocol, port)
        }
        other => bail!("not a verb: {other}"),
    }
}

fn send_frame(verb: &str, interface: &str, digits: &str) -> Result<()> {
    let bytes = digits.as_bytes().chunks(2);
    let frame: Result<Vec<u8>> = bytes
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect();
    let wire = Wire::open(interface)?;
    if verb == "frame-past" {
        wire.bypass()?;
    }
    wire.send(&frame?)
}
