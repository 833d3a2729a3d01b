//! The API without TLS, by `kubectl proxy`: for those who call it thousands of times.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Server;
use crate::lab::{Lab, Netns};
use crate::wait::eventually;

pub(super) const PORT: u16 = 8001;
const READY: Duration = Duration::from_secs(20);
/// A call that takes longer has hung.
const PATIENCE: Duration = Duration::from_mins(1);

/// The proxy, in the host namespace of a lab; it may do everything.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    host: Arc<Netns>,
}

/// One connection to it, on which one call follows the other.
#[derive(Debug)]
pub struct Connection(BufReader<TcpStream>);

/// What came of a call, and when it was sent and answered.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
    pub sent: Instant,
    pub answered: Instant,
}

impl Proxy {
    pub fn start(server: &Server, lab: &Lab) -> Result<Self> {
        let mut command = Command::new(server.kubectl_itself());
        command.arg("--kubeconfig").arg(server.kubeconfig("admin"));
        command.args(["proxy", &format!("--port={PORT}")]);
        command.env("HOME", &server.folder).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let host = lab.host_handle();
        let child = host.spawn(&mut command)?;
        let proxy = Self { child, host };
        let is_ready = eventually(READY, || {
            let version = proxy
                .connect()
                .and_then(|mut api| api.call("GET", "/version", ""));
            version.is_ok_and(|answer| answer.code == 200)
        });
        ensure!(is_ready, "kubectl proxy does not answer");
        Ok(proxy)
    }

    pub fn connect(&self) -> Result<Connection> {
        let at = (Ipv4Addr::LOCALHOST, PORT);
        let stream = self.host.within(|| TcpStream::connect(at));
        let stream = stream.context("cannot connect to kubectl proxy")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection(BufReader::new(stream)))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait()).is_ok();
    }
}

impl Connection {
    /// Whatever is answered.
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> Result<Answer> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let sent = Instant::now();
        let Self(stream) = self;
        stream.get_mut().write_all(request.as_bytes())?;
        let status = line(stream)?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.with_context(|| format!("no answer: {status:?}"))?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let header = line(stream)?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
        }
        let mut body = Vec::new();
        if is_chunked {
            loop {
                let size = usize::from_str_radix(line(stream)?.trim(), 16)?;
                read(stream, size, &mut body)?;
                line(stream)?;
                if size == 0 {
                    break;
                }
            }
        } else {
            read(stream, length, &mut body)?;
        }
        let answered = Instant::now();
        Ok(Answer {
            code,
            body,
            sent,
            answered,
        })
    }

    /// What has to succeed.
    pub fn must(&mut self, method: &str, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self.call(method, path, &body)?;
        if !(200..300).contains(&answer.code) {
            let told = String::from_utf8_lossy(&answer.body);
            bail!("{method} {path}: {} {told}", answer.code);
        }
        Ok(answer)
    }
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("no JSON")
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    let length = stream.read_line(&mut line)?;
    ensure!(length > 0, "the proxy has hung up");
    Ok(line.trim_end().to_owned())
}

fn read(stream: &mut BufReader<TcpStream>, size: usize, into: &mut Vec<u8>) -> Result<()> {
    let before = into.len();
    into.resize(before + size, 0);
    let (_, new) = into.split_at_mut(before);
    stream.read_exact(new)?;
    Ok(())
}
