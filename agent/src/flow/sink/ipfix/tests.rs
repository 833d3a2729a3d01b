//! Messages as others read them, and collectors that come and go.

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::{TcpListener, TcpStream, UdpSocket},
};

use netflow_parser::{
    NetflowPacket, NetflowParser,
    variable_versions::ipfix::{FlowSetBody, IPFix},
};

use super::{
    element::Registry,
    flow::FLOW,
    other::{LOSS, TAMPERING, TYPES},
    table::Own,
    *,
};
use crate::flow::{
    clock::WallTime,
    record::{Kind, Loss, LossRecord},
};

const PAGE: &str = include_str!("../../../../docs/flow-record.md");
const ENTERPRISE: u32 = 32_473;

/// What the page of records shows: a flow, a loss, and what was tampered with.
fn examples() -> Vec<Line> {
    let blocks = PAGE.split("```json\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    blocks.map(|block| Line::parse(block).unwrap()).collect()
}

/// The flow of the page, with some of its keys changed.
fn flow(change: impl FnOnce(&mut serde_json::Value)) -> Line {
    let block = PAGE.split("```json\n").nth(1).unwrap();
    let block = block.split_once("```").unwrap().0;
    let mut value = serde_json::from_str(block).unwrap();
    change(&mut value);
    Line::parse(&value.to_string()).unwrap()
}

fn loss(count: u64) -> Line {
    let loss = Loss {
        stage: "sink".into(),
        reason: "refused".into(),
        count,
        first: WallTime(1_000_000_000),
        last: WallTime(2_000_000_000),
    };
    Line::Loss(LossRecord::new("n".into(), None, loss))
}

fn encoder(most: usize) -> Encoder {
    Encoder::new(7, ENTERPRISE, most)
}

fn encode(encoder: &mut Encoder, lines: &[Line]) -> Vec<Message> {
    let lines: Vec<_> = lines.iter().map(Cow::Borrowed).collect();
    encoder.encode(&lines)
}

/// Names and values of a record, as the other decoder shows them.
type Shown = BTreeMap<String, String>;

fn parse(parser: &mut NetflowParser, bytes: &[u8]) -> Vec<IPFix> {
    let parsed = parser.parse_bytes(bytes);
    assert!(parsed.error.is_none(), "{:?}", parsed.error);
    let packets = parsed.packets.into_iter();
    packets
        .map(|packet| match packet {
            NetflowPacket::IPFix(message) => message,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The records of flows, and those of options.
fn records(messages: &[IPFix]) -> (Vec<Shown>, Vec<Shown>) {
    let shown = |fields: &[(_, _)]| {
        let fields = fields.iter();
        fields
            .map(|(field, value)| (format!("{field:?}"), format!("{value:?}")))
            .collect()
    };
    let (mut flows, mut options) = (Vec::new(), Vec::new());
    for set in messages.iter().flat_map(|message| &message.flowsets) {
        match &set.body {
            FlowSetBody::Data(data) => {
                flows.extend(data.fields.iter().map(|it| shown(it)));
            }
            FlowSetBody::OptionsData(data) => {
                options.extend(data.fields.iter().map(|it| shown(it)));
            }
            FlowSetBody::Template(_)
            | FlowSetBody::Templates(_)
            | FlowSetBody::OptionsTemplate(_)
            | FlowSetBody::OptionsTemplates(_) => {}
            other => panic!("{other:?}"),
        }
    }
    (flows, options)
}

fn decode(messages: &mut [Message]) -> (Vec<Shown>, Vec<Shown>) {
    let mut parser = NetflowParser::default();
    let mut read = Vec::new();
    for message in messages {
        message.stamp(WallTime(1_000_000_000), 0);
        read.extend(parse(&mut parser, message.bytes()));
    }
    records(&read)
}

fn one(line: Line) -> Shown {
    let (mut flows, options) = decode(&mut encode(&mut encoder(1400), &[line]));
    assert_eq!((flows.len(), options.len()), (1, 0));
    flows.remove(0)
}

fn own(number: u16) -> String {
    format!("Enterprise {{ enterprise_number: {ENTERPRISE}, field_number: {number} }}")
}

/// As the other decoder shows bytes that it knows nothing of.
fn raw(bytes: &[u8]) -> String {
    format!("Vec({bytes:?})")
}

fn assert_shown(shown: &Shown, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(
            shown.get(*name).map(String::as_str),
            Some(*value),
            "{name} in {shown:#?}"
        );
    }
}

#[test]
fn another_decoder_reads_what_was_written() {
    let shown = one(flow(|_| ()));
    let millis = |value: u64| format!("Duration(Millis {{ value: {value}, width: 8 }})");
    assert_shown(
        &shown,
        &[
            ("IANA(SourceIpv4address)", "Ip4Addr(10.77.0.2)"),
            ("IANA(DestinationIpv4address)", "Ip4Addr(10.77.0.3)"),
            ("IANA(SourceTransportPort)", "DataNumber(U16(55284))"),
            ("IANA(DestinationTransportPort)", "DataNumber(U16(8080))"),
            ("IANA(ProtocolIdentifier)", "ProtocolType(Tcp)"),
            ("IANA(OctetDeltaCount)", "DataNumber(U64(104))"),
            ("IANA(PacketDeltaCount)", "DataNumber(U64(2))"),
            (
                "ReverseInformationElement(ReverseOctetDeltaCount)",
                "DataNumber(U64(164))",
            ),
            (
                "ReverseInformationElement(ReversePacketDeltaCount)",
                "DataNumber(U64(3))",
            ),
            ("IANA(FlowDirection)", "DataNumber(U8(0))"),
            ("IANA(BiflowDirection)", "DataNumber(U8(1))"),
            ("IANA(FirewallEvent)", "FirewallEvent(FlowDeleted)"),
            ("IANA(FlowEndReason)", "FlowEndReason(EndOfFlow)"),
            (
                "IANA(FlowId)",
                &format!("DataNumber(U64({}))", 0x5f0c_2f1f_7c0b_9a11_u64),
            ),
            ("IANA(IngressInterface)", "DataNumber(U32(4))"),
            ("IANA(FlowStartMilliseconds)", &millis(1_795_400_457_230)),
            ("IANA(FlowEndMilliseconds)", &millis(1_795_400_457_231)),
            (&own(2), &raw(&12_u64.to_be_bytes())),
            (&own(3), &raw(b"demo-node")),
            (&own(5), &raw(&[254])),
            (&own(6), &raw(b"1:U+8q9Z87Jm2f+iDiR/ncGzLx5ho=")),
            (&own(7), &raw(b"shop/api-service")),
            (&own(8), &raw(b"rule")),
            (&own(10), &raw(&[2])),
            (&own(11), &raw(b"fin")),
            (&own(20), &raw(b"NetworkPolicy")),
            (&own(21), &raw(b"shop")),
            (&own(23), &raw(b"ingress[0]")),
            (&own(24), &raw(&2_797_351_829_u32.to_be_bytes())),
            (&own(40), &raw(&4711_u32.to_be_bytes())),
            (&own(41), &raw(b"api-server")),
            (&own(43), &raw(&5127_u64.to_be_bytes())),
            (&own(45), &raw(b"listener")),
            (&own(46), &raw(&1_795_400_441_118_u64.to_be_bytes())),
            (&own(51), &raw(b"gateway")),
            (&own(63), &raw(b"app=api-service")),
        ],
    );
    for (name, value) in [
        ("ForwardingStatus", "Forwarded"),
        ("TcpControlBits", "fin: true"),
    ] {
        let shown = shown.iter().find(|(key, _)| key.contains(name)).unwrap();
        assert!(shown.1.contains(value), "{shown:?}");
    }
}

#[test]
fn what_a_record_does_not_have_is_in_no_template() {
    let shown = one(flow(|it| {
        let all = it.as_object_mut().unwrap();
        for key in [
            "end",
            "end_reason",
            "policy",
            "process",
            "ifindex",
            "generation",
            "community_id",
            "endpoint",
            "reason",
            "rtt_us",
        ] {
            all.remove(key);
        }
        it["kind"] = "deny".into();
        it["verdict"] = "deny".into();
        it["drop_reason"] = "default-deny".into();
        it["initiator_known"] = false.into();
        it["src"] = serde_json::json!({});
        it["dst"] = serde_json::json!({"ip": "fd00::1"});
        it["protocol"] = serde_json::json!({"number": 58, "name": "icmpv6"});
        it["icmp"] = serde_json::json!({"type": 128, "code": 1});
        it["forward"] = serde_json::json!({"packets": 1, "bytes": 64});
        it["reverse"] = serde_json::json!({"packets": 0, "bytes": 0});
    }));
    assert_shown(
        &shown,
        &[
            ("IANA(DestinationIpv6address)", "Ip6Addr(fd00::1)"),
            ("IANA(IcmpTypeCodeIpv6)", "DataNumber(U16(32769))"),
            ("IANA(BiflowDirection)", "DataNumber(U8(0))"),
            ("IANA(FirewallEvent)", "FirewallEvent(FlowDenied)"),
            (&own(9), &raw(b"default-deny")),
        ],
    );
    let numbers: Vec<_> = (1..=65)
        .filter(|number| shown.contains_key(&own(*number)))
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 9, 10]);
    let standard = shown.keys().filter(|name| !name.starts_with("Enterprise"));
    // Those two, four counters, two directions, protocol, two times, both verdicts, and the id.
    assert_eq!(standard.count(), 14, "{shown:#?}");
}

#[test]
fn flags_of_the_way_back_come_before_those_of_the_way_there() {
    let place = |name: &str| {
        let position = FLOW.all().position(|element| element.name == name);
        position.unwrap_or_else(|| panic!("{name}"))
    };
    assert!(place("reverseTcpControlBits") < place("tcpControlBits"));
}

#[test]
fn a_sample_says_how_many_were_passed_over() {
    let shown = one(flow(|it| it["sampling"] = 10.into()));
    assert_shown(
        &shown,
        &[
            ("IANA(SamplingFlowInterval)", "DataNumber(U64(1))"),
            ("IANA(SamplingFlowSpacing)", "DataNumber(U64(9))"),
        ],
    );
}

#[test]
fn losses_and_tampering_are_options_records() {
    let (flows, options) = decode(&mut encode(&mut encoder(1400), &examples()));
    assert_eq!((flows.len(), options.len()), (1, 2));
    assert_shown(
        &options[0],
        &[
            ("IANA(ObservationDomainId)", "DataNumber(U32(7))"),
            (&own(2), &raw(&40_u64.to_be_bytes())),
            (&own(70), &raw(b"ring-buffer")),
            (&own(71), &raw(b"full")),
            (&own(72), &raw(&17_u64.to_be_bytes())),
        ],
    );
    assert_shown(
        &options[1],
        &[
            (&own(80), &raw(b"written")),
            (&own(81), &raw(b"map POLICY")),
            (&own(82), &raw(&2_u64.to_be_bytes())),
            (&own(83), &raw(&[1])),
        ],
    );
}

#[test]
fn a_loss_is_these_bytes() {
    let messages = encode(&mut encoder(1400), &[loss(258)]);
    let [mut template, mut data] = <[Message; 2]>::try_from(messages).unwrap();
    assert_eq!(template.stamp(WallTime(3_000_000_000), 5), 5);
    #[rustfmt::skip]
    assert_eq!(template.bytes(), [
        0, 10,  0, 78,  0, 0, 0, 3,  0, 0, 0, 5,  0, 0, 0, 7,
        0, 3,  0, 62,  1, 0,  0, 8,  0, 1,
        0, 149,  0, 4,
        0, 152,  0, 8,
        0, 153,  0, 8,
        0x80, 1,   0, 2,        0, 0, 0x7e, 0xd9,
        0x80, 3,   0xff, 0xff,  0, 0, 0x7e, 0xd9,
        0x80, 70,  0xff, 0xff,  0, 0, 0x7e, 0xd9,
        0x80, 71,  0xff, 0xff,  0, 0, 0x7e, 0xd9,
        0x80, 72,  0, 8,        0, 0, 0x7e, 0xd9,
    ]);
    assert_eq!(data.stamp(WallTime(3_000_000_000), 5), 6);
    #[rustfmt::skip]
    assert_eq!(data.bytes(), [
        0, 10,  0, 65,  0, 0, 0, 3,  0, 0, 0, 5,  0, 0, 0, 7,
        1, 0,  0, 49,
        0, 0, 0, 7,
        0, 0, 0, 0, 0, 0, 0x03, 0xe8,
        0, 0, 0, 0, 0, 0, 0x07, 0xd0,
        0, 1,
        1, b'n',
        4, b's', b'i', b'n', b'k',
        7, b'r', b'e', b'f', b'u', b's', b'e', b'd',
        0, 0, 0, 0, 0, 0, 1, 2,
    ]);
}

#[test]
fn types_of_our_own_elements_are_told() {
    let (flows, options) = decode(&mut encoder(1400).templates());
    assert_eq!((flows.len(), options.len()), (0, other::own().len()));
    let node = options
        .iter()
        .find(|it| it["IANA(InformationElementId)"] == "DataNumber(U16(3))");
    let node = node.unwrap();
    assert_shown(
        node,
        &[
            ("IANA(PrivateEnterpriseNumber)", "DataNumber(U32(32473))"),
            ("IANA(InformationElementDataType)", "DataNumber(U8(13))"),
            ("IANA(InformationElementSemantics)", "DataNumber(U8(0))"),
        ],
    );
    assert!(node["IANA(InformationElementName)"].contains("ringfenceNode"));
}

/// As large as records come, and larger.
fn huge() -> Line {
    let long = "é".repeat(3000);
    let labels: BTreeMap<_, _> = (0..99)
        .map(|it| (format!("{it}{long}"), long.clone()))
        .collect();
    let end = |ip: &str| {
        serde_json::json!({"ip": ip, "port": 1,
        "workload": {"namespace": long, "name": long, "kind": long, "labels": labels}})
    };
    let rule = serde_json::json!({"kind": long, "namespace": long, "name": long, "rule": long, "rule_id": 1,
        "tier": long, "rule_name": long, "reason": long, "approved_by": long, "owner": long});
    let would_be = |view: &str| serde_json::json!({"view": view, "verdict": "deny", "policy": rule, "reason": long});
    flow(|it| {
        for key in [
            "node",
            "agent_version",
            "community_id",
            "endpoint",
            "reason",
            "drop_reason",
        ] {
            it[key] = long.clone().into();
        }
        it["src"] = end("fd00::1");
        it["dst"] = end("fd00::2");
        it["icmp"] = serde_json::json!({"type": 1, "code": 1});
        it["policy"] = rule.clone();
        it["would_be"] = vec![would_be("audit"), would_be("staged")].into();
        it["sampling"] = 10.into();
        it["policy_revision"] = u64::MAX.into();
        for key in ["comm", "cgroup"] {
            it["process"][key] = long.clone().into();
        }
    })
}

#[test]
fn the_longest_record_fits_into_the_smallest_message() {
    let line = huge();
    let mut lengths = Vec::new();
    for most in [SMALLEST_MESSAGE, 1400, u16::MAX] {
        let mut encoder = encoder(most.into());
        let mut messages = encode(&mut encoder, &[line.clone(), line.clone()]);
        messages.extend(encoder.templates());
        let longest = messages.iter().map(|it| it.bytes().len()).max();
        lengths.push(longest);
        assert!(longest <= Some(most.into()), "{longest:?} of {most}");
        let (flows, _) = decode(&mut messages);
        assert_eq!(flows.len(), 2);
        assert_ne!(flows[0][&own(53)], "Vec([])", "no text is empty");
    }
    println!("{lengths:?}");
    let (flows, _) = decode(&mut encode(
        &mut encoder(usize::from(SMALLEST_MESSAGE)),
        &[line],
    ));
    assert_eq!(flows[0][&own(5)], raw(&[4]), "it says how text was cut");
    assert_eq!(flows[0][&own(22)], raw("éé".as_bytes()));
    // All that there can be: no table outgrows the bits of a shape, and no template a message.
    let all = FLOW.template(FLOW.shape_of_all(), 256, CONTEXT);
    assert!(all.len() + message::HEADER + message::SET_HEADER <= SMALLEST_MESSAGE.into());
}

const CONTEXT: element::Context = element::Context {
    domain: 0,
    enterprise: ENTERPRISE,
    text: 254,
};

#[test]
fn a_template_is_told_once_and_keeps_its_number() {
    let mut encoder = encoder(1400);
    let lines = examples();
    assert_eq!(encode(&mut encoder, &lines).len(), 2);
    let again = encode(&mut encoder, &lines);
    assert!(matches!(&again[..], [data] if data.has_records()));
    let mut all = encoder.templates();
    all.extend(again);
    let (flows, options) = decode(&mut all);
    assert_eq!((flows.len(), options.len()), (1, 2 + other::own().len()));
}

#[test]
fn more_templates_than_are_kept_in_mind_end_the_session() {
    let socket = datagrams();
    let mut sink = sink_to(&socket.local_addr().unwrap().to_string(), Transport::Udp);
    let keys = [
        "endpoint",
        "reason",
        "drop_reason",
        "community_id",
        "end_reason",
        "generation",
        "ifindex",
        "policy",
        "process",
        "sampling",
    ];
    let mut sessions = BTreeMap::new();
    for shape in 0..1024_u64 {
        let line = flow(|it| {
            it["seq"] = shape.into();
            it["drop_reason"] = "x".into();
            it["sampling"] = 2.into();
            for (bit, key) in keys.iter().enumerate() {
                if shape >> bit & 1 == 0 {
                    it.as_object_mut().unwrap().remove(*key);
                }
            }
        });
        write(&mut sink, &line).unwrap();
        // A collector tells sessions apart by their port.
        let name = sink.session.as_ref().unwrap().name();
        let reader = sessions.entry(name).or_insert_with(Reader::new);
        reader.read_until(&socket, shape);
    }
    let read = sessions.values().map(|it| it.sequences.len());
    assert_eq!(read.sum::<usize>(), 1024);
    assert_eq!(
        sessions.len(),
        3,
        "511 templates each, beside that of types"
    );
    assert!(sessions.values().all(|reader| reader.counts));
}

// === collectors ===

fn sink_to(to: &str, transport: Transport) -> Ipfix {
    Ipfix::new(IpfixSettings {
        to: Remote::parse(to).unwrap(),
        transport,
        observation_domain: 0,
        template_seconds: (transport == Transport::Udp).then_some(60),
        message_bytes: transport.default_bytes(),
        enterprise: ENTERPRISE,
    })
}

fn write(sink: &mut Ipfix, line: &Line) -> Result<Settled, Failure> {
    sink.write(&[Cow::Borrowed(line)])
}

fn datagrams() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    socket
}

