//! The agent as it runs.
//!
//! One thread owns the desired state and writes the kernel ([`controller`]); tasks around it watch
//! for changes and carry records. They talk by messages, and share only what `status` shows.

mod clock;
mod controller;
mod endpoints;
mod file;
mod inputs;
mod inventory;
mod kubernetes;
mod node;
pub(crate) mod pods;
mod processes;
mod prompts;
mod revoke;
mod rights;
mod service;
mod status;
mod tampering;
mod traffic;
mod views;
mod watch;

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::Path,
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use futures::future::join_all;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    config::{Config, HubbleConfig, SinkConfig},
    control::server::Server,
    daemon::{
        controller::{Controller, Kept},
        pods::{Finder, Gate, Memory, Placer},
        service::Heartbeat,
        status::Shared,
        traffic::Traffic,
    },
    datapath::{
        attach,
        bpffs::{self, BpfDir},
        engine::{BelowIp, Engine},
        features,
        helper::Helper,
        object::Sizes,
    },
    flow::{
        ring::Ring,
        sink::{OtlpSettings, otlp::Push},
    },
    hubble, metrics,
    source::kubernetes::{Access, Source, store::Store},
};

/// Pods that wait to start; more wait until they are heard.
const PODS_AT_ONCE: usize = 64;

/// An agent before it has threads: what it may do beyond this is settled.
pub(crate) struct Prepared {
    config: Config,
    node: Arc<str>,
    ring: Arc<Ring>,
    shared: Arc<Shared>,
    doors: Doors,
    inputs: inputs::Inputs,
    kubernetes: Option<Source>,
    /// Pods that wait to start.
    ordered: mpsc::Receiver<pods::Order>,
    dir: BpfDir,
    helper: Option<Arc<Helper>>,
    /// Held as long as the agent runs.
    state: File,
    bpffs: File,
}

/// Where the agent is asked.
struct Doors {
    server: Server,
    metrics: Option<metrics::Server>,
    hubble: Option<hubble::Server>,
    /// To which metrics are brought.
    collectors: Vec<OtlpSettings>,
    node: Arc<str>,
}

impl Doors {
    /// Answers for ever.
    async fn run(self, shared: Arc<Shared>) {
        let Self {
            server,
            metrics,
            hubble,
            collectors,
            node,
        } = self;
        let registry = || {
            let flows = Arc::clone(&shared.flows);
            metrics::registry(Arc::clone(&shared) as _, flows, &shared.latencies)
        };
        let scraped = async {
            let Some(metrics) = metrics else { return };
            if let Err(error) = metrics.run(registry()).await {
                tracing::error!(%error, "no scrapes are answered");
            }
        };
        let observed = async {
            if let Some(hubble) = hubble {
                hubble.run().await;
            }
        };
        let brought = collectors.into_iter().filter_map(|settings| {
            let push = Push::new(settings, &node);
            let told = push.map_err(|error| tracing::error!("no metrics are brought: {error:#}"));
            Some(metrics::bring(told.ok()?, Arc::new(registry())))
        });
        tokio::join!(server.run(), scraped, observed, join_all(brought));
    }
}

/// Does what needs rights that the agent gives up, and gives them up.
pub(crate) fn prepare(config: Config) -> anyhow::Result<Prepared> {
    features::privileges()?;
    let features = features::require()?;
    let state = lock_state(&config)?;
    allow_many_files();
    features::allow_memory();
    let node: Arc<str> = config.node.as_str().into();
    let ring = Arc::new(Ring::new(HubbleConfig::lines(config.hubble.as_ref())));
    let kubernetes = match &config.kubernetes {
        Some(settings) => {
            let access = Access::find(settings)?;
            Some(Source::new(access, config.node.clone(), &config.state_dir))
        }
        None => None,
    };
    let store = kubernetes.as_ref().map(Source::store);
    let shared = Arc::new(Shared::new(&config, &features, store.clone()));
    let (orders, ordered) = mpsc::channel(PODS_AT_ONCE);
    let gate = store.clone().map(|store| {
        let shared = Arc::clone(&shared);
        Arc::new(Gate {
            store,
            shared,
            orders,
        }) as _
    });
    let server = Server::bind(
        &config.socket,
        Arc::clone(&node),
        Arc::clone(&ring),
        Arc::clone(&shared) as _,
        gate,
    )?;
    let metrics = config.metrics.map(|address| {
        let server = metrics::Server::bind(address);
        server.with_context(|| format!("cannot listen for scrapes at {address}"))
    });
    let metrics = metrics.transpose()?;
    let home = hubble::Home::new(&node, config.cluster.as_deref());
    let hubble = config.hubble.as_ref();
    let hubble = hubble.map(|settings| {
        let counts = shared.hubble.clone().unwrap_or_default();
        hubble::Server::bind(settings, home, &ring, counts)
    });
    let collectors = config.sinks.iter().filter_map(SinkConfig::takes_metrics);
    let collectors = collectors.cloned().collect();
    // Read before the kernel is touched: input with errors changes nothing there.
    let inputs = inputs::Inputs::read(config.policies.clone(), config.failsafe.rules(), store)?;
    let dir = BpfDir::prepare(&config.bpffs)?;
    let bpffs = lock_bpffs(&dir)?;
    let (privileges, helper) = rights::give_up(&config, &inputs, kubernetes.as_ref())?;
    shared.show_privileges(privileges, helper.clone());
    Ok(Prepared {
        config,
        doors: Doors {
            server,
            metrics,
            hubble: hubble.transpose()?,
            collectors,
            node: Arc::clone(&node),
        },
        node,
        ring,
        shared,
        inputs,
        kubernetes,
        ordered,
        dir,
        helper,
        state,
        bpffs,
    })
}

