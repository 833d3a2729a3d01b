use std::net::{Ipv4Addr, Ipv6Addr};

use agent_common::protocol::Address as _;
use proptest::prelude::*;
use simple_dns::{
    CLASS, Name, Packet, QCLASS, QTYPE, Question as Asking, RCODE, ResourceRecord, TYPE,
    rdata::{A, AAAA, CNAME, RData},
};

use super::*;

const ENDPOINT: u16 = 7;
const LOCAL: [u8; 4] = [10, 0, 0, 5];
const RESOLVER: [u8; 4] = [10, 96, 0, 10];
const SERVER: [u8; 4] = [192, 0, 2, 1];
const SECOND: u64 = 1_000_000_000;

struct Bench {
    names: Names,
    counts: Arc<NameCounts>,
}

fn head(direction: Direction, at: u64) -> DnsHead {
    DnsHead {
        endpoint: ENDPOINT,
        protocol: UDP,
        direction: direction as u8,
        local_port: 40_000,
        family: 4,
        zero: 0,
        length: 0,
        zero2: 0,
        time: at * SECOND,
        local: LOCAL.mapped(),
        remote: RESOLVER.mapped(),
    }
}

fn query(number: u16, name: &str, kind: TYPE) -> Packet<'_> {
    let mut packet = Packet::new_query(number);
    packet.questions.push(Asking::new(
        Name::new(name).unwrap(),
        QTYPE::TYPE(kind),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet
}

fn record<'n>(name: &'n str, seconds: u32, data: RData<'n>) -> ResourceRecord<'n> {
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, seconds, data)
}

fn address(address: [u8; 4]) -> RData<'static> {
    RData::A(A {
        address: u32::from_be_bytes(address),
    })
}

fn alias(name: &str) -> RData<'_> {
    RData::CNAME(CNAME(Name::new(name).unwrap()))
}

fn answer<'p>(query: &Packet<'p>, records: Vec<ResourceRecord<'p>>) -> Packet<'p> {
    let mut packet = query.clone().into_reply();
    packet.answers = records;
    packet
}

impl Bench {
    fn new() -> Self {
        Self::believing(Vec::new())
    }

    fn believing(resolvers: Vec<IpNet>) -> Self {
        let counts = Arc::new(NameCounts::default());
        Self {
            names: Names::new(resolvers, Arc::clone(&counts)),
            counts,
        }
    }

    fn hear(&mut self, head: DnsHead, payload: &[u8]) {
        self.names.hear(&Heard {
            head,
            payload: payload.into(),
        });
    }

    fn asks(&mut self, at: u64, packet: &Packet<'_>) {
        let bytes = packet.build_bytes_vec_compressed().unwrap();
        self.hear(head(Direction::Egress, at), &bytes);
    }

    fn is_told(&mut self, at: u64, packet: &Packet<'_>) {
        let bytes = packet.build_bytes_vec_compressed().unwrap();
        self.hear(head(Direction::Ingress, at), &bytes);
    }

    /// Asks for `name` and is told that it is there for so many seconds.
    fn learns(&mut self, at: u64, name: &str, seconds: u32, server: [u8; 4]) {
        let query = query(1, name, TYPE::A);
        self.asks(at, &query);
        self.is_told(
            at,
            &answer(&query, vec![record(name, seconds, address(server))]),
        );
    }

    fn name(&self, server: [u8; 4], at: u64) -> Option<String> {
        let at = BootTime(at * SECOND);
        let name = self.names.of(ENDPOINT, IpAddr::from(server), at)?;
        Some(name.to_string())
    }

    fn status(&self) -> NameStatus {
        self.counts.status(0)
    }
}

#[test]
fn an_address_has_the_name_that_was_asked_for_as_long_as_that_lives() {
    let mut bench = Bench::new();
    bench.learns(100, "API.Example.com", 60, SERVER);
    assert_eq!(bench.name(SERVER, 99), None);
    for at in [100, 160] {
        assert_eq!(bench.name(SERVER, at).unwrap(), "api.example.com");
    }
    assert_eq!(bench.name(SERVER, 161), None);
    assert_eq!(bench.name([192, 0, 2, 2], 100), None);
    let others = bench
        .names
        .of(8, IpAddr::from(SERVER), BootTime(100 * SECOND));
    assert_eq!(others, None, "another endpoint was not told");
    let status = bench.status();
    assert_eq!(
        (status.addresses, status.questions, status.answers),
        (1, 1, 1)
    );
}

#[test]
fn lives_are_neither_too_short_nor_too_long() {
    for (seconds, last) in [(0, 10), (u32::MAX, 10), (i32::MAX as u32, 86_400)] {
        let mut bench = Bench::new();
        bench.learns(100, "a", seconds, SERVER);
        assert!(bench.name(SERVER, 100 + last).is_some(), "{seconds}");
        assert_eq!(bench.name(SERVER, 101 + last), None, "{seconds}");
    }
}

