//! `ringfence flows`: records of the running agent, as they were and as they come, or of files.

mod lines;
mod top;

use std::{
    io::{self, BufWriter, Write},
    net::IpAddr,
    path::PathBuf,
};

use clap::{Args, Subcommand};

use self::{
    lines::{Ago, Lines},
    top::TopArgs,
};
use super::output::{Colour, Columns, Format, Paint};
use crate::{
    config::DEFAULT_SOCKET,
    control::{FlowsRequest, filter::WorkloadName},
    exit::Answer,
    flow::{
        clock::WallTime,
        record::{End, Line, LossRecord, Record, TamperRecord, Tampering, Verdict, WouldBe},
    },
};

/// Bytes of lines that are written at once.
const AT_ONCE: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    /// Go on with what comes.
    #[arg(long, conflicts_with = "file")]
    follow: bool,
    /// Only so many of the records that are kept, the last ones.
    #[arg(long, value_name = "N", global = true)]
    last: Option<usize>,
    /// Only those of this time up to now, such as 90s, 10m, 2h or 7d.
    #[arg(long, value_name = "TIME", global = true)]
    since: Option<Ago>,
    /// Only what was permitted, or only what was not.
    #[arg(long, global = true)]
    verdict: Option<Verdict>,
    /// Only flows from or to this workload.
    #[arg(long, value_name = "NAMESPACE/NAME", global = true)]
    workload: Option<WorkloadName>,
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value_t,
        value_enum,
        global = true
    )]
    output: Format,
    /// Read this file of records, also one that is packed by gzip, and ask no agent. May be repeated, the oldest first.
    #[arg(long, value_name = "PATH", global = true)]
    file: Vec<PathBuf>,
    /// Control socket of the agent.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET, global = true)]
    socket: PathBuf,
    #[command(subcommand)]
    sums: Option<Sums>,
}

#[derive(Debug, Subcommand)]
enum Sums {
    /// Add records up.
    Top(TopArgs),
}

pub(crate) fn run(args: FlowsArgs) -> anyhow::Result<Answer> {
    let FlowsArgs {
        follow,
        last,
        since,
        verdict,
        workload,
        output,
        file,
        socket,
        sums,
    } = args;
    let request = FlowsRequest {
        last,
        follow: follow && sums.is_none(),
        verdict,
        workload,
    };
    let mut lines = if file.is_empty() {
        Lines::of_agent(&socket, request, since)?
    } else {
        Lines::of_files(file, request, since)?
    };
    if let Some(Sums::Top(args)) = sums {
        top::run(&args, lines, output)?;
        return Ok(Answer::Yes);
    }
    match output {
        Format::Json => {
            // Lines that come together are written together: each by itself would wake who reads them.
            let mut out = BufWriter::with_capacity(AT_ONCE, io::stdout().lock());
            while let Some(line) = lines.next() {
                writeln!(out, "{}", line?)?;
                if lines.is_read() {
                    out.flush()?;
                }
            }
            out.flush()?;
        }
        Format::Human => {
            let mut out = io::stdout().lock();
            let mut table = FlowTable::new(Paint::of_stdout());
            table.write_header(&mut out)?;
            for line in lines {
                table.write(&Line::parse(&line?)?, &mut out)?;
            }
        }
    }
    Ok(Answer::Yes)
}

/// Records as rows, written one by one.
#[derive(Debug)]
pub(crate) struct FlowTable {
    columns: Columns<9>,
    paint: Paint,
}

const HEADER: [&str; 9] = [
    "TIME",
    "KIND",
    "VERDICT",
    "SOURCE",
    "DESTINATION",
    "PROTO",
    "BYTES",
    "PROCESS",
    "RULE/REASON",
];

/// What most rows need, so that columns seldom grow on the way.
const WIDTHS: [usize; 9] = [13, 6, 7, 24, 24, 5, 11, 16, 0];

const VERDICT_COLUMN: usize = 2;

impl FlowTable {
    pub(crate) fn new(paint: Paint) -> Self {
        Self {
            columns: Columns::new(WIDTHS),
            paint,
        }
    }

    pub(crate) fn write_header(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.columns.write(&HEADER, self.paint, None, out)
    }

    pub(crate) fn write(&mut self, line: &Line, out: &mut impl Write) -> io::Result<()> {
        let (row, colour) = match line {
            Line::Flow(record) => (
                flow(record),
                match record.verdict {
                    Verdict::Allow => Colour::Green,
                    Verdict::Deny => Colour::Red,
                },
            ),
            Line::Loss(record) => (loss(record), Colour::Yellow),
            Line::Tampering(record) => (tampering(record), Colour::Red),
        };
        self.columns
            .write(&row, self.paint, Some((VERDICT_COLUMN, colour)), out)
    }
}

fn flow(record: &Record) -> [String; 9] {
    [
        record.end.unwrap_or(record.start).time_of_day(),
        record.kind.name().to_owned(),
        record.verdict.name().to_owned(),
        end(&record.src),
        end(&record.dst),
        match record.icmp {
            Some(icmp) => format!("{} {}/{}", record.protocol, icmp.kind, icmp.code),
            None => record.protocol.to_string(),
        },
        // To the responder and back.
        format!("{}/{}", record.forward.bytes, record.reverse.bytes),
        process(record),
        why(record),
    ]
}

fn loss(record: &LossRecord) -> [String; 9] {
    let loss = &record.loss;
    let what = format!("{} lost at {}: {}", loss.count, loss.stage, loss.reason);
    remark(loss.last, "loss", what)
}

fn tampering(record: &TamperRecord) -> [String; 9] {
    let Tampering {
        how,
        what,
        count,
        at,
        restored,
    } = &record.tampering;
    let now = if *restored {
        "restored"
    } else {
        "not restored"
    };
    remark(
        *at,
        "tamper",
        format!("{what} {how} by others ({count}), {now}"),
    )
}

/// A row that is about no flow.
fn remark(at: WallTime, kind: &str, what: String) -> [String; 9] {
    let [time, kind, none] = [at.time_of_day(), kind.to_owned(), "-".to_owned()];
    let [verdict, source, destination, protocol, bytes, process] = [(); 6].map(|()| none.clone());
    [
        time,
        kind,
        verdict,
        source,
        destination,
        protocol,
        bytes,
        process,
        what,
    ]
}

fn end(end: &End) -> String {
    let End { ip, port, workload } = end;
    let host = match (workload, ip) {
        (Some(workload), _) => workload.to_string(),
        (None, Some(IpAddr::V6(ip))) if port.is_some() => format!("[{ip}]"),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => "?".to_owned(),
    };
    match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

fn process(record: &Record) -> String {
    let process = record.process.as_ref();
    process.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// The rule, or the reason where there was none.
fn decided(record: &Record) -> String {
    match (&record.policy, &record.drop_reason, &record.reason) {
        (Some(rule), _, _) => rule.to_string(),
        (None, Some(reason), _) | (None, None, Some(reason)) => reason.to_string(),
        (None, None, None) => "-".to_owned(),
    }
}

fn why(record: &Record) -> String {
    let decided = decided(record);
    let mut text = match record.end_reason {
        Some(reason) => format!("{decided} ({})", reason.name()),
        None => decided,
    };
    for WouldBe {
        view,
        verdict,
        policy,
        reason,
    } in &record.would_be
    {
        let by = policy
            .as_ref()
            .map_or_else(|| reason.to_string(), ToString::to_string);
        text = format!("{text}; {} would {}: {by}", view.name(), verdict.name());
    }
    text
}

#[cfg(test)]
mod tests;