impl Prepared {
    /// Enforces until it is told to stop.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self {
            config,
            node,
            ring,
            shared,
            doors,
            mut inputs,
            kubernetes,
            ordered,
            dir,
            helper,
            state: _state,
            bpffs: held,
        } = self;
        let pins = bpffs::Watch::new(&dir);
        let interfaces = config.workload_interfaces.settings();
        let engine = Engine::start(
            dir,
            sizes(&config),
            below_ip(&config),
            helper.clone(),
            interfaces,
        )?;
        let fresh = engine.is_fresh()?;
        for other in engine.sizes_in_force() {
            tracing::warn!("{other}; `ringfence detach` first to change it");
        }
        let traffic = Traffic::start(&config, &node, &engine, &ring, &shared)?;
        let (triggers, triggered) = watch::channel();
        let watching = watch::Watching::start(&triggers, pins)?;
        let serving = tokio::spawn(doors.run(Arc::clone(&shared)));
        let mut signals = Signals::new()?;
        let files_alone = fresh && !config.policies.is_empty();
        let following = tokio::select! {
            following = kubernetes::follow(kubernetes, &triggers, files_alone) => following,
            () = signals.stop() => return Ok(()),
        };
        let mut finding = None;
        if let Some((store, _)) = &following {
            // Before anything is enforced: what an earlier agent has attached for them stays.
            finding = Some(find_pods(&config, Arc::clone(store), helper, &shared, ordered).await);
            inputs.reload();
        }

        let mut controller = Controller::new(
            inputs,
            Kept {
                registry: endpoints::Registry::open(&config.state_dir, engine.programmed())?,
                timekeeper: clock::Timekeeper::open(&config.state_dir),
            },
            engine,
            Arc::clone(&shared),
            config.node.clone(),
            controller::Outlets {
                known: traffic.known(),
                cgroups: watching.cgroups(),
                places: watching.places(),
                tampering: tampering::Teller::new(traffic.input()),
            },
            triggered.news(),
        );
        if let Err(error) = controller.start() {
            if fresh {
                // Nothing was in force, so nothing stays: not even tables of a size that may be wrong.
                drop(held);
                remove(&config)?;
            }
            return Err(error);
        }
        announce(&shared, following.as_ref().map(|(store, _)| &**store))?;

        let (stopped, mut is_over) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("controller".to_owned())
            .spawn(move || {
                controller.run(&triggered, Heartbeat::from_environment());
                // Nobody waits any more only if the agent is ending anyway.
                stopped.send(()).unwrap_or(());
            })?;
        tokio::select! {
            () = signals.stop() => {}
            _ = &mut is_over => anyhow::bail!("the controller ended by itself"),
            () = ended(finding.as_mut()) => anyhow::bail!("pods are not looked for any more"),
        }
        service::stopping();
        triggers.stop();
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the controller panicked"))?;
        watching.stop();
        if let Some(finding) = finding {
            finding.abort();
        }
        if let Some((_, following)) = following {
            following.stop().await;
        }
        traffic.stop().await;
        serving.abort();
        // A folder that is held cannot be unmounted.
        drop(held);
        if config.detach_on_exit {
            remove(&config)?;
        }
        Ok(())
    }
}

/// Waits until nobody looks for pods; for ever where nobody is to. Those that come would be confined by nobody: the next
/// agent finds them.
async fn ended(task: Option<&mut JoinHandle<()>>) {
    match task {
        // It has said why, or panicked.
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

/// Looks for the pods of this node, again and again; returns when it has done so once.
async fn find_pods(
    config: &Config,
    store: Arc<Store>,
    helper: Option<Arc<Helper>>,
    shared: &Arc<Shared>,
    ordered: mpsc::Receiver<pods::Order>,
) -> JoinHandle<()> {
    let finder = Finder::new(None, helper, Some(Memory::open(&config.state_dir)));
    let placer = Placer {
        store: Arc::clone(&store),
        shared: Arc::clone(shared),
    };
    let (looked, looked_once) = oneshot::channel();
    let finding = tokio::spawn(async move {
        if let Err(error) = pods::follow(finder, Box::new(placer), ordered, looked).await {
            tracing::error!("pods are not looked for any more: {error:#}");
        }
    });
    if looked_once.await.is_ok() {
        store.looked();
    } else {
        tracing::error!("pods could not be looked for");
    }
    finding
}

/// What asks the agent to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("asked to stop by SIGTERM"),
            _ = self.interrupt.recv() => tracing::info!("asked to stop by SIGINT"),
        }
    }
}

