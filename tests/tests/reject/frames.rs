//! Frame by frame: what a hook makes of one, and what the other hook makes of that.

use std::collections::BTreeMap;

use agent_common::{
    flow::tcp::{ACK, FIN, SYN},
    table::Direction,
    testing::PacketBuilder,
    verdict::Reason,
};
use anyhow::{Result, ensure};
use ringfence::datapath::testbed::{Hook, Rewritten};

use crate::pod::{self, Pod};

const OURS: [u8; 4] = [10, 0, 0, 1];
const THEIRS: [u8; 4] = [10, 0, 0, 2];
const OURS_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const THEIRS_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// The pod may begin nothing but to port 443, and anybody may begin with it.
const POLICY: &str = r"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {namespace: shop, name: pod, labels: {app: pod}}
spec: {addresses: [10.0.0.1, 'fd00::1']}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: pod, annotations: {ringfence.io/denied: reject}}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{ports: [{port: 443}]}]
";

const ID: u16 = pod::ID;
/// The flag of TCP that nothing here is about.
const PSH: u8 = 8;

/// With a pod at it.
struct Bed(Pod);

impl Bed {
    fn new(name: &str) -> Result<Self> {
        Ok(Self(Pod::new(name, POLICY)?))
    }

    fn policy(&mut self, text: &str) -> Result<()> {
        self.0.policy(text)
    }

    fn sends(&mut self, packet: &PacketBuilder) -> Result<Rewritten> {
        self.0.bed.rewritten(Direction::Egress, &frame(packet), 0)
    }

    fn flows(&self) -> Result<usize> {
        Ok(self.0.bed.flows_v4()?.len() + self.0.bed.flows_v6()?.len())
    }
}

/// With addresses that can be told apart, and belong to one.
fn frame(packet: &PacketBuilder) -> Vec<u8> {
    let mut frame = packet.frame();
    for (at, byte) in frame.iter_mut().take(12).enumerate() {
        *byte = if at < 6 { 0x02 } else { 0x04 };
    }
    frame
}

fn v4() -> PacketBuilder {
    PacketBuilder::v4(OURS, THEIRS)
}

fn v6() -> PacketBuilder {
    PacketBuilder::v6(OURS_V6, THEIRS_V6)
}

#[test]
fn a_denied_frame_becomes_its_answer() -> Result<()> {
    let mut bed = Bed::new("answer")?;
    for (packet, length) in [
        (v4().tcp(4000, 80, SYN), 54),
        (v4().tcp(4000, 80, SYN).payload(900), 54),
        (v6().tcp(4000, 80, SYN), 74),
        (v4().udp(4000, 53).payload(400), 14 + 28 + 128),
        (v6().udp(4000, 53).payload(400), 14 + 48 + 128),
        (v4().options(3).tcp(4000, 80, SYN), 14 + 28 + 52),
        (v4().icmp(8, 0, 7), 14 + 28 + 28),
    ] {
        let answer = bed.sends(&packet)?;
        ensure!(
            answer.is_sent_back && !answer.passes,
            "{packet:?}: {answer:?}"
        );
        ensure!(answer.mark != 0, "without a mark: {packet:?}");
        ensure!(answer.frame.len() == length, "{packet:?}: {answer:?}");
        ensure!(answer.frame.get(..6) == Some(&[0x04; 6]), "{answer:?}");
        ensure!(answer.frame.get(6..12) == Some(&[0x02; 6]), "{answer:?}");
    }
    ensure!(bed.flows()? == 0, "an answer is no flow");
    Ok(())
}

