//! Fields of an encoded message, one after the other.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a> {
    pub number: u32,
    /// With its number and its length.
    pub whole: &'a [u8],
    /// Of what may be a message.
    pub content: Option<&'a [u8]>,
}

/// The first field, and what follows it; `None` at the end, and if this is no message.
pub fn next(bytes: &[u8]) -> Option<(Encoded<'_>, &[u8])> {
    let (key, rest) = varint(bytes)?;
    let (content, rest) = match key & 7 {
        0 => (None, varint(rest)?.1),
        1 => (None, rest.get(8..)?),
        2 => {
            let (length, rest) = varint(rest)?;
            let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            (Some(content), rest)
        }
        5 => (None, rest.get(4..)?),
        _ => return None,
    };
    let field = Encoded {
        number: u32::try_from(key >> 3).ok()?,
        whole: bytes.get(..bytes.len() - rest.len())?,
        content,
    };
    Some((field, rest))
}

/// A message as a field of another.
pub fn put(number: u32, message: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

/// A number of variable length, and what follows it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(place + 1..)?));
        }
    }
    None
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}
