//! `EndpointSlice`s: what serves a Service beside the pods that its selector matches.
//!
//! They are no files' kind: what they say counts with their Service, and means nothing without it.

use std::net::IpAddr;

use agent_policy::model::{Backend, Protocol, Service};
use serde_json::{Map, Value, json};

use super::address;

/// Names its Service.
const SERVICE: &str = "kubernetes.io/service-name";

/// Who keeps it up.
const KEEPER: &str = "endpointslice.kubernetes.io/managed-by";

/// It makes slices of what selectors match, and takes away what anybody else writes as its own. Slices of Services
/// without a selector it leaves as they are, whatever they say of themselves.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

pub(super) const LABELS: [&str; 2] = [SERVICE, KEEPER];

/// What a slice says, as far as anybody sends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    /// The name of its Service, in its namespace.
    pub(super) service: String,
    is_by_controller: bool,
    addresses: Box<[IpAddr]>,
    /// By the names that the Service gives its ports; empty for its only one.
    ports: Box<[(String, Protocol, u16)]>,
}

/// Leaves of a slice what [`Slice::read`] reads.
pub(super) fn trim(data: &mut Map<String, Value>) {
    // Of another type no proxy takes any.
    let is_of_addresses = data
        .get("addressType")
        .is_none_or(|of| of == "IPv4" || of == "IPv6");
    let endpoints = data.get("endpoints").and_then(Value::as_array);
    let endpoints = endpoints.filter(|_| is_of_addresses).into_iter().flatten();
    let serving = endpoints.filter(|endpoint| serves(endpoint));
    let addresses = serving.filter_map(|endpoint| endpoint.get("addresses")?.as_array());
    let mut addresses: Vec<String> = addresses
        .flatten()
        .filter_map(|text| Some(address::read(text.as_str()?)?.to_string()))
        .collect();
    addresses.sort();
    addresses.dedup();
    let ports = data.get("ports").and_then(Value::as_array);
    let ports = ports.into_iter().flatten();
    let ports: Vec<Value> = ports
        .filter_map(|port| {
            Some(json!({
                "name": port.get("name").and_then(Value::as_str).unwrap_or_default(),
                "port": port.get("port")?.as_u64()?,
                "protocol": port.get("protocol").and_then(Value::as_str).unwrap_or("TCP"),
            }))
        })
        .collect();
    data.clear();
    data.insert("endpoints".to_owned(), json!([{"addresses": addresses}]));
    data.insert("ports".to_owned(), Value::Array(ports));
}

/// Also one that is about to go: it is sent to where no other is left.
fn serves(endpoint: &Value) -> bool {
    let says = |name: &str| endpoint.get("conditions")?.get(name)?.as_bool();
    let is_ready = says("ready").unwrap_or(true);
    // What is not said is yes of one that goes: proxies take it so.
    let is_going = || says("terminating").unwrap_or(false);
    is_ready || says("serving").unwrap_or_else(is_going)
}

// === impl Slice ===

impl Slice {
    /// `None` of one that is of no Service.
    pub(super) fn read(trimmed: &Value) -> Option<Self> {
        let labels = trimmed.get("metadata")?.get("labels")?;
        let service = labels.get(SERVICE)?.as_str()?.to_owned();
        let list = |of: &Value, field: &str| {
            let list = of.get(field).and_then(Value::as_array);
            list.cloned().unwrap_or_default()
        };
        let addresses = list(trimmed, "endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "addresses"))
            .filter_map(|text| text.as_str()?.parse().ok())
            .collect();
        let ports = list(trimmed, "ports").into_iter();
        let ports = ports
            .filter_map(|port| {
                let name = port.get("name")?.as_str()?.to_owned();
                let number = u16::try_from(port.get("port")?.as_u64()?).ok()?;
                Some((name, protocol(port.get("protocol")?.as_str()?)?, number))
            })
            .collect();
        Some(Self {
            service,
            is_by_controller: labels.get(KEEPER).and_then(Value::as_str) == Some(CONTROLLER),
            addresses,
            ports,
        })
    }

    /// Whether it says of a Service what its selector does not.
    pub(super) fn counts_for(&self, service: &Service) -> bool {
        service.selector.is_none() || !self.is_by_controller
    }

    /// What serves the ports of its Service, which are known by name and protocol.
    pub(super) fn backends<'s>(
        &'s self,
        service: &'s Service,
    ) -> impl Iterator<Item = Backend> + 's {
        let offered = service.ports.iter().flat_map(|offered| {
            let name = offered.name.as_deref().unwrap_or_default();
            let same = self.ports.iter().filter(move |(known, protocol, _)| {
                known.as_str() == name && *protocol == offered.protocol
            });
            same.map(move |(_, _, number)| (offered, *number))
        });
        offered.flat_map(|(offered, port)| {
            self.addresses.iter().map(move |address| Backend {
                service_port: offered.port,
                protocol: offered.protocol,
                address: *address,
                port,
            })
        })
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_slice_remains_what_is_sent_to() {
        let mut slice = json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["192.0.2.1"], "targetRef": {"kind": "Pod", "name": "a"}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": true, "terminating": false}},
                {"addresses": ["192.0.2.3"], "conditions": {"ready": false}},
                {"addresses": ["192.0.2.4"], "conditions": {"ready": false, "serving": true}},
                {"addresses": ["192.0.2.7"], "conditions": {"ready": false, "terminating": true}},
                {"addresses": ["192.0.2.8"], "conditions": {"ready": false, "serving": false, "terminating": true}},
                {"addresses": ["010.000.2.005", "::ffff:192.0.2.6", "name"]},
            ],
            "ports": [{"port": 8080}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "all"}],
        });
        let expected = json!({
            "endpoints": [{"addresses": ["10.0.2.5", "192.0.2.1", "192.0.2.2", "192.0.2.4", "192.0.2.6", "192.0.2.7"]}],
            "ports": [
                {"name": "", "port": 8080, "protocol": "TCP"},
                {"name": "u", "port": 53, "protocol": "UDP"},
            ],
        });
        // What was kept is trimmed again.
        for _ in 0..2 {
            trim(slice.as_object_mut().unwrap());
            assert_eq!(slice, expected);
        }
        let mut named = json!({"addressType": "FQDN", "endpoints": [{"addresses": ["192.0.2.1"]}]});
        trim(named.as_object_mut().unwrap());
        assert_eq!(named["endpoints"][0]["addresses"], json!([]));
    }
}
