//! What is drawn where: a line of the agent, its endpoints, and below them, where there is room, what was denied, and what
//! is lost. What is in names is escaped before it is drawn.

use std::time::Duration;

use agent_policy::shown::shown;
use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Cell, Row, Sparkline, Table},
};

use super::{
    keys::Key,
    state::{DeniedRow, EndpointRow, LossRow, Snapshot, Sort},
};
use crate::{
    cli::{output::Paint, status},
    control::status::EndpointState,
};

/// Below so many lines there are endpoints alone.
const TALL: u16 = 14;
/// Below so many columns there is one thing beside nothing.
const BROAD: u16 = 64;
/// Lines of what is below the endpoints, at most.
const BELOW: u16 = 12;

/// What whoever looks has chosen.
#[derive(Debug)]
pub(super) struct Ui {
    pub(super) sort: Sort,
    /// Endpoints above the first one that is shown.
    offset: usize,
    /// Where scrolling ends.
    end: usize,
    /// Endpoints that were shown.
    page: usize,
    paint: Paint,
}

impl Default for Ui {
    fn default() -> Self {
        Self {
            sort: Sort::default(),
            offset: 0,
            end: 0,
            page: 1,
            paint: Paint::of_stdout(),
        }
    }
}

impl Ui {
    pub(super) fn press(&mut self, key: Key) {
        let page = self.page.max(1);
        let offset = match key {
            Key::Quit => return,
            Key::Sort => {
                self.sort = self.sort.next();
                0
            }
            Key::Up => self.offset.saturating_sub(1),
            Key::Down => self.offset.saturating_add(1),
            Key::PageUp => self.offset.saturating_sub(page),
            Key::PageDown => self.offset.saturating_add(page),
            Key::Home => 0,
            Key::End => self.end,
        };
        self.offset = offset.min(self.end);
    }

    fn colour(&self, colour: Color) -> Style {
        match self.paint {
            Paint::Colours => Style::new().fg(colour),
            Paint::Plain => Style::new(),
        }
    }

    fn header(&self, cells: impl IntoIterator<Item = Text<'static>>) -> Row<'static> {
        let style = self.colour(Color::Cyan);
        Row::new(cells).style(style.add_modifier(Modifier::BOLD))
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, now: &Snapshot, ui: &mut Ui) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(now, ui), head);
    let below = if body.height < TALL {
        0
    } else {
        BELOW.min(body.height / 2)
    };
    let [above, below] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(below)]).areas(body);
    endpoints(frame, above, &now.endpoints, ui);
    let beside = if below.width < BROAD {
        0
    } else {
        below.width / 2
    };
    let [left, right] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(beside)]).areas(below);
    denied(frame, left, &now.denied, ui);
    losses(frame, right, now, ui);
    let keys = format!(
        "q quit  s sort (by {})  ↑↓ scroll   rates are of the last minute",
        ui.sort.name()
    );
    frame.render_widget(Line::styled(keys, ui.colour(Color::DarkGray)), foot);
}

fn title(now: &Snapshot, ui: &Ui) -> Line<'static> {
    let Snapshot {
        agent,
        node,
        generation,
        enforcing,
        uptime,
        away,
        ..
    } = now;
    if let Some((since, why)) = away {
        let text = format!("AGENT AWAY for {}: {why}", seconds(*since));
        let style = ui.colour(Color::Red).add_modifier(Modifier::REVERSED);
        return Line::styled(shown(text).to_string(), style);
    }
    let (word, colour) = if *enforcing {
        ("enforcing", Color::Green)
    } else {
        ("NOT ENFORCING", Color::Red)
    };
    Line::from(vec![
        Span::raw(shown(format!("ringfence {agent} on {node}: ")).to_string()),
        Span::styled(word, ui.colour(colour)),
        Span::raw(format!(
            ", generation {generation}, up {}",
            seconds(*uptime)
        )),
    ])
}

fn endpoints(frame: &mut Frame<'_>, area: Rect, rows: &[EndpointRow], ui: &mut Ui) {
    ui.page = usize::from(area.height.saturating_sub(1));
    ui.end = rows.len().saturating_sub(ui.page);
    ui.offset = ui.offset.min(ui.end);
    let name = match ui.end {
        0 => format!("ENDPOINT ({})", rows.len()),
        _ => format!("ENDPOINT ({} of {})", ui.offset + 1, rows.len()),
    };
    let is_broad = area.width >= BROAD;
    let mut header = vec![Text::from(name)];
    let mut widths = vec![Constraint::Fill(1)];
    if is_broad {
        header.push("STATE".into());
        widths.push(Constraint::Length(8));
    }
    for (word, width, is_for_all) in [
        ("FLOWS/S", 7, false),
        ("BYTES/S", 8, true),
        ("DROPS/S", 7, true),
        ("DROPPED", 8, false),
    ] {
        if is_broad || is_for_all {
            header.push(right(word.to_owned()));
            widths.push(Constraint::Length(width));
        }
    }
    let shown_rows = rows.iter().skip(ui.offset).take(ui.page);
    let shown_rows: Vec<Row<'_>> = shown_rows.map(|row| endpoint(row, is_broad, ui)).collect();
    let header = ui.header(header);
    frame.render_widget(Table::new(shown_rows, widths).header(header), area);
}

