//! `ringfence status`: how the running agent is.

mod cluster;
mod kubernetes;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
};

use agent_policy::shown::shown;
use clap::Args;

use super::output::{self, Colour, Columns, Format, Paint};
use crate::{
    config::DEFAULT_SOCKET,
    control::{
        client,
        status::{
            EndpointState, EndpointStatus, FailsafeStatus, Feature, HelperStatus, Hook, Load,
            PrivilegeStatus, ProcessStatus, RecordCounts, RejectionSums, Status, TableFill,
            UnknownLink, UnknownLinks, UnknownState,
        },
    },
    exit::Answer,
    flow::{names::NameStatus, stage::StageCounts},
    hubble::HubbleStatus,
    source::kubernetes::fleet::Asked,
};

/// Show how the running agent is, or what all nodes of a cluster have in force.
///
/// Exit code: 0; 1 if policy is not in force (--enforcing), or not on every node (--cluster); 2 on an error.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[arg(short, long, value_name = "FORMAT", default_value_t, value_enum)]
    output: Format,
    /// Say only whether policy is in force; exits with 1 if not.
    #[arg(long, conflicts_with = "output")]
    enforcing: bool,
    /// Ask the Kubernetes API, not an agent: which nodes have in force what is there? Exits with 1 if not all.
    #[arg(long, conflicts_with_all = ["enforcing", "socket"])]
    cluster: bool,
    /// The same of one policy: NAMESPACE/NAME of a network policy, NAME of what has no namespace, or KIND/… of either.
    #[arg(long, value_name = "POLICY", requires = "cluster")]
    policy: Option<Asked>,
    /// How the API is reached; else $KUBECONFIG, what a pod is given, or ~/.kube/config.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    kubeconfig: Option<PathBuf>,
    /// Control socket of the agent.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
}

pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<Answer> {
    if args.cluster {
        return cluster::run(args);
    }
    let status = client::status(&args.socket)?;
    let mut out = io::stdout().lock();
    if args.enforcing {
        let (word, answer) = if status.enforcing {
            ("enforcing", Answer::Yes)
        } else {
            ("not enforcing", Answer::No)
        };
        writeln!(out, "{word}, generation {}", status.generation)?;
        return Ok(answer);
    }
    match args.output {
        Format::Json => output::json(&status, &mut out)?,
        Format::Human => render(&status, Paint::of_stdout(), &mut out)?,
    }
    Ok(Answer::Yes)
}

pub(crate) fn render(status: &Status, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Status {
        agent_version,
        pid,
        uptime_s,
        node,
        generation,
        enforcing,
        last_load,
        kubernetes,
        policies,
        next_change,
        failsafe,
        endpoints,
        unknown_interfaces,
        tables,
        events,
        processes,
        drops,
        unremembered,
        rejections,
        would_be,
        tampered,
        records,
        names,
        hubble,
        privileges,
        features,
    } = status;
    let enforcing = if *enforcing {
        paint.paint(Colour::Green, "enforcing")
    } else {
        paint.paint(Colour::Red, "not enforcing")
    };
    let uptime = duration(*uptime_s);
    writeln!(
        out,
        "ringfence {agent_version} on {node}: {enforcing}, generation {generation}"
    )?;
    writeln!(out, "process {pid}, up {uptime}")?;
    if let Some(load) = last_load {
        render_load(load, paint, out)?;
    }
    if let Some(kubernetes) = kubernetes {
        kubernetes::render(kubernetes, paint, out)?;
    }
    render_policies(policies, next_change.as_deref(), out)?;
    render_endpoints(endpoints, paint, out)?;
    if let Some(unknown) = unknown_interfaces {
        render_unknown(unknown, paint, out)?;
    }
    render_failsafe(failsafe, out)?;
    render_tables(tables, out)?;

    writeln!(out, "\nEVENTS   seen {}, lost {}", events.seen, events.lost)?;
    render_processes(processes, paint, out)?;
    render_names(names, out)?;
    render_records(records, hubble.as_ref(), out)?;
    if *unremembered > 0 {
        writeln!(
            out,
            "FLOWS    {unremembered} permitted packets found the flow table full: their replies may be dropped"
        )?;
    }
    for (what, records) in would_be {
        writeln!(out, "WOULD BE {what} in {records} records")?;
    }
    if !tampered.is_empty() {
        let kinds: Vec<_> = tampered
            .iter()
            .map(|(how, count)| format!("{how} {count}"))
            .collect();
        let tampered = paint.paint(Colour::Red, "TAMPERED");
        writeln!(out, "{tampered} {}", kinds.join(", "))?;
    }
    let drops: Vec<_> = drops.iter().filter(|(_, packets)| **packets > 0).collect();
    if drops.is_empty() {
        writeln!(out, "DROPS    none")?;
    } else {
        writeln!(out, "DROPS")?;
        for (reason, packets) in drops {
            writeln!(out, "  {reason}: {packets}")?;
        }
    }
    render_rejections(*rejections, out)?;
    render_privileges(privileges, paint, out)?;
    render_features(features, paint, out)
}

