//! How far the objects of the Kubernetes API are known.

use std::io::{self, Write};

use agent_policy::shown::shown;

use crate::{
    cli::output::{Colour, Columns, Paint},
    control::status::{KubernetesStatus, WatchStatus},
};

/// More of them are counted.
const ERRORS: usize = 20;

pub(super) fn render(
    status: &KubernetesStatus,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let KubernetesStatus {
        server,
        complete,
        from_kept,
        not_kept,
        not_published,
        watches,
        errors,
    } = status;
    let server = server.as_deref().unwrap_or("not reached yet");
    let state = match (complete, from_kept) {
        (true, _) => paint.paint(Colour::Green, "all is known"),
        (false, true) => paint.paint(Colour::Yellow, "as it was kept, until all is known"),
        (false, false) => paint.paint(Colour::Red, "not known yet, and not enforced"),
    };
    writeln!(out, "Kubernetes API {}: {state}", shown(server))?;
    if let Some(why) = not_kept {
        writeln!(out, "  not kept on disk: {}", shown(why))?;
    }
    if let Some(why) = not_published {
        writeln!(
            out,
            "  what is in force is not told in the API: {}",
            shown(why)
        )?;
    }
    let rows: Vec<_> = watches.iter().map(row).collect();
    let header = ["WATCH", "STATE", "OBJECTS", "HEARD"].map(str::to_owned);
    let mut columns = Columns::new([0; 4]);
    columns.fit(&header);
    for (cells, _) in &rows {
        columns.fit(cells);
    }
    columns.write(&header, paint, None, out)?;
    for (cells, error) in &rows {
        columns.write(cells, paint, None, out)?;
        if let Some(error) = error {
            writeln!(out, "  {}", shown(error))?;
        }
    }
    for error in errors.iter().take(ERRORS) {
        for line in error.lines() {
            writeln!(out, "  {}", shown(line))?;
        }
    }
    if errors.len() > ERRORS {
        writeln!(out, "  and {} more", errors.len() - ERRORS)?;
    }
    Ok(())
}

fn row(watch: &WatchStatus) -> ([String; 4], Option<&str>) {
    let WatchStatus {
        kind,
        state,
        objects,
        heard_s,
        error,
    } = watch;
    let heard = heard_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"));
    let cells = [kind.clone(), state.clone(), objects.to_string(), heard];
    (cells, error.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_below_its_kind() {
        let watch = |kind: &str, state: &str, objects, heard_s| WatchStatus {
            kind: kind.to_owned(),
            state: state.to_owned(),
            objects,
            heard_s,
            error: None,
        };
        let status = KubernetesStatus {
            server: Some("https://10.96.0.1/".to_owned()),
            complete: false,
            from_kept: true,
            not_kept: None,
            not_published: Some("no right (403)".to_owned()),
            watches: vec![
                watch("Pod", "listed", 12, Some(3)),
                WatchStatus {
                    error: Some("cannot list resource \"networkpolicies\" (403)".to_owned()),
                    ..watch("NetworkPolicy", "starting", 2, None)
                },
            ],
            errors: (0..22).map(|number| format!("error {number}")).collect(),
        };
        let mut out = Vec::new();
        render(&status, Paint::Plain, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "Kubernetes API https://10.96.0.1/: as it was kept, until all is known\n\
                        \u{20} what is in force is not told in the API: no right (403)\n\
                        WATCH          STATE     OBJECTS  HEARD\n\
                        Pod            listed    12       3 s ago\n\
                        NetworkPolicy  starting  2        never\n\
                        \u{20} cannot list resource \"networkpolicies\" (403)\n\
                        \u{20} error 0\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("  error 19\n  and 2 more\n"), "{text}");
    }
}
