//! The chunked transfer coding (RFC 9112 section 7.1), strictly: CRLF at every line end, plain
//! hexadecimal sizes, bounded lines. Pure; one decoder serves requests and responses.

/// Longest line of a size with its extensions, or of a trailer field, in bytes.
const LINE_MAX_BYTES: usize = 256;
/// Most trailer bytes, which are read and dropped.
const TRAILER_MAX_BYTES: usize = 4096;

/// The bytes break the coding: where they end cannot be known any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the line that holds a chunk's size.
    Size,
    Data(u64),
    /// CR, then LF, after a chunk's data.
    DataEnd {
        cr_seen: bool,
    },
    Trailer,
    End,
}

/// Follows a chunked body from read to read.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    line: Vec<u8>,
    trailer_bytes: usize,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            state: State::Size,
            line: Vec::new(),
            trailer_bytes: 0,
        }
    }

    /// Whether the last chunk and its trailer have been seen.
    pub(super) fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Bytes of the current chunk that have not come yet.
    pub(super) fn left(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    /// Takes bytes, gives their data to `data`, and returns how many belong to this body.
    ///
    /// # Errors
    /// [`Malformed`]; the connection is of no use any more.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::End {
            match self.state {
                State::Data(left) => {
                    let rest = &bytes[at..];
                    let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    data(&rest[..len]);
                    at += len;
                    self.state = match left - len as u64 {
                        0 => State::DataEnd { cr_seen: false },
                        left => State::Data(left),
                    };
                }
                State::DataEnd { cr_seen } => {
                    self.state = match (cr_seen, bytes[at]) {
                        (false, b'\r') => State::DataEnd { cr_seen: true },
                        (true, b'\n') => State::Size,
                        _ => return Err(Malformed),
                    };
                    at += 1;
                }
                State::Size | State::Trailer => {
                    let byte = bytes[at];
                    at += 1;
                    self.line_byte(byte)?;
                }
                State::End => {}
            }
        }
        Ok(at)
    }

    fn line_byte(&mut self, byte: u8) -> Result<(), Malformed> {
        if byte != b'\n' {
            if self.line.last() == Some(&b'\r') || self.line.len() == LINE_MAX_BYTES {
                return Err(Malformed);
            }
            self.line.push(byte);
            return Ok(());
        }
        if self.line.pop() != Some(b'\r') {
            return Err(Malformed);
        }
        let line = std::mem::take(&mut self.line);
        if self.state == State::Size {
            self.state = match size(&line)? {
                0 => State::Trailer,
                size => State::Data(size),
            };
            return Ok(());
        }
        self.trailer_bytes += line.len();
        if line.is_empty() {
            self.state = State::End;
        } else if self.trailer_bytes > TRAILER_MAX_BYTES {
            return Err(Malformed);
        }
        Ok(())
    }
}

fn size(line: &[u8]) -> Result<u64, Malformed> {
    // Extensions have no meaning here; RFC 9112 section 7.1.1 says to ignore them.
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = digits.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Malformed);
    }
    let digits = str::from_utf8(digits).map_err(|_| Malformed)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data, what is left of the input, and whether the body is complete.
    fn decode(reads: &[&[u8]]) -> Result<(String, usize, bool), Malformed> {
        let mut decoder = Decoder::new();
        let mut data = Vec::new();
        let mut left = 0;
        for read in reads {
            left = read.len() - decoder.feed(read, |bytes| data.extend_from_slice(bytes))?;
        }
        Ok((
            String::from_utf8_lossy(&data).into_owned(),
            left,
            decoder.is_end(),
        ))
    }

    #[test]
    fn decodes_wherever_reads_end() {
        let body = b"3\r\nabc\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nGET";
        let expected = Ok(("abc0123456789".to_owned(), 3, true));
        assert_eq!(decode(&[body]), expected);
        let bytes: Vec<&[u8]> = body[..body.len() - 3].chunks(1).collect();
        assert_eq!(decode(&bytes), Ok(("abc0123456789".to_owned(), 0, true)));
    }

    #[test]
    fn knows_that_more_must_come() {
        let check = |body: &[u8]| assert!(!decode(&[body]).unwrap().2, "{body:?}");
        check(b"");
        check(b"3\r\nabc");
        check(b"3\r\nabc\r\n");
        check(b"3\r\nabc\r\n0\r\n");
        check(b"3\r\nabc\r\n0\r\n\r");
    }

    #[test]
    fn refuses_what_others_could_read_otherwise() {
        let check = |body: &[u8]| assert_eq!(decode(&[body]), Err(Malformed), "{body:?}");
        check(b"+3\r\nabc\r\n");
        check(b"0x3\r\nabc\r\n");
        check(b" 3\r\nabc\r\n");
        check(b"\r\nabc\r\n");
        check(b"3\nabc\r\n");
        check(b"3\r\nabcd\r\n");
        check(b"3\r\nabc\n0\r\n");
        check(b"3\rabc");
        check(b"-1\r\n");
        check(b"fffffffffffffffff\r\n");
        check(&[b'0'; 300]);
        check(&[b"0\r\n".as_slice(), &b"x: y\r\n".repeat(2000)].concat());
    }
}
