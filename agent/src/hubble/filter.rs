//! Which flows a client wants.
//!
//! A field that cannot be judged here is refused: left out, its filter would pass what it was to keep back. `FlowFilter` is
//! taken apart whole, so that a field which is added to it has to be thought about.

mod pattern;
mod selector;

use agent_hubble_proto::flow::{
    Endpoint, EventTypeFilter, Flow, FlowFilter, IpVersion, NetworkInterface, Service, TcpFlags,
    TrafficDirection, Verdict, Workload, layer4::Protocol,
};

use self::{
    pattern::{Glob, NamePattern, Network, NodePattern},
    selector::Selector,
};

/// Values of all filters of a request: each may be compared with each flow that is kept.
const VALUES: usize = 4096;

/// Those of a request.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// If there are any, one has to take a flow.
    allow: Vec<Filter>,
    deny: Vec<Filter>,
}

/// All of them have to hold. Without any it takes everything.
type Filter = Vec<Test>;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("filter `{field}` has `{seen}`, expected {expected}")]
    Value {
        field: &'static str,
        seen: String,
        expected: &'static str,
    },
    #[error("filter `{field}` cannot be judged here: {why}")]
    Field {
        field: &'static str,
        why: &'static str,
    },
    #[error("{0} values in filters, expected at most {VALUES}")]
    TooMany(usize),
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Source,
    Destination,
}

/// One field: one of its values has to fit.
#[derive(Debug)]
enum Test {
    Ip(Side, Vec<Network>),
    Pod(Side, Vec<NamePattern>),
    Service(Side, Vec<NamePattern>),
    Fqdn(Side, Vec<Glob>),
    Label(Side, Vec<Selector>),
    Port(Side, Vec<u16>),
    Identity(Side, Vec<u32>),
    Workload(Side, Vec<Workload>),
    Cluster(Side, Vec<String>),
    /// Before it was translated.
    Translated(Vec<Network>),
    Verdict(Vec<i32>),
    EventType(Vec<EventTypeFilter>),
    Protocol(Vec<ProtocolName>),
    Reply(Vec<bool>),
    TcpFlags(Vec<TcpFlags>),
    Node(Vec<NodePattern>),
    NodeLabels(Vec<Selector>),
    IpVersion(Vec<i32>),
    Uuid(Vec<String>),
    Direction(Vec<i32>),
    DropReason(Vec<i32>),
    Interface(Vec<NetworkInterface>),
    Encrypted(Vec<bool>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProtocolName {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    IcmpV4,
    IcmpV6,
    Vrrp,
    Igmp,
}

const NO_LAYER_7: &str = "this agent does not look into connections";
const NO_TRACE: &str = "flows of this agent carry no ids of traces";
const NO_CEL: &str = "expressions are not evaluated";

impl Filters {
    /// # Errors
    ///
    /// The first value that cannot be meant, or field that cannot be judged.
    pub(super) fn parse(
        whitelist: Vec<FlowFilter>,
        blacklist: Vec<FlowFilter>,
    ) -> Result<Self, Refused> {
        let mut values = 0;
        let mut parsed = |filters: Vec<FlowFilter>| {
            let filters = filters.into_iter().map(|filter| parse(filter, &mut values));
            filters.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            allow: parsed(whitelist)?,
            deny: parsed(blacklist)?,
        })
    }

    pub(super) fn pass(&self, flow: &Flow) -> bool {
        let takes = |filter: &Filter| filter.iter().all(|test| test.takes(flow));
        (self.allow.is_empty() || self.allow.iter().any(takes)) && !self.deny.iter().any(takes)
    }
}

/// Gathers the tests of a filter: a field without values is not there.
struct Tests<'a> {
    tests: Filter,
    values: &'a mut usize,
}

