//! The chunked coding, read once more from the whole text instead of from read to read.

use crate::edge::chunked::Decoder;
use crate::fuzz::input::{Input, reads};

/// The first byte says where reads end, the rest is a chunked body and what follows it.
pub(crate) fn chunked(data: &[u8]) {
    let mut input = Input::new(data);
    let seed = input.byte();
    let bytes = input.rest();
    let mut decoder = Decoder::new();
    let (mut body, mut used) = (Vec::new(), 0);
    let mut is_broken = false;
    for read in reads(bytes, seed) {
        match decoder.feed(read, |data| body.extend_from_slice(data)) {
            Ok(len) => used += len,
            Err(_) => {
                is_broken = true;
                break;
            }
        }
        if decoder.is_end() {
            break;
        }
    }
    match decode(bytes) {
        Decoded::Whole { data, len } => {
            assert!(!is_broken && decoder.is_end(), "a whole body");
            assert_eq!((body, used), (data, len));
        }
        Decoded::Part => assert!(!is_broken && !decoder.is_end(), "a part of a body"),
        Decoded::Broken => assert!(is_broken, "a broken body"),
    }
}

/// What a text in the chunked coding is.
pub(super) enum Decoded {
    /// The data, and how long its coding is.
    Whole {
        data: Vec<u8>,
        len: usize,
    },
    Part,
    Broken,
}

/// Longest line without its end.
const LINE_BYTES: usize = 255;
const TRAILER_BYTES: usize = 4096;

enum Line<'a> {
    Whole(&'a [u8]),
    Part,
    Broken,
}

pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let (mut rest, mut data) = (bytes, Vec::new());
    loop {
        let size = match line(&mut rest) {
            Line::Whole(line) => size(line),
            Line::Part => return Decoded::Part,
            Line::Broken => return Decoded::Broken,
        };
        let Some(size) = size else {
            return Decoded::Broken;
        };
        if size == 0 {
            break;
        }
        if rest.len() as u64 <= size {
            return Decoded::Part;
        }
        // It is less than the length of something.
        let (chunk, after) = rest.split_at(usize::try_from(size).unwrap_or_default());
        match after {
            [b'\r'] => return Decoded::Part,
            [b'\r', b'\n', after @ ..] => rest = after,
            _ => return Decoded::Broken,
        }
        data.extend_from_slice(chunk);
    }
    let mut trailer_len = 0;
    loop {
        match line(&mut rest) {
            Line::Whole([]) => {
                let len = bytes.len() - rest.len();
                return Decoded::Whole { data, len };
            }
            Line::Whole(line) => trailer_len += line.len(),
            Line::Part => return Decoded::Part,
            Line::Broken => return Decoded::Broken,
        }
        if trailer_len > TRAILER_BYTES {
            return Decoded::Broken;
        }
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Line<'a> {
    let end = rest.iter().position(|byte| b"\r\n".contains(byte));
    let len = end.unwrap_or(rest.len());
    // One more may be a CR that is cut off.
    if len > LINE_BYTES + usize::from(end.is_none()) {
        return Line::Broken;
    }
    match &rest[len..] {
        [] | [b'\r'] => Line::Part,
        [b'\r', b'\n', after @ ..] => {
            let line = &rest[..len];
            *rest = after;
            Line::Whole(line)
        }
        _ => Line::Broken,
    }
}

/// At most 15 hexadecimal digits, then white space, then extensions.
fn size(line: &[u8]) -> Option<u64> {
    let line = str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?;
    let digits = line.trim_end_matches([' ', '\t', '\n', '\r', '\x0c']);
    let is_size = (1..=15).contains(&digits.len()) && !digits.contains('+');
    is_size.then(|| u64::from_str_radix(digits, 16).ok())?
}
