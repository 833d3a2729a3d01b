//! Values of labels.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use prometheus_client::encoding::{
    EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
};

/// Of a name, as much is a label: no object of Kubernetes has a longer one, with its namespace and kind.
const LONGEST: usize = 400;

/// A value in which there may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Text(Arc<str>);

impl Text {
    pub(super) fn new(text: &str) -> Self {
        let cut = text.floor_char_boundary(LONGEST);
        Self(text.get(..cut).unwrap_or_default().into())
    }
}

/// Backslashes, quotes and ends of lines are what `OpenMetrics` has escapes for.
impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(['\\', '"', '\n']) {
            let last = part.chars().next_back().unwrap_or_default();
            let escape = match last {
                '\\' => "\\\\",
                '"' => "\\\"",
                '\n' => "\\n",
                _ => {
                    encoder.write_str(part)?;
                    continue;
                }
            };
            let plain = part.len().saturating_sub(last.len_utf8());
            encoder.write_str(part.get(..plain).unwrap_or_default())?;
            encoder.write_str(escape)?;
        }
        Ok(())
    }
}

/// Labels of one metric, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Labels<const N: usize>(pub(super) [(&'static str, Text); N]);

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for label in &self.0 {
            prometheus_client::encoding::EncodeLabel::encode(label, encoder.encode_label())?;
        }
        Ok(())
    }
}
