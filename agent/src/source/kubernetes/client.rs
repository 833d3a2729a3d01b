//! How the API is reached.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{buffer::BufferLayer, retry::RetryLayer};

use super::{heard::Listening, store::Store, throttle::Patience, token::Token};
use crate::config::KubernetesConfig;

/// A pod's own certificate of the API server's authority.
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// After so long without a byte a connection is dead. The server ends a watch before, and says something once a minute.
const SILENCE: Duration = Duration::from_mins(5);

/// Requests that wait to be sent: more than there ever are.
const WAITING: usize = 256;
/// Who asks a question waits no longer for the next byte of the answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the access to the API is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Kubeconfig(PathBuf),
    /// What every pod is given.
    InCluster,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("kubeconfig {path}: {}", explained(source))]
    Kubeconfig {
        path: PathBuf,
        source: Box<KubeconfigError>,
    },
    #[error(
        "kubeconfig {path}: it names no context, and has {count} of them: set `current-context`"
    )]
    NoContext { path: PathBuf, count: usize },
    #[error("kubeconfig {path}: there is no context `{context}`, which `current-context` names")]
    UnknownContext { path: PathBuf, context: String },
    #[error(
        "this is no pod ({0}), and $KUBECONFIG names no file: say by --kubeconfig FILE how the \
         Kubernetes API is reached"
    )]
    NoPod(String),
    #[error("cannot make a client of the Kubernetes API")]
    Client(#[source] Box<kube::Error>),
}

impl Access {
    /// Finds out without asking the API.
    ///
    /// # Errors
    ///
    /// If what describes the access is not there, or does not say enough.
    pub(crate) fn find(config: &KubernetesConfig) -> Result<Self, AccessError> {
        let named = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
        let path = config.kubeconfig.clone().or(named.map(PathBuf::from));
        let Some(path) = path else {
            return match Config::incluster() {
                Ok(_) => Ok(Self::InCluster),
                Err(error) => Err(AccessError::NoPod(error.to_string())),
            };
        };
        check(&path)?;
        Ok(Self::Kubeconfig(path))
    }

    /// As [`Self::find`], for somebody at a terminal, who has a file where `kubectl` has it.
    ///
    /// # Errors
    ///
    /// As those.
    pub(crate) fn of_operator(kubeconfig: Option<PathBuf>) -> Result<Self, AccessError> {
        let found = Self::find(&KubernetesConfig { kubeconfig });
        let usual = std::env::home_dir().map(|home| home.join(".kube/config"));
        match (found, usual) {
            (Err(AccessError::NoPod(_)), Some(path)) if path.exists() => {
                check(&path)?;
                Ok(Self::Kubeconfig(path))
            }
            (found, _) => found,
        }
    }

