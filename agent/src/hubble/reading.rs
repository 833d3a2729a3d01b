//! The records that a request is about, one after the other.

use std::{ops::Range, sync::Arc, time::Duration};

use agent_hubble_proto::{
    flow::{Flow, LostEvent, LostEventSource},
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
    relay::{NodeState, NodeStatusEvent},
};
use prost_types::Timestamp;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};
use tonic::Status;

use super::{
    Hub,
    filter::Filters,
    flow::{self, timestamp},
    mask::Mask,
};
use crate::flow::{
    clock::WallTime,
    record::{Line, Loss, Record, Tampering},
    ring::Follower,
};

/// Between two messages about what this stream was too late for.
const LOSSES: Duration = Duration::from_secs(1);

/// Lines that are looked at before others have their turn.
const AT_ONCE: u64 = 64;

/// A stream of flows on its way.
#[derive(Debug)]
pub(super) struct Reading {
    hub: Arc<Hub>,
    wanted: Wanted,
    mask: Mask,
    lines: Follower,
    /// What was read and not looked at, the next one last.
    read: Vec<Arc<Line>>,
    /// The place of the first line that is not for it; `None` if it follows.
    end: Option<u64>,
    /// Flows that may still be told.
    left: u64,
    lag: Lag,
    looked_at: u64,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// Which flows are told.
#[derive(Debug)]
struct Wanted {
    filters: Filters,
    since: Option<WallTime>,
    until: Option<WallTime>,
}

/// What this stream was too late for.
#[derive(Debug, Default)]
struct Lag {
    lost: u64,
    first: Option<WallTime>,
    told: Option<Instant>,
}

impl Reading {
    /// # Errors
    ///
    /// If it is not clear what is asked for.
    pub(super) async fn start(
        hub: Arc<Hub>,
        request: GetFlowsRequest,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let GetFlowsRequest {
            number,
            follow,
            blacklist,
            whitelist,
            since,
            until,
            first,
            field_mask,
        } = request;
        if first && follow {
            return Err(Status::invalid_argument(
                "the first flows cannot be followed: `first` and `follow` exclude each other",
            ));
        }
        let filters = Filters::parse(whitelist, blacklist);
        let wanted = Wanted {
            filters: filters.map_err(|error| Status::invalid_argument(error.to_string()))?,
            since: since.map(|it| wall_time("since", it)).transpose()?,
            until: until.map(|it| wall_time("until", it)).transpose()?,
        };
        let places = hub.ring.places();
        let start = if first || wanted.since.is_some() {
            places.start
        } else if number > 0 {
            last(&hub, &wanted, places.clone(), number).await
        } else if follow {
            places.end
        } else {
            places.start
        };
        hub.counts.has_begun();
        Ok(Self {
            lines: hub.ring.follow_from(start),
            hub,
            wanted,
            mask: Mask::parse(field_mask),
            read: Vec::new(),
            end: (!follow).then_some(places.end),
            left: if follow || number == 0 {
                u64::MAX
            } else {
                number
            },
            lag: Lag::default(),
            looked_at: 0,
            is_over: false,
            _place: place,
        })
    }

