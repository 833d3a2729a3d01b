//! The Kubernetes API: its objects, as the parsers of files read them.
//!
//! Nothing else names `kube`.

mod address;
mod arrived;
mod client;
mod definitions;
mod events;
pub(crate) mod fleet;
mod heard;
mod kept;
mod kind;
mod object;
mod pause;
pub(crate) mod placement;
mod publish;
pub(crate) mod report;
mod servers;
mod slice;
pub(crate) mod store;
mod taint;
mod throttle;
mod token;
mod trim;
mod watchers;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::{sync::watch, task::JoinHandle};

pub(crate) use self::client::Access;
use self::{client::Server, kind::Kind, store::Store};

/// Between two tries to make a client, and two looks at where the server is.
const RESOLVE: Duration = Duration::from_secs(30);

/// The source, once it is known how the API is reached.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    access: Access,
    store: Arc<Store>,
    kept: PathBuf,
}

/// What follows the API.
#[derive(Debug)]
pub(crate) struct Following {
    source: Source,
    tasks: Vec<JoinHandle<()>>,
}

impl Source {
    /// Takes what was kept of an earlier run for the state of the API.
    pub(crate) fn new(access: Access, node: String, state_dir: &Path) -> Self {
        let store = Arc::new(Store::new(node));
        let kept = kept::path(state_dir);
        match kept::read(&kept) {
            Ok(Some(kept)) => {
                tracing::info!(
                    objects = kept.objects.len(),
                    "the state of the Kubernetes API is the one that was kept, until it answers"
                );
                store.take_kept(kept);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, path = %kept.display(), "what was kept of the Kubernetes API is of no use");
            }
        }
        Self {
            access,
            store,
            kept,
        }
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// The files that are read again and again.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.access.files()
    }

    /// Follows the API from now on.
    pub(crate) fn follow(self) -> Following {
        let tasks = vec![
            tokio::spawn(connect(self.clone())),
            tokio::spawn(kept::keep(self.store(), self.kept.clone())),
        ];
        Following {
            source: self,
            tasks,
        }
    }
}

impl Following {
    pub(crate) async fn stop(self) {
        for task in self.tasks {
            task.abort();
        }
        kept::write_now(&self.source.store, &self.source.kept).await;
    }
}

/// Follows the API for ever, by a new client whenever the kubeconfig is another.
async fn connect(source: Source) {
    let Source {
        access,
        store,
        kept,
    } = source;
    loop {
        let description = access.description();
        match access.connect(&store).await {
            Ok((client, server)) => {
                tokio::select! {
                    () = follow(client, &server, &store) => {}
                    () = described_anew(&access, description) => {
                        tracing::info!("the kubeconfig has changed");
                    }
                    () = store.of_another_cluster() => {
                        tracing::warn!(
                            server = server.url,
                            "the Kubernetes API is that of another cluster: what is known of the one before is forgotten"
                        );
                        store.begin_anew();
                        kept::forget(&kept);
                    }
                }
            }
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::new(error));
                tracing::error!(error, "the Kubernetes API cannot be reached");
                for kind in Kind::ALL {
                    store.failed(kind, error.clone());
                }
                tokio::time::sleep(RESOLVE).await;
            }
        }
    }
}

/// Waits until the API is to be reached in another way. One that leads nowhere is not taken.
async fn described_anew(access: &Access, description: Option<Vec<u8>>) {
    loop {
        tokio::time::sleep(RESOLVE).await;
        let now = access.description();
        if now.is_some() && now != description {
            return;
        }
    }
}

/// Has every kind watched, and looks now and then where the server is.
async fn follow(client: Client, server: &Server, store: &Arc<Store>) {
    locate(store, server).await;
    let (changed, definitions) = watch::channel(0);
    let watches = Kind::ALL.map(|kind| {
        let definitions = definitions.clone();
        watchers::follow(kind, client.clone(), Arc::clone(store), definitions)
    });
    let told = publish::publish(client.clone(), Arc::clone(store), definitions.clone());
    let looks = async {
        loop {
            tokio::time::sleep(RESOLVE).await;
            locate(store, server).await;
        }
    };
    // In one task: they end with it.
    tokio::join!(
        futures::future::join_all(watches),
        looks,
        told,
        definitions::follow(client.clone(), changed),
        servers::follow(client.clone(), Arc::clone(store)),
        events::tell(client.clone(), Arc::clone(store)),
        taint::remove(client.clone(), Arc::clone(store)),
    );
}

/// An address that was good once stays permitted until there is another.
async fn locate(store: &Store, server: &Server) {
    store.reached_at(server.url.clone(), server.addresses().await);
}
