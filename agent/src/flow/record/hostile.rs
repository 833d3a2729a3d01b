//! For tests: what people and programs choose, made to break whatever is written of it.

use std::sync::Arc;

use super::{Fragment, Line, ProcessRef, WorkloadRef};

/// The flow of `line`, with each text that is not ours 64 KiB long, and full of what ends a line, a field or a text somewhere.
pub(crate) fn hostile(line: &Line) -> Line {
    let Line::Flow(mut record) = line.clone() else {
        panic!("a flow");
    };
    let piece = "\"'\\|=\r\n\t\0\u{1b}[2J\u{2028}\u{85}, {}[]<>\u{202e}é";
    let long = piece.repeat((64 << 10) / piece.len() + 1);
    for end in [&mut record.src, &mut record.dst] {
        end.dns_name = Some(long.as_str().into());
        let workload = WorkloadRef {
            namespace: "shop".to_owned(),
            name: long.clone(),
            kind: "Pod".into(),
            owner: Some(long.as_str().into()),
            labels: Arc::new([(long.clone(), long.clone())].into()),
            json: Fragment::default(),
        };
        end.workload = Some(workload.into());
    }
    record.dst.service = Some(long.as_str().into());
    let process = record.process.get_or_insert_with(|| ProcessRef {
        pid: 1,
        start_time: None,
        comm: String::new(),
        exe: None,
        uid: 0,
        cgroup_id: 1,
        cgroup: None,
        container_id: None,
        via: None,
    });
    process.comm.clone_from(&long);
    process.exe = Some(long.as_str().into());
    process.cgroup = Some(long.as_str().into());
    record.endpoint = Some(long.as_str().into());
    Line::Flow(record)
}
