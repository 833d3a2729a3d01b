//! JSON of which a terminal obeys nothing.

use std::borrow::Cow;

/// The same line of JSON. What JSON lets stand and terminals obey is escaped: DEL and the controls above it, marks that
/// turn text round, and what nobody sees. Such characters can only be within its strings; and controls below the space only
/// between its parts.
pub(super) fn json(line: &str) -> Cow<'_, str> {
    if line.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(line);
    }
    let mut quiet = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\0'..' ' => quiet.push(' '),
            ' '..='~' => quiet.push(c),
            _ if c.escape_debug().len() == 1 => quiet.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    quiet.extend(format!("\\u{unit:04x}").chars());
                }
            }
        }
    }
    Cow::Owned(quiet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_the_same_and_obeys_nobody() {
        let loud = "{\t\"comm\":\"a\u{7f}\u{9b}2J\u{202e}\u{e0001}\u{200b}b ä 中 \\u001b[2J\"}\r";
        let quiet = json(loud);
        let text = r#"{ "comm":"a\u007f\u009b2J\u202e\udb40\udc01\u200bb ä 中 \u001b[2J"} "#;
        assert_eq!(quiet, text);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&quiet), value(loud));
        assert!(matches!(json(r#"{"a":"\u001b"}"#), Cow::Borrowed(_)));
    }
}
