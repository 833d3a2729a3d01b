//! What a record becomes for one sink.

use std::{borrow::Cow, io, sync::Arc};

use super::{
    choice::Choice,
    privacy::{Privacy, Pseudonyms},
};
use crate::flow::record::Line;

#[derive(Debug)]
pub(super) struct Shape {
    choice: Choice,
    pseudonyms: Option<Pseudonyms>,
}

impl Shape {
    /// # Errors
    ///
    /// The key of pseudonyms cannot be read.
    pub(super) fn new(choice: Choice, privacy: Privacy) -> io::Result<Self> {
        let pseudonyms = if privacy.is_none() {
            None
        } else {
            Some(Pseudonyms::new(privacy)?)
        };
        Ok(Self { choice, pseudonyms })
    }

    /// Most sinks take lines as they are, and no copy is made.
    pub(super) fn of<'l>(&self, line: &'l Line) -> Cow<'l, Line> {
        let sampling = self.choice.sampling(line);
        let Line::Flow(record) = line else {
            return self.of_no_flow(line);
        };
        if sampling.is_none() && self.pseudonyms.is_none() {
            return Cow::Borrowed(line);
        }
        let mut record = record.clone();
        if sampling.is_some() {
            record.sampling = sampling;
        }
        if let Some(pseudonyms) = &self.pseudonyms {
            pseudonyms.put_on(&mut record);
        }
        Cow::Owned(Line::Flow(record))
    }

    /// As its lines are to name it.
    pub(super) fn node(&self, mut node: Arc<str>) -> Arc<str> {
        if let Some(pseudonyms) = &self.pseudonyms {
            pseudonyms.put_on_node(&mut node);
        }
        node
    }

    fn of_no_flow<'l>(&self, line: &'l Line) -> Cow<'l, Line> {
        let Some(pseudonyms) = &self.pseudonyms else {
            return Cow::Borrowed(line);
        };
        let mut line = line.clone();
        match &mut line {
            Line::Flow(_) => {}
            Line::Loss(loss) => pseudonyms.put_on_node(&mut loss.node),
            Line::Tampering(tampering) => {
                pseudonyms.put_on_node(&mut tampering.node);
                pseudonyms.put_on_tampering(&mut tampering.tampering);
            }
        }
        Cow::Owned(line)
    }
}
