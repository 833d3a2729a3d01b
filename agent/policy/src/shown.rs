//! Text from files, as people see it.
//!
//! Names of rules, paths of files and ends of tests may hold what a terminal obeys: escapes that
//! clear the screen, line feeds that forge a line, marks that turn the rest of a line round. Every
//! form for people goes through here; those for machines are exact.
//!
//! Imported by whoever renders; imports nothing of ours.

use std::fmt::{self, Write};

/// A line, its control characters and what nobody sees escaped.
#[derive(Clone, Copy, Debug)]
pub struct Shown<T>(T);

/// For a line as a whole or a part of one, never for several.
pub fn shown<T: fmt::Display>(text: T) -> Shown<T> {
    Shown(text)
}

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, c: char) -> fmt::Result {
        match c {
            // Harmless, and what is escaped already stays as it is.
            '\\' | '\'' | '"' => self.0.write_char(c),
            _ => write!(self.0, "{}", c.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped_once() {
        let hostile = "a\u{1b}[2J\n\r\u{85}\u{9b}\u{202e}\u{2066}\u{200b}b";
        let text = shown(hostile).to_string();
        assert_eq!(text, r"a\u{1b}[2J\n\r\u{85}\u{9b}\u{202e}\u{2066}\u{200b}b");
        assert_eq!(shown(&text).to_string(), text);
    }

    #[test]
    fn letters_of_every_language_and_quotes_stay() {
        let text = r#"Büro \ "it's" 中文 → ✓"#;
        assert_eq!(shown(text).to_string(), text);
    }
}
