//! A collector of OpenTelemetry, as the settings name it.

use std::{collections::BTreeMap, path::PathBuf};

use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::Reader;
use crate::flow::sink::{
    Compression,
    otlp::{Endpoint, Headers, OtlpSettings, Protocol},
    remote::Tls,
};

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOtlp {
    endpoint: Spanned<String>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
    headers_file: Option<Spanned<PathBuf>>,
    tls: Option<Spanned<Tls>>,
    compression: Option<Compression>,
    timeout_seconds: Option<Spanned<u64>>,
    metrics: Option<Spanned<bool>>,
}

/// For a whole exchange. An agent that ends waits for one.
const PATIENCE: u8 = 10;
const LONGEST: u8 = 30;

impl std::fmt::Debug for RawOtlp {
    /// Headers have secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawOtlp")
            .field("endpoint", &self.endpoint.value)
            .finish_non_exhaustive()
    }
}

impl RawOtlp {
    /// `None` where it is refused.
    pub(super) fn check(self, hides_node: bool, reader: &mut Reader) -> Option<OtlpSettings> {
        let Self {
            endpoint: written,
            protocol,
            headers,
            headers_file,
            tls,
            compression,
            timeout_seconds,
            metrics,
        } = self;
        let endpoint = Endpoint::parse(&written.value, protocol);
        let endpoint = endpoint.map_err(|expected| {
            let seen = without_secret(&written.value);
            reader.refuse(&written.referenced, "sinks.otlp.endpoint", &seen, expected);
        });
        let endpoint = endpoint.ok();
        if let Some(metrics) = metrics.as_ref().filter(|it| it.value && hides_node) {
            let expected = "false where `privacy` hides the node: metrics are of a node";
            reader.refuse(&metrics.referenced, "sinks.otlp.metrics", "true", expected);
        }
        let is_tls = endpoint.as_ref().is_none_or(Endpoint::is_tls);
        let settings = OtlpSettings {
            protocol,
            headers: check_headers(headers, reader),
            headers_file: headers_file.map(|path| check_path(path, reader)),
            tls: tls.map_or_else(Tls::default, |tls| check_tls(tls, is_tls, reader)),
            compression: compression.unwrap_or(Compression::None),
            metrics: metrics.is_some_and(|metrics| metrics.value),
            timeout_seconds: check_patience(timeout_seconds, reader),
            endpoint: endpoint?,
        };
        Some(settings)
    }
}

/// Of a URL with a name and a password, what follows them, and no query: there are keys in some.
fn without_secret(url: &str) -> String {
    let (url, query) = match url.split_once(['?', '#']) {
        Some((url, _)) => (url, "…"),
        None => (url, ""),
    };
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}{query}"),
        None => format!("{url}{query}"),
    }
}

fn check_headers(written: BTreeMap<String, Spanned<String>>, reader: &mut Reader) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in written {
        if let Err(expected) = headers.insert(&name, &value.value) {
            let seen = format!("{name}: …");
            reader.refuse(&value.referenced, "sinks.otlp.headers", &seen, &expected);
        }
    }
    headers
}

fn check_path(written: Spanned<PathBuf>, reader: &mut Reader) -> PathBuf {
    if !written.value.is_absolute() {
        let seen = written.value.display().to_string();
        let expected = "a path from the root on";
        let setting = "sinks.otlp.headers_file";
        reader.refuse(&written.referenced, setting, &seen, expected);
    }
    written.value
}

fn check_tls(written: Spanned<Tls>, is_tls: bool, reader: &mut Reader) -> Tls {
    reader.tls(&written, "sinks.otlp.tls");
    let at = &written.referenced;
    let tls = written.value;
    let refuse = |at: &Location, seen: &str, expected: &str, reader: &mut Reader| {
        reader.refuse(at, "sinks.otlp.tls", seen, expected);
    };
    if !is_tls {
        let expected = "an endpoint that begins with https://, or no `tls`";
        refuse(at, "there, and the endpoint is http://", expected, reader);
    }
    if let Some(name) = &tls.server_name
        && ServerName::try_from(name.as_str()).is_err()
    {
        let expected = "a `server_name` that is a DNS name or an address";
        refuse(at, name, expected, reader);
    }
    tls
}

fn check_patience(written: Option<Spanned<u64>>, reader: &mut Reader) -> u8 {
    let Some(written) = written else {
        return PATIENCE;
    };
    let patience = u8::try_from(written.value).ok();
    patience
        .filter(|patience| (1..=LONGEST).contains(patience))
        .unwrap_or_else(|| {
            let seen = written.value.to_string();
            let expected = format!("1 to {LONGEST}");
            let setting = "sinks.otlp.timeout_seconds";
            reader.refuse(&written.referenced, setting, &seen, &expected);
            PATIENCE
        })
}
