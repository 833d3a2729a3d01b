//! Servers that read everything and do nothing with it.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::thread::spawn;

use ringfence_lab::lab::Netns;

/// Of a stream, for as long as this program runs.
pub(crate) fn swallowing(host: &Netns) -> SocketAddr {
    let listener = host
        .within(|| TcpListener::bind("127.0.0.1:0"))
        .expect("no port of the loopback");
    let address = listener.local_addr().expect("no address");
    spawn(move || {
        for stream in listener.incoming().flatten() {
            spawn(move || {
                let (mut stream, mut bytes) = (stream, vec![0; 1 << 16]);
                while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
            });
        }
    });
    address
}
