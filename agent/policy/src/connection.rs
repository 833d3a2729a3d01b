//! A connection between two ends that people can name, and its verdict from both of them.
//!
//! Generic over the evaluator. Imports the model and the question; `explain`, `matrix` and the
//! tests import it.

mod ends;
mod error;
mod local;
mod port;
mod service;
mod side;
mod ways;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::{
    ends::End,
    error::ConnectionError,
    port::Port,
    side::{Reason, Side, rule_name},
    ways::{Judged, Ways},
};
pub(crate) use self::{
    ends::addresses_of,
    local::{LOOPBACK, TOLD},
    service::{Served, frontends},
};
use crate::{
    model::{Direction, SubjectName, Time, World},
    question::{Evaluator, Origin, Question, View},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
}

/// Which policies are asked, and at what moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Perspective {
    pub view: View,
    pub at: Time,
}

/// Both ends' answers, and what they amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub verdict: Verdict,
    pub egress: Side,
    /// Where a Service is asked for: that of the first backend that does not permit, else of the
    /// first one.
    pub ingress: Side,
    /// What serves, where a Service is asked for; in order of address and port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendOutcome>,
}

/// One backend of the Service that is asked for. The connection may lead to any of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendOutcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<End>,
    pub address: IpAddr,
    pub port: Port,
    pub verdict: Verdict,
    pub egress: Side,
    pub ingress: Side,
}

/// A connection bound to addresses: up to one question for each end, or for each backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub from: IpAddr,
    pub to: IpAddr,
    /// `None`: the source is no subject.
    pub egress: Option<Question>,
    /// `None`: the destination is no subject.
    pub ingress: Option<Question>,
    /// What the destination stands for, if it is a Service that something serves.
    pub backends: Vec<BackendConnection>,
    same_workload: bool,
}

/// The way behind a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConnection {
    pub name: Option<End>,
    pub address: IpAddr,
    pub port: Port,
    /// As if the backend were asked for by its own address.
    pub egress: Option<Question>,
    pub ingress: Option<Question>,
    /// Whether that answers for the way through the Service as well: not if the backend is the
    /// source itself, or another frontend.
    pub stands_alone: bool,
}

/// Something that has to be permitted for a connection to pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) asked: Question,
    /// The peer and port that rules have to speak about: behind a Service, those of a backend.
    pub(crate) about: Question,
}

// === impl Connection ===

impl Connection {
    /// The first of the [`Ways`] between two ends: the only one where both mean a single address.
    ///
    /// # Errors
    ///
    /// As those of [`Ways::new`].
    pub fn new(
        world: &World,
        from: &End,
        to: &End,
        port: Port,
        perspective: Perspective,
    ) -> Result<Self, ConnectionError> {
        Ways::new(world, from, to, port, perspective).map(Ways::into_first)
    }

    /// Whether the connection passes. Cheaper than [`Self::judge`]: a matrix asks a million times.
    pub fn verdict(&self, evaluator: &impl Evaluator) -> Verdict {
        let permitted = |question: &Option<Question>| {
            question
                .as_ref()
                .is_none_or(|q| evaluator.answer(q).allows())
        };
        let behind = || self.backends.iter().all(|one| permitted(&one.ingress));
        if self.same_workload || (permitted(&self.egress) && permitted(&self.ingress) && behind()) {
            Verdict::Allow
        } else {
            Verdict::Deny
        }
    }

    /// Both ends' answers with their reasons.
    pub fn judge(&self, world: &World, evaluator: &impl Evaluator) -> Outcome {
        let side = |question: &Option<Question>| match question {
            Some(_) if self.same_workload => Side::without_rule(Verdict::Allow, Reason::Itself),
            Some(question) => Side::new(world, &evaluator.answer(question)),
            None => Side::without_rule(Verdict::Allow, Reason::NoSubject),
        };
        let egress = side(&self.egress);
        let backends: Vec<_> = self
            .backends
            .iter()
            .map(|backend| {
                let BackendConnection {
                    name,
                    address,
                    port,
                    egress: asked,
                    ingress,
                    stands_alone,
                } = backend;
                let egress = if *stands_alone {
                    side(asked)
                } else {
                    egress.clone()
                };
                let ingress = side(ingress);
                BackendOutcome {
                    name: name.clone(),
                    address: *address,
                    port: *port,
                    verdict: egress.verdict.and(ingress.verdict),
                    egress,
                    ingress,
                }
            })
            .collect();
        let behind = backends
            .iter()
            .find(|backend| backend.ingress.verdict == Verdict::Deny)
            .or(backends.first());
        let ingress = match behind {
            Some(backend) => backend.ingress.clone(),
            None => side(&self.ingress),
        };
        Outcome {
            verdict: egress.verdict.and(ingress.verdict),
            egress,
            ingress,
            backends,
        }
    }

