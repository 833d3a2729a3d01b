//! OTLP over gRPC: a call for each batch, and what its status says.

use std::time::Duration;

use anyhow::Context as _;
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{
    HeaderMap, Request, StatusCode,
    header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Bytes;
use prost::Message as _;

use super::{
    Compression, OtlpSettings, agent,
    answer::{Answer, shown},
    client::Signal,
    message::{RetryInfo, Status},
    packed,
    wire::Reply,
};

/// With or without what fills it up: both are met.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// # Errors
///
/// The endpoint is no URL, or the message is larger than gRPC has room for.
pub(super) fn request(
    settings: &OtlpSettings,
    signal: Signal,
    headers: HeaderMap,
    message: Vec<u8>,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let patience = settings.timeout_seconds;
    let mut request = Request::post(settings.endpoint.url_of(signal.method))
        .header(USER_AGENT, agent())
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header("grpc-timeout", format!("{patience}S"));
    let (flag, message) = match settings.compression {
        Compression::None => (0, message),
        Compression::Gzip => {
            request = request.header("grpc-encoding", "gzip");
            (1, packed(&message)?)
        }
    };
    let length = u32::try_from(message.len()).context("too large a request")?;
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(flag);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&message);
    let mut request = request.body(Full::from(frame))?;
    request.headers_mut().extend(headers);
    Ok(request)
}

pub(super) fn judge(reply: &Reply) -> Answer {
    match reply.status {
        StatusCode::OK => {}
        // What stands before a server answers for it, and knows nothing of gRPC.
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            return Answer::Later {
                why: reply.status.to_string(),
                rest: None,
            };
        }
        other => return Answer::Never(other.to_string()),
    }
    // At the beginning there is one where nothing else follows.
    let [code, message, details] = ["grpc-status", "grpc-message", "grpc-status-details-bin"]
        .map(|name| reply.trailers.get(name).or(reply.headers.get(name)));
    let code = code.and_then(|code| code.to_str().ok()?.parse().ok());
    let why = || {
        let said = message.map(HeaderValue::as_bytes).unwrap_or_default();
        let code = code.map_or("no status".to_owned(), |code: u32| {
            format!("status {code} of gRPC")
        });
        format!("{code}: {}", shown(&String::from_utf8_lossy(said)))
    };
    match code {
        Some(OK) => Answer::of_success(reply.body.as_deref().and_then(unframed)),
        Some(RESOURCE_EXHAUSTED) => match details.and_then(rest) {
            Some(rest) => later(why(), Some(rest)),
            // A request that is too large, for one.
            None => Answer::Never(why()),
        },
        // What comes behind an answer that is too long is not read: it would be the same the next time.
        None if reply.body.is_none() => Answer::Never("too long an answer".to_owned()),
        // The far end has ended in the middle.
        None => later(why(), None),
        Some(code) if LATER.contains(&code) => later(why(), details.and_then(rest)),
        Some(_) => Answer::Never(why()),
    }
}

const OK: u32 = 0;
const CANCELLED: u32 = 1;
const DEADLINE_EXCEEDED: u32 = 4;
const RESOURCE_EXHAUSTED: u32 = 8;
const ABORTED: u32 = 10;
const OUT_OF_RANGE: u32 = 11;
const UNAVAILABLE: u32 = 14;
const DATA_LOSS: u32 = 15;

const LATER: [u32; 6] = [
    CANCELLED,
    DEADLINE_EXCEEDED,
    ABORTED,
    OUT_OF_RANGE,
    UNAVAILABLE,
    DATA_LOSS,
];

fn later(why: String, rest: Option<Duration>) -> Answer {
    Answer::Later { why, rest }
}

/// The one message of a body that is not packed: nothing else was asked for.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let (head, message) = body.split_first_chunk::<5>()?;
    let [flag, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    (flag == 0 && length == message.len()).then_some(message)
}

/// How long it asks to be left alone.
fn rest(details: &HeaderValue) -> Option<Duration> {
    let details = BASE64.decode(details.as_bytes()).ok()?;
    let status = Status::decode(&*details).ok()?;
    let mut details = status.details.iter();
    let info = details.find(|it| it.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay;
    let delay = delay.unwrap_or_default();
    let seconds = u64::try_from(delay.seconds).unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).unwrap_or_default();
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}
