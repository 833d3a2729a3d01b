//! Collectors of flow records that read everything, or nothing, and do nothing with it.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{park, spawn};

use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};

use crate::lab::Netns;

const ANYWHERE: &str = "127.0.0.1:0";
const TAKEN: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

/// What is done with a connection.
type Serve = fn(TcpStream) -> io::Result<()>;

/// At one address, until it is dropped: then nobody listens there, and what was open is cut.
#[derive(Debug)]
pub struct Collector {
    listener: TcpListener,
    open: Arc<Mutex<Vec<Arc<TcpStream>>>>,
}

impl Collector {
    /// Of streams.
    pub fn of_streams(host: &Netns, at: &str) -> Result<Self> {
        Self::start(host, at, read)
    }

    /// Of what is posted.
    pub fn of_posts(host: &Netns, at: &str) -> Result<Self> {
        Self::start(host, at, answer)
    }

    /// That accepts whoever comes, and takes nothing.
    pub fn that_hangs(host: &Netns, at: &str) -> Result<Self> {
        Self::start(host, at, |_| {
            loop {
                park();
            }
        })
    }

    fn start(host: &Netns, at: &str, serve: Serve) -> Result<Self> {
        let listener = host.within(|| TcpListener::bind(at));
        let listener = listener.with_context(|| format!("cannot listen at {at}"))?;
        let open = Arc::default();
        let collector = Self { listener, open };
        let accepting = collector.listener.try_clone()?;
        let open = Arc::clone(&collector.open);
        spawn(move || {
            for stream in accepting.incoming() {
                let Ok(stream) = stream else { break };
                let Ok(kept) = stream.try_clone() else { break };
                let kept = Arc::new(kept);
                lock(&open).push(Arc::clone(&kept));
                spawn(move || {
                    // Whoever breaks off ends only its own.
                    serve(stream).unwrap_or_default();
                    shutdown(&*kept, Shutdown::Both).unwrap_or_default();
                });
            }
        });
        Ok(collector)
    }

    /// As long as the program runs.
    fn stays(self) -> Result<SocketAddr> {
        let Self { listener, .. } = Box::leak(Box::new(self));
        Ok(listener.local_addr()?)
    }

    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        lock(&self.open).len()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Its thread has the listener, too, and waits for the next connection.
        shutdown(&self.listener, Shutdown::Both).unwrap_or_default();
        for stream in lock(&self.open).iter() {
            shutdown(&**stream, Shutdown::Both).unwrap_or_default();
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink()).map(|_| ())
}

/// As a server of HTTP/1.1 that takes all.
fn answer(stream: TcpStream) -> io::Result<()> {
    let mut answers = stream.try_clone()?;
    let mut requests = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        io::copy(&mut (&mut requests).take(length), &mut io::sink())?;
        answers.write_all(TAKEN)?;
    }
}

/// Reads streams, for as long as the program runs.
pub fn stream(host: &Netns) -> Result<SocketAddr> {
    Collector::of_streams(host, ANYWHERE)?.stays()
}

/// Takes whatever is posted, likewise.
pub fn http(host: &Netns) -> Result<SocketAddr> {
    Collector::of_posts(host, ANYWHERE)?.stays()
}

/// Reads datagrams, likewise.
pub fn datagrams(host: &Netns) -> Result<SocketAddr> {
    let socket = host.within(|| UdpSocket::bind(ANYWHERE));
    let socket = socket.context("no port of the loopback")?;
    let address = socket.local_addr()?;
    spawn(move || {
        let mut datagram = vec![0; 1 << 16];
        while socket.recv(&mut datagram).is_ok() {}
    });
    Ok(address)
}

/// Settings of an agent in this namespace that writes to one of each: a file, Parquet below `folder`, syslog, IPFIX
/// and OTLP.
pub fn settings_of_all(folder: &Path, host: &Netns) -> Result<String> {
    std::fs::create_dir_all(folder.join("parquet"))?;
    let below = folder.display();
    Ok(format!(
        "sinks:\n\
         - {{name: lines, file: {{path: {below}/flows.jsonl}}}}\n\
         - {{name: parquet, parquet: {{folder: {below}/parquet, seconds: 10}}}}\n\
         - {{name: syslog, syslog: {{to: '{}'}}}}\n\
         - {{name: ipfix, ipfix: {{to: '{}'}}}}\n\
         - {{name: otlp, otlp: {{endpoint: 'http://{}'}}}}\n",
        stream(host)?,
        datagrams(host)?,
        http(host)?
    ))
}
