//! Servers that want certificates, and such that close.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::*;

/// Years of certificates that hold, and of such that do not.
const VALID: i32 = 2100;
const OVER: i32 = 2010;

/// An authority, and files of what it has signed.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    /// Until the end of that year.
    fn sign(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["collector.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [cert_file, key_file] =
            ["pem", "key"].map(|kind| self.folder.path().join(format!("{name}.{kind}")));
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        (cert_file, key_file)
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// That wants certificates of this authority, and proves itself by one until the end of that year.
    fn server(&self, year: i32) -> Arc<ServerConfig> {
        let (cert, key) = self.sign("server", year);
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.ca())).unwrap();
        let provider = Arc::new(default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(
                vec![certificate(&cert)],
                PrivateKeyDer::from_pem_file(key).unwrap(),
            );
        Arc::new(config.unwrap())
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

fn accept(
    listener: &TcpListener,
    config: &Arc<ServerConfig>,
) -> StreamOwned<ServerConnection, TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream)
}

/// With the certificate that `client` has signed, to a server whose authority is `server`.
fn syslog(address: SocketAddr, server: &Authority, client: &Authority) -> Syslog {
    let (cert_file, key_file) = client.sign("client", VALID);
    let settings = SyslogSettings {
        tls: Some(Tls {
            ca_file: Some(server.ca()),
            cert_file: Some(cert_file),
            key_file: Some(key_file),
            server_name: Some("collector.test".to_owned()),
        }),
        ..to(address, Transport::Tls)
    };
    Syslog::new(settings, &"node-1".into())
}

#[test]
fn records_are_not_out_where_the_server_wants_another_certificate() {
    let (ours, others) = (Authority::new(), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut syslog = syslog(listener.local_addr().unwrap(), &ours, &others);
    let config = ours.server(VALID);
    let server = thread::spawn(move || accept(&listener, &config).read(&mut [0; 16]).is_err());
    let record = line(Kind::Start);
    let told = syslog.write(&[Cow::Borrowed(&*record)]);
    assert!(matches!(told, Err(Failure::Away(_))), "{told:?}");
    assert!(server.join().unwrap());
}

#[test]
fn a_server_that_has_said_goodbye_is_not_written_to_and_the_last_record_arrives() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut syslog = syslog(listener.local_addr().unwrap(), &authority, &authority);
    let config = authority.server(VALID);
    let (closed, is_closed) = std::sync::mpsc::sync_channel(1);
    let server = thread::spawn(move || {
        let mut first = accept(&listener, &config);
        first.read_exact(&mut [0; 8]).unwrap();
        first.conn.send_close_notify();
        first.flush().unwrap();
        closed.send(()).unwrap();
        let mut second = accept(&listener, &config);
        messages(&mut second).len()
    });
    let record = line(Kind::Start);
    syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    is_closed.recv().unwrap();
    for _ in 0..3 {
        syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    }
    syslog.finish();
    assert_eq!(server.join().unwrap(), 3);
}

#[test]
fn nothing_goes_to_a_server_whose_certificate_is_over_until_it_has_another() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut syslog = syslog(listener.local_addr().unwrap(), &authority, &authority);
    let configs = [OVER, VALID].map(|year| authority.server(year));
    let server = thread::spawn(move || {
        let [over, valid] = configs.map(|config| {
            let mut read = Vec::new();
            let _ended = accept(&listener, &config).read_to_end(&mut read);
            read
        });
        (over.len(), valid.len())
    });
    let record = line(Kind::Start);
    let Err(Failure::Away(why)) = syslog.write(&[Cow::Borrowed(&*record)]) else {
        panic!("it is taken for who it says it is");
    };
    let why = format!("{why:#}");
    assert!(why.contains("xpired"), "{why}");
    syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    syslog.finish();
    let (over, valid) = server.join().unwrap();
    assert_eq!(over, 0);
    assert!(valid > 0);
}

#[test]
fn a_certificate_that_is_replaced_is_shown_at_the_next_connection() {
    let (ours, others) = (Authority::new(), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut syslog = syslog(listener.local_addr().unwrap(), &ours, &others);
    let config = ours.server(VALID);
    let server = thread::spawn(move || {
        let refused = accept(&listener, &config).read(&mut [0; 16]).is_err();
        (refused, messages(&mut accept(&listener, &config)).len())
    });
    let record = line(Kind::Start);
    let told = syslog.write(&[Cow::Borrowed(&*record)]);
    assert!(matches!(told, Err(Failure::Away(_))), "{told:?}");
    let (cert, key) = ours.sign("client", VALID);
    for file in [cert, key] {
        let name = file.file_name().unwrap();
        std::fs::copy(&file, others.folder.path().join(name)).unwrap();
    }
    syslog.write(&[Cow::Borrowed(&*record)]).unwrap();
    syslog.finish();
    assert_eq!(server.join().unwrap(), (true, 1));
}
