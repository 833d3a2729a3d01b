//! What all ways out have in common.

use std::{borrow::Cow, io, sync::Arc};

use super::{
    Destination, Target, file::Lines, format::Format, ipfix::Ipfix, otlp::Otlp, parquet,
    syslog::Syslog,
};
use crate::flow::record::{Kind, Line};

/// A way out. It has a thread, and may take its time, but within bounds: seconds.
pub(super) trait Output: Send {
    /// Hands `lines` over, all of them or none, as far as the far end lets one know.
    ///
    /// # Errors
    ///
    /// Of what is to become of the lines, see [`Failure`].
    fn write(&mut self, lines: &[Cow<'_, Line>]) -> Result<Settled, Failure>;

    /// Called about every second, whatever comes.
    fn tick(&mut self) -> Settled {
        Settled::default()
    }

    /// Nothing comes any more.
    fn finish(&mut self) -> Settled {
        Settled::default()
    }

    /// Why records are lost that it had taken, as a loss record says it.
    fn late_loss(&self) -> &'static str {
        "refused"
    }
}

/// What has become of records by now: of those handed over last, or of some before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) exported: u64,
    /// By [`Kind`].
    pub(super) lost: [u64; Kind::ALL.len()],
}

/// Why lines were not handed over.
#[derive(Debug)]
pub(super) enum Failure {
    /// They are lost, and so is what comes in the next second.
    Broken(anyhow::Error),
    /// They are kept, and offered again: the far end may come back.
    Away(anyhow::Error),
    /// They would not be taken the next time either. What follows them may be.
    Refused(anyhow::Error),
}

impl Settled {
    /// That they are out.
    pub(super) fn exported(lines: &[Cow<'_, Line>]) -> Self {
        let records = lines.iter().filter(|line| line.flow().is_some()).count();
        Self {
            exported: records as u64,
            ..Self::default()
        }
    }

    /// That one of those exported is not, and never will be.
    pub(super) fn lose(&mut self, line: &Line) {
        let Some(record) = line.flow() else { return };
        self.exported = self.exported.saturating_sub(1);
        if let Some(lost) = self.lost.get_mut(record.kind as usize) {
            *lost += 1;
        }
    }
}

/// # Errors
///
/// It cannot be opened: a mistake that is better told at the start than in a log. A far end that is away is none.
pub(super) fn open(destination: &Destination, node: &Arc<str>) -> io::Result<Box<dyn Output>> {
    Ok(match destination {
        Destination::Plain(target) => {
            Box::new(Lines::open(target.clone(), None, Format::default())?)
        }
        Destination::File(file) => {
            let target = Target::File(file.path.clone());
            Box::new(Lines::open(target, Some(file.rotation), file.format)?)
        }
        Destination::Syslog(syslog) => Box::new(Syslog::new(syslog.clone(), node)),
        Destination::Ipfix(ipfix) => Box::new(Ipfix::new(ipfix.clone())),
        Destination::Otlp(otlp) => Box::new(Otlp::open(otlp.clone())?),
        Destination::Parquet(settings) => parquet::open(settings)?,
    })
}
