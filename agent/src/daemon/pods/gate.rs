//! Pods that wait to start until the kernel enforces for them.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use agent_policy::model::{EndpointSpec, ObjectName};
use futures::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

use super::{Announced, Order};
use crate::{
    control::{Held, PodRequest, server::Admission},
    daemon::status::Shared,
    source::kubernetes::{
        placement::name_beside,
        store::{KnownPod, Store},
    },
};

/// Between two looks at whether it is so by now.
const LOOK: Duration = Duration::from_millis(5);

/// Nobody waits longer, whatever was asked for.
const LONGEST: Duration = Duration::from_mins(1);

/// Lets pods start.
pub(crate) struct Gate {
    pub(crate) store: Arc<Store>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) orders: mpsc::Sender<Order>,
}

impl Admission for Gate {
    fn admit(&self, request: PodRequest) -> BoxFuture<'_, Result<Held, String>> {
        Box::pin(self.held(request))
    }
}

impl Gate {
    async fn held(&self, request: PodRequest) -> Result<Held, String> {
        let until = Instant::now() + Duration::from_millis(request.wait_ms).min(LONGEST);
        let name = ObjectName::new(request.namespace.as_str(), request.name.as_str());
        let known = timeout_at(until, self.known(&name, request.uid.as_deref())).await;
        let Ok(pod) = known else {
            return Err(format!(
                "the agent has not heard of pod {name} from the Kubernetes API"
            ));
        };
        let enforced = async {
            let (placed, is_placed) = oneshot::channel();
            let announced = Announced {
                uid: pod.uid,
                interface: request.interface.clone(),
                addresses: request.addresses.clone(),
            };
            let ended = || "the agent is ending".to_owned();
            let sent = self.orders.send((announced, placed)).await;
            sent.map_err(|_| ended())?;
            let index = is_placed.await.map_err(|_| ended())??;
            let interface = request.interface.as_deref();
            // One at a cgroup has the addresses of its node.
            let addresses = index.map_or_else(BTreeSet::new, |_| request.addresses.clone());
            loop {
                if let Some(at) = self.held_at(&pod.name, interface, index, &addresses)
                    && is_at(&at, interface)
                {
                    return Ok(Held { at: at.to_string() });
                }
                sleep(LOOK).await;
            }
        };
        let enforced = timeout_at(until, enforced).await;
        enforced.unwrap_or_else(|_| {
            Err(format!(
                "the kernel does not enforce for pod {name} yet; `ringfence status` says what is amiss"
            ))
        })
    }

    /// It may be an interface beside the one that the pod has already.
    fn held_at(
        &self,
        pod: &ObjectName,
        interface: Option<&str>,
        index: Option<u32>,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<EndpointSpec> {
        let own = self.shared.held_at(pod, index, addresses);
        let own = own.filter(|at| is_at(at, interface));
        own.or_else(|| {
            let beside = name_beside(pod, interface?);
            self.shared.held_at(&beside, index, addresses)
        })
    }

    /// The pod that is meant: by its UID, if that is told, as another one of that name may be on its way out.
    async fn known(&self, name: &ObjectName, uid: Option<&str>) -> KnownPod {
        loop {
            let pod = match uid {
                Some(uid) => self.store.pod(uid),
                None => self.store.pod_named(name),
            };
            match pod {
                Some(pod) => return pod,
                None => sleep(LOOK).await,
            }
        }
    }
}

fn is_at(at: &EndpointSpec, interface: Option<&str>) -> bool {
    match (at, interface) {
        (EndpointSpec::Interface(name), Some(interface)) => name == interface,
        (EndpointSpec::Cgroup(_), None) => true,
        _ => false,
    }
}
