//! Where a collector is.

use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::client::{LOGS, METRICS};

/// How messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/1.1, a request each.
    #[default]
    Http,
    /// HTTP/2.
    Grpc,
}

/// `http://HOST[:PORT]` or `https://HOST[:PORT]`, for HTTP with a path, too. Prints as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    text: String,
    pub(super) is_tls: bool,
    /// With brackets and port, as it was written.
    pub(super) authority: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Without a slash at its end.
    path: String,
}

impl Endpoint {
    /// # Errors
    ///
    /// What was expected instead.
    pub(crate) fn parse(text: &str, protocol: Protocol) -> Result<Self, &'static str> {
        let form = "a URL, as in http://collector.example:4318 or https://collector.example:4318";
        let uri: Uri = text.parse().map_err(|_| form)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(form),
        };
        let authority = uri.authority().ok_or(form)?;
        if authority.as_str().contains('@') {
            return Err(
                "a URL without a name and a password: put what proves who it is into `headers_file`",
            );
        }
        if text.contains(['?', '#']) {
            return Err("a URL without a query and a fragment");
        }
        let host = authority.host();
        let default = if is_tls { 443 } else { 80 };
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => Some(default),
            Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()),
            None => None,
        };
        let port = port.filter(|port| *port != 0).ok_or(form)?;
        let host = bare(host);
        if host.is_empty() {
            return Err(form);
        }
        let path = uri.path().trim_end_matches('/');
        if path.ends_with(LOGS.path) || path.ends_with(METRICS.path) {
            return Err("a URL without `/v1/logs`, which is added");
        }
        if protocol == Protocol::Grpc && !path.is_empty() {
            return Err("a URL without a path, as `grpc` has its own");
        }
        Ok(Self {
            is_tls,
            authority: authority.as_str().to_owned(),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
            text: text.to_owned(),
        })
    }

    /// Where a request goes, by what is below the endpoint.
    pub(super) fn path_of(&self, below: &str) -> String {
        format!("{}{below}", self.path)
    }

    /// Of a method of gRPC.
    pub(super) fn url_of(&self, method: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{}{method}", self.authority)
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }
}

/// An address of IPv6 without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|it| it.strip_suffix(']'))
        .unwrap_or(host)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_url_of_http() {
        let parse = |text| Endpoint::parse(text, Protocol::Http).unwrap();
        let plain = parse("http://collector.example:4318");
        assert_eq!((&*plain.host, plain.port), ("collector.example", 4318));
        assert_eq!(
            (plain.is_tls, &*plain.path_of("/v1/logs")),
            (false, "/v1/logs")
        );
        let whole = parse("https://[::1]/otlp/");
        assert_eq!((&*whole.host, whole.port), ("::1", 443));
        assert_eq!(
            (whole.is_tls, &*whole.path_of("/v1/logs")),
            (true, "/otlp/v1/logs")
        );
        assert_eq!(&*whole.authority, "[::1]");
        for bad in [
            "",
            "collector.example:4318",
            "ftp://a",
            "http://",
            "http:///path",
            "http://:4318",
            "http://a:0",
            "http://a:",
            "http://a:65536",
            "http://a:b",
            "http://user:secret@a",
            "http://a?b",
            "http://a/#b",
            "http://a/v1/logs",
            "http://a b",
            "/v1/logs",
        ] {
            assert!(Endpoint::parse(bad, Protocol::Http).is_err(), "{bad}");
        }
        assert!(Endpoint::parse("http://a/b", Protocol::Grpc).is_err());
        let method = parse("https://a:1").url_of("/b.C/D");
        assert_eq!(method, "https://a:1/b.C/D");
    }
}
