//! `ringfence flows`: records of the running agent, as they were and as they come, or of files.

mod csv;
mod lines;
mod parquet;
mod quiet;
mod table;
mod top;

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::{bail, ensure};
use clap::{Args, Subcommand, ValueEnum};

pub(super) use self::table::decided;
use self::{
    csv::CsvWriter,
    lines::{Ago, Lines},
    table::FlowTable,
    top::TopArgs,
};
use super::output::Paint;
use crate::{config::DEFAULT_SOCKET, control::FlowsRequest, exit::Answer, flow::record::Line};

/// Bytes of lines that are written at once.
const AT_ONCE: usize = 64 * 1024;

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    request: FlowsRequest,
    /// Only those of this time up to now, such as 90s, 10m, 2h or 7d.
    #[arg(long, value_name = "TIME", global = true)]
    since: Option<Ago>,
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value_t,
        value_enum,
        global = true
    )]
    output: FlowFormat,
    /// Read this file of records, also one that is packed by gzip, or of Parquet (`.parquet`), and ask no agent. May be
    /// repeated, the oldest first.
    #[arg(long, value_name = "PATH", global = true)]
    file: Vec<PathBuf>,
    /// Write the records of files to files of Parquet below this folder, by date and hour, instead of showing them.
    #[arg(
        long,
        value_name = "FOLDER",
        requires = "file",
        conflicts_with = "output"
    )]
    to_parquet: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum FlowFormat {
    /// For people.
    #[default]
    #[value(alias = "human")]
    Table,
    /// For people with room: dates, addresses, packets, flags, users and ids too.
    Wide,
    /// For machines: records as they are exported, one a line.
    Json,
    /// For spreadsheets (RFC 4180), with a header.
    Csv,
}

pub(crate) fn run(args: FlowsArgs) -> anyhow::Result<Answer> {
    let FlowsArgs {
        request,
        since,
        output,
        file,
        to_parquet,
        socket,
        sums,
    } = args;
    if let Some(key) = request.contradiction() {
        bail!("--label asks for two values of {key:?}, and a workload has one");
    }
    if sums.is_some() && request.follow {
        bail!("`flows top` adds up what there is, without --follow; `ringfence top` goes on");
    }
    let mut lines = if file.is_empty() {
        Lines::of_agent(&socket, request, since)?
    } else {
        Lines::of_files(file, request, since)?
    };
    if let Some(folder) = to_parquet {
        ensure!(
            sums.is_none(),
            "`--to-parquet` writes records, and `top` adds them up: one of them"
        );
        parquet::write(folder, lines)?;
        return Ok(Answer::Yes);
    }
    let mut out = io::stdout().lock();
    match (sums, output) {
        (Some(Sums::Top(args)), output) => top::run(&args, lines, output, &mut out)?,
        (None, FlowFormat::Json) => json(&mut lines, &mut out)?,
        (None, FlowFormat::Csv) => csv(&mut lines, &mut out)?,
        (None, FlowFormat::Table) => {
            table(lines, FlowTable::narrow(Paint::of_stdout()), &mut out)?;
        }
        (None, FlowFormat::Wide) => table(lines, FlowTable::wide(Paint::of_stdout()), &mut out)?,
    }
    Ok(Answer::Yes)
}

/// Lines that come together are written together: each by itself would wake who reads them.
fn json(lines: &mut Lines, out: &mut impl Write) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(AT_ONCE, out);
    while let Some(line) = lines.next() {
        writeln!(out, "{}", quiet::json(&line?))?;
        if lines.is_read() {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(())
}

fn csv(lines: &mut Lines, out: &mut impl Write) -> anyhow::Result<()> {
    let mut out = CsvWriter::of_records(out)?;
    while let Some(line) = lines.next() {
        out.record(&Line::parse(&line?)?)?;
        if lines.is_read() {
            out.flush()?;
        }
    }
    out.flush()?;
    Ok(())
}

fn table<const N: usize>(
    lines: Lines,
    mut table: FlowTable<N>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    table.write_header(out)?;
    for line in lines {
        table.write(&Line::parse(&line?)?, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
