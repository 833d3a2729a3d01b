//! What all nodes of a cluster have in force.

use std::io::{self, Write};

use agent_policy::shown::shown;

use super::{StatusArgs, duration};
use crate::{
    cli::output::{self, Colour, Columns, Format, Paint},
    exit::Answer,
    source::kubernetes::{
        Access,
        fleet::{self, ClusterStatus, NodeStanding, PolicyVersion, State},
    },
};

/// Of what a node says; more is counted.
const MESSAGES: usize = 5;

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Answer> {
    let access = Access::of_operator(args.kubeconfig.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let status = runtime.block_on(fleet::ask(&access, args.policy.as_ref()))?;
    let mut out = io::stdout().lock();
    let written = match args.output {
        Format::Json => output::json(&status, &mut out),
        Format::Human => render(&status, Paint::of_stdout(), &mut out),
    };
    output::unless_closed(written)?;
    Ok(if status.is_everywhere() {
        Answer::Yes
    } else {
        Answer::No
    })
}

fn render(status: &ClusterStatus, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let ClusterStatus {
        server,
        policy,
        policies,
        nodes,
    } = status;
    let what = match policy {
        Some(PolicyVersion {
            object,
            resource_version,
            generation,
        }) => {
            let generation = generation.map_or(String::new(), |of| format!(", generation {of}"));
            format!("{object} (resource version {resource_version}{generation})")
        }
        None => format!("{policies} policies"),
    };
    let count = format!("{} of {} nodes", status.in_force(), nodes.len());
    let count = paint.paint(colour_of(status.is_everywhere()), &count);
    writeln!(out, "Kubernetes API {}", shown(server))?;
    writeln!(out, "{what}: in force on {count}")?;
    if nodes.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let header = [
        "NODE",
        "STATE",
        "POLICIES",
        "ERRORS",
        "GENERATION",
        "VERSION",
        "SEEN",
    ];
    let rows: Vec<_> = nodes.iter().map(row).collect();
    let mut columns = Columns::new([0; 7]);
    columns.fit(&header);
    for cells in &rows {
        columns.fit(cells);
    }
    columns.write(&header, paint, None, out)?;
    for (node, cells) in nodes.iter().zip(&rows) {
        let colour = colour_of(node.state == State::InForce);
        columns.write(cells, paint, Some((1, colour)), out)?;
        for message in node.messages.iter().take(MESSAGES) {
            writeln!(out, "  {}", shown(message))?;
        }
        if node.messages.len() > MESSAGES {
            writeln!(out, "  and {} more", node.messages.len() - MESSAGES)?;
        }
    }
    Ok(())
}

fn colour_of(is_well: bool) -> Colour {
    if is_well { Colour::Green } else { Colour::Red }
}

fn row(node: &NodeStanding) -> [String; 7] {
    let NodeStanding {
        name,
        state,
        agent_version,
        generation,
        policies,
        errors,
        seen_s,
        messages: _,
    } = node;
    let number = |count: &Option<usize>| count.map_or("-".to_owned(), |count| count.to_string());
    [
        name.clone(),
        state.name().to_owned(),
        number(policies),
        number(errors),
        generation.map_or("-".to_owned(), |generation| generation.to_string()),
        agent_version.clone().unwrap_or("-".to_owned()),
        seen_s.map_or("never".to_owned(), |age| format!("{} ago", duration(age))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lags_is_first_and_says_why() {
        let silent = NodeStanding {
            name: "n1".to_owned(),
            state: State::Silent,
            agent_version: None,
            generation: None,
            policies: None,
            errors: None,
            seen_s: None,
            messages: (0..7).map(|number| format!("reason {number}")).collect(),
        };
        let well = NodeStanding {
            name: "n2".to_owned(),
            state: State::InForce,
            agent_version: Some("0.1.0".to_owned()),
            generation: Some(4),
            policies: Some(2),
            errors: Some(0),
            seen_s: Some(70),
            messages: Vec::new(),
        };
        let status = ClusterStatus {
            server: "https://10.96.0.1/".to_owned(),
            policy: Some(PolicyVersion {
                object: "NetworkPolicy/shop/a".to_owned(),
                resource_version: "7".to_owned(),
                generation: Some(2),
            }),
            policies: 2,
            nodes: vec![silent, well],
        };
        let mut out = Vec::new();
        render(&status, Paint::Plain, &mut out).unwrap();
        let expected = "Kubernetes API https://10.96.0.1/\n\
            NetworkPolicy/shop/a (resource version 7, generation 2): in force on 1 of 2 nodes\n\
            \n\
            NODE  STATE     POLICIES  ERRORS  GENERATION  VERSION  SEEN\n\
            n1    silent    -         -       -           -        never\n\
            \u{20} reason 0\n\u{20} reason 1\n\u{20} reason 2\n\u{20} reason 3\n\u{20} reason 4\n\
            \u{20} and 2 more\n\
            n2    in force  2         0       4           0.1.0    1 min 10 s ago\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