/// Its ingress is open: without the mark the answer would be taken for a connection that the peer has
/// begun, by which the endpoint could then send to a port that it was just denied.
#[test]
fn an_answer_passes_the_other_hook_and_opens_nothing() -> Result<()> {
    let mut bed = Bed::new("mark")?;
    for packet in [
        v4().tcp(4000, 80, SYN),
        v6().tcp(4000, 80, SYN),
        v4().udp(4000, 53),
        v6().udp(4000, 53),
    ] {
        let answer = bed.sends(&packet)?;
        let before = bed.0.bed.counters(ID)?;
        let arrived = bed
            .0
            .bed
            .rewritten(Direction::Ingress, &answer.frame, answer.mark)?;
        ensure!(arrived.passes && arrived.mark == 0, "{arrived:?}");
        ensure!(arrived.frame == answer.frame, "{arrived:?}");
        let count = |counters: &BTreeMap<_, agent_common::table::Counter>| {
            counters
                .get(&Reason::Rejection)
                .map_or(0, |counter| counter.packets)
        };
        let after = bed.0.bed.counters(ID)?;
        ensure!(count(&after) == count(&before) + 1, "{after:?}");
        ensure!(bed.flows()? == 0, "{packet:?} has left a flow");
    }
    // The same bytes with another mark, or none, are anybody's.
    let answer = bed.sends(&v4().tcp(4000, 80, SYN))?;
    for mark in [0, answer.mark ^ 1] {
        let arrived = bed
            .0
            .bed
            .rewritten(Direction::Ingress, &answer.frame, mark)?;
        ensure!(arrived.passes && arrived.mark == mark, "{arrived:?}");
        ensure!(bed.flows()? == 1, "it was not judged");
        bed.0.bed.flush_flows()?;
    }
    // The mark helps no other packet.
    let refused = bed.sends(&v4().tcp(4000, 80, ACK))?;
    let laden = frame(&v4().tcp(4000, 80, SYN));
    let sent = bed
        .0
        .bed
        .rewritten(Direction::Egress, &laden, refused.mark)?;
    ensure!(!sent.passes, "{sent:?}");
    Ok(())
}

#[test]
fn a_revoked_connection_is_told_of_in_both_directions() -> Result<()> {
    const NOTHING: &str = "[{ports: [{port: 1}]}]";
    let mut bed = Bed::new("revoked")?;
    let hook = Hook::Interface(Direction::Egress);
    let open = frame(&v4().tcp(4000, 443, SYN));
    ensure!(
        bed.0.bed.run(hook, &open, true, 1)?.passes,
        "it is permitted"
    );
    // Whatever policy says of others.
    let silent = POLICY
        .replace("[{ports: [{port: 443}]}]", NOTHING)
        .replace("reject", "drop");
    bed.policy(&silent)?;
    let segment = v4().tcp(4000, 443, ACK).payload(30);
    let first = bed.sends(&segment)?;
    ensure!(first.passes && !first.is_sent_back, "{first:?}");
    ensure!(first.frame.len() == 54, "no data on the way: {first:?}");
    ensure!(first.frame.get(47) == Some(&0x14), "a reset: {first:?}");
    ensure!(
        first.frame.get(26..34) == Some(&[OURS, THEIRS].concat()[..]),
        "{first:?}"
    );
    let second = bed.sends(&segment)?;
    ensure!(!second.passes && second.is_sent_back, "{second:?}");
    ensure!(
        second.frame.get(26..34) == Some(&[THEIRS, OURS].concat()[..]),
        "{second:?}"
    );
    let theirs = frame(&PacketBuilder::v4(THEIRS, OURS).tcp(443, 4000, ACK));
    let far = bed.0.bed.rewritten(Direction::Ingress, &theirs, 0)?;
    ensure!(!far.passes && far.is_sent_back, "{far:?}");
    // The agent's question to the endpoint passes by the mark; what is more than that does not.
    let question = bed
        .0
        .bed
        .rewritten(Direction::Ingress, &theirs, second.mark)?;
    ensure!(question.passes && question.mark == 0, "{question:?}");
    ensure!(question.frame == theirs, "{question:?}");
    for flags in [ACK | PSH, ACK | FIN] {
        let more = frame(&PacketBuilder::v4(THEIRS, OURS).tcp(443, 4000, flags));
        let more = bed
            .0
            .bed
            .rewritten(Direction::Ingress, &more, second.mark)?;
        ensure!(!more.passes, "{flags}: {more:?}");
    }
    // What was never permitted is dropped without a word.
    let other = bed.sends(&v4().tcp(4001, 443, SYN))?;
    ensure!(!other.passes && !other.is_sent_back, "{other:?}");
    Ok(())
}
