//! The sinks that are measured.

use std::path::Path;

use ringfence_lab::lab::Netns;

use crate::servers;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    destination: fn(&Path, &Netns) -> String,
}

impl Case {
    /// Of an agent with this sink alone.
    pub(crate) fn settings(&self, folder: &Path, host: &Netns) -> String {
        format!(
            "sinks:\n- name: sink\n  {}\n",
            (self.destination)(folder, host)
        )
    }
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "JSON lines",
            destination: |folder, _| {
                format!(
                    "file: {{path: {}/flows.jsonl, rotate_bytes: 1000000000000}}",
                    folder.display()
                )
            },
        },
        Case {
            name: "JSON lines, rotated and packed",
            destination: |folder, _| format!("file: {{path: {}/flows.jsonl}}", folder.display()),
        },
        Case {
            name: "ECS lines",
            destination: |folder, _| {
                format!(
                    "file: {{path: {}/flows.jsonl, format: ecs, rotate_bytes: 1000000000000}}",
                    folder.display()
                )
            },
        },
        Case {
            name: "syslog over TCP",
            destination: |_, host| format!("syslog: {{to: '{}'}}", servers::swallowing(host)),
        },
    ]
}