/// As a collector that keeps what templates it was told.
struct Reader {
    parser: NetflowParser,
    /// Numbers of the flow records, in the order in which they came.
    sequences: Vec<u64>,
    /// Records so far, and whether each message has said so.
    records: u32,
    counts: bool,
}

impl Reader {
    fn new() -> Self {
        Self {
            parser: NetflowParser::default(),
            sequences: Vec::new(),
            records: 0,
            counts: true,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        for message in parse(&mut self.parser, bytes) {
            self.counts &= message.header.sequence_number == self.records;
            let (flows, options) = records(&[message]);
            self.records += u32::try_from(flows.len() + options.len()).unwrap();
            self.sequences.extend(flows.iter().map(|it| {
                let bytes = it[&own(2)].replace(|it: char| !it.is_ascii_digit() && it != ' ', "");
                let bytes = bytes.split(' ').map(|it| it.parse::<u64>().unwrap());
                bytes.fold(0, |number, byte| number << 8 | byte)
            }));
        }
    }

    /// Reads datagrams until this record has come.
    fn read_until(&mut self, socket: &UdpSocket, seq: u64) {
        while self.sequences.last() != Some(&seq) {
            let mut datagram = [0; 2000];
            let length = socket.recv(&mut datagram).unwrap();
            self.read(&datagram[..length]);
        }
    }

    fn read_stream_until(&mut self, stream: &mut TcpStream, seq: u64) {
        while self.sequences.last() != Some(&seq) {
            self.read(&message_of(stream).unwrap());
        }
    }
}

fn numbered(seq: u64) -> Line {
    flow(|it| it["seq"] = seq.into())
}

#[test]
fn datagrams_have_templates_first_and_count_records() {
    let socket = datagrams();
    let mut sink = sink_to(&socket.local_addr().unwrap().to_string(), Transport::Udp);
    let mut reader = Reader::new();
    for seq in 1..4 {
        write(&mut sink, &numbered(seq)).unwrap();
        write(&mut sink, &loss(1)).unwrap();
    }
    reader.read_until(&socket, 3);
    assert_eq!(reader.sequences, [1, 2, 3]);
    assert!(reader.counts);
    let settled = sink.finish();
    assert_eq!((settled.exported, settled.lost), (3, [0; 4]));
}

#[test]
fn templates_come_again_for_those_who_missed_them() {
    let socket = datagrams();
    let mut sink = sink_to(&socket.local_addr().unwrap().to_string(), Transport::Udp);
    sink.settings.template_seconds = Some(0);
    write(&mut sink, &numbered(1)).unwrap();
    Reader::new().read_until(&socket, 1);
    // One that begins to listen only now.
    write(&mut sink, &numbered(2)).unwrap();
    let mut late = Reader::new();
    late.read_until(&socket, 2);
    assert_eq!(late.sequences, [2]);
}

#[test]
fn a_record_waits_for_a_collector_that_refuses_it() {
    let socket = datagrams();
    let address = socket.local_addr().unwrap();
    let mut sink = sink_to(&address.to_string(), Transport::Udp);
    write(&mut sink, &numbered(1)).unwrap();
    drop(socket);
    // On this machine it is known at once.
    assert!(matches!(
        write(&mut sink, &numbered(2)),
        Err(Failure::Away(_))
    ));
    assert!(matches!(
        write(&mut sink, &numbered(2)),
        Err(Failure::Away(_))
    ));
    let back = UdpSocket::bind(address).unwrap();
    back.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    write(&mut sink, &numbered(2)).unwrap();
    let mut reader = Reader::new();
    reader.read_until(&back, 2);
    // The first may have been on its way when the collector went: it comes once more.
    assert_eq!(reader.sequences, [1, 2]);
    assert!(reader.counts);
    assert_eq!(sink.finish().exported, 2);
}

#[test]
fn what_a_collector_never_got_is_lost_by_kind_at_the_end() {
    let socket = datagrams();
    let address = socket.local_addr().unwrap();
    let mut sink = sink_to(&address.to_string(), Transport::Udp);
    write(&mut sink, &numbered(1)).unwrap();
    drop(socket);
    write(&mut sink, &numbered(2)).unwrap_err();
    let settled = sink.finish();
    let ends = Kind::ALL.map(|kind| u64::from(kind == Kind::End));
    assert_eq!((settled.exported, settled.lost), (0, ends));
}

/// A message of a stream.
fn message_of(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut message = vec![0; message::HEADER];
    stream.read_exact(&mut message).ok()?;
    let length = u16::from_be_bytes([message[2], message[3]]);
    message.resize(length.into(), 0);
    stream.read_exact(&mut message[message::HEADER..]).ok()?;
    Some(message)
}

#[test]
fn a_stream_that_was_closed_is_noticed_before_anything_is_put_into_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sink = sink_to(&listener.local_addr().unwrap().to_string(), Transport::Tcp);
    write(&mut sink, &numbered(1)).unwrap();
    let mut stream = listener.accept().unwrap().0;
    let mut reader = Reader::new();
    reader.read_stream_until(&mut stream, 1);
    drop(stream);
    // Its end arrives within this machine in no time, but in some.
    while sink.session.as_mut().unwrap().check().is_ok() {
        std::thread::yield_now();
    }
    write(&mut sink, &numbered(2)).unwrap();
    let mut stream = listener.accept().unwrap().0;
    let mut reader = Reader::new();
    reader.read_stream_until(&mut stream, 2);
    assert_eq!(reader.sequences, [1, 2], "the first once more");
    assert!(reader.counts);
}

