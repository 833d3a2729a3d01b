//! OTLP over HTTP: a POST for each batch, and what its status says.

use std::time::Duration;

use http::{
    HeaderMap, Request, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Bytes;
use prost::Message as _;

use super::{
    Compression, OtlpSettings, agent,
    answer::{Answer, shown},
    client::Signal,
    message::Status,
    packed,
    wire::Reply,
};

const PROTOBUF: &str = "application/x-protobuf";

/// # Errors
///
/// The endpoint cannot be a header's value.
pub(super) fn request(
    settings: &OtlpSettings,
    signal: Signal,
    headers: HeaderMap,
    message: Vec<u8>,
) -> anyhow::Result<Request<Full<Bytes>>> {
    let endpoint = &settings.endpoint;
    let mut request = Request::post(endpoint.path_of(signal.path))
        .header(HOST, &endpoint.authority)
        .header(USER_AGENT, agent())
        .header(CONTENT_TYPE, PROTOBUF);
    let body = match settings.compression {
        Compression::None => message,
        Compression::Gzip => {
            request = request.header(CONTENT_ENCODING, "gzip");
            packed(&message)?
        }
    };
    let mut request = request.body(Full::from(body))?;
    request.headers_mut().extend(headers);
    Ok(request)
}

pub(super) fn judge(reply: &Reply) -> Answer {
    if reply.status.is_success() {
        // What is in another form says nothing of records.
        let body = Some(&[][..]).filter(|_| !is_protobuf(reply));
        return Answer::of_success(body.or(reply.body.as_deref()));
    }
    let why = why(reply);
    match reply.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Later {
            why,
            rest: rest(reply),
        },
        // A redirection, too: records go where the settings say, and nowhere else.
        _ => Answer::Never(why),
    }
}

fn is_protobuf(reply: &Reply) -> bool {
    let kind = reply.headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(PROTOBUF.as_bytes()))
}

fn why(reply: &Reply) -> String {
    let body = reply.body.as_deref().filter(|_| is_protobuf(reply));
    let said = body.and_then(|body| Status::decode(body).ok());
    match said.filter(|said| !said.message.is_empty()) {
        Some(said) => format!("{}: {}", reply.status, shown(&said.message)),
        None => reply.status.to_string(),
    }
}

/// In seconds; a date is for who trusts the other's clock.
fn rest(reply: &Reply) -> Option<Duration> {
    let after = reply.headers.get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(after.trim().parse().ok()?))
}
