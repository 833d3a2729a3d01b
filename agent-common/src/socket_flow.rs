//! The flow of a socket, noted in the socket itself: what a packet of it needs is then at hand, without a
//! look into the table.
//!
//! Only connections of TCP: all of them end with a packet that the table sees, and what was counted here
//! goes there with it. A socket has one such note in its life, made whole at once, so that nobody ever reads
//! half of one flow's key and half of another's. What it says is what the table said at a generation; with
//! any other the table is asked again.

use crate::{
    dns,
    flow::{Flow, FlowKey, is_later_part, tcp},
    judge::Sight,
    parse::Headers,
    protocol::{self, Address},
    shared::Shared,
    table::Direction,
};

/// A flow as its socket knows it. It begins with nothing counted.
///
/// Packets go by direction, not by side: which of them is whose is asked when they are told.
#[repr(C)]
#[derive(Debug)]
pub struct SocketFlow<A> {
    key: FlowKey<A>,
    /// At which the flow was permitted, and running.
    generation: Shared<u32>,
    /// Flags that the table has seen, by direction.
    tcp_flags: [Shared<u8>; 2],
    zero: [u8; 2],
    /// Jiffies.
    last_seen: Shared<u64>,
    packets: [Shared<u64>; 2],
    bytes: [Shared<u64>; 2],
    /// Of these, what the table has been told.
    told_packets: [Shared<u64>; 2],
    told_bytes: [Shared<u64>; 2],
}

// Pinned, and so shared by versions of one ABI: any change raises `ABI_VERSION`.
const _: () =
    assert!(size_of::<SocketFlow<[u8; 4]>>() == 96 && size_of::<SocketFlow<[u8; 16]>>() == 120);

/// Of so many packets in a direction one is a reason to make a note: what ends sooner is better off without.
const OFTEN: u64 = 16;

/// Whether it is time to note a flow in its socket, or to note it anew.
#[inline(always)]
pub fn is_to_be_noted<A>(key: &FlowKey<A>, sight: &Sight, flow: &Flow) -> bool {
    let side = flow.side(sight.direction) as usize & 1;
    // What a resolver says is to be seen.
    let is_spoken = key.remote_port == dns::PORT;
    key.protocol == protocol::TCP && !is_spoken && flow.packets[side].get().is_multiple_of(OFTEN)
}

impl<A: Address> SocketFlow<A> {
    #[inline(always)]
    pub fn new(key: &FlowKey<A>, flow: &Flow) -> Self {
        let new = Self {
            key: *key,
            generation: Shared::new(Flow::NEVER),
            tcp_flags: [Shared::new(0), Shared::new(0)],
            zero: [0; 2],
            last_seen: Shared::new(0),
            packets: [Shared::new(0), Shared::new(0)],
            bytes: [Shared::new(0), Shared::new(0)],
            told_packets: [Shared::new(0), Shared::new(0)],
            told_bytes: [Shared::new(0), Shared::new(0)],
        };
        new.note(flow);
        new
    }

    #[inline(always)]
    pub const fn key(&self) -> &FlowKey<A> {
        &self.key
    }

    /// Takes over what the table says.
    #[inline(always)]
    pub fn note(&self, flow: &Flow) {
        for direction in [Direction::Ingress, Direction::Egress] {
            let flags = flow.tcp_flags[flow.side(direction) as usize & 1].get();
            self.tcp_flags[direction as usize & 1].set(flags);
        }
        self.generation.set(flow.generation.get());
    }

    /// Counts a packet if that is all it needs: it is of this flow, which is permitted and goes on. The first after
    /// a while goes to the table as well, which is then to measure something.
    #[inline(always)]
    pub fn count(
        &self,
        headers: &Headers<A>,
        sight: &Sight,
        jiffies: impl FnOnce() -> u64,
    ) -> bool {
        let index = sight.direction as usize & 1;
        let is_new = headers.tcp_flags & !self.tcp_flags[index].get() != 0;
        let ends = headers.tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0;
        let is_current = self.generation.get() == sight.word.generation();
        if !is_current || is_new || ends || !self.is_of(headers, sight) {
            return false;
        }
        let now = jiffies();
        if is_later_part(self.last_seen.get(), now) {
            self.last_seen.set(now);
            return false;
        }
        let length = u64::from(sight.length);
        if matches!(sight.direction, Direction::Egress) {
            // What a connection sends, it sends one packet after the other: it holds its socket.
            self.packets[index].set(self.packets[index].get().wrapping_add(1));
            self.bytes[index].set(self.bytes[index].get().wrapping_add(length));
        } else {
            self.packets[index].add(1);
            self.bytes[index].add(length);
        }
        self.last_seen.set(now);
        true
    }

    /// Whether a packet of TCP has this key.
    #[inline(always)]
    fn is_of(&self, headers: &Headers<A>, sight: &Sight) -> bool {
        let FlowKey {
            endpoint,
            local_port,
            remote_port,
            local,
            remote,
            ..
        } = self.key;
        let Headers {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            ..
        } = *headers;
        let (to, from, to_port, from_port) = match sight.direction {
            Direction::Egress => (remote, local, remote_port, local_port),
            Direction::Ingress => (local, remote, local_port, remote_port),
        };
        protocol == protocol::TCP
            && endpoint == sight.endpoint.id
            && source_port == from_port
            && destination_port == to_port
            && source == from
            && destination == to
    }

    /// Whether the table says the same of it.
    #[inline(always)]
    pub fn agrees(&self, flow: &Flow) -> bool {
        self.generation.get() == flow.generation.get() && !flow.is_closing()
    }

    /// Nothing is counted here until the flow is noted anew.
    #[inline(always)]
    pub fn rest(&self) {
        self.generation.set(Flow::NEVER);
    }

    /// Tells the table what it does not know. Should two do so at the same moment, it counts some twice.
    #[inline(always)]
    pub fn tell(&self, flow: &Flow) {
        let last_seen = self.last_seen.get();
        if last_seen > flow.last_seen.get() {
            flow.last_seen.set(last_seen);
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            let (from, side) = (direction as usize & 1, flow.side(direction) as usize & 1);
            tell(
                &self.packets[from],
                &self.told_packets[from],
                &flow.packets[side],
            );
            tell(&self.bytes[from], &self.told_bytes[from], &flow.bytes[side]);
        }
    }
}

#[inline(always)]
fn tell(counted: &Shared<u64>, told: &Shared<u64>, sum: &Shared<u64>) {
    let now = counted.get();
    let more = now.wrapping_sub(told.get());
    if more != 0 {
        told.set(now);
        sum.add(more);
    }
}

#[cfg(test)]
mod tests;
