//! The sinks that are measured.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use ringfence_lab::collectors;
use ringfence_lab::lab::Netns;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    destinations: &'static [Destination],
}

/// A sink below a folder of its own, whose server, if it needs one, runs in the agent's namespace.
type Destination = fn(&Path, &Netns) -> Result<String>;

impl Case {
    /// Of an agent with these sinks alone.
    pub(crate) fn settings(&self, folder: &Path, host: &Netns) -> Result<String> {
        let mut settings = "sinks:\n".to_owned();
        for (number, destination) in self.destinations.iter().enumerate() {
            let own = folder.join(number.to_string());
            std::fs::create_dir_all(&own)?;
            writeln!(
                settings,
                "- name: sink-{number}\n  {}",
                destination(&own, host)?
            )?;
        }
        Ok(settings)
    }
}

pub(crate) const CASES: [Case; 9] = [
    Case {
        name: "JSON lines",
        destinations: &[LINES],
    },
    Case {
        name: "JSON lines, rotated and packed",
        destinations: &[|folder, _| {
            Ok(format!("file: {{path: {}/flows.jsonl}}", folder.display()))
        }],
    },
    Case {
        name: "ECS lines",
        destinations: &[|folder, _| Ok(shaped("ecs", folder))],
    },
    Case {
        name: "OCSF lines",
        destinations: &[|folder, _| Ok(shaped("ocsf", folder))],
    },
    Case {
        name: "Parquet",
        destinations: &[PARQUET],
    },
    Case {
        name: "syslog over TCP",
        destinations: &[syslog],
    },
    Case {
        name: "IPFIX over UDP",
        destinations: &[ipfix],
    },
    Case {
        name: "OTLP over HTTP",
        destinations: &[otlp],
    },
    Case {
        name: "JSON lines, Parquet, syslog, IPFIX and OTLP",
        destinations: &[LINES, PARQUET, syslog, ipfix, otlp],
    },
];

/// Bytes of a file that is never moved aside.
const ENDLESS: u64 = 1_000_000_000_000;

const LINES: Destination = |folder, _| {
    let folder = folder.display();
    Ok(format!(
        "file: {{path: {folder}/flows.jsonl, rotate_bytes: {ENDLESS}}}"
    ))
};

fn shaped(format: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!("file: {{path: {folder}/flows.jsonl, format: {format}, rotate_bytes: {ENDLESS}}}")
}

const PARQUET: Destination = |folder, _| {
    let folder = folder.display();
    Ok(format!("parquet: {{folder: {folder}, seconds: 10}}"))
};

fn syslog(_: &Path, host: &Netns) -> Result<String> {
    Ok(format!("syslog: {{to: '{}'}}", collectors::stream(host)?))
}

fn ipfix(_: &Path, host: &Netns) -> Result<String> {
    Ok(format!("ipfix: {{to: '{}'}}", collectors::datagrams(host)?))
}

fn otlp(_: &Path, host: &Netns) -> Result<String> {
    Ok(format!(
        "otlp: {{endpoint: 'http://{}'}}",
        collectors::http(host)?
    ))
}
