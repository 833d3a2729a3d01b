//! Far ends of sinks: their names, connections to them, and their certificates.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket,
    },
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::net::sockopt::set_tcp_user_timeout;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde::{Deserialize, Serialize};

/// For a connection to come about.
const CONNECT: Duration = Duration::from_secs(3);

/// For bytes to be taken, or to come.
const TRANSFER: Duration = Duration::from_secs(5);

/// Milliseconds that what was sent may go without an answer (`TCP_USER_TIMEOUT`, RFC 5482).
const UNHEARD: u32 = 10_000;

/// For a far end to object to a certificate, where one that does not might say nothing.
const VERDICT: Duration = Duration::from_millis(500);

/// For a far end to close a connection.
const LAST: Duration = Duration::from_secs(1);

/// `HOST:PORT`. A name is looked up anew for each connection: where it leads may change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Remote(String);

/// How a far end proves who it is, and this one to it. The files are read anew for each connection, so that certificates can
/// be replaced. Prints as what gives the same settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tls {
    /// In PEM; those of the system if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// In PEM, with those that lead to an authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// What the certificate of the far end must name, if it is not the host of its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server_name: Option<String>,
}

impl Remote {
    /// `None` unless it is a host and a port.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && !host.contains(['[', ']', ':'])
                    && !host.contains(char::is_whitespace)
            }
        };
        (is_host && port.parse::<u16>().is_ok_and(|port| port != 0)).then(|| Self(text.to_owned()))
    }

    /// Without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.0.rsplit_once(':').map_or(&*self.0, |(host, _)| host);
        host.strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
            .unwrap_or(host)
    }

    pub(super) fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = self.0.to_socket_addrs()?.collect();
        if found.is_empty() {
            return Err(io::Error::other(format!("{} has no address", self.0)));
        }
        Ok(found)
    }

    /// To the first address that answers. What is sent or awaited on it later fails after seconds.
    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        let mut last = None;
        for address in self.resolve()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(TRANSFER))?;
                    stream.set_write_timeout(Some(TRANSFER))?;
                    stream.set_nodelay(true)?;
                    // One that has vanished without a word.
                    set_tcp_user_timeout(&stream, UNHEARD)?;
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no address")))
    }

    /// To the first address that a socket can be made for.
    pub(super) fn datagrams(&self) -> io::Result<UdpSocket> {
        let mut last = None;
        for address in self.resolve()? {
            match datagrams_to(address) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("no address")))
    }

    /// As [`Self::connect`]; each end has proved to the other who it is when this returns.
    pub(super) fn connect_tls(&self, tls: &Tls) -> anyhow::Result<TlsStream> {
        let name = tls.server_name.as_deref().unwrap_or(self.host());
        let name = ServerName::try_from(name.to_owned()).context("not a name of a server")?;
        let connection = ClientConnection::new(Arc::new(tls.client()?), name)?;
        let mut stream = StreamOwned::new(connection, self.connect()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let mut stream = TlsStream(stream);
        if tls.cert_file.is_some() {
            stream.awaits_verdict()?;
        }
        Ok(stream)
    }
}

/// A stream on which the far end says nothing but that it ends.
pub(super) struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl TlsStream {
    /// In TLS 1.3 this end has finished before the far end has looked at its certificate. One that takes it sends tickets, mostly, and one that
    /// does not an alert; one that says neither for long has taken it.
    fn awaits_verdict(&mut self) -> anyhow::Result<()> {
        let Self(stream) = self;
        stream.sock.set_read_timeout(Some(VERDICT))?;
        let read = stream.conn.read_tls(&mut stream.sock);
        stream.sock.set_read_timeout(Some(TRANSFER))?;
        match read {
            Ok(0) => bail!("it has closed the connection, perhaps for the certificate of this end"),
            Ok(_) => {}
            Err(error) if is_not_yet(&error) => {}
            Err(error) => return Err(error.into()),
        }
        stream.conn.process_new_packets()?;
        Ok(())
    }

    /// Reads what has come, tickets mostly; false if the far end has ended.
    pub(super) fn is_open(&mut self) -> bool {
        let Self(stream) = self;
        if stream.sock.set_nonblocking(true).is_err() {
            return false;
        }
        let is_open = loop {
            match stream.conn.read_tls(&mut stream.sock) {
                Ok(0) => break false,
                Ok(_) => {
                    let state = stream.conn.process_new_packets();
                    let has_ended = state.map_or(true, |state| state.peer_has_closed());
                    // Nobody sends data; what nobody reads would fill its room.
                    if has_ended || stream.conn.reader().read(&mut [0; 64]).is_ok() {
                        break false;
                    }
                }
                Err(error) => break is_not_yet(&error),
            }
        };
        stream.sock.set_nonblocking(false).is_ok() && is_open
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self(stream) = self;
        stream.write_all(bytes)?;
        stream.flush()
    }

    /// Waits for a second until the far end has closed, too: a socket that is dropped with something unread takes back what was sent last.
    pub(super) fn close(self) {
        let Self(mut stream) = self;
        stream.conn.send_close_notify();
        let closed = stream.flush().and_then(|()| {
            stream.sock.set_read_timeout(Some(LAST))?;
            stream.sock.shutdown(Shutdown::Write)?;
            let begin = Instant::now();
            while begin.elapsed() < LAST && stream.sock.read(&mut [0; 1024])? > 0 {}
            Ok(())
        });
        if let Err(error) = closed {
            tracing::debug!(%error, "a far end has not closed its connection");
        }
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A socket that sends there alone, and hears that nobody listens.
pub(super) fn datagrams_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket)
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tls {
    pub(super) fn client(&self) -> anyhow::Result<ClientConfig> {
        let roots = self.roots()?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let (Some(certificate), Some(key)) = (&self.cert_file, &self.key_file) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates(certificate)?;
        let told = || format!("key {}", key.display());
        let key = PrivateKeyDer::from_pem_file(key).with_context(told)?;
        Ok(builder.with_client_auth_cert(chain, key)?)
    }

    /// Files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        [&self.ca_file, &self.cert_file, &self.key_file]
            .into_iter()
            .flatten()
            .cloned()
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let found = match &self.ca_file {
            Some(path) => certificates(path)?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let (known, _) = roots.add_parsable_certificates(found);
        ensure!(
            known > 0,
            "no certificate of an authority is known; name one by `ca_file`"
        );
        Ok(roots)
    }
}

fn certificates(path: &PathBuf) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let told = || format!("certificates {}", path.display());
    let text = fs::read(path).with_context(told)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.with_context(told)?;
    ensure!(!found.is_empty(), "{} holds no certificate", path.display());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["a.example:514", "10.0.0.1:1", "[::1]:65535"] {
            assert_eq!(Remote::parse(good).unwrap().to_string(), good);
        }
        for bad in [
            "", "a", ":1", "a:0", "a:x", "a:65536", "::1:514", "a b:1", "[]:1",
        ] {
            assert_eq!(Remote::parse(bad), None, "{bad}");
        }
        assert_eq!(Remote::parse("[::1]:1").unwrap().host(), "::1");
    }
}