    /// The files that are read again and again.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Kubeconfig(path) => vec![path.clone()],
            Self::InCluster => Vec::new(),
        }
    }

    /// What describes the access, if it can be used: with the certificates and keys that it names, which are
    /// renewed in their place. Tokens are read anew with the requests.
    pub(super) fn description(&self) -> Option<Vec<u8>> {
        match self {
            Self::Kubeconfig(path) => {
                let file = check(path).ok()?;
                let authorities = file.clusters.iter();
                let authorities = authorities
                    .filter_map(|named| named.cluster.as_ref()?.certificate_authority.as_ref());
                let users = file.auth_infos.iter();
                let users = users.filter_map(|named| named.auth_info.as_ref());
                let own = users.flat_map(|user| [&user.client_certificate, &user.client_key]);
                let folder = path.parent().unwrap_or(Path::new("."));
                let mut all = std::fs::read(path).ok()?;
                for named in authorities.chain(own.flatten()) {
                    all.extend(std::fs::read(folder.join(named)).unwrap_or_default());
                }
                Some(all)
            }
            Self::InCluster => std::fs::read(AUTHORITY).ok(),
        }
    }

    pub(super) async fn connect(
        &self,
        store: &Arc<Store>,
    ) -> Result<(Client, Server), AccessError> {
        let mut config = self.config().await?;
        config.read_timeout = Some(SILENCE);
        config.default_retry = false;
        let server = Server::of(&config);
        // One that is written down goes before.
        let token = match &config.auth_info.token {
            Some(_) => None,
            None => config.auth_info.token_file.take(),
        };
        let listening = Listening {
            store: Arc::clone(store),
            token: token.map(|path| Arc::new(Token::new(path.into()))),
        };
        let builder = ClientBuilder::try_from(config);
        let builder = builder.map_err(|error| AccessError::Client(error.into()))?;
        let client = builder
            .with_layer(&listening)
            .with_layer(&BufferLayer::new(WAITING))
            .with_layer(&RetryLayer::new(Patience::default()))
            .build();
        Ok((client, server))
    }

    /// For a few questions.
    pub(super) async fn ask(&self) -> Result<(Client, Server), AccessError> {
        let mut config = self.config().await?;
        config.read_timeout = Some(ANSWER);
        let server = Server::of(&config);
        let client = Client::try_from(config);
        let client = client.map_err(|error| AccessError::Client(error.into()))?;
        Ok((client, server))
    }

    async fn config(&self) -> Result<Config, AccessError> {
        match self {
            Self::InCluster => {
                Config::incluster().map_err(|error| AccessError::NoPod(error.to_string()))
            }
            Self::Kubeconfig(path) => {
                let file = check(path)?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.map_err(|source| AccessError::Kubeconfig {
                    path: path.clone(),
                    source: Box::new(source),
                })
            }
        }
    }
}

fn check(path: &Path) -> Result<Kubeconfig, AccessError> {
    let file = Kubeconfig::read_from(path).map_err(|source| AccessError::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let path = path.to_owned();
    match &file.current_context {
        None => Err(AccessError::NoContext {
            path,
            count: file.contexts.len(),
        }),
        Some(context) if file.contexts.iter().all(|known| known.name != *context) => {
            let context = context.clone();
            Err(AccessError::UnknownContext { path, context })
        }
        Some(_) => Ok(file),
    }
}

/// The library says the path once more.
fn explained(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => format!("cannot read it: {error}"),
        other => other.to_string(),
    }
}

/// The server as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) url: String,
    host: String,
    port: u16,
}

impl Server {
    fn of(config: &Config) -> Self {
        let url = &config.cluster_url;
        let host = url.host().unwrap_or_default();
        let default = if url.scheme_str() == Some("http") {
            80
        } else {
            443
        };
        Self {
            url: url.to_string(),
            // An address of version 6 stands in brackets.
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(default),
        }
    }

    /// Its addresses now.
    pub(crate) async fn addresses(&self) -> BTreeSet<SocketAddr> {
        match tokio::net::lookup_host((self.host.as_str(), self.port)).await {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                tracing::warn!(%error, host = self.host, "cannot resolve the API server's name");
                BTreeSet::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        let config = KubernetesConfig {
            kubeconfig: Some(path),
        };
        let told = Access::find(&config).unwrap_err().to_string();
        told.replace(&*folder.path().to_string_lossy(), "FOLDER")
    }

    #[test]
    fn what_a_kubeconfig_lacks_is_named() {
        let config = KubernetesConfig {
            kubeconfig: Some("/nowhere/config".into()),
        };
        let told = Access::find(&config).unwrap_err().to_string();
        assert_eq!(
            told,
            "kubeconfig /nowhere/config: cannot read it: No such file or directory (os error 2)"
        );
        assert_eq!(
            refused("apiVersion: v1\nkind: Config\n"),
            "kubeconfig FOLDER/config: it names no context, and has 0 of them: set `current-context`"
        );
        assert_eq!(
            refused("apiVersion: v1\nkind: Config\ncurrent-context: a\n"),
            "kubeconfig FOLDER/config: there is no context `a`, which `current-context` names"
        );
        assert!(refused("[").starts_with("kubeconfig FOLDER/config: failed to parse"));
    }
}