/// Removes every trace from the kernel, unless an agent is at work there: it would go on in the
/// belief that it enforces.
pub(crate) fn detach(config: &Config) -> anyhow::Result<()> {
    features::privileges()?;
    if let Some(dir) = BpfDir::existing(&config.bpffs)? {
        // Given up at once: a folder that is held cannot be unmounted.
        drop(lock_bpffs(&dir)?);
    }
    remove(config)
}

fn remove(config: &Config) -> anyhow::Result<()> {
    let Some(dir) = BpfDir::existing(&config.bpffs)? else {
        tracing::info!(path = %config.bpffs.display(), "nothing is attached");
        return Ok(());
    };
    attach::detach_all(&dir)?;
    dir.remove_all()?;
    tracing::info!(path = %config.bpffs.display(), "detached");
    Ok(())
}

/// Removes what an agent remembers, and where it listened, after [`detach`].
pub(crate) fn purge(config: &Config) -> anyhow::Result<()> {
    let state = &config.state_dir;
    if state.exists() {
        // An agent that is at work, elsewhere in the bpf filesystem, keeps it.
        drop(lock_state(config)?);
        fs::remove_dir_all(state).with_context(|| format!("cannot remove {}", state.display()))?;
    }
    let of_hubble = config.hubble.as_ref().and_then(|it| it.socket.as_deref());
    // The folder is looked at last: both may be in there.
    for socket in of_hubble.into_iter().chain([&*config.socket]) {
        remove_socket(socket)?;
    }
    if let Some(folder) = config.socket.parent() {
        match fs::remove_dir(folder) {
            // Not ours alone, or not there.
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, folder = %folder.display(), "left where it is"),
        }
    }
    tracing::info!(path = %state.display(), "nothing is remembered");
    Ok(())
}

/// What is no socket is somebody else's.
fn remove_socket(path: &Path) -> anyhow::Result<()> {
    let is_socket = |metadata: fs::Metadata| metadata.file_type().is_socket();
    if !fs::symlink_metadata(path).is_ok_and(is_socket) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits for SIGTERM or SIGINT.
pub(crate) async fn told_to_end() -> anyhow::Result<()> {
    Signals::new()?.stop().await;
    Ok(())
}

/// Each endpoint's links are held, and its programs where it is a cgroup: the limit that is usual
/// would do for a few hundred.
#[expect(
    clippy::disallowed_methods,
    reason = "up to what is allowed, which nobody needs a right for"
)]
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        tracing::warn!(%error, "no more than the usual number of open files");
    }
}

/// One agent to a folder of programs and tables.
fn lock_bpffs(dir: &BpfDir) -> anyhow::Result<File> {
    let path = dir.path();
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("an agent is at work on {}; stop it first", path.display()))?;
    Ok(file)
}

/// One agent to a state folder: two would give their endpoints the same numbers.
fn lock_state(config: &Config) -> anyhow::Result<File> {
    let folder = &config.state_dir;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make state folder {}", folder.display()))?;
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!(
            "another agent uses state folder {}; give this one another",
            folder.display()
        )
    })?;
    Ok(file)
}

fn below_ip(config: &Config) -> BelowIp {
    BelowIp {
        frames: config.frames.frames,
        dhcp_client: config.frames.dhcp_client,
    }
}

fn sizes(config: &Config) -> Sizes {
    let capacities = &config.capacities;
    Sizes {
        // Number 0 is no endpoint.
        endpoints: capacities.endpoints + 1,
        prefixes: capacities.prefixes,
        policy: capacities.policy_entries,
        ports: capacities.port_entries,
        own_addresses: capacities.addresses,
        flows: capacities.flows,
        denials: capacities.denials,
        names: if config.dns.names {
            Sizes::default().names
        } else {
            0
        },
        ..Sizes::default()
    }
}

/// Tells whoever started the agent, by one line, and whoever else waits for it.
fn announce(shared: &Shared, store: Option<&Store>) -> anyhow::Result<()> {
    let summary = shared.summary();
    if let Some(store) = store {
        store.enforced();
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{summary}").context("standard output")?;
    out.flush().context("standard output")?;
    service::ready(&summary);
    Ok(())
}
