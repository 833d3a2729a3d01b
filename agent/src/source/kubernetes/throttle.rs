//! What the API does not answer for now is asked again: later, and not by all agents at once.
//!
//! Not left to the library, which comes back to the second when it was told to, with every other agent, fifteen times.

use std::time::Duration;

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use kube::client::Body;
use tokio::time::Sleep;
use tower::{BoxError, retry::Policy};

use super::pause::jittered;

/// Before the first time; each time twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// Longer is not waited, whatever the server says: who watches shows what is amiss, and tries again itself.
const LONGEST: Duration = Duration::from_secs(30);
/// A list of many pages is not begun anew for one that is refused a few times.
const TIMES: u32 = 5;

#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    tried: u32,
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Patience {
    type Future = Sleep;

    fn retry(
        &mut self,
        _request: &mut Request<Body>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Sleep> {
        let answer = result.as_ref().ok()?;
        let pause = pause(answer, self.tried)?;
        self.tried += 1;
        tracing::debug!(status = %answer.status(), ?pause, "the API is asked again");
        Some(tokio::time::sleep(pause))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut again = Request::new(request.body().try_clone()?);
        again.method_mut().clone_from(request.method());
        again.uri_mut().clone_from(request.uri());
        again.headers_mut().clone_from(request.headers());
        again.extensions_mut().clone_from(request.extensions());
        Some(again)
    }
}

/// Until it is asked again, if it is.
fn pause<B>(answer: &Response<B>, tried: u32) -> Option<Duration> {
    let is_for_now = matches!(
        answer.status(),
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !is_for_now || tried >= TIMES {
        return None;
    }
    let told = answer.headers().get(RETRY_AFTER);
    let told = told.and_then(|told| told.to_str().ok()?.parse().ok());
    let told = Duration::from_secs(told.unwrap_or(0));
    let own = PAUSE * 2_u32.pow(tried.min(TIMES));
    Some(jittered(told.max(own).min(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, told: Option<&str>) -> Response<()> {
        let mut answer = Response::builder().status(status);
        if let Some(told) = told {
            answer = answer.header(RETRY_AFTER, told);
        }
        answer.body(()).unwrap()
    }

    #[test]
    fn a_server_that_says_when_is_not_asked_before_and_none_makes_an_agent_wait_for_long() {
        let within = |pause: Option<Duration>, least: u64| {
            let least = Duration::from_millis(least);
            pause.is_some_and(|pause| pause >= least && pause <= 2 * least)
        };
        assert!(within(pause(&answer(429, Some("7")), 0), 7_000));
        assert!(within(pause(&answer(429, Some("86400")), 0), 30_000));
        assert!(within(pause(&answer(503, None), 0), 500));
        assert!(within(pause(&answer(503, Some("?")), 3), 4_000));
        assert_eq!(pause(&answer(429, Some("1")), TIMES), None);
        assert_eq!(pause(&answer(500, Some("1")), 0), None);
        assert_eq!(pause(&answer(200, None), 0), None);
    }
}
