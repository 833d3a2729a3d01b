//! What policy and inventory say at one time, as the script means it, and as the agent reads it.
//!
//! Who may reach whom stands in [`World`] itself. The same is said to the agent in several
//! [`Form`]s, so what it makes of them is held against something that it has not computed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::manifest::{self, Endpoint};
use crate::probe::Protocol;
use crate::scene::{OTHER_PORT, PORT};
use crate::soak::dice::Dice;

/// Where the server counts datagrams.
pub(super) const COUNTED: u16 = 7000;
const NAMESPACE: &str = "shop";
const FILLER: u32 = 400;

/// Who takes part, each behind an interface of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Actor {
    /// Policy selects it, always.
    Server,
    /// The server takes it in, always.
    Friend,
    /// The server does not, ever.
    Stranger,
    /// It may not reach the friend at the usual port, ever; at the other port, always.
    Captive,
    /// The server takes it in, or not; it is in the inventory, or not.
    Wanderer,
    /// Likewise; and it comes and goes.
    Guest(u8),
}

pub(super) const GUESTS: [Actor; 3] = [Actor::Guest(0), Actor::Guest(1), Actor::Guest(2)];
/// Those of whom policy and inventory change.
pub(super) const MOVERS: [Actor; 4] = [
    Actor::Wanderer,
    Actor::Guest(0),
    Actor::Guest(1),
    Actor::Guest(2),
];
/// Those that are always there.
pub(super) const RESIDENTS: [Actor; 5] = [
    Actor::Server,
    Actor::Friend,
    Actor::Stranger,
    Actor::Captive,
    Actor::Wanderer,
];

impl Actor {
    pub(super) fn name(self) -> String {
        match self {
            Self::Server => "server".to_owned(),
            Self::Friend => "friend".to_owned(),
            Self::Stranger => "stranger".to_owned(),
            Self::Captive => "captive".to_owned(),
            Self::Wanderer => "wanderer".to_owned(),
            Self::Guest(number) => format!("guest-{number}"),
        }
    }

    /// See [`crate::lab::Lab::peer`].
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Server => 2,
            Self::Friend => 3,
            Self::Stranger => 4,
            Self::Captive => 5,
            Self::Wanderer => 6,
            Self::Guest(number) => 10 + number,
        }
    }

    fn addresses(self) -> [IpAddr; 2] {
        let number = self.number();
        [
            Ipv4Addr::new(10, 77, 0, number).into(),
            Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into(),
        ]
    }

    pub(super) fn at(self, port: u16) -> [SocketAddr; 2] {
        self.addresses()
            .map(|address| SocketAddr::new(address, port))
    }

    /// Its addresses as blocks.
    fn blocks(self) -> [String; 2] {
        let [v4, v6] = self.addresses();
        [format!("{v4}/32"), format!("{v6}/128")]
    }
}

/// Over which protocols the server takes in one of whom policy changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    Nothing,
    Tcp,
    Udp,
    Both,
}

impl Admission {
    const ALL: [Self; 4] = [Self::Nothing, Self::Tcp, Self::Udp, Self::Both];

    fn admits(self, protocol: Protocol) -> bool {
        match self {
            Self::Nothing => false,
            Self::Tcp => protocol == Protocol::Tcp,
            Self::Udp => protocol == Protocol::Udp,
            Self::Both => true,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "both",
        }
    }
}

/// How the server's policy says whom it takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// By the labels of the inventory.
    Labels,
    /// By addresses.
    Blocks,
    /// The whole network, except.
    Excepts,
    /// Everybody in the namespace, and a higher tier denies the others.
    Denials,
}

/// One of [`MOVERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mover {
    pub(super) admission: Admission,
    /// Whether the inventory has it.
    pub(super) is_known: bool,
}

/// A workload by control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Its path; known to the inventory whether or not it exists.
    pub(super) path: String,
    /// Whether it may reach the friend.
    pub(super) may_reach: bool,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) form: Form,
    movers: BTreeMap<Actor, Mover>,
    pub(super) group: Option<Group>,
    /// Blocks that are nobody's, to have entries come and go.
    filler: u32,
    /// Shown by `status` once the agent has read this world.
    pub(super) marker: u32,
}

impl World {
    /// What every phase comes back to: of those that come and go nobody is there.
    pub(super) fn base(marker: u32) -> Self {
        let base = Mover {
            admission: Admission::Nothing,
            is_known: true,
        };
        let away = Mover {
            is_known: false,
            ..base
        };
        let movers = MOVERS.map(|actor| match actor {
            Actor::Guest(_) => (actor, away),
            _ => (actor, base),
        });
        Self {
            form: Form::Labels,
            movers: movers.into(),
            group: None,
            filler: 10,
            marker,
        }
    }