#[test]
fn a_stream_that_nobody_takes_from_is_given_up_within_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sink = sink_to(&listener.local_addr().unwrap().to_string(), Transport::Tcp);
    write(&mut sink, &numbered(1)).unwrap();
    let hanging = listener.accept().unwrap().0;
    let line = numbered(2);
    let many: Vec<_> = (0..2000).map(|_| Cow::Borrowed(&line)).collect();
    let failed = (0..1000).find_map(|_| sink.write(&many).err());
    assert!(matches!(failed, Some(Failure::Away(_))), "{failed:?}");
    assert!(sink.session.is_none(), "half a message tears the stream");
    drop(hanging);
    // The next connection begins with whole messages and templates.
    write(&mut sink, &numbered(3)).unwrap();
    let mut stream = listener.accept().unwrap().0;
    let mut reader = Reader::new();
    reader.read_stream_until(&mut stream, 3);
    assert!(reader.counts);
}

#[test]
fn nobody_at_a_stream_is_away_and_no_mistake_of_the_settings() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut sink = sink_to(&address.to_string(), Transport::Tcp);
    assert!(matches!(
        write(&mut sink, &numbered(1)),
        Err(Failure::Away(_))
    ));
    let listener = TcpListener::bind(address).unwrap();
    write(&mut sink, &numbered(1)).unwrap();
    let mut reader = Reader::new();
    reader.read_stream_until(&mut listener.accept().unwrap().0, 1);
}

