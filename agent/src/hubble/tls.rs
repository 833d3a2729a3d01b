//! Certificates of this server, and of those who may ask it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

use crate::config::HubbleTls;

/// What HTTP/2 calls itself.
const PROTOCOL: &[u8] = b"h2";

/// A file of certificates is some thousand bytes large.
const LIMIT: u64 = 1 << 20;

/// Read anew when the files change, so that certificates can be replaced while connections are there.
#[derive(Debug)]
pub(super) struct Certificates {
    settings: HubbleTls,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    files: Vec<Option<File>>,
    server: Arc<ServerConfig>,
}

/// By which a file that was changed or replaced is known.
type File = (u64, u64, u64, i64, i64);

impl Certificates {
    /// # Errors
    ///
    /// If the files cannot be used. Later on those of before are.
    pub(super) fn read(settings: HubbleTls) -> anyhow::Result<Self> {
        let current = Current {
            files: files(&settings),
            server: server(&settings)?,
        };
        Ok(Self {
            settings,
            current: Mutex::new(current),
        })
    }

    /// As the files are now. It may read them: to be called where nobody waits.
    pub(super) fn now(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files(&self.settings);
        if files != current.files {
            // Said once, and tried again when they change again.
            current.files = files;
            match server(&self.settings) {
                Ok(server) => {
                    tracing::info!("certificates of Hubble's API are read anew");
                    current.server = server;
                }
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "certificates of Hubble's API stay as they were"
                ),
            }
        }
        Arc::clone(&current.server)
    }
}

fn files(settings: &HubbleTls) -> Vec<Option<File>> {
    let file = |path: &PathBuf| {
        let it = fs::metadata(path).ok()?;
        Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
    };
    settings.files().map(file).collect()
}

fn server(settings: &HubbleTls) -> anyhow::Result<Arc<ServerConfig>> {
    let HubbleTls {
        cert,
        key: key_file,
        client_ca,
    } = settings;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match client_ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| named(path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(&contents(key_file)?);
    let key = key.with_context(|| named(key_file))?;
    let server = builder.with_single_cert(certificates(cert)?, key);
    let mut server = server.with_context(|| named(cert))?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(server))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let text = contents(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.with_context(|| named(path))?;
    ensure!(!found.is_empty(), "{} holds no certificate", path.display());
    Ok(found)
}

fn contents(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = || {
        let size = fs::metadata(path)?.len();
        if size > LIMIT {
            return Err(io::Error::other(format!("larger than {LIMIT} bytes")));
        }
        fs::read(path)
    };
    read().with_context(|| named(path))
}

fn named(path: &Path) -> String {
    format!("cannot use {}", path.display())
}