    /// Everything that has to be permitted.
    pub(crate) fn needs(&self) -> Vec<Need> {
        if self.same_workload {
            return Vec::new();
        }
        let plain = |question: &Question| Need {
            asked: question.clone(),
            about: question.clone(),
        };
        if self.backends.is_empty() {
            let both = self.egress.iter().chain(&self.ingress);
            return both.map(plain).collect();
        }
        let egress = |stands_alone: bool| {
            let backends = self.backends.iter();
            backends
                .filter(move |backend| backend.stands_alone == stands_alone)
                .filter_map(move |backend| {
                    let about = backend.egress.clone()?;
                    let asked = if stands_alone {
                        about.clone()
                    } else {
                        self.egress.clone()?
                    };
                    Some(Need { asked, about })
                })
        };
        let ingress = self.backends.iter().filter_map(|one| one.ingress.as_ref());
        // Where the Service is asked itself, the others have to be permitted before.
        let egress = egress(true).chain(egress(false));
        egress.chain(ingress.map(plain)).collect()
    }
}

/// What the questions about two ends have in common.
struct Asking<'a> {
    world: &'a World,
    perspective: Perspective,
    from: &'a End,
    to: &'a End,
    port: Port,
}

impl Asking<'_> {
    fn connection(&self, from: IpAddr, to: IpAddr) -> Connection {
        let backends: Vec<_> = service::backends(self.world, to, self.port)
            .into_iter()
            .map(|backend| self.backend(from, backend))
            .collect();
        let ingress = if backends.is_empty() {
            self.ingress(from, self.to, self.port)
        } else {
            None
        };
        let translated = !backends.is_empty();
        let socket = |end: &End, address| {
            let (from, to, protocol) = (self.from, self.to, self.port.protocol);
            let met = local::meet(self.world, from, to, address, protocol);
            end.workload().filter(|_| met && !translated).cloned()
        };
        let met_at = |question: Question, end, address| Question {
            socket: socket(end, address),
            ..question
        };
        let egress = self.egress(to, self.port);
        Connection {
            from,
            to,
            egress: egress.map(|asked| met_at(asked, self.to, to)),
            ingress: ingress.map(|asked| met_at(asked, self.from, from)),
            backends,
            same_workload: local::is_itself(self.world, self.from, self.to),
        }
    }

    fn egress(&self, peer: IpAddr, port: Port) -> Option<Question> {
        let subject = self.from.subject(self.world)?;
        // What an endpoint sends has come in through its interface, seen from the node.
        let origin = match subject {
            SubjectName::Workload(_) => Origin::Forwarded,
            SubjectName::Node(_) => Origin::ThisNode,
        };
        Some(self.question(subject, Direction::Egress, peer, port, origin))
    }

    fn ingress(&self, source: IpAddr, to: &End, port: Port) -> Option<Question> {
        let subject = to.subject(self.world)?;
        let here = self.from.node_spoken_for(self.world);
        let origin = match (here, to.node_of_workload(self.world)) {
            (Some(here), Some(there)) if here == there => Origin::ThisNode,
            _ => Origin::Forwarded,
        };
        Some(self.question(subject, Direction::Ingress, source, port, origin))
    }

    fn question(
        &self,
        subject: SubjectName,
        direction: Direction,
        peer: IpAddr,
        port: Port,
        origin: Origin,
    ) -> Question {
        let Perspective { view, at } = self.perspective;
        Question {
            subject,
            direction,
            peer,
            socket: None,
            protocol: port.protocol,
            port: port.number,
            origin,
            view,
            at,
        }
    }

    fn backend(&self, source: IpAddr, backend: service::Serving) -> BackendConnection {
        let service::Serving {
            address,
            port,
            workload,
        } = backend;
        let end =
            workload.map_or_else(|| End::Address(address).resolved(self.world), End::Workload);
        BackendConnection {
            egress: self.egress(address, port),
            ingress: self.ingress(source, &end, port),
            stands_alone: address != source
                && service::backends(self.world, address, port).is_empty(),
            name: Some(end).filter(|end| *end != End::Address(address)),
            address,
            port,
        }
    }
}

// === impl Perspective ===

impl Perspective {
    /// What is enforced at a moment.
    pub fn live(at: Time) -> Self {
        let view = View::Live;
        Self { view, at }
    }

    #[must_use]
    pub fn through(self, view: View) -> Self {
        Self { view, ..self }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Both ends must permit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

#[cfg(test)]
mod tests;
