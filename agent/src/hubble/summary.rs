//! A flow in a few words, as they stand in brackets behind it.

use crate::flow::record::Record;

/// Bits of TCP's flags, in the order in which people read them.
const FLAGS: [(u8, &str); 8] = [
    (0x02, "SYN"),
    (0x10, "ACK"),
    (0x04, "RST"),
    (0x01, "FIN"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
];

pub(super) fn of(record: &Record) -> String {
    match record.protocol.number {
        6 => tcp(record.forward.tcp_flags.unwrap_or_default()),
        1 => icmp(record, "ICMPv4", v4),
        58 => icmp(record, "ICMPv6", v6),
        _ => match &record.protocol.name {
            Some(name) => name.to_uppercase(),
            None => format!("IP protocol {}", record.protocol.number),
        },
    }
}

fn tcp(flags: u8) -> String {
    let set = FLAGS.iter().filter(|(bit, _)| flags & bit != 0);
    let set: Vec<&str> = set.map(|(_, name)| *name).collect();
    if set.is_empty() {
        // They are not known of every flow.
        return "TCP".to_owned();
    }
    format!("TCP Flags: {}", set.join(", "))
}

fn icmp(record: &Record, family: &str, names: fn(u8) -> Option<&'static str>) -> String {
    let Some(icmp) = record.icmp else {
        return family.to_owned();
    };
    match names(icmp.kind) {
        Some(name) => format!("{family} {name}"),
        None => format!("{family} type {} code {}", icmp.kind, icmp.code),
    }
}

fn v4(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0 => "EchoReply",
        3 => "DestinationUnreachable",
        5 => "Redirect",
        8 => "EchoRequest",
        11 => "TimeExceeded",
        12 => "ParameterProblem",
        13 => "TimestampRequest",
        14 => "TimestampReply",
        _ => return None,
    })
}

fn v6(kind: u8) -> Option<&'static str> {
    Some(match kind {
        1 => "DestinationUnreachable",
        2 => "PacketTooBig",
        3 => "TimeExceeded",
        4 => "ParameterProblem",
        128 => "EchoRequest",
        129 => "EchoReply",
        133 => "RouterSolicitation",
        134 => "RouterAdvertisement",
        135 => "NeighborSolicitation",
        136 => "NeighborAdvertisement",
        137 => "Redirect",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_stand_in_the_order_that_people_know() {
        assert_eq!(tcp(0x02), "TCP Flags: SYN");
        assert_eq!(tcp(0x1b), "TCP Flags: SYN, ACK, FIN, PSH");
        assert_eq!(tcp(0), "TCP");
    }
}
