//! Where Hubble's command line, Relay and UI may ask for flows.

use std::{
    net::SocketAddr,
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use super::{ConfigError, Item, Items, SOCKET_PATH_LIMIT};
use crate::flow::ring::DEFAULT_LINES;

/// A record in memory has some thousand bytes.
const MOST_FLOWS: u32 = 65_535;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Spanned<RawFields>")]
pub(crate) struct RawHubble {
    pub(super) file: PathBuf,
    written: Spanned<RawFields>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFields {
    socket: Option<Spanned<PathBuf>>,
    listen: Option<Spanned<String>>,
    tls: Option<Spanned<RawTls>>,
    insecure: Option<bool>,
    flows: Option<Spanned<u32>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    #[serde(rename = "cert_file")]
    cert: Spanned<PathBuf>,
    #[serde(rename = "key_file")]
    key: Spanned<PathBuf>,
    #[serde(rename = "client_ca_file")]
    client_ca: Option<Spanned<PathBuf>>,
}

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HubbleConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listen: Option<SocketAddr>,
    /// Of what listens; who has the socket's file is its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<HubbleTls>,
    /// Other machines may ask without TLS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure: bool,
    /// Lines of the stream of records that are kept.
    pub(crate) flows: u32,
}

/// All in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HubbleTls {
    /// With those that lead to an authority.
    #[serde(rename = "cert_file")]
    pub(crate) cert: PathBuf,
    #[serde(rename = "key_file")]
    pub(crate) key: PathBuf,
    /// Who may ask has a certificate of one of these authorities; anybody if it is absent.
    #[serde(rename = "client_ca_file", skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
}

impl HubbleTls {
    /// Files that are read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let Self {
            cert,
            key,
            client_ca,
        } = self;
        [cert, key].into_iter().chain(client_ca)
    }
}

impl HubbleConfig {
    /// How many lines are kept.
    pub(crate) fn lines(config: Option<&Self>) -> usize {
        let flows = config.and_then(|config| usize::try_from(config.flows).ok());
        flows.unwrap_or(DEFAULT_LINES)
    }

    /// # Errors
    ///
    /// With all that is wrong.
    pub(super) fn check(raw: RawHubble, control: &Path) -> Result<Self, ConfigError> {
        let RawHubble { file, written } = raw;
        let mut reader = Reader {
            path: file,
            refused: Vec::new(),
        };
        let place = written.referenced;
        let RawFields {
            socket,
            listen,
            tls,
            insecure,
            flows,
        } = written.value;
        if socket.is_none() && listen.is_none() {
            let expected = "`socket` or `listen`, or both: where it is to be asked";
            reader.refuse(&place, "hubble", "without a place", expected);
        }
        let insecure = insecure.unwrap_or_default();
        let listen = listen.and_then(|listen| {
            let address = reader.listen(&listen);
            let is_open = address.is_some_and(|address| !address.ip().is_loopback());
            if is_open && tls.is_none() && !insecure {
                let expected = "`tls`, or a loopback address, or `insecure: true`: whoever reaches \
                                it reads who talks to whom";
                let seen = format!("`{}` without TLS", listen.value);
                reader.refuse(&listen.referenced, "hubble.listen", &seen, expected);
            }
            address
        });
        let tls = tls.map(|tls| {
            if listen.is_none() {
                let expected = "`listen` beside it: the socket is its owner's alone";
                reader.refuse(&tls.referenced, "hubble.tls", "alone", expected);
            }
            if insecure {
                let expected = "one of `tls` and `insecure`";
                reader.refuse(&tls.referenced, "hubble.tls", "there", expected);
            }
            reader.tls(&tls.value)
        });
        let flows = flows.map(|flows| {
            if !(1..=MOST_FLOWS).contains(&flows.value) {
                let expected = format!("1 to {MOST_FLOWS}");
                let seen = flows.value.to_string();
                reader.refuse(&flows.referenced, "hubble.flows", &seen, &expected);
            }
            flows.value
        });
        let config = Self {
            socket: socket.map(|socket| reader.socket(&socket, control)),
            listen,
            tls,
            insecure,
            flows: flows.unwrap_or_else(|| u32::try_from(DEFAULT_LINES).unwrap_or(MOST_FLOWS)),
        };
        if reader.refused.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Items(Items(reader.refused)))
        }
    }
}

struct Reader {
    path: PathBuf,
    refused: Vec<Item>,
}

impl Reader {
    fn refuse(&mut self, at: &Location, setting: &'static str, seen: &str, expected: &str) {
        self.refused.push(Item {
            path: self.path.clone(),
            line: at.line(),
            column: at.column(),
            setting,
            seen: seen.to_owned(),
            expected: expected.to_owned(),
        });
    }

    fn listen(&mut self, listen: &Spanned<String>) -> Option<SocketAddr> {
        let address = listen.value.parse().ok();
        // Nobody would learn which port 0 has become.
        let address = address.filter(|address: &SocketAddr| address.port() != 0);
        if address.is_none() {
            let expected = "an address and a port, such as 127.0.0.1:4244 or [::1]:4244";
            let seen = format!("`{}`", listen.value);
            self.refuse(&listen.referenced, "hubble.listen", &seen, expected);
        }
        address
    }

    fn socket(&mut self, socket: &Spanned<PathBuf>, control: &Path) -> PathBuf {
        let path = self.whole(socket, "hubble.socket");
        let length = path.as_os_str().len();
        if length > SOCKET_PATH_LIMIT {
            let expected = format!("at most {SOCKET_PATH_LIMIT}, as the kernel has it");
            let seen = format!("a path of {length} bytes");
            self.refuse(&socket.referenced, "hubble.socket", &seen, &expected);
        }
        if path == control {
            let seen = format!("`{}`", path.display());
            let expected = "another path than that of the control socket";
            self.refuse(&socket.referenced, "hubble.socket", &seen, expected);
        }
        path
    }

    fn tls(&mut self, raw: &RawTls) -> HubbleTls {
        let RawTls {
            cert,
            key,
            client_ca,
        } = raw;
        let client_ca = client_ca.as_ref();
        HubbleTls {
            cert: self.whole(cert, "hubble.tls.cert_file"),
            key: self.whole(key, "hubble.tls.key_file"),
            client_ca: client_ca.map(|path| self.whole(path, "hubble.tls.client_ca_file")),
        }
    }

    fn whole(&mut self, path: &Spanned<PathBuf>, setting: &'static str) -> PathBuf {
        let is_above = |part| part == Component::ParentDir;
        let is_file = path.value.file_name().is_some();
        if !path.value.is_absolute() || !is_file || path.value.components().any(is_above) {
            let seen = format!("`{}`", path.value.display());
            let expected = "the path of a file, from the root on, without `..`";
            self.refuse(&path.referenced, setting, &seen, expected);
        }
        path.value.clone()
    }
}

impl From<Spanned<RawFields>> for RawHubble {
    fn from(written: Spanned<RawFields>) -> Self {
        Self {
            file: PathBuf::new(),
            written,
        }
    }
}