fn render_rejections(rejections: RejectionSums, out: &mut impl Write) -> io::Result<()> {
    let RejectionSums {
        sent,
        suppressed,
        prompted,
    } = rejections;
    if sent + suppressed + prompted > 0 {
        write!(out, "REJECTIONS sent {sent}, suppressed {suppressed}")?;
        if prompted > 0 {
            write!(out, "; idle ends asked {prompted} times")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn render_load(load: &Load, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Load { at, ok, errors } = load;
    if *ok {
        writeln!(out, "policy loaded at {at}")?;
    } else {
        let failed = paint.paint(Colour::Red, "not loaded");
        writeln!(
            out,
            "policy {failed} at {at}; what was in force before still is"
        )?;
    }
    for error in errors {
        for line in error.lines() {
            writeln!(out, "  {}", shown(line))?;
        }
    }
    Ok(())
}

/// What became of records, and of those that Hubble's clients ask for.
fn render_records(
    records: &RecordCounts,
    hubble: Option<&HubbleStatus>,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "RECORDS  {}", counts(&records.stream))?;
    for (target, sink) in &records.sinks {
        writeln!(out, "  to {}: {}", shown(target), counts(sink))?;
    }
    let Some(HubbleStatus {
        streams,
        refused,
        told,
        missed,
    }) = hubble
    else {
        return Ok(());
    };
    writeln!(
        out,
        "HUBBLE   streams {streams}, refused {refused}; flows told {told}, lines missed {missed}"
    )
}

/// In one line, if anybody has asked for a name.
fn render_names(names: &NameStatus, out: &mut impl Write) -> io::Result<()> {
    let NameStatus {
        addresses,
        questions,
        answers,
        malformed,
        unasked,
        untrusted,
        parts,
        crowded,
        lost,
    } = names;
    let others = [
        (malformed, "no DNS"),
        (unasked, "not asked for"),
        (untrusted, "of others than the resolvers"),
        (parts, "parts of messages"),
        (crowded, "questions too many"),
        (lost, "lost"),
    ];
    let heard = questions + answers + others.iter().map(|(count, _)| **count).sum::<u64>();
    if heard == 0 {
        return Ok(());
    }
    write!(
        out,
        "NAMES    of {addresses} addresses; {questions} questions, {answers} answers"
    )?;
    for (count, what) in others {
        if *count > 0 {
            write!(out, ", {count} {what}")?;
        }
    }
    writeln!(out)
}

fn render_processes(
    processes: &ProcessStatus,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let ProcessStatus {
        noted,
        lost,
        messages,
    } = processes;
    let noted = if *noted {
        "named in records".to_owned()
    } else {
        paint.paint(Colour::Yellow, "not named in records")
    };
    write!(out, "SOCKETS  processes {noted}")?;
    if *lost > 0 {
        write!(out, "; {lost} sockets had no room for it")?;
    }
    writeln!(out)?;
    for message in messages {
        writeln!(out, "  {}", shown(message))?;
    }
    Ok(())
}

/// In one line.
fn render_privileges(
    privileges: &PrivilegeStatus,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let PrivilegeStatus {
        capabilities,
        helper,
        messages,
    } = privileges;
    let mut parts = vec![capabilities.join(", ")];
    if let Some(HelperStatus {
        pid,
        restarts,
        ended,
    }) = helper
    {
        let mut part = match pid {
            Some(pid) => format!("helper process {pid}"),
            None if *ended => paint.paint(Colour::Red, "helper has ended: restart the agent"),
            None => paint.paint(Colour::Yellow, "helper is being started"),
        };
        if *restarts > 0 {
            part = format!("{part}, replaced {restarts} times");
        }
        parts.push(part);
    }
    parts.extend(messages.iter().map(|message| shown(message).to_string()));
    writeln!(out, "PRIVILEGES {}", parts.join("; "))
}

fn render_policies(
    policies: &BTreeMap<String, usize>,
    next_change: Option<&str>,
    out: &mut impl Write,
) -> io::Result<()> {
    let kinds: Vec<String> = policies
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    if kinds.is_empty() {
        writeln!(out, "policies: none")?;
    } else {
        writeln!(out, "policies: {}", kinds.join(", "))?;
    }
    match next_change {
        Some(at) => writeln!(out, "next change by time at {at}"),
        None => Ok(()),
    }
}

fn render_failsafe(failsafe: &[FailsafeStatus], out: &mut impl Write) -> io::Result<()> {
    if failsafe.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let any = |list: &Option<Vec<String>>| {
        list.as_ref()
            .map_or_else(|| "any".to_owned(), |list| list.join(", "))
    };
    let row = |entry: &FailsafeStatus| {
        let FailsafeStatus {
            name,
            direction,
            peers,
            ports,
        } = entry;
        [name.clone(), direction.clone(), any(peers), any(ports)]
    };
    let mut columns = Columns::new([0; 4]);
    let header = ["FAILSAFE", "DIRECTION", "PEERS", "PORTS"].map(str::to_owned);
    columns.fit(&header);
    for entry in failsafe {
        columns.fit(&row(entry));
    }
    columns.write(&header, Paint::Plain, None, out)?;
    for entry in failsafe {
        columns.write(&row(entry), Paint::Plain, None, out)?;
    }
    Ok(())
}

fn render_endpoints(
    endpoints: &[EndpointStatus],
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out)?;
    if endpoints.is_empty() {
        return writeln!(out, "no endpoints on this node");
    }
    let mut columns = Columns::new([0; 7]);
    let header = [
        "ENDPOINT", "AT", "STATE", "HOOK", "POLICIES", "DROPS", "NOTE",
    ]
    .map(str::to_owned);
    let rows: Vec<_> = endpoints.iter().map(endpoint_row).collect();
    columns.fit(&header);
    for (row, _) in &rows {
        columns.fit(row);
    }
    columns.write(&header, paint, None, out)?;
    for (row, colour) in &rows {
        columns.write(row, paint, Some((2, *colour)), out)?;
    }
    render_unjudged(endpoints, out)
}

fn render_unknown(unknown: &UnknownLinks, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let UnknownLinks {
        mode,
        interfaces,
        drops,
        observed,
    } = unknown;
    let dropped: u64 = drops.values().sum();
    writeln!(
        out,
        "\nUNKNOWN  {mode}: {} interfaces, {dropped} packets dropped, {observed} observed",
        interfaces.len()
    )?;
    if interfaces.is_empty() {
        return Ok(());
    }
    let row = |link: &UnknownLink| {
        let UnknownLink {
            name,
            ifindex,
            state,
            hook,
            message,
        } = link;
        [
            format!("{name} (#{ifindex})"),
            state.name().to_owned(),
            hook.map_or("-", Hook::name).to_owned(),
            message.clone().unwrap_or_default(),
        ]
    };
    let mut columns = Columns::new([0; 4]);
    let header = ["INTERFACE", "STATE", "HOOK", "NOTE"].map(str::to_owned);
    columns.fit(&header);
    for link in interfaces {
        columns.fit(&row(link));
    }
    columns.write(&header, paint, None, out)?;
    for link in interfaces {
        let colour = match link.state {
            UnknownState::Denied => Colour::Green,
            UnknownState::Observed | UnknownState::LeftAlone => Colour::Yellow,
            UnknownState::Failed => Colour::Red,
        };
        columns.write(&row(link), paint, Some((1, colour)), out)?;
    }
    Ok(())
}

/// Each gap once, with those that have it.
fn render_unjudged(endpoints: &[EndpointStatus], out: &mut impl Write) -> io::Result<()> {
    let mut gaps: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for endpoint in endpoints {
        for gap in &endpoint.unjudged {
            gaps.entry(gap).or_default().push(&endpoint.name);
        }
    }
    if !gaps.is_empty() {
        writeln!(out, "\nNOT JUDGED")?;
    }
    for (gap, names) in gaps {
        writeln!(out, "  {}: {gap}", names.join(", "))?;
    }
    Ok(())
}

fn endpoint_row(endpoint: &EndpointStatus) -> ([String; 7], Colour) {
    let EndpointStatus {
        name,
        spec,
        state,
        hook,
        ifindex,
        cgroup_id,
        policies,
        drops,
        unremembered: _,
        unjudged: _,
        rejections: _,
        message,
    } = endpoint;
    let place = match (ifindex, cgroup_id) {
        (Some(index), _) => format!("{spec} (#{index})"),
        (None, Some(id)) => format!("{spec} (#{id})"),
        (None, None) => spec.clone(),
    };
    let row = [
        name.clone(),
        place,
        state.name().to_owned(),
        hook.map_or("-", |hook| hook.name()).to_owned(),
        policies.to_string(),
        drops.values().sum::<u64>().to_string(),
        message.clone().unwrap_or_default(),
    ];
    let colour = match state {
        EndpointState::Attached => Colour::Green,
        EndpointState::Waiting => Colour::Yellow,
        EndpointState::Failed => Colour::Red,
    };
    (row, colour)
}

fn render_tables(tables: &[TableFill], out: &mut impl Write) -> io::Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut columns = Columns::new([0; 4]);
    let row = |table: &TableFill| {
        let TableFill {
            name,
            used,
            capacity,
        } = table;
        let percent = (used * 100).checked_div(*capacity).unwrap_or(0);
        [
            name.clone(),
            used.to_string(),
            capacity.to_string(),
            format!("{percent} %"),
        ]
    };
    let header = ["TABLE", "USED", "CAPACITY", "FILL"].map(str::to_owned);
    columns.fit(&header);
    for table in tables {
        columns.fit(&row(table));
    }
    columns.write(&header, Paint::Plain, None, out)?;
    for table in tables {
        columns.write(&row(table), Paint::Plain, None, out)?;
    }
    Ok(())
}

fn render_features(features: &[Feature], paint: Paint, out: &mut impl Write) -> io::Result<()> {
    if features.is_empty() {
        return Ok(());
    }
    writeln!(out, "KERNEL")?;
    for Feature {
        name,
        available,
        note,
    } in features
    {
        let found = if *available {
            "yes".to_owned()
        } else {
            paint.paint(Colour::Yellow, "no")
        };
        match note {
            Some(note) => writeln!(out, "  {name}: {found} ({note})")?,
            None => writeln!(out, "  {name}: {found}")?,
        }
    }
    Ok(())
}

fn counts(counts: &StageCounts) -> String {
    let StageCounts {
        seen,
        exported,
        lost,
        lost_by_kind,
        left_out,
    } = counts;
    let mut text = format!("seen {seen}, exported {exported}, lost {lost}");
    if !lost_by_kind.is_empty() {
        let kinds: Vec<_> = lost_by_kind
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        text = format!("{text} ({})", kinds.join(", "));
    }
    if *left_out > 0 {
        text = format!("{text}; {left_out} left out by its settings");
    }
    text
}

pub(super) fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {seconds} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests;
