//! What keys send.
//!
//! Read here and not by crossterm, whose reader spins when its terminal is gone.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Sort,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// What follows Escape, and the key that sends it.
const SEQUENCES: [(&[u8], Key); 14] = [
    (b"[A", Key::Up),
    (b"OA", Key::Up),
    (b"[B", Key::Down),
    (b"OB", Key::Down),
    (b"[5~", Key::PageUp),
    (b"[6~", Key::PageDown),
    (b"[H", Key::Home),
    (b"OH", Key::Home),
    (b"[1~", Key::Home),
    (b"[7~", Key::Home),
    (b"[F", Key::End),
    (b"OF", Key::End),
    (b"[4~", Key::End),
    (b"[8~", Key::End),
];

const ESCAPE: u8 = 0x1b;
const CONTROL_C: u8 = 3;

/// The keys of what was read at once. Those that mean nothing are left out.
pub(super) fn keys(mut read: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((&first, rest)) = read.split_first() {
        read = rest;
        match first {
            b'q' | b'Q' | CONTROL_C => keys.push(Key::Quit),
            b's' | b'S' => keys.push(Key::Sort),
            ESCAPE => {
                let (key, rest) = after_escape(rest);
                keys.extend(key);
                read = rest;
            }
            _ => {}
        }
    }
    keys
}

fn after_escape(rest: &[u8]) -> (Option<Key>, &[u8]) {
    for (sequence, key) in SEQUENCES {
        if let Some(rest) = rest.strip_prefix(sequence) {
            return (Some(key), rest);
        }
    }
    match rest.split_first() {
        // Alone, or pressed again: it is the key itself.
        None | Some((&ESCAPE, _)) => (Some(Key::Quit), rest),
        // Of a sequence that is not known, all is skipped, and none of it is a key.
        Some((b'[', rest)) => {
            let is_last = |byte: &u8| (0x40..=0x7e).contains(byte);
            let mut parts = rest.splitn(2, is_last);
            (None, parts.nth(1).unwrap_or_default())
        }
        Some((_, rest)) => (None, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_what_they_send() {
        let cases: [(&[u8], &[Key]); 12] = [
            (b"", &[]),
            (b"q", &[Key::Quit]),
            (b"\x1b", &[Key::Quit]),
            (b"\x03", &[Key::Quit]),
            (b"\x1b\x1b", &[Key::Quit, Key::Quit]),
            (
                b"xs\x1b[A\x1bOBs",
                &[Key::Sort, Key::Up, Key::Down, Key::Sort],
            ),
            (b"\x1b[5~\x1b[6~", &[Key::PageUp, Key::PageDown]),
            (b"\x1b[1~\x1b[F", &[Key::Home, Key::End]),
            // An answer of the terminal, and a key with Alt.
            (b"\x1b[?62;c\x1bqs", &[Key::Sort]),
            (b"\x1b[15;2", &[]),
            (b"\x1b[200~", &[]),
            ("qä".as_bytes(), &[Key::Quit]),
        ];
        for (read, expected) in cases {
            assert_eq!(keys(read), expected, "{read:?}");
        }
    }
}