    /// Another policy and inventory for the same cast.
    pub(super) fn thrown(&self, dice: &mut Dice) -> Self {
        let forms = [Form::Labels, Form::Blocks, Form::Excepts, Form::Denials];
        let mut thrown = self.clone();
        thrown.form = dice.pick(&forms);
        thrown.filler = dice.below(FILLER);
        for mover in thrown.movers.values_mut() {
            *mover = Mover {
                admission: dice.pick(&Admission::ALL),
                is_known: !dice.one_in(4),
            };
        }
        if let Some(group) = &mut thrown.group {
            group.may_reach = dice.one_in(2);
        }
        thrown
    }

    pub(super) fn is_known(&self, actor: Actor) -> bool {
        self.movers.get(&actor).is_none_or(|mover| mover.is_known)
    }

    /// Whether the server takes in `actor` at [`PORT`].
    pub(super) fn admits(&self, actor: Actor, protocol: Protocol) -> bool {
        match actor {
            Actor::Friend => true,
            Actor::Server | Actor::Stranger | Actor::Captive => false,
            Actor::Wanderer | Actor::Guest(_) => self.movers.get(&actor).is_some_and(|mover| {
                let by_address = matches!(self.form, Form::Blocks | Form::Excepts);
                mover.admission.admits(protocol) && (by_address || mover.is_known)
            }),
        }
    }

    /// The inventory, with the marker in it.
    pub(super) fn inventory(&self) -> String {
        let mut documents = Vec::new();
        for actor in RESIDENTS.into_iter().chain(GUESTS) {
            if !self.is_known(actor) {
                continue;
            }
            let admit = match self.movers.get(&actor) {
                Some(mover) => mover.admission,
                None if actor == Actor::Friend => Admission::Both,
                None => Admission::Nothing,
            };
            let kind = match actor {
                Actor::Guest(_) => "guest",
                _ => "resident",
            };
            let name = actor.name();
            let labels = [
                ("app", name.as_str()),
                ("kind", kind),
                ("admit", admit.label()),
            ];
            let addresses = actor.addresses().map(|address| address.to_string());
            let interface = format!("veth-{name}");
            let endpoint = Endpoint::Interface(&interface);
            documents.push(manifest::workload(
                NAMESPACE, &name, &labels, &addresses, endpoint,
            ));
        }
        if let Some(group) = &self.group {
            let labels = [("app", "service")];
            documents.push(manifest::cgroup(&group.path, "host", "service", &labels));
        }
        let marker = self.marker_name();
        let endpoint = Endpoint::Interface(&marker);
        documents.push(manifest::workload(NAMESPACE, &marker, &[], &[], endpoint));
        documents.concat()
    }

    /// Names a workload that is never there.
    pub(super) fn marker_name(&self) -> String {
        format!("marker-{}", self.marker)
    }

    pub(super) fn policies(&self) -> String {
        let mut policies = vec![
            self.servers(),
            captives(),
            guests(),
            self.groups(),
            self.fillers(),
        ];
        if self.form == Form::Denials {
            policies.push(denials());
        }
        policies.iter().map(manifest::document).collect()
    }

    fn servers(&self) -> Value {
        let mut rules = vec![json!({
            "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
            "ports": [
                {"protocol": "TCP", "port": PORT},
                {"protocol": "UDP", "port": PORT},
                {"protocol": "UDP", "port": COUNTED},
            ],
        })];
        for protocol in Protocol::ALL {
            let from: Vec<Value> = match self.form {
                Form::Labels => vec![json!({"podSelector": {"matchExpressions": [
                    {"key": "admit", "operator": "In", "values": labels_of(protocol)},
                ]}})],
                Form::Blocks => self
                    .blocks(|actor| self.admits(actor, protocol))
                    .map(|block| json!({"ipBlock": {"cidr": block}}))
                    .collect(),
                Form::Excepts => {
                    let without = |family: &str| -> Vec<String> {
                        self.blocks(|actor| !self.admits(actor, protocol))
                            .chain(
                                [Actor::Stranger, Actor::Captive]
                                    .map(Actor::blocks)
                                    .concat(),
                            )
                            .filter(|block| block.contains(family))
                            .collect()
                    };
                    vec![
                        json!({"ipBlock": {"cidr": "10.77.0.0/24", "except": without(".")}}),
                        json!({"ipBlock": {"cidr": "fd77::/64", "except": without(":")}}),
                    ]
                }
                Form::Denials => vec![json!({"podSelector": {}})],
            };
            // No peers would be everybody.
            if !from.is_empty() {
                let ports = json!([{"protocol": protocol.to_string(), "port": PORT}]);
                rules.push(json!({"from": from, "ports": ports}));
            }
        }
        network_policy(
            NAMESPACE,
            "server",
            &json!({
                "podSelector": {"matchLabels": {"app": "server"}},
                "policyTypes": ["Ingress"],
                "ingress": rules,
            }),
        )
    }

