//! What stands in front of an API server: it passes, slowly if it is told to, or refuses for a while.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::proxy;
use crate::lab::Lab;
use crate::wait::always;

pub const PORT: u16 = 9001;

/// As a busy server says it.
const REFUSAL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Passing,
    /// Each piece of an answer comes so much later.
    Slow(Duration),
    /// 429.
    Refusing,
}

/// It listens until the test ends.
#[derive(Debug, Clone)]
pub struct Front(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mood: Mutex<(Mood, Vec<TcpStream>)>,
    refused: AtomicUsize,
}

impl Front {
    /// In front of the proxy of a lab.
    pub fn start(lab: &Lab, mood: Mood) -> Result<Self> {
        let listener = lab
            .host()
            .within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)))?;
        let front = Self(Arc::new(Inner {
            mood: Mutex::new((mood, Vec::new())),
            refused: AtomicUsize::new(0),
        }));
        let answering = front.clone();
        lab.host_handle().start(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Who has hung up again needs nothing.
                answering.answer(stream).unwrap_or(());
            }
        });
        Ok(front)
    }

    /// From now on; connections of before are cut.
    pub fn be(&self, mood: Mood) {
        let mut inner = self.lock();
        let (old, streams) = &mut *inner;
        *old = mood;
        for stream in streams.drain(..) {
            stream.shutdown(Shutdown::Both).unwrap_or(());
        }
    }

    /// How many requests were refused.
    pub fn refused(&self) -> usize {
        self.0.refused.load(Ordering::Relaxed)
    }

    fn answer(&self, mut client: TcpStream) -> Result<()> {
        let mut inner = self.lock();
        let (mood, streams) = &mut *inner;
        let delay = match *mood {
            Mood::Refusing => {
                drop(inner);
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                client.set_read_timeout(Some(Duration::from_secs(1)))?;
                let _request = client.read(&mut [0; 16384])?;
                return Ok(client.write_all(REFUSAL)?);
            }
            Mood::Passing => Duration::ZERO,
            Mood::Slow(delay) => delay,
        };
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy::PORT))?;
        streams.extend([client.try_clone()?, server.try_clone()?]);
        pump(client.try_clone()?, server.try_clone()?, Duration::ZERO);
        pump(server, client, delay);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, (Mood, Vec<TcpStream>)> {
        self.0.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands on what comes until either side ends.
fn pump(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    thread::spawn(move || {
        let mut piece = [0; 16384];
        while let Ok(length) = from.read(&mut piece)
            && length > 0
        {
            always(delay, || true);
            let (piece, _) = piece.split_at(length);
            if to.write_all(piece).is_err() {
                break;
            }
        }
        for stream in [from, to] {
            stream.shutdown(Shutdown::Both).unwrap_or(());
        }
    });
}