#[test]
fn what_is_told_again_lives_on_and_another_name_takes_its_place() {
    let mut bench = Bench::new();
    bench.learns(100, "a.example", 60, SERVER);
    bench.learns(150, "a.example", 60, SERVER);
    assert_eq!(bench.name(SERVER, 120).unwrap(), "a.example");
    assert_eq!(bench.name(SERVER, 210).unwrap(), "a.example");
    bench.learns(155, "b.example", 60, SERVER);
    assert_eq!(bench.name(SERVER, 156).unwrap(), "b.example");
    assert_eq!(bench.name(SERVER, 120), None, "not the wrong one");
    assert_eq!(bench.status().addresses, 1);
    // Asked for again when its time was over: flows of before keep it.
    bench.learns(900, "b.example", 60, SERVER);
    assert_eq!(bench.name(SERVER, 160).unwrap(), "b.example");
}

#[test]
fn what_was_over_for_long_is_forgotten_and_makes_room() {
    let mut bench = Bench::new();
    bench.learns(100, "a.example", 60, SERVER);
    let (hour, at) = (Duration::from_hours(1), |second| BootTime(second * SECOND));
    bench.names.drop_ended(at(160 + 3600), hour);
    assert!(bench.name(SERVER, 100).is_some());
    bench.names.drop_ended(at(161 + 3600), hour);
    assert_eq!(bench.name(SERVER, 100), None);
    assert_eq!(bench.status().addresses, 0);
    // Others have filled all the room there is.
    let mut bench = Bench::new();
    for endpoint in 0..64 {
        for number in 0..ADDRESSES {
            let [.., high, low] = number.to_be_bytes();
            let known = [(IpAddr::from([10, 1, high, low]), Duration::from_mins(1))];
            bench
                .names
                .learn(100 + endpoint, "a.example", &known, at(100));
        }
    }
    assert_eq!(bench.names.held, ALL_ADDRESSES);
    bench.learns(150, "b.example", 60, SERVER);
    assert_eq!(
        bench.name(SERVER, 150),
        None,
        "nobody else loses a name that lives"
    );
    bench.learns(161, "b.example", 60, SERVER);
    assert!(bench.name(SERVER, 161).is_some());
    assert_eq!(bench.names.held, 1);
}

#[test]
fn the_root_is_no_name() {
    let mut bench = Bench::new();
    bench.learns(100, ".", 60, SERVER);
    assert_eq!(bench.name(SERVER, 100), None);
}

#[test]
fn other_names_lead_to_the_address_in_any_order_and_live_no_longer_than_each() {
    let mut bench = Bench::new();
    let query = query(1, "www.example", TYPE::A);
    bench.asks(100, &query);
    let records = vec![
        record("edge.cdn.example", 300, address(SERVER)),
        record("cdn.example", 20, alias("edge.cdn.example")),
        record("www.example", 600, alias("cdn.example")),
        record("other.example", 600, address([192, 0, 2, 9])),
    ];
    bench.is_told(100, &answer(&query, records));
    assert_eq!(bench.name(SERVER, 120).unwrap(), "www.example");
    assert_eq!(bench.name(SERVER, 121), None);
    assert_eq!(bench.name([192, 0, 2, 9], 100), None, "nobody asked for it");
}

#[test]
fn names_that_lead_to_each_other_lead_nowhere() {
    let mut bench = Bench::new();
    let query = query(1, "a.example", TYPE::A);
    bench.asks(100, &query);
    let records = vec![
        record("a.example", 60, alias("b.example")),
        record("b.example", 60, alias("a.example")),
        record("c.example", 60, address(SERVER)),
    ];
    bench.is_told(100, &answer(&query, records));
    assert_eq!(bench.name(SERVER, 100), None);
}

#[test]
fn both_families_are_told_in_their_own_answers() {
    let mut bench = Bench::new();
    let six: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let data = RData::AAAA(AAAA {
        address: six.to_bits(),
    });
    let of_six = query(2, "a.example", TYPE::AAAA);
    bench.asks(100, &of_six);
    let four = record("a.example", 60, address(SERVER));
    bench.is_told(
        100,
        &answer(&of_six, vec![record("a.example", 60, data), four]),
    );
    let name = bench.names.of(ENDPOINT, six.into(), BootTime(100 * SECOND));
    assert_eq!(name.as_deref(), Some("a.example"));
    assert_eq!(bench.name(SERVER, 100), None, "of the other family");
}

