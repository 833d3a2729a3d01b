//! Which records a client wants: typed at the command line, sent as JSON, and judged by the agent, or by the command
//! itself where it reads files.

mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use clap::Args;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use self::names::{
    DnsPattern, Label, PolicyName, ProtocolNumber, ReasonName, ServiceName, WorkloadName, network,
};
use crate::flow::record::{Direction, EndReason, Kind, Line, ProcessRef, Record, RuleRef, Verdict};

/// What the help of `flows` says before the filters.
const FILTERS: &str = "Which records (of values of an option that is repeated, one has to fit)";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FlowsRequest {
    /// Only so many of the records that are kept, the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "N", global = true)]
    pub(crate) last: Option<usize>,
    /// Go on with what comes.
    #[arg(long, conflicts_with = "file")]
    pub(crate) follow: bool,
    /// Only what was permitted, or only what was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, global = true, help_heading = FILTERS)]
    pub(crate) verdict: Option<Verdict>,
    /// Only what came to an endpoint, or only what went out from one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, global = true, help_heading = FILTERS)]
    pub(crate) direction: Option<Direction>,
    /// Only records of this kind; of losses and tampering are all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "kind", value_name = "KIND", global = true, help_heading = FILTERS)]
    pub(crate) kinds: Vec<Kind>,
    /// Only flows from or to this workload; a node is node/NAME.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[arg(long, value_name = "NAMESPACE/NAME", global = true, help_heading = FILTERS)]
    pub(crate) workload: Option<WorkloadName>,
    /// Only flows from or to workloads, or to Services, of this namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "namespace", value_name = "NAME", global = true, help_heading = FILTERS)]
    pub(crate) namespaces: Vec<String>,
    /// Only flows from or to a workload with this label; if repeated, with all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "label", value_name = "KEY=VALUE", global = true, help_heading = FILTERS)]
    pub(crate) labels: Vec<Label>,
    /// Only flows from or to this address, or an address of this network.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "ip", value_name = "ADDRESS|CIDR", value_parser = network, global = true, help_heading = FILTERS)]
    pub(crate) networks: Vec<IpNet>,
    /// Only flows from or to this port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "port", value_name = "N", global = true, help_heading = FILTERS)]
    pub(crate) ports: Vec<u16>,
    /// Only flows to this port: the responder's, which names the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "to-port", value_name = "N", global = true, help_heading = FILTERS)]
    pub(crate) to_ports: Vec<u16>,
    /// Only flows of this protocol, such as tcp, icmpv6 or 47.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "protocol", value_name = "PROTOCOL", global = true, help_heading = FILTERS)]
    pub(crate) protocols: Vec<ProtocolNumber>,
    /// Only what a rule of this policy decided, or would have: NAMESPACE/NAME, or NAME in any namespace or in none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "policy", value_name = "POLICY", global = true, help_heading = FILTERS)]
    pub(crate) policies: Vec<PolicyName>,
    /// Only what was permitted or dropped for this reason, such as default-deny.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "reason", value_name = "REASON", global = true, help_heading = FILTERS)]
    pub(crate) reasons: Vec<ReasonName>,
    /// Only flows to this Service: those that ask for it by its address or by a node port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "service", value_name = "NAMESPACE/NAME", global = true, help_heading = FILTERS)]
    pub(crate) services: Vec<ServiceName>,
    /// Only flows of processes that call themselves so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "process", value_name = "COMM", global = true, help_heading = FILTERS)]
    pub(crate) processes: Vec<String>,
    /// Only flows of processes that run this file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "exe", value_name = "PATH", global = true, help_heading = FILTERS)]
    pub(crate) files: Vec<String>,
    /// Only flows of processes in this container; the first digits of its id will do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "container", value_name = "ID", global = true, help_heading = FILTERS)]
    pub(crate) containers: Vec<String>,
    /// Only flows with whom the endpoint has asked for by this name, or, as in *.example.com, one below.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "dns-name", value_name = "NAME", global = true, help_heading = FILTERS)]
    pub(crate) dns_names: Vec<DnsPattern>,
    /// Only flows that ended so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[arg(long = "end-reason", value_name = "REASON", global = true, help_heading = FILTERS)]
    pub(crate) end_reasons: Vec<EndReason>,
}

