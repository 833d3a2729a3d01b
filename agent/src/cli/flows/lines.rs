//! Records from the agent, or from files.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use agent_policy::shown::shown;
use anyhow::Context as _;
use flate2::read::MultiGzDecoder;

use super::parquet;
use crate::{
    control::{
        FlowsRequest,
        client::{self, Conversation},
    },
    flow::{clock::WallTime, record::Line},
};

/// A time that is over, such as `90s`, `10m`, `2h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ago(Duration);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a number of seconds, minutes, hours or days, as in 90s, 10m, 2h or 7d")]
pub(super) struct InvalidAgo;

impl FromStr for Ago {
    type Err = InvalidAgo;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = text.chars().next_back().ok_or(InvalidAgo)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(InvalidAgo),
        };
        let number = text.strip_suffix(unit).ok_or(InvalidAgo)?;
        let number: u64 = number.parse().map_err(|_| InvalidAgo)?;
        let seconds = number.checked_mul(seconds).ok_or(InvalidAgo)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl Ago {
    fn begin(self) -> WallTime {
        let nanos = i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX);
        WallTime(WallTime::now().0.saturating_sub(nanos))
    }
}

/// Where records come from.
pub(super) enum Lines {
    Agent(Conversation, Option<WallTime>),
    Files(Box<dyn Iterator<Item = anyhow::Result<String>>>),
}

impl Lines {
    pub(super) fn of_agent(
        socket: &Path,
        request: FlowsRequest,
        since: Option<Ago>,
    ) -> anyhow::Result<Self> {
        let (since, last, follow) = (since.map(Ago::begin), request.last, request.follow);
        let Some(last) = last.filter(|_| since.is_some() && !follow) else {
            let conversation = client::flows(socket, request)?;
            return Ok(Self::Agent(conversation, since));
        };
        // The last ones of those within the time, which the agent does not know.
        let all = FlowsRequest {
            last: None,
            ..request
        };
        let all = Self::Agent(client::flows(socket, all)?, since);
        Self::last(all, last)
    }

    /// Plain, or packed by gzip, one file after another.
    pub(super) fn of_files(
        files: Vec<PathBuf>,
        request: FlowsRequest,
        since: Option<Ago>,
    ) -> anyhow::Result<Self> {
        let since = since.map(Ago::begin);
        let last = request.last;
        let lines = files.into_iter().flat_map(|path| read(&path));
        let wanted = lines.filter_map(move |line| match line {
            Ok((line, text)) => {
                let is_wanted =
                    since.is_none_or(|since| time(&line) >= since) && request.wants(&line);
                is_wanted.then_some(Ok(text))
            }
            Err(error) => Some(Err(error)),
        });
        let Some(last) = last else {
            return Ok(Self::Files(Box::new(wanted)));
        };
        Self::last(wanted, last)
    }

    fn last(
        mut wanted: impl Iterator<Item = anyhow::Result<String>>,
        last: usize,
    ) -> anyhow::Result<Self> {
        let kept = wanted.try_fold(VecDeque::new(), |mut kept, text| {
            kept.push_back(text?);
            if kept.len() > last {
                kept.pop_front();
            }
            anyhow::Ok(kept)
        })?;
        Ok(Self::Files(Box::new(kept.into_iter().map(Ok))))
    }

    /// Whether what there is so far has been read.
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::Agent(conversation, _) => conversation.is_read(),
            Self::Files(_) => false,
        }
    }
}

impl Iterator for Lines {
    type Item = anyhow::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Agent(conversation, None) => Some(conversation.next()?.map_err(Into::into)),
            Self::Agent(conversation, Some(since)) => loop {
                let text = match conversation.next()? {
                    Ok(text) => text,
                    Err(error) => return Some(Err(error.into())),
                };
                match Line::parse(&text) {
                    Ok(line) if time(&line) < *since => {}
                    Ok(_) => return Some(Ok(text)),
                    Err(error) => return Some(Err(error.into())),
                }
            },
            Self::Files(lines) => lines.next(),
        }
    }
}

/// More than any record has: a file without line ends is none of records.
const LONGEST: u64 = 1 << 20;

pub(super) type Read = Box<dyn Iterator<Item = anyhow::Result<(Line, String)>>>;

fn read(path: &Path) -> Read {
    if path.extension().is_some_and(|kind| kind == "parquet") {
        return parquet::read(path);
    }
    let name = path.display().to_string();
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) => return Box::new(std::iter::once(Err(error))),
    };
    let mut number = 0_u64;
    Box::new(std::iter::from_fn(move || {
        number += 1;
        let mut text = Vec::new();
        let read = file.by_ref().take(LONGEST).read_until(b'\n', &mut text);
        match read.with_context(|| format!("cannot read {name}")) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        // What is no UTF-8 is half a letter, or no record.
        let text = String::from_utf8_lossy(&text);
        let is_whole = text.ends_with('\n') || text.len() as u64 >= LONGEST;
        let text = text.trim_end_matches('\n').to_owned();
        match Line::parse(&text) {
            Ok(line) => Some(Ok((line, text))),
            Err(_) if !is_whole => {
                eprintln!(
                    "{}:{number}: half a record, which is left out",
                    shown(&name)
                );
                None
            }
            Err(error) => {
                let told = format!("{name}:{number}: not a flow record");
                Some(Err(anyhow::Error::from(error).context(told)))
            }
        }
    }))
}

fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let is_packed = path.extension().is_some_and(|kind| kind == "gz");
    Ok(if is_packed {
        Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))
    } else {
        Box::new(BufReader::new(file))
    })
}

/// Up to which a record counts.
fn time(line: &Line) -> WallTime {
    match line {
        Line::Flow(record) => record.end.unwrap_or(record.start),
        Line::Loss(record) => record.loss.last,
        Line::Tampering(record) => record.tampering.at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        let seconds = |text: &str| text.parse::<Ago>().map(|ago| ago.0.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("2h"), Ok(7200));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in [
            "",
            "s",
            "10",
            "10w",
            "-1s",
            "1.5h",
            "é",
            "99999999999999999999d",
        ] {
            assert_eq!(seconds(wrong), Err(InvalidAgo), "{wrong}");
        }
    }
}
