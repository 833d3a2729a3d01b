//! A peer as a process of its own, for what is known by its control group:
//! `lab-peer probe TCP|UDP ADDRESS:PORT` prints the outcome, `lab-peer connect …` that of connecting a
//! socket, over UDP without a word, `lab-peer serve TCP|UDP PORT` echoes, and
//! `lab-peer hold TCP|UDP ADDRESS:PORT` keeps a connection and prints how it ends: `closed` is also that
//! something has arrived. `lab-peer connect-handed …` and `lab-peer send-handed UDP …` do so
//! with a socket that somebody else has made: their standard input.
//!
//! `lab-peer frame INTERFACE BYTES` sends a frame, in hexadecimal digits; `lab-peer frame-past INTERFACE BYTES`
//! sends it past the interface's queueing discipline, and `lab-peer ping UDP ADDRESS:0` sends an echo request
//! from a raw socket and prints the outcome. `lab-peer frame-past-later …` makes its socket, says `ready`, and sends when
//! something is said to it.
//!
//! `lab-peer option KIND LEVEL:NAME:BYTES` sets an option of a new socket and prints what it is then, or the number
//! of the error; `lab-peer option-32 …` does it by a system call of 32 bits.
//!
//! `lab-peer obey - -` does what comes as messages on its standard input, see [`puppet`].

use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};
use ringfence_lab::options::OptionSocket;
use ringfence_lab::probe::{Protocol, connect, echo, probe};
use ringfence_lab::wire::Wire;
use ringfence_lab::{puppet, serve};
use rustix::net::SendFlags;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [verb, protocol, object] = arguments.as_slice() else {
        bail!(
            "usage: lab-peer probe|connect|hold|connect-handed|send-handed|serve|ping TCP|UDP ADDRESS:PORT|PORT"
        );
    };
    if verb.starts_with("frame") {
        return send_frame(verb, protocol, object);
    }
    if verb.starts_with("option") {
        return set_option(verb, protocol, object);
    }
    if verb == "obey" {
        return puppet::obey();
    }
    let protocol: Protocol = protocol.parse()?;
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
    let frame = bytes(digits)?;
    let wire = Wire::open(interface)?;
    if verb != "frame" {
        wire.bypass()?;
    }
    if verb == "frame-past-later" {
        println!("ready");
        std::io::stdin().read_line(&mut String::new())?;
    }
    wire.send(&frame)
}

fn set_option(verb: &str, kind: &str, option: &str) -> Result<()> {
    let mut fields = option.split(':');
    let mut next = || fields.next().context("an option is LEVEL:NAME:BYTES");
    let socket = OptionSocket::new(kind.parse()?)?;
    let (level, name, value) = (next()?.parse()?, next()?.parse()?, bytes(next()?)?);
    let set = if verb == "option-32" {
        socket.set_by_32_bits(level, name, &value)
    } else {
        socket.set(level, name, &value)
    };
    match set {
        Ok(()) => println!("set to {:02x?}", socket.get(level, name)?),
        Err(error) => println!("error {}", error.raw_os_error().unwrap_or_default()),
    }
    Ok(())
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}