    fn blocks(&self, wanted: impl Fn(Actor) -> bool) -> impl Iterator<Item = String> {
        self.movers
            .keys()
            .copied()
            .filter(move |actor| wanted(*actor))
            .flat_map(Actor::blocks)
    }

    fn groups(&self) -> Value {
        let friend = json!([{
            "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "friend"}},
        }]);
        let may_reach = self.group.as_ref().is_some_and(|group| group.may_reach);
        let egress = if may_reach {
            json!([{"to": friend, "ports": [{"port": PORT}]}])
        } else {
            json!([])
        };
        network_policy(
            "host",
            "service",
            &json!({
                "podSelector": {"matchLabels": {"app": "service"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": friend, "ports": [{"port": PORT}]}],
                "egress": egress,
            }),
        )
    }

    /// Lets in blocks that nobody has, each at a port of its own.
    fn fillers(&self) -> Value {
        let rules: Vec<Value> = (0..self.filler)
            .map(|number| {
                let [_, _, high, low] = number.to_be_bytes();
                json!({
                    "from": [
                        {"ipBlock": {"cidr": format!("100.64.{high}.{low}/32")}},
                        {"ipBlock": {"cidr": format!("fd64::{number:x}/128")}},
                    ],
                    "ports": [{"port": 20_000 + number % 50}],
                })
            })
            .collect();
        network_policy(
            NAMESPACE,
            "filler",
            &json!({
                "podSelector": {"matchLabels": {"app": "server"}},
                "policyTypes": ["Ingress"],
                "ingress": rules,
            }),
        )
    }
}

fn labels_of(protocol: Protocol) -> Vec<&'static str> {
    let admitting = Admission::ALL.into_iter();
    admitting
        .filter(|admission| admission.admits(protocol))
        .map(Admission::label)
        .collect()
}

fn captives() -> Value {
    network_policy(
        NAMESPACE,
        "captive",
        &json!({
            "podSelector": {"matchLabels": {"app": "captive"}},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                "ports": [
                    {"protocol": "TCP", "port": OTHER_PORT},
                    {"protocol": "UDP", "port": OTHER_PORT},
                ],
            }],
        }),
    )
}

fn guests() -> Value {
    network_policy(
        NAMESPACE,
        "guests",
        &json!({
            "podSelector": {"matchLabels": {"kind": "guest"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "friend"}}}],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }],
        }),
    )
}

fn denials() -> Value {
    let rules: Vec<Value> = Protocol::ALL
        .into_iter()
        .map(|protocol| {
            let port = protocol.to_string().to_lowercase();
            json!({
                "name": format!("no-{port}"),
                "action": "Deny",
                "from": [{"workloads": {"selector": {"matchExpressions": [
                    {"key": "admit", "operator": "NotIn", "values": labels_of(protocol)},
                ]}}}],
                "ports": [{port: {"port": PORT}}],
            })
        })
        .collect();
    json!({
        "apiVersion": "ringfence.io/v1alpha1",
        "kind": "RingfencePolicy",
        "metadata": {"name": "denials"},
        "spec": {
            "tier": "Admin",
            "priority": 7,
            "subject": {"workloads": {"selector": {"matchLabels": {"app": "server"}}}},
            "ingress": rules,
        },
    })
}

fn network_policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_never_admitted_is_not_by_any_throw() {
        let mut dice = Dice::new(3);
        let mut world = World::base(0);
        let mut admitted = 0;
        for _ in 0..100 {
            world = world.thrown(&mut dice);
            for protocol in Protocol::ALL {
                assert!(world.admits(Actor::Friend, protocol));
                assert!(!world.admits(Actor::Stranger, protocol));
                assert!(!world.admits(Actor::Captive, protocol));
                admitted += u32::from(world.admits(Actor::Wanderer, protocol));
            }
        }
        assert!((20..180).contains(&admitted), "{admitted} of 200");
    }

    #[test]
    fn who_is_not_known_is_admitted_by_address_alone() {
        let mut world = World::base(0);
        let unknown = Mover {
            admission: Admission::Both,
            is_known: false,
        };
        world.movers.insert(Actor::Wanderer, unknown);
        for (form, admitted) in [
            (Form::Labels, false),
            (Form::Blocks, true),
            (Form::Excepts, true),
            (Form::Denials, false),
        ] {
            world.form = form;
            assert_eq!(
                world.admits(Actor::Wanderer, Protocol::Tcp),
                admitted,
                "{form:?}"
            );
            assert!(!world.inventory().contains("wanderer"));
        }
    }
}
