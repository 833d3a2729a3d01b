//! `ringfence flows top`: records added up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    FlowFormat,
    csv::CsvWriter,
    lines::Lines,
    quiet,
    table::{decided, end},
};
use crate::{
    cli::output::{self, Columns, Paint},
    flow::{
        key::FlowId,
        record::{Direction, End, Kind, Line, Record},
    },
};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Whose sums.
    #[arg(long, value_name = "WHAT", default_value_t, value_enum)]
    by: By,
    /// Most bytes first; otherwise most flows.
    #[arg(long, conflicts_with = "packets")]
    bytes: bool,
    /// Most packets first.
    #[arg(long)]
    packets: bool,
    /// So many rows.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    rows: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum By {
    /// The endpoints of this node.
    #[default]
    Workload,
    /// Who is at the other end: a workload, or an address.
    Peer,
    /// What decided.
    Rule,
    /// Programs at the endpoints.
    Process,
    /// Protocol and port of the responder.
    Port,
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Sums {
    name: String,
    flows: u64,
    /// Packets.
    denied: u64,
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Group {
    /// How many flows each stands for.
    ids: HashMap<FlowId, u64>,
    sums: Sums,
}

impl Group {
    fn sums(self, name: String) -> Sums {
        let Self { ids, sums } = self;
        Sums {
            name,
            flows: ids.into_values().fold(0, u64::saturating_add),
            ..sums
        }
    }
}

pub(super) fn run(
    args: &TopArgs,
    lines: Lines,
    format: FlowFormat,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let mut missing = 0_u64;
    for text in lines {
        match Line::parse(&text?)? {
            Line::Flow(record) => add(&mut groups, args.by, &record),
            Line::Loss(loss) => missing = loss.loss.count.saturating_add(missing),
            Line::Tampering(_) => {}
        }
    }
    let mut rows: Vec<Sums> = groups
        .into_iter()
        .map(|(name, group)| group.sums(name))
        .collect();
    let key = |sums: &Sums| match (args.bytes, args.packets) {
        (true, _) => sums.bytes,
        (_, true) => sums.packets,
        _ => sums.flows,
    };
    rows.sort_by_key(|sums| Reverse(key(sums)));
    rows.truncate(args.rows);
    match format {
        FlowFormat::Json => {
            let mut text = Vec::new();
            output::json(&rows, &mut text)?;
            for line in String::from_utf8_lossy(&text).lines() {
                writeln!(out, "{}", quiet::json(line))?;
            }
        }
        FlowFormat::Csv => csv(&rows, out)?,
        // There is no more of them to show.
        FlowFormat::Table | FlowFormat::Wide => table(&rows, Paint::of_stdout(), out)?,
    }
    if missing > 0 {
        eprintln!("{missing} are missing from these sums: the stream has loss records");
    }
    Ok(())
}

fn add(groups: &mut BTreeMap<String, Group>, by: By, record: &Record) {
    let Group { ids, sums } = groups.entry(name(by, record)).or_default();
    // A record of a sample stands for others.
    let times = record.sampling.map_or(1, |one_in| one_in.get().into());
    let stands_for = ids.entry(record.flow_id).or_insert(times);
    if record.kind == Kind::End {
        // Of every flow in a sample the end is written: it stands for itself alone.
        *stands_for = 1;
    }
    let packets = record.packets();
    if record.kind == Kind::Deny {
        sums.denied = sums.denied.saturating_add(packets);
    }
    sums.packets = sums.packets.saturating_add(packets.saturating_mul(times));
    let bytes = record.bytes();
    sums.bytes = sums.bytes.saturating_add(bytes.saturating_mul(times));
}

fn name(by: By, record: &Record) -> String {
    let (own, peer) = match record.direction {
        Direction::Egress => (&record.src, &record.dst),
        Direction::Ingress => (&record.dst, &record.src),
    };
    match by {
        By::Workload => match &record.endpoint {
            Some(name) => name.to_string(),
            None => host(own),
        },
        By::Peer => host(peer),
        By::Rule => format!("{}: {}", record.verdict.name(), decided(record)),
        By::Process => match &record.process {
            Some(process) => process.comm.clone(),
            None => "-".to_owned(),
        },
        By::Port => match record.dst.port {
            Some(port) => format!("{}/{port}", record.protocol),
            None => record.protocol.to_string(),
        },
    }
}

fn host(of: &End) -> String {
    end(&End {
        port: None,
        ..of.clone()
    })
}

/// Named as in JSON.
fn csv(rows: &[Sums], out: &mut impl Write) -> io::Result<()> {
    let mut out = CsvWriter::new(out, ["name", "flows", "denied", "packets", "bytes"])?;
    for sums in rows {
        let Sums {
            name,
            flows,
            denied,
            packets,
            bytes,
        } = sums;
        let numbers = [flows, denied, packets, bytes].map(ToString::to_string);
        out.row(std::iter::once(name.clone()).chain(numbers))?;
    }
    out.flush()
}

fn table(rows: &[Sums], paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let header = ["FLOWS", "DENIED", "PACKETS", "BYTES", "NAME"];
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|sums| {
            let Sums {
                name,
                flows,
                denied,
                packets,
                bytes,
            } = sums;
            let numbers = [denied, packets, bytes].map(ToString::to_string);
            let [denied, packets, bytes] = numbers;
            [flows.to_string(), denied, packets, bytes, name.clone()]
        })
        .collect();
    let mut columns = Columns::new([0; 5]);
    columns.fit(&header);
    for row in &cells {
        columns.fit(row);
    }
    columns.write(&header, paint, None, out)?;
    for row in &cells {
        columns.write(row, paint, None, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64, change: &str, with: &str) -> Record {
        let text = format!(
            r#"{{"schema_version":1,"seq":{number},"node":"n","agent_version":"0.1.0","kind":"start",
            "flow_id":"{number:016x}","start":"2023-11-14T22:13:20.000000000Z","src":{{"ip":"10.0.0.2","port":1}},
            "dst":{{"ip":"192.0.2.1","port":443}},"protocol":{{"number":6,"name":"tcp"}},"direction":"egress",
            "initiator_known":true,"forward":{{"packets":2,"bytes":100}},"reverse":{{"packets":1,"bytes":50}},
            "verdict":"allow","default_deny":false,"reason":"rule","endpoint":"shop/api"}}"#
        );
        match Line::parse(&text.replace(change, with)).unwrap() {
            Line::Flow(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn sums(by: By) -> BTreeMap<String, (u64, u64, u64, u64)> {
        let mut groups = BTreeMap::new();
        add(&mut groups, by, &record(1, "", ""));
        add(&mut groups, by, &record(1, r#""start","#, r#""end","#));
        let denied = r#""verdict":"deny","drop_reason":"default-deny""#;
        let mut other = record(2, r#""verdict":"allow""#, denied);
        (other.kind, other.reason) = (Kind::Deny, None);
        add(&mut groups, by, &other);
        let sampled = r#""endpoint":"shop/api","sampling":10"#;
        add(
            &mut groups,
            by,
            &record(3, r#""endpoint":"shop/api""#, sampled),
        );
        let groups = groups.into_iter();
        groups
            .map(|(name, group)| {
                let sums = group.sums(name);
                let told = (sums.flows, sums.denied, sums.packets, sums.bytes);
                (sums.name, told)
            })
            .collect()
    }

    #[test]
    fn records_add_up_and_those_of_a_sample_stand_for_others() {
        let one = |name: &str, sums| BTreeMap::from([(name.to_owned(), sums)]);
        let all = (12, 3, 39, 1950);
        assert_eq!(sums(By::Workload), one("shop/api", all));
        assert_eq!(sums(By::Peer), one("192.0.2.1", all));
        assert_eq!(sums(By::Port), one("TCP/443", all));
        assert_eq!(sums(By::Process), one("-", all));
        let rules = sums(By::Rule);
        assert_eq!(rules["allow: rule"], (11, 0, 36, 1800));
        assert_eq!(rules["deny: default-deny"], (1, 3, 3, 150));
    }
}
