//! What a collector says about records, over either protocol.

use std::time::Duration;

use prost::Message as _;

use super::message::ExportLogsResponse;

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// But for so many records, and with something to say about it.
    Taken { rejected: u64, message: String },
    /// Later it may be taken, after some rest if it says so.
    Later { why: String, rest: Option<Duration> },
    /// It will not be taken.
    Never(String),
}

/// Letters of what a far end says that are shown.
const SHOWN: usize = 200;

impl Answer {
    /// That of a collector that says it has succeeded. What cannot be read does not change that.
    pub(super) fn of_success(body: Option<&[u8]>) -> Self {
        let response = body.map(ExportLogsResponse::decode);
        let (rejected, message) = match response {
            Some(Ok(response)) => {
                let partial = response.partial_success.unwrap_or_default();
                (partial.rejected_log_records, partial.error_message)
            }
            Some(Err(_)) | None => (0, "an answer that cannot be read".to_owned()),
        };
        Self::Taken {
            rejected: u64::try_from(rejected).unwrap_or_default(),
            message: shown(&message),
        }
    }
}

/// What others say, for a log: not long, and without what would look like more than it is.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect()
}