fn endpoint(row: &EndpointRow, is_broad: bool, ui: &Ui) -> Row<'static> {
    let EndpointRow {
        name,
        state,
        flows,
        bytes,
        drops,
        dropped,
    } = row;
    let mut cells = vec![Cell::from(shown(name).to_string())];
    if is_broad {
        let (word, colour) = match state {
            Some(state @ EndpointState::Attached) => (state.name(), Color::Green),
            Some(state @ EndpointState::Waiting) => (state.name(), Color::Yellow),
            Some(state @ EndpointState::Failed) => (state.name(), Color::Red),
            None => ("gone", Color::DarkGray),
        };
        cells.push(Cell::from(word).style(ui.colour(colour)));
        cells.push(right(rate(*flows)).into());
    }
    cells.push(right(rate(*bytes)).into());
    let colour = if *drops > 0.0 {
        Color::Red
    } else {
        Color::Reset
    };
    cells.push(Cell::from(right(rate(*drops))).style(ui.colour(colour)));
    if is_broad {
        cells.push(right(count(*dropped)).into());
    }
    Row::new(cells)
}

fn denied(frame: &mut Frame<'_>, area: Rect, rows: &[DeniedRow], ui: &Ui) {
    let header = ui.header([
        Text::from("DENIED BY"),
        right("DROPS/S".to_owned()),
        right("TOTAL".to_owned()),
    ]);
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(8),
    ];
    let row = |row: &DeniedRow| {
        let DeniedRow {
            what,
            is_rule,
            rate: per_second,
            total,
        } = row;
        let indent = if *is_rule { "  " } else { "" };
        Row::new([
            Text::from(format!("{indent}{}", shown(what))),
            right(rate(*per_second)),
            right(total.map_or_else(String::new, count)),
        ])
    };
    let rows: Vec<Row<'_>> = rows.iter().map(row).collect();
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

fn losses(frame: &mut Frame<'_>, area: Rect, now: &Snapshot, ui: &Ui) {
    // A column of space before it.
    let [_, area] = Layout::horizontal([Constraint::Length(2), Constraint::Min(0)]).areas(area);
    let [line, chart, area] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Min(0),
    ])
    .areas(area);
    // The last second is not over.
    let last = now.records.iter().rev().nth(1).copied().unwrap_or(0);
    let title = Line::styled(
        format!("RECORDS: {} in the last second", count(last)),
        ui.colour(Color::Cyan).add_modifier(Modifier::BOLD),
    );
    frame.render_widget(title, line);
    let width = usize::from(chart.width);
    let hidden = now.records.len().saturating_sub(width);
    let bars = now.records.iter().skip(hidden);
    let bars = Sparkline::default()
        .data(bars)
        .style(ui.colour(Color::Green));
    frame.render_widget(bars, chart);
    let header = ui.header([
        Text::from("STAGE"),
        right("SEEN".to_owned()),
        right("LOST".to_owned()),
        right("LOST/S".to_owned()),
    ]);
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
    ];
    let row = |row: &LossRow| {
        let LossRow {
            stage,
            seen,
            lost,
            rate: per_second,
        } = row;
        let colour = if *lost > 0 {
            Color::Yellow
        } else {
            Color::Reset
        };
        Row::new([
            Text::from(shown(stage).to_string()),
            right(seen.map_or_else(|| "-".to_owned(), count)),
            right(count(*lost)),
            right(rate(*per_second)),
        ])
        .style(ui.colour(colour))
    };
    let rows: Vec<Row<'_>> = now.losses.iter().map(row).collect();
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

fn right(text: String) -> Text<'static> {
    Text::from(text).alignment(Alignment::Right)
}

fn seconds(duration: Duration) -> String {
    status::duration(duration.as_secs())
}

/// In six columns at most.
fn rate(rate: f64) -> String {
    if rate <= 0.0 {
        return "0".to_owned();
    }
    if rate < 0.1 {
        return "<0.1".to_owned();
    }
    let mut rest = rate;
    for unit in ["", "k", "M", "G", "T"] {
        if rest < 99.95 {
            return format!("{rest:.1}{unit}");
        }
        if rest < 999.5 {
            return format!("{rest:.0}{unit}");
        }
        rest /= 1000.0;
    }
    ">999T".to_owned()
}

/// In seven columns at most.
fn count(count: u64) -> String {
    let mut rest = count;
    for unit in ["", "k", "M", "G", "T", "P"] {
        if rest < 100_000 {
            return format!("{rest}{unit}");
        }
        rest /= 1000;
    }
    format!("{rest}E")
}

impl Sort {
    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Flows => "flows",
            Self::Drops => "drops",
            Self::Name => "name",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_columns() {
        for (number, text) in [
            (0.0, "0"),
            (0.01, "<0.1"),
            (0.1, "0.1"),
            (99.94, "99.9"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (123_456.0, "123k"),
            (1e15, ">999T"),
            (f64::INFINITY, ">999T"),
            (f64::NAN, ">999T"),
        ] {
            assert_eq!(rate(number), text, "{number}");
        }
        for (number, text) in [
            (0, "0"),
            (99_999, "99999"),
            (100_000, "100k"),
            (u64::MAX, "18446P"),
        ] {
            assert_eq!(count(number), text);
        }
    }
}
