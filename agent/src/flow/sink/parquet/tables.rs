//! The way out: which draft a line goes to, and what has become of it.

use std::{borrow::Cow, io, mem, path::PathBuf, time::Duration};

use anyhow::ensure;
use tracing::warn;

use super::{
    ParquetSettings,
    columns::{node, time},
    draft::{Draft, Tally, Trouble},
    folder::{Folder, Hour},
};
use crate::flow::{
    record::Line,
    sink::output::{Failure, Output, Settled},
};

/// Hours that are written at a time. Records come nearly in order; those of a flow that ends silently have the time of
/// its last packet, at most two and a quarter hours ago.
const OPEN: usize = 4;

#[derive(Debug)]
pub(super) struct Tables {
    settings: ParquetSettings,
    folder: Folder,
    drafts: Vec<Draft>,
    /// Losses, and what was tampered with, of drafts that came to nothing.
    carried: Vec<Line>,
    /// What is to be told of lines that were taken.
    settled: Settled,
}

/// Of those that are carried on.
const CARRIED: usize = 256;

impl Output for Tables {
    fn write(&mut self, lines: &[Cow<'_, Line>]) -> Result<Settled, Failure> {
        self.retry().map_err(Failure::Broken)?;
        let carried = mem::take(&mut self.carried);
        let carried: Vec<Cow<'_, Line>> = carried.into_iter().map(Cow::Owned).collect();
        let mut taken = 0;
        for lines in [&carried, lines] {
            for lines in lines.chunk_by(|one, other| hour(one) == hour(other)) {
                match self.place(lines) {
                    Ok(()) => taken += 1,
                    Err(error) if taken == 0 => {
                        self.carry(carried.iter().map(|line| line.as_ref().clone()));
                        return Err(Failure::Broken(error));
                    }
                    // Those before them are in.
                    Err(error) => {
                        warn!("flow records cannot be written: {error:#}");
                        self.lose(Tally::of(lines));
                    }
                }
            }
        }
        self.relieve();
        Ok(mem::take(&mut self.settled))
    }

    fn tick(&mut self) -> Settled {
        self.drop_gone();
        // It is logged, and told, when lines come.
        let _is_stuck = self.retry().is_err();
        self.publish_due();
        mem::take(&mut self.settled)
    }

    fn finish(&mut self) -> Settled {
        for mut draft in mem::take(&mut self.drafts) {
            match draft.publish(&self.folder) {
                Ok(()) => self.export(draft.tally()),
                Err(Trouble::Stuck(error)) => self.give_up(draft, &error.into()),
                Err(Trouble::Lost(error)) => self.give_up(draft, &error),
            }
        }
        self.folder.retain(self.settings.keep_bytes);
        mem::take(&mut self.settled)
    }

    fn late_loss(&self) -> &'static str {
        "write-failed"
    }
}

impl Tables {
    pub(super) fn open(settings: ParquetSettings) -> io::Result<Self> {
        let folder = Folder::open(settings.folder.clone())?;
        folder.retain(settings.keep_bytes);
        Ok(Self {
            settings,
            folder,
            drafts: Vec::new(),
            carried: Vec::new(),
            settled: Settled::default(),
        })
    }

    #[cfg(test)]
    pub(super) fn drafts(&mut self) -> &mut [Draft] {
        &mut self.drafts
    }

