//! HTTP alone, the other half of the floor of a call: a server that does the least one can do over
//! HTTP/1.1 with a thread a connection. It answers calls of `echo` itself, with as many bytes as
//! the real answer has. A process of its own (`bench http-floor`), as what it stands beside is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use super::echo::{VERSION, find};
use super::failure::{Context, Outcome};

/// The longest request body that is read, in bytes.
const MAX_BODY: usize = 1 << 16;

/// Serves until it is killed. Says where, as the broker does.
pub(crate) fn serve() -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).at(&"loopback")?;
    let address = listener.local_addr().at(&"loopback")?;
    writeln!(io::stdout(), "listening on http://{address}").at(&"standard output")?;
    thread::scope(|scope| {
        for stream in listener.incoming() {
            let stream = stream.at(&address)?;
            // A connection that breaks ends alone; its client says so.
            scope.spawn(move || answer_all(stream).is_ok());
        }
        Ok(())
    })
}

fn answer_all(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut body, mut out) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let mut length = 0;
        loop {
            line.clear();
            if stream.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line == b"\r\n" {
                break;
            }
            if line.len() > 16 && line[..15].eq_ignore_ascii_case(b"content-length:") {
                let digits = str::from_utf8(line[15..].trim_ascii()).ok();
                length = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
            }
        }
        body.resize(MAX_BODY.min(length), 0);
        stream.read_exact(&mut body)?;
        out.clear();
        answer(&body, &mut out)?;
        stream.get_mut().write_all(&out)?;
    }
}

fn answer(request: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let Some(id) = between(request, b"\"id\":", b",") else {
        return out.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    };
    let (before, text, after): (_, _, &[u8]) = match between(request, b"\"text\":\"", b"\"") {
        Some(text) => (
            r#"{"content":[{"text":""#.to_owned(),
            text,
            br#"","type":"text"}],"isError":false}}"#,
        ),
        None => (
            format!(r#"{{"protocolVersion":"{VERSION}"#),
            &b""[..],
            br#""}}"#,
        ),
    };
    let (head, middle) = (r#"{"id":"#, r#","jsonrpc":"2.0","result":"#);
    let length = head.len() + id.len() + middle.len() + before.len() + text.len() + after.len();
    write!(
        out,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: floor\r\nContent-Length: {length}\r\n\r\n{head}"
    )?;
    for part in [id, middle.as_bytes(), before.as_bytes(), text, after] {
        out.write_all(part)?;
    }
    Ok(())
}

/// What stands between `begin` and the next `end`.
fn between<'a>(hay: &'a [u8], begin: &[u8], end: &[u8]) -> Option<&'a [u8]> {
    let rest = &hay[find(hay, begin)? + begin.len()..];
    Some(&rest[..find(rest, end)?])
}

#[cfg(test)]
mod tests {
    use super::super::echo::{self, Calls, Era};
    use super::*;

    #[test]
    fn it_answers_like_the_real_one() {
        let mut calls = Calls::new(1, Era::Legacy);
        let mut out = Vec::new();
        answer(calls.next().unwrap(), &mut out).unwrap();
        let body = &out[find(&out, b"\r\n\r\n").unwrap() + 4..];
        calls.check(body).unwrap();
        serde_json::from_slice::<serde_json::Value>(body).unwrap();
        assert!(
            find(
                &out,
                format!("Content-Length: {}\r\n", body.len()).as_bytes()
            )
            .is_some()
        );

        out.clear();
        answer(echo::initialize().as_bytes(), &mut out).unwrap();
        let body = &out[find(&out, b"\r\n\r\n").unwrap() + 4..];
        assert_eq!(echo::settled_version(body).unwrap(), VERSION);
    }
}
