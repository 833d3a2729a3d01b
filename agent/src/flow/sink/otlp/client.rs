//! Asks a collector, over either protocol.

use std::time::Duration;

use tokio::runtime::Handle;

use super::{OtlpSettings, Protocol, answer::Answer, grpc, http, wire::Wire};

/// What is handed over, and where to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    /// Below the path of an endpoint of HTTP.
    pub(super) path: &'static str,
    /// Of gRPC.
    pub(super) method: &'static str,
}

pub(super) const LOGS: Signal = Signal {
    path: "/v1/logs",
    method: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
};

pub(super) const METRICS: Signal = Signal {
    path: "/v1/metrics",
    method: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
};

pub(super) struct Client {
    pub(super) settings: OtlpSettings,
    pub(super) wire: Wire,
}

impl Client {
    /// # Errors
    ///
    /// A file that proves who one is cannot be read.
    pub(super) fn new(settings: OtlpSettings) -> anyhow::Result<Self> {
        settings.headers.with(settings.headers_file.as_deref())?;
        if settings.endpoint.is_tls() {
            settings.tls.client()?;
        }
        let wire = Wire::new(
            settings.endpoint.clone(),
            settings.tls.clone(),
            settings.protocol,
            Duration::from_secs(settings.timeout_seconds.into()),
            Handle::try_current()?,
        );
        Ok(Self { settings, wire })
    }

    /// Waits for what is answered, and judges it. On a thread that may wait.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub(super) fn ask(&mut self, signal: Signal, message: Vec<u8>) -> anyhow::Result<Answer> {
        let settings = &self.settings;
        let headers = settings.headers.with(settings.headers_file.as_deref())?;
        match settings.protocol {
            Protocol::Http => {
                let request = http::request(settings, signal, headers, message)?;
                Ok(http::judge(&self.wire.exchange(&request)?))
            }
            Protocol::Grpc => {
                let request = grpc::request(settings, signal, headers, message)?;
                Ok(grpc::judge(&self.wire.exchange(&request)?))
            }
        }
    }
}