    /// Puts lines of one hour into its draft.
    ///
    /// # Errors
    ///
    /// There is none, and none of the lines is taken.
    fn place(&mut self, lines: &[Cow<'_, Line>]) -> anyhow::Result<()> {
        let Some(first) = lines.first() else {
            return Ok(());
        };
        let hour = hour(first);
        let mut drafts = self.drafts.iter_mut();
        let draft = if let Some(draft) = drafts.find(|it| it.hour == hour && !it.is_ended()) {
            draft
        } else {
            if self.drafts.len() >= OPEN {
                self.publish_one()?;
            }
            let draft = Draft::begin(&mut self.folder, hour, node(first))?;
            self.drafts.push_mut(draft)
        };
        for line in lines {
            draft.push(line);
        }
        Ok(())
    }

    /// Tries again what waits for the disk.
    ///
    /// # Errors
    ///
    /// It still waits, and there is no room for more.
    fn retry(&mut self) -> anyhow::Result<()> {
        let mut error = None;
        self.each(Draft::is_stuck, |draft, folder| {
            let tried = if draft.is_ended() {
                draft.publish(folder).map(|()| true)
            } else {
                draft.relieve().map(|()| false)
            };
            if let Err(Trouble::Stuck(it)) = &tried {
                error = Some(anyhow::anyhow!("{it}"));
            }
            tried
        });
        error.map_or(Ok(()), Err)
    }

    fn relieve(&mut self) {
        self.each(|_| true, |draft, _| draft.relieve().map(|()| false));
        self.publish_due();
    }

    fn publish_due(&mut self) {
        let (rows, age) = (
            self.settings.rows,
            Duration::from_secs(self.settings.seconds),
        );
        self.each(
            |draft| draft.is_due(rows, age) && !draft.is_ended(),
            |draft, folder| draft.publish(folder).map(|()| true),
        );
    }

    /// The one that lines went to longest ago makes room.
    fn publish_one(&mut self) -> anyhow::Result<()> {
        let Some(touched) = self.drafts.iter().map(|it| it.touched).min() else {
            return Ok(());
        };
        self.each(
            |draft| draft.touched == touched,
            |draft, folder| draft.publish(folder).map(|()| true),
        );
        ensure!(
            self.drafts.len() < OPEN,
            "files of {OPEN} hours wait for the disk"
        );
        Ok(())
    }

    fn drop_gone(&mut self) {
        self.each(Draft::is_gone, |_, _| {
            Err(Trouble::Lost(anyhow::anyhow!(
                "its file was removed by somebody else"
            )))
        });
    }

    /// Does it with each of `which`; true means that it is a file now.
    fn each(
        &mut self,
        which: impl Fn(&Draft) -> bool,
        mut what: impl FnMut(&mut Draft, &Folder) -> Result<bool, Trouble>,
    ) {
        let mut is_published = false;
        for mut draft in mem::take(&mut self.drafts) {
            if !which(&draft) {
                self.drafts.push(draft);
                continue;
            }
            match what(&mut draft, &self.folder) {
                Ok(true) => {
                    is_published = true;
                    self.export(draft.tally());
                }
                Ok(false) | Err(Trouble::Stuck(_)) => self.drafts.push(draft),
                Err(Trouble::Lost(error)) => self.give_up(draft, &error),
            }
        }
        if is_published {
            self.folder.retain(self.settings.keep_bytes);
        }
    }

    fn export(&mut self, tally: &Tally) {
        self.settled.exported += tally.records.iter().sum::<u64>();
    }

    fn give_up(&mut self, draft: Draft, error: &anyhow::Error) {
        let tally = draft.discard();
        let lost = tally.lines;
        warn!(path = %self.settings.folder.display(), lost, "a file of flow records is lost: {error:#}");
        self.lose(tally);
    }

    fn lose(&mut self, tally: Tally) {
        for (sum, count) in self.settled.lost.iter_mut().zip(tally.records) {
            *sum += count;
        }
        self.carry(tally.remarks);
    }

    fn carry(&mut self, remarks: impl IntoIterator<Item = Line>) {
        let room = CARRIED.saturating_sub(self.carried.len());
        self.carried.extend(remarks.into_iter().take(room));
    }
}

fn hour(line: &Line) -> Hour {
    Hour::of(time(line))
}

/// Lines that are read at once.
const BATCH: usize = 1024;

pub(super) fn convert(
    folder: PathBuf,
    lines: impl Iterator<Item = anyhow::Result<Line>>,
) -> anyhow::Result<u64> {
    let mut tables = Tables::open(ParquetSettings {
        keep_bytes: u64::MAX,
        ..ParquetSettings::to(folder)
    })?;
    let (mut count, mut lost) = (0, 0);
    let mut settle = |settled: Settled| lost += settled.lost.iter().sum::<u64>();
    let mut lines = lines.peekable();
    let mut batch = Vec::with_capacity(BATCH);
    let mut read = Ok(());
    while lines.peek().is_some() && read.is_ok() {
        for line in lines.by_ref().take(BATCH) {
            match line {
                Ok(line) => batch.push(Cow::Owned(line)),
                Err(error) => {
                    read = Err(error);
                    break;
                }
            }
        }
        count += batch.len() as u64;
        match tables.write(&batch) {
            Ok(settled) => settle(settled),
            // What has been taken is finished all the same.
            Err(Failure::Broken(error) | Failure::Away(error) | Failure::Refused(error)) => {
                read = Err(error);
            }
        }
        batch.clear();
    }
    settle(tables.finish());
    ensure!(lost == 0, "{lost} records could not be written");
    read.map(|()| count)
}
