//! Errors, as the CNI specification wants them.

use serde_json::{Value, json};

/// Why it was not done. Numbers below 100 are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Version,
    Environment,
    Io,
    Json,
    Configuration,
    TryAgainLater,
    /// Of `STATUS`: no pod could be added now.
    NotAvailable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: Code,
    message: String,
    details: String,
}

impl Code {
    fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Environment => 4,
            Self::Io => 5,
            Self::Json => 6,
            Self::Configuration => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
        }
    }
}

impl Failure {
    pub(super) fn new(code: Code, message: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: details.into(),
        }
    }

    /// In the version that was spoken to us.
    pub(super) fn value(&self, version: &str) -> Value {
        let Self {
            code,
            message,
            details,
        } = self;
        json!({
            "cniVersion": version,
            "code": code.number(),
            "msg": format!("ringfence: {message}"),
            "details": details,
        })
    }
}
