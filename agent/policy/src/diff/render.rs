//! A difference for people: rows with `+` and `-`, below each what decides otherwise.

use std::{
    fmt,
    io::{self, Write},
    net::IpAddr,
};

use super::{Change, Diff, Family, Group, Loopback, Presence, Row, Turn};
use crate::shown::shown;

impl Diff {
    /// Writes plain text, two or three lines a row.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn render(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { rows } = self;
        if rows.is_empty() {
            return writeln!(
                out,
                "no difference: everybody may reach whom they could before"
            );
        }
        for row in rows {
            render(out, row)?;
        }
        let count = |change| rows.iter().filter(|row| row.change == change).count();
        let (permitted, denied) = (count(Change::Permitted), count(Change::Denied));
        writeln!(out, "\n{permitted} permitted now, {denied} no longer")
    }
}

fn render(out: &mut impl Write, row: &Row) -> io::Result<()> {
    let Row {
        change,
        from,
        to,
        family,
        loopback,
        ports,
        turns,
        presence,
    } = row;
    let sign = match change {
        Change::Permitted => '+',
        Change::Denied => '-',
    };
    write!(out, "{sign} {from} -> {to}: {ports}")?;
    match family {
        Some(Family::IPv4) => write!(out, " over IPv4 only")?,
        Some(Family::IPv6) => write!(out, " over IPv6 only")?,
        None => {}
    }
    match loopback {
        Some(Loopback::Too) => write!(out, ", loopback too")?,
        Some(Loopback::Only) => write!(out, ", loopback only")?,
        None => {}
    }
    writeln!(out)?;
    match presence {
        Some(Presence::New) => writeln!(out, "    one of them is new")?,
        Some(Presence::Gone) => writeln!(out, "    one of them is gone")?,
        Some(Presence::Met) => writeln!(out, "    they share a node now")?,
        Some(Presence::Parted) => writeln!(out, "    they share a node no longer")?,
        None => {}
    }
    for Turn {
        direction,
        old,
        new,
    } in turns
    {
        let (was, is) = (shown(old.phrase()), shown(new.phrase()));
        writeln!(
            out,
            "    {direction}: was {}, {was}\n{:14}now {}, {is}",
            old.verdict, "", new.verdict
        )?;
    }
    Ok(())
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workloads {
                namespace,
                labels,
                names,
                of,
                addresses,
            } => {
                let labels: Vec<_> = labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                match (labels.is_empty(), names.as_slice()) {
                    (true, [name]) => f.write_str(name)?,
                    (is_bare, _) => {
                        if is_bare {
                            write!(f, "{namespace}/ without labels")?;
                        } else {
                            write!(f, "{namespace}/{}", labels.join(","))?;
                        }
                        if names.len() == *of {
                            write!(f, " ({of})")?;
                        } else {
                            write!(f, " ({} of {of})", names.len())?;
                        }
                    }
                }
                only_at(f, addresses)
            }
            Self::Nodes { names, addresses } => {
                let names: Vec<_> = names.iter().map(|name| format!("node/{name}")).collect();
                f.write_str(&names.join(", "))?;
                only_at(f, addresses)
            }
            Self::Service { name, addresses } => {
                write!(f, "service/{name}")?;
                only_at(f, addresses)
            }
            Self::Addresses { blocks } => {
                let blocks: Vec<_> = blocks.iter().map(ToString::to_string).collect();
                f.write_str(&blocks.join("; "))
            }
        }
    }
}

/// Where not all addresses of somebody are meant: those that are.
fn only_at(f: &mut fmt::Formatter<'_>, addresses: &[IpAddr]) -> fmt::Result {
    if addresses.is_empty() {
        return Ok(());
    }
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    write!(f, " at {}", addresses.join(", "))
}
