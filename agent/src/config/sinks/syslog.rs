//! `syslog` of a sink.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Reader;
use crate::flow::sink::{
    format::Message,
    remote::Tls,
    syslog::{Facility, SyslogSettings, Transport},
};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSyslog {
    to: Spanned<String>,
    #[serde(default)]
    transport: Transport,
    #[serde(default)]
    facility: Facility,
    #[serde(default)]
    message: Message,
    tls: Option<Spanned<Tls>>,
}

impl RawSyslog {
    /// With all that is wrong, told to `reader`.
    pub(super) fn check(self, reader: &mut Reader) -> SyslogSettings {
        let Self {
            to,
            transport,
            facility,
            message,
            tls,
        } = self;
        if let Some(tls) = &tls {
            reader.tls(tls, "sinks.syslog.tls");
            if transport != Transport::Tls {
                let expected = "nothing, or `transport: tls`";
                reader.refuse(&tls.referenced, "sinks.syslog.tls", "given", expected);
            }
        }
        SyslogSettings {
            to: reader.remote(&to, "sinks.syslog.to"),
            transport,
            facility,
            message,
            tls: tls.map(|tls| tls.value),
        }
    }
}