impl Tests<'_> {
    fn add<T>(&mut self, values: Vec<T>, test: impl FnOnce(Vec<T>) -> Test) -> Result<(), Refused> {
        self.count(values.len())?;
        if !values.is_empty() {
            self.tests.push(test(values));
        }
        Ok(())
    }

    fn add_parsed<T>(
        &mut self,
        field: &'static str,
        values: &[String],
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        test: impl FnOnce(Vec<T>) -> Test,
    ) -> Result<(), Refused> {
        // Before anything is made of them.
        self.count(values.len())?;
        let parsed = values.iter().map(|value| {
            parse(value).ok_or_else(|| Refused::Value {
                field,
                seen: value.clone(),
                expected,
            })
        });
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        if !parsed.is_empty() {
            self.tests.push(test(parsed));
        }
        Ok(())
    }

    fn count(&mut self, values: usize) -> Result<(), Refused> {
        *self.values = self.values.saturating_add(values);
        if *self.values > VALUES {
            return Err(Refused::TooMany(*self.values));
        }
        Ok(())
    }
}

fn refuse<T>(field: &'static str, values: &[T], why: &'static str) -> Result<(), Refused> {
    if values.is_empty() {
        return Ok(());
    }
    Err(Refused::Field { field, why })
}

fn parse(filter: FlowFilter, values: &mut usize) -> Result<Filter, Refused> {
    *values += 1;
    let mut tests = Tests {
        tests: Vec::new(),
        values,
    };
    let (source, destination, whole) = take_apart(filter)?;
    tests.side(Side::Source, source)?;
    tests.side(Side::Destination, destination)?;
    tests.whole(whole)?;
    Ok(tests.tests)
}

fn take_apart(filter: FlowFilter) -> Result<(OneSide, OneSide, Whole), Refused> {
    let FlowFilter {
        source_ip,
        source_pod,
        destination_ip,
        destination_pod,
        verdict,
        event_type,
        source_fqdn,
        destination_fqdn,
        http_status_code,
        source_label,
        destination_label,
        protocol,
        source_port,
        destination_port,
        reply,
        source_service,
        destination_service,
        dns_query,
        source_identity,
        destination_identity,
        http_method,
        http_path,
        tcp_flags,
        node_name,
        ip_version,
        source_workload,
        destination_workload,
        trace_id,
        uuid,
        traffic_direction,
        http_url,
        http_header,
        drop_reason_desc,
        source_ip_xlated,
        interface,
        node_labels,
        source_cluster_name,
        destination_cluster_name,
        ip_trace_id,
        encrypted,
        experimental,
    } = filter;
    refuse("http_status_code", &http_status_code, NO_LAYER_7)?;
    refuse("http_method", &http_method, NO_LAYER_7)?;
    refuse("http_path", &http_path, NO_LAYER_7)?;
    refuse("http_url", &http_url, NO_LAYER_7)?;
    refuse("http_header", &http_header, NO_LAYER_7)?;
    refuse("dns_query", &dns_query, NO_LAYER_7)?;
    refuse("trace_id", &trace_id, NO_TRACE)?;
    refuse("ip_trace_id", &ip_trace_id, NO_TRACE)?;
    let expressions = experimental.map(|it| it.cel_expression);
    refuse("cel_expression", &expressions.unwrap_or_default(), NO_CEL)?;
    let source = OneSide {
        ip: ("source_ip", source_ip),
        pod: ("source_pod", source_pod),
        service: ("source_service", source_service),
        fqdn: ("source_fqdn", source_fqdn),
        label: ("source_label", source_label),
        port: ("source_port", source_port),
        cluster: ("source_cluster_name", source_cluster_name),
        identity: source_identity,
        workload: source_workload,
    };
    let destination = OneSide {
        ip: ("destination_ip", destination_ip),
        pod: ("destination_pod", destination_pod),
        service: ("destination_service", destination_service),
        fqdn: ("destination_fqdn", destination_fqdn),
        label: ("destination_label", destination_label),
        port: ("destination_port", destination_port),
        cluster: ("destination_cluster_name", destination_cluster_name),
        identity: destination_identity,
        workload: destination_workload,
    };
    let whole = Whole {
        source_ip_xlated,
        protocol,
        node_name,
        node_labels,
        verdict,
        event_type,
        reply,
        tcp_flags,
        ip_version,
        uuid,
        traffic_direction,
        drop_reason_desc,
        interface,
        encrypted,
    };
    Ok((source, destination, whole))
}

