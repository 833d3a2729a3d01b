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
