use super::*;
use crate::{
    connection::{Connection, LOOPBACK, Verdict},
    strategies,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// By address, at all ports where something serves and beside them.
    #[test]
    fn what_is_asked_for_everybody_is_what_a_connection_says(
        (mut world, now, _) in strategies::world_and_questions(),
        more in more_addresses(),
        crowd in crowd(),
    ) {
        crowd.settle(&mut world);
        with_more_addresses(&mut world, &more);
        let perspective = Perspective::live(now);
        let truth = Exhaustive::new(&world, perspective);
        let mut everybody: Vec<(End, IpAddr)> = Vec::new();
        for (end, addresses) in inventory(&world) {
            everybody.extend(addresses.into_iter().map(|address| (end.clone(), address)));
        }
        let outside = ["8.8.8.8", "2600::1"].map(|text| text.parse().unwrap());
        let outside = outside.into_iter().chain(LOOPBACK);
        everybody.extend(outside.map(|address| (End::Address(address), address)));
        let frontends = Borders::of(&world).frontends.into_iter();
        let mut ports: BTreeSet<Port> = frontends
            .map(|(_, protocol, number)| Port { protocol, number })
            .collect();
        ports.extend(["TCP/80", "ICMP", "ICMPv6"].map(|text| text.parse::<Port>().unwrap()));
        for (from, source) in &everybody {
            for (to, destination) in &everybody {
                if !truth.can_meet((from, *source), (to, *destination)) {
                    continue;
                }
                for port in &ports {
                    let ends = (from.at(*source), to.at(*destination));
                    // Of the other family's ICMP, there is no connection.
                    let Ok(asked) = Connection::new(&world, &ends.0, &ends.1, *port, perspective)
                    else {
                        continue;
                    };
                    prop_assert_eq!(
                        asked.verdict(&Reference(&world)) == Verdict::Allow,
                        truth.passes((from, *source), (to, *destination), *port),
                        "{:?} {}", ends, port
                    );
                }
            }
        }
    }
}