impl FlowsRequest {
    /// Losses pass every filter: what is missing might have matched. So does what was tampered with.
    pub(crate) fn wants(&self, line: &Line) -> bool {
        line.flow().is_none_or(|flow| self.fits(flow))
    }

    /// The key of a label of which two values are asked for.
    pub(crate) fn contradiction(&self) -> Option<&str> {
        let labels = &self.labels;
        let is_other = |label: &&Label| {
            let mut others = labels.iter();
            others.any(|other| other.key == label.key && other.value != label.value)
        };
        labels.iter().find(is_other).map(|label| &*label.key)
    }

    fn fits(&self, flow: &Record) -> bool {
        let Self {
            last: _,
            follow: _,
            verdict,
            direction,
            kinds,
            workload,
            namespaces,
            labels,
            networks,
            ports,
            to_ports,
            protocols,
            policies,
            reasons,
            services,
            processes,
            files,
            containers,
            dns_names,
            end_reasons,
        } = self;
        let of_process =
            |get: fn(&ProcessRef) -> Option<&Arc<str>>| flow.process.as_ref().and_then(get);
        let has_port =
            |port: Option<u16>, ports: &[u16]| port.is_some_and(|it| ports.contains(&it));
        let mut ends = flow.ends().into_iter();
        verdict.is_none_or(|verdict| flow.verdict == verdict)
            && direction.is_none_or(|direction| flow.direction == direction)
            && (kinds.is_empty() || kinds.contains(&flow.kind))
            && (workload.as_ref()).is_none_or(|name| flow.workloads().any(|it| name.is_of(it)))
            && (namespaces.is_empty() || flow.is_of_namespace(namespaces))
            && (labels.is_empty() || flow.has_labels(|| labels.iter().map(Label::pair)))
            && (networks.is_empty() || flow.is_within(networks))
            && (ports.is_empty() || ends.any(|end| has_port(end.port, ports)))
            && (to_ports.is_empty() || has_port(flow.dst.port, to_ports))
            && (protocols.is_empty() || protocols.contains(&ProtocolNumber(flow.protocol.number)))
            && (policies.is_empty()
                || rules(flow).any(|rule| policies.iter().any(|name| name.is_of(rule))))
            && (reasons.is_empty()
                || (flow.reason()).is_some_and(|it| reasons.iter().any(|reason| reason.is(it))))
            && (services.is_empty()
                || (flow.dst.service.as_ref())
                    .is_some_and(|it| services.iter().any(|name| name.is(it))))
            && (processes.is_empty()
                || (flow.process.as_ref()).is_some_and(|it| processes.contains(&it.comm)))
            && (files.is_empty()
                || of_process(|it| it.exe.as_ref())
                    .is_some_and(|it| files.iter().any(|file| **file == **it)))
            && (containers.is_empty()
                || of_process(|it| it.container_id.as_ref())
                    .is_some_and(|it| containers.iter().any(|id| it.starts_with(id))))
            && (dns_names.is_empty()
                || flow.ends().into_iter().any(|end| {
                    (end.dns_name.as_ref())
                        .is_some_and(|it| dns_names.iter().any(|name| name.is(it)))
                }))
            && (end_reasons.is_empty()
                || flow.end_reason.is_some_and(|it| end_reasons.contains(&it)))
    }
}

/// That decided, or would decide if policies in audit and staged ones were in force.
fn rules(flow: &Record) -> impl Iterator<Item = &RuleRef> {
    let would_be = flow.would_be.iter().map(|other| &other.policy);
    let rules = std::iter::once(&flow.policy).chain(would_be);
    rules.filter_map(Option::as_deref)
}
