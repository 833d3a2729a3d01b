//! A connection that keeps talking while something else happens to the network.

use std::io::{Read, Write};
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::Netns;
use crate::probe::PATIENCE;

/// Time between two exchanges, so that a stream does not eat a processor.
const PACE: Duration = Duration::from_millis(2);
/// Bytes of one exchange.
const CHUNK: usize = 512;
/// A silence that counts as the end. Far above a retransmission or two.
const SILENCE: Duration = Duration::from_secs(8);

/// What a stream has seen.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    pub sent: u64,
    pub echoed: u64,
    /// The longest time from a chunk's departure to its echo.
    pub longest_gap: Duration,
    /// Segments sent more than once, by the kernel's own count: lost packets.
    pub retransmitted: u32,
    /// What ended the stream, if anything but [`Stream::finish`] did.
    pub broken: Option<String>,
}

/// A running stream to an echo service.
#[derive(Debug)]
pub struct Stream {
    progress: Arc<Mutex<Progress>>,
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Netns {
    /// Connects from this namespace and begins to talk.
    pub fn stream(&self, to: SocketAddr) -> Result<Stream> {
        let connected = self.within(|| TcpStream::connect_timeout(&to, PATIENCE));
        let connection = connected
            .with_context(|| format!("cannot open a stream from {} to {to}", self.name()))?;
        Stream::of(connection)
    }
}

impl Stream {
    /// Begins to talk over a connection.
    pub fn of(connection: TcpStream) -> Result<Self> {
        connection
            .set_nodelay(true)
            .context("cannot set TCP_NODELAY")?;
        connection
            .set_read_timeout(Some(SILENCE))
            .context("cannot set a time-out")?;
        connection
            .set_write_timeout(Some(SILENCE))
            .context("cannot set a time-out")?;
        let progress = Arc::new(Mutex::new(Progress::default()));
        let seen = Arc::clone(&progress);
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                let result = exchange(&connection);
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.sent += CHUNK as u64;
                seen.retransmitted = retransmitted(&connection);
                match result {
                    Ok(gap) => {
                        seen.echoed += CHUNK as u64;
                        seen.longest_gap = seen.longest_gap.max(gap);
                    }
                    Err(error) => {
                        seen.broken = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Ok(Self {
            progress,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub fn progress(&self) -> Progress {
        self.progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until bytes sent after this call have come back.
    pub fn advances(&self) -> Result<()> {
        let before = self.progress().echoed;
        let target = before + 2 * CHUNK as u64;
        let advanced = crate::wait::eventually(SILENCE, || self.progress().echoed >= target);
        ensure!(advanced, "the stream stands still: {:?}", self.progress());
        Ok(())
    }

    /// Ends the stream and says how it went.
    pub fn finish(mut self) -> Progress {
        self.end();
        self.progress()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join().is_ok();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

impl Progress {
    /// An error unless everything came back and no packet was lost on the way.
    pub fn unbroken(&self) -> Result<()> {
        self.unbroken_but_for(0)
    }

    /// Likewise, but for so many packets that the kernel itself may have lost.
    pub fn unbroken_but_for(&self, most: u32) -> Result<()> {
        ensure!(
            self.broken.is_none() && self.echoed > 0,
            "the stream broke: {self:?}"
        );
        ensure!(
            self.retransmitted <= most,
            "the stream lost packets: {self:?}"
        );
        Ok(())
    }
}

fn exchange(mut connection: &TcpStream) -> std::io::Result<Duration> {
    let begin = Instant::now();
    let mut echo = [0; CHUNK];
    connection.write_all(&[0x55; CHUNK])?;
    connection.read_exact(&mut echo)?;
    Ok(begin.elapsed())
}

/// `tcpi_total_retrans` of the connection; 0 if the kernel does not say.
pub fn retransmitted(connection: &TcpStream) -> u32 {
    information(connection.as_fd()).map_or(0, |info| info.tcpi_total_retrans)
}

/// What the kernel says of a connection.
pub fn information(connection: BorrowedFd<'_>) -> Option<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(mem::size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open for the life of `connection`, and the kernel writes at most
    // `length` bytes to a buffer of that size.
    let result = unsafe {
        libc::getsockopt(
            connection.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // SAFETY: all of it was zeroed first, and every bit pattern of its integers is a value.
    (result == 0).then(|| unsafe { info.assume_init() })
}
