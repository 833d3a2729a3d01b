//! Who a collector is, and who the agent is to it.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use super::{super::*, BOTH, Pair, exported, flow, is_away, why};

/// Of certificates, with a file that names it.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key, in PEM.
struct Identity {
    certificate: String,
    key: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn names(&self, name: &str, until: i32) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Written where settings can name it.
    fn write(&self, identity: &Identity) -> (PathBuf, PathBuf) {
        let paths = ["cert.pem", "key.pem"].map(|name| self.folder.path().join(name));
        fs::write(&paths[0], &identity.certificate).unwrap();
        fs::write(&paths[1], &identity.key).unwrap();
        paths.into()
    }
}

impl Identity {
    /// Asks clients for certificates of an authority, if one is named.
    fn server(&self, clients: Option<&Authority>, protocol: Protocol) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.issuer.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = match protocol {
            Protocol::Http => vec![b"http/1.1".to_vec()],
            Protocol::Grpc => vec![b"h2".to_vec()],
        };
        config
    }
}

/// A collector at 127.0.0.1 that is known by `localhost`, as `authority` is to vouch for.
fn pair(protocol: Protocol, authority: &Authority, server: ServerConfig) -> Pair {
    let pair = Pair::new(protocol, [], |it| {
        let endpoint = it.endpoint.to_string().replace("http://", "https://");
        it.endpoint = Endpoint::parse(&endpoint, protocol).unwrap();
        it.tls.ca_file = Some(authority.path());
        it.tls.server_name = Some("localhost".to_owned());
    });
    pair.collector.proves_by(server);
    pair
}

#[test]
fn a_collector_is_who_an_authority_says() {
    for protocol in BOTH {
        let authority = Authority::new();
        let server = authority.names("localhost", 2100).server(None, protocol);
        let mut pair = pair(protocol, &authority, server);
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
    }
}

#[test]
fn nothing_goes_to_who_cannot_prove_it_until_it_can() {
    for protocol in BOTH {
        let authority = Authority::new();
        let good = || authority.names("localhost", 2100).server(None, protocol);
        for (name, bad) in [
            ("expired", authority.names("localhost", 2010)),
            ("another name", authority.names("other.example", 2100)),
            (
                "another authority",
                Authority::new().names("localhost", 2100),
            ),
        ] {
            let mut pair = pair(protocol, &authority, bad.server(None, protocol));
            assert!(is_away(&pair.write(&[flow()])), "{name}");
            assert!(pair.collector.seen().is_empty(), "{name}");
            pair.collector.proves_by(good());
            assert_eq!(pair.write(&[flow()]).unwrap(), exported(1), "{name}");
        }
    }
}

#[test]
fn an_authority_that_is_replaced_counts_from_the_next_connection_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let protocol = Protocol::Http;
    let server = old.names("localhost", 2100).server(None, protocol);
    let mut pair = pair(protocol, &old, server);
    assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
    let server = new.names("localhost", 2100).server(None, protocol);
    pair.collector.proves_by(server);
    fs::copy(new.path(), old.path()).unwrap();
    pair.otlp.client.wire.grow_old();
    assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
    assert_eq!(pair.collector.connections(), 2);
}

#[test]
fn the_agent_proves_who_it_is_and_its_certificate_can_be_replaced() {
    for protocol in BOTH {
        let authority = Authority::new();
        let server = authority.names("localhost", 2100);
        let server = server.server(Some(&authority), protocol);
        let mut pair = pair(protocol, &authority, server);
        let unknown = pair.write(&[flow()]);
        assert!(is_away(&unknown), "{unknown:?}");

        let expired = authority.write(&authority.names("node-1", 2010));
        let (certificate, key) = expired;
        pair.otlp.client.wire.be_known_by(certificate, key);
        assert!(is_away(&pair.write(&[flow()])));
        assert!(pair.collector.seen().is_empty());

        authority.write(&authority.names("node-1", 2100));
        assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
    }
}

#[test]
fn files_that_are_not_what_they_should_be_are_told_at_the_start() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let endpoint = Endpoint::parse("https://localhost:1", Protocol::Http).unwrap();
    let mut settings = super::settings("127.0.0.1:1".parse().unwrap(), Protocol::Http);
    settings.endpoint = endpoint;
    settings.tls.ca_file = Some("/nowhere/ca.pem".into());
    let told = Otlp::open(settings.clone()).err().unwrap().to_string();
    assert!(told.contains("/nowhere/ca.pem"), "{told}");
    let authority = Authority::new();
    settings.tls.ca_file = Some(authority.path());
    settings.headers_file = Some("/nowhere/headers".into());
    let told = Otlp::open(settings).err().unwrap().to_string();
    assert!(told.contains("/nowhere/headers"), "{told}");
}

#[test]
fn files_that_vanish_later_keep_records() {
    let authority = Authority::new();
    let protocol = Protocol::Http;
    let good = authority.names("localhost", 2100);
    let mut pair = pair(protocol, &authority, good.server(None, protocol));
    let away = authority.path().with_extension("away");
    fs::rename(authority.path(), &away).unwrap();
    let told = why(pair.write(&[flow()]));
    assert!(told.contains("ca.pem"), "{told}");
    fs::rename(&away, authority.path()).unwrap();
    assert_eq!(pair.write(&[flow()]).unwrap(), exported(1));
}
