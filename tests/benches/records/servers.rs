//! Servers that read everything and do nothing with it, for as long as this program runs.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::spawn;

use ringfence_lab::lab::Netns;

const ANYWHERE: &str = "127.0.0.1:0";
const TAKEN: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

pub(crate) fn stream(host: &Netns) -> SocketAddr {
    each(host, |mut stream| {
        io::copy(&mut stream, &mut io::sink()).map(|_| ())
    })
}

pub(crate) fn datagrams(host: &Netns) -> SocketAddr {
    let socket = host
        .within(|| UdpSocket::bind(ANYWHERE))
        .expect("no port of the loopback");
    let address = socket.local_addr().expect("no address");
    spawn(move || {
        let mut datagram = vec![0; 1 << 16];
        while socket.recv(&mut datagram).is_ok() {}
    });
    address
}

/// Takes whatever is posted.
pub(crate) fn http(host: &Netns) -> SocketAddr {
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

fn each(host: &Netns, serve: fn(TcpStream) -> io::Result<()>) -> SocketAddr {
    let listener = host
        .within(|| TcpListener::bind(ANYWHERE))
        .expect("no port of the loopback");
    let address = listener.local_addr().expect("no address");
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever breaks off ends only its own.
            spawn(move || serve(stream).unwrap_or_default());
        }
    });
    address
}
