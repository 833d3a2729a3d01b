//! Just enough of Rust's lexis to tell code from comments and texts.

/// A word (identifier, keyword, number) or one punctuation character, and its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) line: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Word,
    Punctuation,
    /// A string literal, with its quotes.
    Text,
}

/// The tokens of a source file. Comments are left out, documentation with them.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let (length, kind) = if first.is_whitespace() {
            (first.len_utf8(), None)
        } else if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), None)
        } else if rest.starts_with("/*") {
            (block_comment(rest), None)
        } else if let Some(length) = text(rest) {
            (length, Some(Kind::Text))
        } else if is_word(first) {
            (
                rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                Some(Kind::Word),
            )
        } else if first == '\'' {
            (quote(rest), Some(Kind::Punctuation))
        } else {
            (first.len_utf8(), Some(Kind::Punctuation))
        };
        let (text, after) = rest.split_at(length);
        found.extend(kind.map(|kind| Token { text, line, kind }));
        line += text.matches('\n').count();
        rest = after;
    }
    found
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = rest.get(at..at + 2).unwrap_or_default();
        match here {
            "/*" => depth += 1,
            "*/" => depth -= 1,
            _ => {
                at += rest[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at.min(rest.len())
}

/// The length of a string literal of any kind, if there is one here.
fn text(rest: &str) -> Option<usize> {
    let prefix = rest
        .find(|c: char| !matches!(c, 'b' | 'c' | 'r'))
        .filter(|length| *length <= 2)?;
    let (raw, body) = (rest[..prefix].contains('r'), &rest[prefix..]);
    if raw {
        let hashes = body.find(|c| c != '#')?;
        let inner = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = inner.find(&end).map_or(inner.len(), |at| at + end.len());
        return Some(prefix + hashes + 1 + length);
    }
    let inner = body.strip_prefix('"')?;
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(prefix + 1 + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// The length of a character literal, or of the quote that starts a lifetime.
fn quote(rest: &str) -> usize {
    let mut inner = rest[1..].char_indices();
    match (inner.next(), inner.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let from = 1 + at + escaped.len_utf8();
            rest[from..]
                .find('\'')
                .map_or(rest.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => 1 + at + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        tokens(source)
            .iter()
            .filter(|token| token.kind == Kind::Word)
            .map(|t| t.text)
            .collect()
    }

    #[test]
    fn comments_and_texts_hold_no_words() {
        assert_eq!(
            words("a /* b /* c */ d */ e // f\n//! g\nh"),
            ["a", "e", "h"]
        );
        assert_eq!(
            words(r##"a "b \" c" d r#"e " f"# g b"h" br"i\" j"##),
            ["a", "d", "g", "j"]
        );
    }

    #[test]
    fn a_lifetime_is_not_the_start_of_a_character() {
        assert_eq!(
            words(r"fn f<'a>(x: &'a u8) { '\'' ; 'q' ; '\u{41}' ; y }"),
            ["fn", "f", "a", "x", "a", "u8", "y"]
        );
    }

    #[test]
    fn a_token_knows_its_line() {
        let found = tokens("one\n\"two\nlines\"\nfour");
        assert_eq!(
            found.iter().map(|token| token.line).collect::<Vec<_>>(),
            [1, 2, 4]
        );
    }
}
