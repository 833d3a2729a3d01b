//! Packets that a peer makes up for another on the same bridge, and what arrives of them.

use std::net::IpAddr;
use std::time::Duration;

use agent_common::testing::PacketBuilder;
use anyhow::{Result, bail};

use crate::lab::{Netns, Peer};
use crate::wait::patient;
use crate::wire::{Wire, with_checksums};

/// What a permitted frame needs by far.
const PATIENCE: Duration = Duration::from_millis(800);
const INTERFACE: &str = "eth0";

/// A packet between two addresses of one family.
pub fn between(from: IpAddr, to: IpAddr) -> Result<PacketBuilder> {
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::v4(from.octets(), to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::v6(from.octets(), to.octets()),
        _ => bail!("{from} and {to} are of two families"),
    })
}

impl Peer {
    /// Packets to another of both families, IPv4 first.
    pub fn packets_to(&self, to: &Self) -> Result<[PacketBuilder; 2]> {
        self.packets_as(self, to)
    }

    /// The same from a third one's addresses, and from this one's link.
    pub fn packets_as(&self, source: &Self, to: &Self) -> Result<[PacketBuilder; 2]> {
        let (own, link) = (self.link_address(INTERFACE)?, to.link_address(INTERFACE)?);
        let ([v4, v6], [to_v4, to_v6]) = (source.addresses(), to.addresses());
        let addressed = |packet: PacketBuilder| packet.with_link(own).to_link(link);
        Ok([
            addressed(between(v4, to_v4)?),
            addressed(between(v6, to_v6)?),
        ])
    }

    /// Which of these packets arrive at another's interface, sent one after the other. All differ.
    pub fn gets_through(&self, to: &Netns, packets: &[PacketBuilder]) -> Result<Vec<bool>> {
        let packets = packets.iter();
        let frames: Vec<_> = packets
            .map(|packet| with_checksums(packet.frame()))
            .collect();
        let ear = to.within(|| Wire::everything(INTERFACE))?;
        let wire = self.within(|| Wire::open(INTERFACE))?;
        for frame in &frames {
            wire.send(frame)?;
        }
        ear.hears_of(patient(PATIENCE), &frames)
    }
}