#[test]
fn the_next_address_of_a_name_is_asked_when_one_refuses() {
    let socket = datagrams();
    let port = socket.local_addr().unwrap().port();
    // Where the name has two addresses, one of them refuses; where it has one, that is taken.
    let mut sink = sink_to(&format!("localhost:{port}"), Transport::Udp);
    let mut attempts = (0..3).map(|_| write(&mut sink, &numbered(1)));
    assert!(attempts.any(|attempt| attempt.is_ok()));
    drop(attempts);
    let mut reader = Reader::new();
    reader.read_until(&socket, 1);
}

#[test]
fn the_page_tells_of_every_element() {
    let page = include_str!("../../../../docs/ipfix.md");
    let mut rows = Vec::new();
    let mut row = |registry, number: u16, name, data_type: &str| {
        let enterprise = match registry {
            Registry::Iana => "0",
            Registry::Reverse => "29305",
            Registry::Own => "own",
        };
        rows.push(format!(
            "| {number} | {enterprise} | `{name}` | {data_type} |"
        ));
    };
    for it in FLOW.all() {
        row(
            it.registry,
            it.number,
            it.name,
            data_type(it.get.data_type()),
        );
    }
    for it in LOSS.all() {
        row(
            it.registry,
            it.number,
            it.name,
            data_type(it.get.data_type()),
        );
    }
    for it in TAMPERING.all() {
        row(
            it.registry,
            it.number,
            it.name,
            data_type(it.get.data_type()),
        );
    }
    for it in TYPES.all() {
        row(
            it.registry,
            it.number,
            it.name,
            data_type(it.get.data_type()),
        );
    }
    let missing: Vec<_> = rows.iter().filter(|row| !page.contains(*row)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    // No number of ours has two meanings.
    let mut own: Vec<_> = FLOW
        .own()
        .chain(LOSS.own())
        .chain(TAMPERING.own())
        .collect();
    own.sort_by_key(|it| it.number);
    let is_same = |pair: &[Own]| pair[0].number != pair[1].number || pair[0] == pair[1];
    assert!(own.windows(2).all(is_same), "{own:?}");
}

fn data_type(number: u8) -> &'static str {
    match number {
        1 => "unsigned8",
        2 => "unsigned16",
        3 => "unsigned32",
        4 => "unsigned64",
        11 => "boolean",
        13 => "string",
        15 => "dateTimeMilliseconds",
        18 => "ipv4Address",
        19 => "ipv6Address",
        other => panic!("{other}"),
    }
}