    /// `None` at the end.
    pub(super) async fn next(&mut self) -> Option<GetFlowsResponse> {
        loop {
            if let Some(lost) = self.lag.due(self.is_over) {
                return Some(self.tell(WallTime::now(), ResponseTypes::LostEvents(lost)));
            }
            if self.is_over {
                return None;
            }
            let Some(line) = self.read.pop() else {
                self.read_on().await;
                continue;
            };
            if let Some(response) = self.look_at(&line) {
                return Some(response);
            }
            self.looked_at += 1;
            if self.looked_at.is_multiple_of(AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads what comes next; waits for it if need be, but not for longer than until there is something to say.
    async fn read_on(&mut self) {
        let before = self.lines.place();
        let lost = match (self.end, self.lag.until()) {
            (Some(end), _) if before >= end => {
                self.is_over = true;
                return;
            }
            (Some(_), _) => self.lines.take(&mut self.read),
            (None, None) => self.lines.read(&mut self.read).await,
            (None, Some(until)) => timeout_at(until, self.lines.read(&mut self.read))
                .await
                .unwrap_or_default(),
        };
        // The ring has gone on since the request came, and what it has lost after that nobody has asked for.
        let lost = match self.end {
            Some(end) => lost.min(end.saturating_sub(before)),
            None => lost,
        };
        if let Some(end) = self.end {
            let wanted = end.saturating_sub(before.saturating_add(lost));
            self.read
                .truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        }
        self.read.reverse();
        self.lag.add(lost);
        self.hub.counts.has_missed(lost);
    }

    fn look_at(&mut self, line: &Line) -> Option<GetFlowsResponse> {
        match line {
            Line::Flow(record) => {
                let is_later = self.wanted.until.is_some_and(|it| flow::time(record) > it);
                if is_later && self.end.is_none() {
                    self.is_over = true;
                    return None;
                }
                let told = self.wanted.flow(&self.hub, record)?;
                self.left -= 1;
                self.is_over |= self.left == 0;
                self.hub.counts.has_told();
                let told = ResponseTypes::Flow(self.mask.apply(told));
                Some(self.tell(flow::time(record), told))
            }
            Line::Loss(record) => {
                let Loss { last, .. } = record.loss;
                let told = ResponseTypes::LostEvents(lost(&record.loss));
                self.wanted.is_in_time(last).then(|| self.tell(last, told))
            }
            Line::Tampering(record) => {
                let Tampering { at, .. } = record.tampering;
                let told = ResponseTypes::NodeStatus(self.tampered(&record.tampering));
                self.wanted.is_in_time(at).then(|| self.tell(at, told))
            }
        }
    }

    fn tampered(&self, tampering: &Tampering) -> NodeStatusEvent {
        let Tampering {
            how,
            what,
            count: _,
            at: _,
            restored,
        } = tampering;
        let then = if *restored {
            "it has been put right"
        } else {
            "it could not be put right yet"
        };
        NodeStatusEvent {
            state_change: NodeState::NodeError.into(),
            node_names: vec![self.hub.teller.node_name.clone()],
            message: format!("tampering: {what} {how}; {then}"),
        }
    }

    /// Whoever merges streams does so by time and node, whatever the mask leaves of a flow.
    fn tell(&self, time: WallTime, response: ResponseTypes) -> GetFlowsResponse {
        GetFlowsResponse {
            node_name: self.hub.teller.node_name.clone(),
            time: Some(timestamp(time)),
            response_types: Some(response),
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.hub.counts.has_ended();
    }
}

impl Wanted {
    fn is_in_time(&self, time: WallTime) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|it| time <= it)
    }

    /// In the first shape that is asked for, if it is.
    fn flow(&self, hub: &Hub, record: &Record) -> Option<Flow> {
        if !self.is_in_time(flow::time(record)) {
            return None;
        }
        let mut told = hub.teller.flow(record);
        for shape in flow::shapes(record) {
            shape.dress(&mut told, record);
            if self.filters.pass(&told) {
                return Some(told);
            }
        }
        None
    }
}

impl Lag {
    fn add(&mut self, lost: u64) {
        if lost > 0 {
            self.first.get_or_insert_with(WallTime::now);
            self.lost = self.lost.saturating_add(lost);
        }
    }

    /// When it is to be told; `None` if there is nothing to tell.
    fn until(&self) -> Option<Instant> {
        let now = Instant::now();
        (self.lost > 0).then(|| self.told.map_or(now, |told| told + LOSSES))
    }

    fn due(&mut self, is_over: bool) -> Option<LostEvent> {
        let is_due = self.until()? <= Instant::now() || is_over;
        is_due.then(|| {
            let Self { lost, first, .. } = std::mem::take(self);
            self.told = Some(Instant::now());
            let now = WallTime::now();
            LostEvent {
                source: LostEventSource::HubbleRingBuffer.into(),
                num_events_lost: lost,
                cpu: None,
                first: Some(timestamp(first.unwrap_or(now))),
                last: Some(timestamp(now)),
            }
        })
    }
}

/// The place from which on so many flows are told; of the oldest line if there are fewer.
async fn last(hub: &Hub, wanted: &Wanted, mut places: Range<u64>, number: u64) -> u64 {
    let mut found = 0;
    while !places.is_empty() {
        let from = places.end.saturating_sub(AT_ONCE).max(places.start);
        let lines = hub.ring.slice(from..places.end);
        for (place, line) in (from..places.end).rev().zip(lines.iter().rev()) {
            let flow = line.flow();
            if flow.is_some_and(|record| wanted.flow(hub, record).is_some()) {
                found += 1;
            }
            if found >= number {
                return place;
            }
        }
        places.end = from;
        tokio::task::yield_now().await;
    }
    places.start
}

fn lost(loss: &Loss) -> LostEvent {
    let Loss {
        stage,
        reason: _,
        count,
        first,
        last,
    } = loss;
    let source = match &**stage {
        "ring-buffer" => LostEventSource::PerfEventRingBuffer,
        // Of the stages behind it.
        _ => LostEventSource::ObserverEventsQueue,
    };
    LostEvent {
        source: source.into(),
        num_events_lost: *count,
        cpu: None,
        first: Some(timestamp(*first)),
        last: Some(timestamp(*last)),
    }
}

fn wall_time(field: &str, time: Timestamp) -> Result<WallTime, Status> {
    let Timestamp { seconds, nanos } = time;
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(Status::invalid_argument(format!(
            "`{field}` has {nanos} nanoseconds, expected less than a second"
        )));
    }
    // Years that no record is of are beyond every record.
    let nanoseconds = seconds.saturating_mul(1_000_000_000);
    Ok(WallTime(nanoseconds.saturating_add(nanos.into())))
}
