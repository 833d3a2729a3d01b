//! Where flow records go, beside the one file that a flag can name.

mod ipfix;
mod otlp;
mod parquet;
mod syslog;

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::{Component, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use self::{ipfix::RawIpfix, otlp::RawOtlp, parquet::RawParquet, syslog::RawSyslog};
use super::{ConfigError, Item, Items};
use crate::flow::{
    record::{Direction, Verdict},
    sink::{
        Compression, Destination, FileSettings, OtlpSettings, Rotation, Target,
        choice::{Choice, Filter},
        format::Format,
        privacy::{Dropped, Hashed, Privacy},
        remote::{Remote, Tls},
    },
};

/// A list, with the file that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Spanned<RawSink>>")]
pub(crate) struct RawSinks {
    pub(super) file: PathBuf,
    list: Vec<Spanned<RawSink>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSink {
    name: Spanned<String>,
    file: Option<RawFile>,
    otlp: Option<RawOtlp>,
    syslog: Option<RawSyslog>,
    ipfix: Option<RawIpfix>,
    parquet: Option<RawParquet>,
    #[serde(default)]
    filter: RawFilter,
    sample: Option<Spanned<u32>>,
    #[serde(default)]
    privacy: RawPrivacy,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    path: Spanned<PathBuf>,
    #[serde(default)]
    format: Format,
    rotate_bytes: Option<Spanned<u64>>,
    rotate_seconds: Option<Spanned<u64>>,
    keep_bytes: Option<u64>,
    compress: Option<Compression>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawFilter {
    verdicts: Vec<Verdict>,
    directions: Vec<Direction>,
    namespaces: Vec<String>,
    labels: BTreeMap<String, String>,
    cidrs: Vec<Spanned<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPrivacy {
    drop: BTreeSet<Dropped>,
    hash: Vec<Spanned<Hashed>>,
    key_file: Option<Spanned<PathBuf>>,
}

/// Prints as what gives the same settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SinkConfig {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) destination: Destination,
    #[serde(flatten)]
    pub(crate) choice: Choice,
    #[serde(skip_serializing_if = "Privacy::is_none")]
    pub(crate) privacy: Privacy,
}

/// As they stand in the settings.
const DESTINATIONS: &str = "`file`, `parquet`, `syslog`, `ipfix`, `otlp`";

/// Below this, more time goes into files than into records.
const SMALLEST: u64 = 64 << 10;
/// Between two files, whatever their size.
const SHORTEST: u64 = 60;

struct Reader {
    path: PathBuf,
    refused: Vec<Item>,
}

impl SinkConfig {
    /// A collector that is to have the agent's metrics, too.
    pub(crate) fn takes_metrics(&self) -> Option<&OtlpSettings> {
        match &self.destination {
            Destination::Otlp(otlp) if otlp.metrics => Some(otlp),
            _ => None,
        }
    }

    /// # Errors
    ///
    /// With all that is wrong, in the order in which it is written.
    pub(super) fn check(raw: RawSinks, flows: Option<&Target>) -> Result<Vec<Self>, ConfigError> {
        let RawSinks { file: path, list } = raw;
        let mut reader = Reader {
            path,
            refused: Vec::new(),
        };
        // Of the one that a flag has named, too.
        let mut names: BTreeSet<String> = flows.iter().map(ToString::to_string).collect();
        let mut files = BTreeSet::new();
        if let Some(Target::File(path)) = flows {
            files.extend(std::path::absolute(path).ok());
        }
        let mut sinks = Vec::new();
        for written in list {
            let RawSink {
                name,
                file,
                otlp,
                syslog,
                ipfix,
                parquet,
                filter,
                sample,
                privacy,
            } = written.value;
            if !is_name(&name.value) {
                let expected =
                    "a word of letters, digits, `-` and `_`, which status and metrics show";
                reader.refuse(&name.referenced, "sinks.name", &name.value, expected);
            } else if !names.insert(name.value.clone()) {
                let expected = "a name that no other sink has";
                reader.refuse(&name.referenced, "sinks.name", &name.value, expected);
            }
            let mut destinations = Vec::new();
            if let Some(file) = file {
                let place = file.path.referenced;
                let file = reader.file(file);
                if !files.insert(file.path.clone()) {
                    let expected = "a file that no other sink writes";
                    let seen = file.path.display().to_string();
                    reader.refuse(&place, "sinks.file.path", &seen, expected);
                }
                destinations.push(Some(Destination::File(file)));
            }
            if let Some(ipfix) = ipfix {
                destinations.push(ipfix.check(&mut reader).map(Destination::Ipfix));
            }
            if let Some(syslog) = syslog {
                let syslog = syslog.check(&mut reader);
                destinations.push(Some(Destination::Syslog(syslog)));
            }
            if let Some(otlp) = otlp {
                let hides_node = privacy.hash.iter().any(|it| it.value == Hashed::Node);
                let otlp = otlp.check(hides_node, &mut reader);
                destinations.push(otlp.map(Destination::Otlp));
            }
            if let Some(parquet) = parquet {
                let parquet = reader.parquet(parquet, &mut files);
                destinations.push(Some(Destination::Parquet(parquet)));
            }
            let sample = sample.and_then(|sample| {
                let one_in = NonZeroU32::new(sample.value);
                if one_in.is_none() {
                    let expected = "at least 1: one of so many permitted flows is written";
                    reader.refuse(&sample.referenced, "sinks.sample", "0", expected);
                }
                one_in
            });
            let number = destinations.len();
            if number != 1 {
                let seen = format!("{number} destinations");
                let expected = format!("one of {DESTINATIONS}");
                reader.refuse(&written.referenced, "sinks", &seen, &expected);
            }
            // None if it has been refused.
            let Some(destination) = destinations.pop().flatten().filter(|_| number == 1) else {
                // What else is wrong is told, too.
                reader.privacy(privacy);
                reader.filter(filter);
                continue;
            };
            sinks.push(Self {
                name: name.value,
                destination,
                privacy: reader.privacy(privacy),
                choice: Choice {
                    filter: reader.filter(filter),
                    sample,
                },
            });
        }
        if reader.refused.is_empty() {
            Ok(sinks)
        } else {
            Err(ConfigError::Items(Items(reader.refused)))
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_good = |it: u8| it.is_ascii_alphanumeric() || it == b'-' || it == b'_';
    let is_word = name.starts_with(|it: char| it.is_ascii_alphanumeric());
    is_word && name.len() <= 63 && name.bytes().all(is_good)
}

impl Reader {
    fn refuse(&mut self, at: &Location, setting: &'static str, seen: &str, expected: &str) {
        self.refused.push(Item {
            path: self.path.clone(),
            line: at.line(),
            column: at.column(),
            setting,
            seen: format!("`{seen}`"),
            expected: expected.to_owned(),
        });
    }

    /// Something is given back in any case: what is refused is not used.
    fn remote(&mut self, written: &Spanned<String>, setting: &'static str) -> Remote {
        if Remote::parse(&written.value).is_none() {
            let expected = "HOST:PORT, as in collector.example:514 or [2001:db8::1]:514";
            self.refuse(&written.referenced, setting, &written.value, expected);
        }
        Remote::parse(&written.value).unwrap_or_default()
    }

    fn tls(&mut self, written: &Spanned<Tls>, setting: &'static str) {
        let Tls {
            cert_file,
            key_file,
            ..
        } = &written.value;
        if cert_file.is_some() != key_file.is_some() {
            let expected = "`cert_file` and `key_file`, or neither";
            self.refuse(&written.referenced, setting, "one of them", expected);
        }
        if written.value.files().any(|path| !path.is_absolute()) {
            let expected = "paths from the root on";
            self.refuse(&written.referenced, setting, "a relative path", expected);
        }
    }

    fn file(&mut self, raw: RawFile) -> FileSettings {
        let RawFile {
            path,
            format,
            rotate_bytes,
            rotate_seconds,
            keep_bytes,
            compress,
        } = raw;
        let is_above = |part| part == Component::ParentDir;
        if !path.value.is_absolute()
            || path.value.file_name().is_none()
            || path.value.components().any(is_above)
        {
            let seen = path.value.display().to_string();
            let expected = "the path of a file, from the root on, without `..`";
            self.refuse(&path.referenced, "sinks.file.path", &seen, expected);
        }
        let default = Rotation::default();
        let least = |value: Option<Spanned<u64>>, least, setting, reader: &mut Self| {
            let value = value?;
            if value.value < least {
                let expected = format!("at least {least}");
                reader.refuse(
                    &value.referenced,
                    setting,
                    &value.value.to_string(),
                    &expected,
                );
            }
            Some(value.value)
        };
        let bytes = least(rotate_bytes, SMALLEST, "sinks.file.rotate_bytes", self);
        let seconds = least(rotate_seconds, SHORTEST, "sinks.file.rotate_seconds", self);
        FileSettings {
            path: path.value,
            format,
            rotation: Rotation {
                rotate_bytes: bytes.unwrap_or(default.rotate_bytes),
                rotate_seconds: seconds.or(default.rotate_seconds),
                keep_bytes: keep_bytes.unwrap_or(default.keep_bytes),
                compress: compress.unwrap_or(default.compress),
            },
        }
    }

    fn privacy(&mut self, raw: RawPrivacy) -> Privacy {
        let RawPrivacy {
            drop,
            hash,
            key_file,
        } = raw;
        let mut hashed = BTreeSet::new();
        for field in hash {
            if drop.iter().any(|dropped| dropped.leaves_out(field.value)) {
                let expected = "a field that `drop` does not leave out";
                let seen = field.value.name();
                self.refuse(&field.referenced, "sinks.privacy.hash", seen, expected);
            }
            hashed.insert(field.value);
        }
        if let Some(path) = &key_file {
            let seen = path.value.display().to_string();
            if !path.value.is_absolute() {
                let expected = "the path of a file, from the root on";
                self.refuse(&path.referenced, "sinks.privacy.key_file", &seen, expected);
            }
            if hashed.is_empty() && drop.is_empty() {
                let expected = "`hash` or `drop` beside it";
                self.refuse(&path.referenced, "sinks.privacy.key_file", &seen, expected);
            }
        }
        let key_file = key_file.map(|path| path.value);
        Privacy {
            drop,
            hash: hashed,
            key_file,
        }
    }

    fn filter(&mut self, raw: RawFilter) -> Filter {
        let RawFilter {
            verdicts,
            directions,
            namespaces,
            labels,
            cidrs,
        } = raw;
        let mut networks = Vec::new();
        for cidr in cidrs {
            match cidr.value.parse::<IpNet>() {
                Ok(network) if network == network.trunc() => networks.push(network),
                Ok(network) => {
                    let expected = format!("{}, without bits of hosts", network.trunc());
                    self.refuse(
                        &cidr.referenced,
                        "sinks.filter.cidrs",
                        &cidr.value,
                        &expected,
                    );
                }
                Err(_) => {
                    let expected = "a network, as in 10.0.0.0/8 or fd00::/8";
                    self.refuse(
                        &cidr.referenced,
                        "sinks.filter.cidrs",
                        &cidr.value,
                        expected,
                    );
                }
            }
        }
        Filter {
            verdicts,
            directions,
            namespaces,
            labels,
            cidrs: networks,
        }
    }
}

impl From<Vec<Spanned<RawSink>>> for RawSinks {
    fn from(list: Vec<Spanned<RawSink>>) -> Self {
        Self {
            file: PathBuf::new(),
            list,
        }
    }
}