#[test]
fn what_was_not_asked_changes_nothing() {
    type Change = fn(&mut DnsHead);
    let name = "a.example";
    let right = query(1, name, TYPE::A);
    let told = || vec![record(name, 60, address(SERVER))];
    let heads: [Change; 5] = [
        |head| head.local_port = 40_001,
        |head| head.remote = [10, 96, 0, 11].mapped(),
        |head| head.local = [10, 0, 0, 6].mapped(),
        |head| head.endpoint = 8,
        |head| head.time += 10 * SECOND,
    ];
    for change in heads {
        let mut bench = Bench::new();
        bench.asks(100, &right);
        let mut head = head(Direction::Ingress, 100);
        change(&mut head);
        let bytes = answer(&right, told()).build_bytes_vec().unwrap();
        bench.hear(head, &bytes);
        assert_eq!(bench.name(SERVER, 100), None, "{head:?}");
        assert_eq!(bench.status().unasked, 1);
    }
    let mut bench = Bench::new();
    bench.asks(100, &right);
    for wrong in [
        query(2, name, TYPE::A),
        query(1, "b.example", TYPE::A),
        query(1, name, TYPE::AAAA),
    ] {
        bench.is_told(100, &answer(&wrong, told()));
        assert_eq!(bench.name(SERVER, 100), None);
    }
    // A question of whoever sends from there.
    bench.is_told(100, &right);
    assert_eq!(bench.status().unasked, 4);
    // The right one may come still, and once.
    bench.is_told(100, &answer(&right, told()));
    assert_eq!(bench.name(SERVER, 100).unwrap(), name);
    bench.is_told(100, &answer(&right, told()));
    assert_eq!(bench.status().unasked, 5);
}

#[test]
fn an_endpoint_answers_nothing_itself() {
    let mut bench = Bench::new();
    let query = query(1, "a.example", TYPE::A);
    bench.asks(100, &query);
    bench.asks(
        100,
        &answer(&query, vec![record("a.example", 60, address(SERVER))]),
    );
    assert_eq!(bench.name(SERVER, 100), None);
}

#[test]
fn a_refusal_is_no_answer() {
    let mut bench = Bench::new();
    let query = query(1, "a.example", TYPE::A);
    bench.asks(100, &query);
    let mut refused = answer(&query, vec![record("a.example", 60, address(SERVER))]);
    *refused.rcode_mut() = RCODE::NameError;
    bench.is_told(100, &refused);
    assert_eq!(bench.name(SERVER, 100), None);
}

#[test]
fn only_resolvers_that_are_named_are_believed() {
    let mut bench = Bench::believing(vec!["10.96.0.11/32".parse().unwrap()]);
    bench.learns(100, "a.example", 60, SERVER);
    assert_eq!(bench.name(SERVER, 100), None);
    assert_eq!(bench.status().untrusted, 2);
    let mut bench = Bench::believing(vec!["10.96.0.0/16".parse().unwrap()]);
    bench.learns(100, "a.example", 60, SERVER);
    assert!(bench.name(SERVER, 100).is_some());
}

/// With their lengths before them.
fn framed(packets: &[Packet<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        let message = packet.build_bytes_vec().unwrap();
        bytes.extend(u16::try_from(message.len()).unwrap().to_be_bytes());
        bytes.extend(message);
    }
    bytes
}

#[test]
fn over_tcp_there_may_be_several_and_parts_are_counted() {
    let mut bench = Bench::new();
    let (one, other) = (
        query(1, "a.example", TYPE::A),
        query(2, "b.example", TYPE::A),
    );
    let of_tcp = |direction| DnsHead {
        protocol: TCP,
        ..head(direction, 100)
    };
    let asked = framed(&[one.clone(), other.clone()]);
    bench.hear(of_tcp(Direction::Egress), &asked);
    let answers = framed(&[
        answer(&one, vec![record("a.example", 60, address(SERVER))]),
        answer(
            &other,
            vec![record("b.example", 60, address([192, 0, 2, 2]))],
        ),
    ]);
    let cut = answers.len() - 1;
    bench.hear(of_tcp(Direction::Ingress), &answers[..cut]);
    assert_eq!(bench.name(SERVER, 100).unwrap(), "a.example");
    assert_eq!(bench.name([192, 0, 2, 2], 100), None);
    let status = bench.status();
    assert_eq!((status.questions, status.answers, status.parts), (2, 1, 1));
}