/// What both sides have, by the names of the fields.
struct OneSide {
    ip: (&'static str, Vec<String>),
    pod: (&'static str, Vec<String>),
    service: (&'static str, Vec<String>),
    fqdn: (&'static str, Vec<String>),
    label: (&'static str, Vec<String>),
    port: (&'static str, Vec<String>),
    cluster: (&'static str, Vec<String>),
    identity: Vec<u32>,
    workload: Vec<Workload>,
}

/// What the flow as a whole has.
struct Whole {
    source_ip_xlated: Vec<String>,
    protocol: Vec<String>,
    node_name: Vec<String>,
    node_labels: Vec<String>,
    verdict: Vec<i32>,
    event_type: Vec<EventTypeFilter>,
    reply: Vec<bool>,
    tcp_flags: Vec<TcpFlags>,
    ip_version: Vec<i32>,
    uuid: Vec<String>,
    traffic_direction: Vec<i32>,
    drop_reason_desc: Vec<i32>,
    interface: Vec<NetworkInterface>,
    encrypted: Vec<bool>,
}

const NETWORK: &str = "an address or a network, as in 10.0.0.1 or fd00::/8";
const PROTOCOL: &str =
    "one of tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp: nothing above them is seen here";
const NODE: &str = "NODE or CLUSTER/NODE, with `*` for any letters";
const NAME: &str = "NAMESPACE/NAME, NAME, /NAME or NAMESPACE/";
const SELECTOR: &str =
    "labels to select by, as in app=web, app!=web, app in (a,b), app notin (a), app, !app";

impl Tests<'_> {
    fn side(&mut self, side: Side, fields: OneSide) -> Result<(), Refused> {
        let OneSide {
            ip,
            pod,
            service,
            fqdn,
            label,
            port,
            cluster,
            identity,
            workload,
        } = fields;
        self.add(identity, |it| Test::Identity(side, it))?;
        self.add(workload, |it| Test::Workload(side, it))?;
        self.add_parsed(ip.0, &ip.1, NETWORK, Network::parse, |it| {
            Test::Ip(side, it)
        })?;
        self.add_parsed(pod.0, &pod.1, NAME, NamePattern::parse, |it| {
            Test::Pod(side, it)
        })?;
        self.add_parsed(service.0, &service.1, NAME, NamePattern::parse, |it| {
            Test::Service(side, it)
        })?;
        let expected = "a name, with `*` for any letters";
        self.add_parsed(fqdn.0, &fqdn.1, expected, Glob::of_fqdn, |it| {
            Test::Fqdn(side, it)
        })?;
        self.add_parsed(label.0, &label.1, SELECTOR, Selector::parse, |it| {
            Test::Label(side, it)
        })?;
        let expected = "a number from 0 to 65535";
        self.add_parsed(port.0, &port.1, expected, pattern::port, |it| {
            Test::Port(side, it)
        })?;
        let whole = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        self.add_parsed(cluster.0, &cluster.1, "a name", whole, |it| {
            Test::Cluster(side, it)
        })
    }

    fn whole(&mut self, fields: Whole) -> Result<(), Refused> {
        let Whole {
            source_ip_xlated,
            protocol,
            node_name,
            node_labels,
            verdict,
            event_type,
            reply,
            tcp_flags,
            ip_version,
            uuid,
            traffic_direction,
            drop_reason_desc,
            interface,
            encrypted,
        } = fields;
        let (translated, field) = (source_ip_xlated, "source_ip_xlated");
        self.add_parsed(
            field,
            &translated,
            NETWORK,
            Network::parse,
            Test::Translated,
        )?;
        self.add_parsed(
            "protocol",
            &protocol,
            PROTOCOL,
            ProtocolName::parse,
            Test::Protocol,
        )?;
        self.add_parsed(
            "node_name",
            &node_name,
            NODE,
            NodePattern::parse,
            Test::Node,
        )?;
        let (labels, field) = (node_labels, "node_labels");
        self.add_parsed(field, &labels, SELECTOR, Selector::parse, Test::NodeLabels)?;
        self.add(verdict, Test::Verdict)?;
        self.add(event_type, Test::EventType)?;
        self.add(reply, Test::Reply)?;
        self.add(tcp_flags, Test::TcpFlags)?;
        self.add(ip_version, Test::IpVersion)?;
        self.add(uuid, Test::Uuid)?;
        self.add(traffic_direction, Test::Direction)?;
        self.add(drop_reason_desc, Test::DropReason)?;
        self.add(interface, Test::Interface)?;
        self.add(encrypted, Test::Encrypted)
    }
}

impl Test {
    fn takes(&self, flow: &Flow) -> bool {
        match self {
            Self::Ip(side, networks) => {
                let ip = flow.ip.as_ref().map(|ip| match side {
                    Side::Source => &*ip.source,
                    Side::Destination => &*ip.destination,
                });
                is_within(networks, ip)
            }
            Self::Translated(networks) => {
                let ip = flow.ip.as_ref().map(|ip| &*ip.source_xlated);
                is_within(networks, ip)
            }
            Self::Pod(side, patterns) => side.endpoint(flow).is_some_and(|it| {
                let mut patterns = patterns.iter();
                patterns.any(|pattern| pattern.fits(&it.namespace, &it.pod_name))
            }),
            Self::Service(side, patterns) => side.service(flow).is_some_and(|it| {
                let mut patterns = patterns.iter();
                patterns.any(|pattern| pattern.fits(&it.namespace, &it.name))
            }),
            Self::Fqdn(side, globs) => {
                let names = match side {
                    Side::Source => &flow.source_names,
                    Side::Destination => &flow.destination_names,
                };
                let fits = |name: &String| globs.iter().any(|glob| glob.fits_fqdn(name));
                names.iter().any(fits)
            }
            Self::Label(side, selectors) => {
                let labels = side.endpoint(flow).map_or(&[][..], |it| &it.labels);
                selectors.iter().any(|selector| selector.takes(labels))
            }
            Self::NodeLabels(selectors) => {
                let mut selectors = selectors.iter();
                selectors.any(|selector| selector.takes(&flow.node_labels))
            }
            Self::Port(side, ports) => side
                .port(flow)
                .is_some_and(|port| ports.iter().any(|wanted| u32::from(*wanted) == port)),
            Self::Identity(side, identities) => side
                .endpoint(flow)
                .is_some_and(|it| identities.contains(&it.identity)),
            Self::Workload(side, workloads) => side
                .endpoint(flow)
                .is_some_and(|it| workloads.iter().any(|wanted| has_workload(it, wanted))),
            Self::Cluster(side, clusters) => side
                .endpoint(flow)
                .is_some_and(|it| clusters.contains(&it.cluster_name)),
            Self::Verdict(verdicts) => verdicts.contains(&flow.verdict),
            Self::EventType(types) => types.iter().any(|wanted| is_event(flow, *wanted)),
            Self::Protocol(names) => {
                let protocol = flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref());
                protocol.is_some_and(|it| names.iter().any(|name| name.is(it)))
            }
            Self::Reply(replies) => {
                // What is dropped does not say so, and is none.
                let absent = flow.verdict == i32::from(Verdict::Dropped);
                let is_reply = flow.is_reply.or(absent.then_some(false));
                is_reply.is_some_and(|it| replies.contains(&it))
            }
            Self::TcpFlags(wanted) => {
                tcp_flags(flow).is_some_and(|it| wanted.iter().any(|wanted| has_all(it, *wanted)))
            }
            Self::Node(patterns) => patterns.iter().any(|it| it.fits(&flow.node_name)),
            Self::IpVersion(versions) => {
                let version = flow.ip.as_ref().map(|ip| ip.ip_version);
                versions.contains(&version.unwrap_or_else(|| IpVersion::IpNotUsed.into()))
            }
            Self::Uuid(uuids) => uuids.contains(&flow.uuid),
            Self::Direction(directions) => {
                let is_known = flow.traffic_direction != i32::from(TrafficDirection::Unknown);
                is_known && directions.contains(&flow.traffic_direction)
            }
            Self::DropReason(reasons) => {
                flow.verdict == i32::from(Verdict::Dropped)
                    && reasons.contains(&flow.drop_reason_desc)
            }
            Self::Interface(interfaces) => flow
                .interface
                .as_ref()
                .is_some_and(|it| interfaces.iter().any(|wanted| is_interface(it, wanted))),
            Self::Encrypted(wanted) => flow
                .ip
                .as_ref()
                .is_some_and(|ip| wanted.contains(&ip.encrypted)),
        }
    }
}

impl Side {
    fn endpoint(self, flow: &Flow) -> Option<&Endpoint> {
        match self {
            Self::Source => flow.source.as_ref(),
            Self::Destination => flow.destination.as_ref(),
        }
    }

    fn service(self, flow: &Flow) -> Option<&Service> {
        match self {
            Self::Source => flow.source_service.as_ref(),
            Self::Destination => flow.destination_service.as_ref(),
        }
    }

    fn port(self, flow: &Flow) -> Option<u32> {
        let (source, destination) = match flow.l4.as_ref()?.protocol.as_ref()? {
            Protocol::Tcp(it) => (it.source_port, it.destination_port),
            Protocol::Udp(it) => (it.source_port, it.destination_port),
            Protocol::Sctp(it) => (it.source_port, it.destination_port),
            Protocol::IcmPv4(_) | Protocol::IcmPv6(_) | Protocol::Vrrp(_) | Protocol::Igmp(_) => {
                return None;
            }
        };
        Some(match self {
            Self::Source => source,
            Self::Destination => destination,
        })
    }
}

impl ProtocolName {
    fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            "icmp" => Self::Icmp,
            "icmpv4" => Self::IcmpV4,
            "icmpv6" => Self::IcmpV6,
            "vrrp" => Self::Vrrp,
            "igmp" => Self::Igmp,
            _ => return None,
        })
    }

    fn is(self, protocol: &Protocol) -> bool {
        match protocol {
            Protocol::Tcp(_) => self == Self::Tcp,
            Protocol::Udp(_) => self == Self::Udp,
            Protocol::Sctp(_) => self == Self::Sctp,
            Protocol::IcmPv4(_) => matches!(self, Self::Icmp | Self::IcmpV4),
            Protocol::IcmPv6(_) => matches!(self, Self::Icmp | Self::IcmpV6),
            Protocol::Vrrp(_) => self == Self::Vrrp,
            Protocol::Igmp(_) => self == Self::Igmp,
        }
    }
}

fn is_within(networks: &[Network], ip: Option<&str>) -> bool {
    let ip = ip.and_then(|ip| ip.parse().ok());
    ip.is_some_and(|ip| networks.iter().any(|network| network.has(ip)))
}

fn has_workload(endpoint: &Endpoint, wanted: &Workload) -> bool {
    let Workload { name, kind } = wanted;
    let mut workloads = endpoint.workloads.iter();
    workloads
        .any(|it| (name.is_empty() || it.name == *name) && (kind.is_empty() || it.kind == *kind))
}

fn is_event(flow: &Flow, wanted: EventTypeFilter) -> bool {
    let EventTypeFilter {
        r#type,
        match_sub_type,
        sub_type,
    } = wanted;
    flow.event_type.is_some_and(|it| {
        (r#type == 0 || it.r#type == r#type) && (!match_sub_type || it.sub_type == sub_type)
    })
}

fn is_interface(interface: &NetworkInterface, wanted: &NetworkInterface) -> bool {
    let NetworkInterface { index, name } = wanted;
    (*index == 0 || interface.index == *index) && (name.is_empty() || interface.name == *name)
}

fn tcp_flags(flow: &Flow) -> Option<TcpFlags> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::Tcp(tcp) => tcp.flags,
        _ => None,
    }
}

/// Whether all flags that are set in `wanted` are set.
fn has_all(flags: TcpFlags, wanted: TcpFlags) -> bool {
    let bits = |flags: TcpFlags| {
        let TcpFlags {
            fin,
            syn,
            rst,
            psh,
            ack,
            urg,
            ece,
            cwr,
            ns,
        } = flags;
        [fin, syn, rst, psh, ack, urg, ece, cwr, ns]
    };
    let mut pairs = bits(wanted).into_iter().zip(bits(flags));
    pairs.all(|(wanted, is_set)| is_set || !wanted)
}

#[cfg(test)]
mod tests;
