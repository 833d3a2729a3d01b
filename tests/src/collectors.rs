//! Collectors of flow records that read everything and do nothing with it, for as long as the program runs.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::thread::spawn;

use anyhow::{Context, Result};

use crate::lab::Netns;

const ANYWHERE: &str = "127.0.0.1:0";
const TAKEN: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

/// Reads streams.
pub fn stream(host: &Netns) -> Result<SocketAddr> {
    each(host, |mut stream| {
        io::copy(&mut stream, &mut io::sink()).map(|_| ())
    })
}

/// Reads datagrams.
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

/// Takes whatever is posted.
pub fn http(host: &Netns) -> Result<SocketAddr> {
    each(host, |stream| {
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
    })
}

fn each(host: &Netns, serve: fn(TcpStream) -> io::Result<()>) -> Result<SocketAddr> {
    let listener = host.within(|| TcpListener::bind(ANYWHERE));
    let listener = listener.context("no port of the loopback")?;
    let address = listener.local_addr()?;
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off ends only its own.
            spawn(move || serve(stream).unwrap_or_default());
        }
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