#[test]
fn what_a_hostile_name_holds_breaks_nothing() {
    let mut bench = Bench::new();
    let label = simple_dns::Label::new(b"A\nb\"c.d/\xff\x1b[2J".to_vec()).unwrap();
    let end = simple_dns::Label::new(b"EXAMPLE".to_vec()).unwrap();
    let labels = Name::new_with_labels(&[label, end]);
    let mut packet = Packet::new_query(1);
    packet.questions.push(Asking::new(
        labels.clone(),
        QTYPE::TYPE(TYPE::A),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    bench.asks(100, &packet);
    let data = ResourceRecord::new(labels, CLASS::IN, 60, address(SERVER));
    bench.is_told(100, &answer(&packet, vec![data]));
    let told = bench.name(SERVER, 100).unwrap();
    assert_eq!(told, r#"a\010b\"c\.d\047\255\027[2j.example"#);
}

#[test]
fn an_endpoint_that_asks_for_all_the_world_keeps_to_its_share() {
    let mut bench = Bench::new();
    bench.learns(100, "first.example", 60, SERVER);
    for number in 0..ADDRESSES {
        let [.., high, low] = number.to_be_bytes();
        bench.learns(101, "many.example", 600, [10, 1, high, low]);
    }
    assert_eq!(bench.status().addresses, ADDRESSES as u64);
    assert_eq!(bench.name(SERVER, 101), None, "it would have ended first");
    assert!(bench.name([10, 1, 0, 0], 101).is_some());
    // Questions that nobody answers.
    for number in 0..1000 {
        bench.asks(101, &query(number, "a.example", TYPE::A));
    }
    assert_eq!(bench.status().crowded, 1000 - QUESTIONS as u64);
    bench.learns(112, "later.example", 60, SERVER);
    assert!(bench.name(SERVER, 112).is_some(), "their time is over");
}

#[test]
fn an_endpoint_that_has_gone_leaves_nothing_to_the_next_of_its_number() {
    let mut bench = Bench::new();
    bench.learns(100, "a.example", 60, SERVER);
    bench.names.forget(&HashSet::from([8]));
    assert!(bench.name(SERVER, 100).is_some());
    bench.names.forget(&HashSet::from([ENDPOINT]));
    assert_eq!(bench.name(SERVER, 100), None);
    bench.learns(100, "b.example", 60, SERVER);
    assert_eq!(bench.status().addresses, 1);
}

/// A pointer to itself, and two to each other.
#[test]
fn compression_that_never_ends_is_no_message() {
    let header = |questions: u8| [0, 1, 1, 0, 0, questions, 0, 0, 0, 0, 0, 0];
    let itself = [&header(1)[..], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let other = [
        &header(2)[..],
        &[0xc0, 18, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1],
    ]
    .concat();
    let forward = [&header(1)[..], &[1, b'a', 0xc0, 16, 0xc0, 12, 0, 1, 0, 1]].concat();
    for bytes in [itself, other, forward] {
        assert!(message::read(&bytes).is_none(), "{bytes:?}");
        let mut bench = Bench::new();
        bench.hear(head(Direction::Ingress, 100), &bytes);
        assert_eq!(bench.status().malformed, 1);
    }
}

#[test]
fn what_says_it_holds_more_than_it_could_is_no_message() {
    for place in [4, 6, 8, 10] {
        let mut bytes = query(1, "a.example", TYPE::A).build_bytes_vec().unwrap();
        bytes[place] = 0xff;
        assert!(message::read(&bytes).is_none());
    }
    for length in 0..12 {
        assert!(message::read(&vec![0; length]).is_none());
    }
}

proptest! {
    /// Of any bytes, also of a right message with some of them changed, something comes, and soon.
    #[test]
    fn any_bytes_are_survived(
        noise in prop::collection::vec(any::<u8>(), 0..600),
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
    ) {
        let _read = message::read(&noise);
        let query = query(1, "www.example", TYPE::A);
        let records = vec![
            record("www.example", 60, alias("a.example")),
            record("a.example", 60, address(SERVER)),
        ];
        let mut bytes = answer(&query, records).build_bytes_vec_compressed().unwrap();
        for (place, value) in changes {
            if let Some(byte) = bytes.get_mut(place) {
                *byte = value;
            }
        }
        let mut bench = Bench::new();
        bench.asks(100, &query);
        bench.hear(head(Direction::Ingress, 100), &bytes);
        bench.hear(DnsHead { protocol: TCP, ..head(Direction::Ingress, 100) }, &noise);
        // Whatever it says, it is about what was asked for.
        let known = bench.names.endpoints[&ENDPOINT].known.values();
        for known in known {
            prop_assert_eq!(&*known.name, "www.example");
        }
    }
}

#[test]
fn the_longest_that_there_may_be_is_soon_read() {
    let query = query(1, "a.example", TYPE::A);
    let records = (0..3000_u32).map(|number| {
        let data = RData::A(A {
            address: number + u32::from(Ipv4Addr::new(10, 0, 0, 0)),
        });
        record("a.example", 60, data)
    });
    let bytes = answer(&query, records.collect());
    let bytes = bytes.build_bytes_vec_compressed().unwrap();
    assert!(bytes.len() > 40_000);
    let message = message::read(&bytes).unwrap();
    assert!(matches!(message.content(), Content::Answer(1, _)));
    assert_eq!(message.addresses().len(), 64);
}
