//! `mcp-broker demo-server`: a small stdio MCP server, built in, so that a new installation has
//! something to serve, and tests and the bench a child that is always there. A server like any
//! other: it knows nothing of the broker but the variable `MCP_BROKER_USER`. Here is its loop, on
//! one thread: it reads a line, has it answered, and between lines moves on what takes time.
//! [`server`] decides what is said, [`catalog`] holds what is offered.

mod catalog;
mod message;
mod server;

use std::env;
use std::io::{self, BufRead, ErrorKind, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::server::Server;

/// The longest line that is read, in bytes.
const MAX_LINE: usize = 16 << 20;

/// Serves stdin and stdout until stdin ends.
pub(crate) fn run() -> io::Result<()> {
    let stdin = io::stdin();
    let server = Server::new(env::var("MCP_BROKER_USER").ok());
    let served = serve(stdin.lock(), io::stdout().lock(), server, |wait| {
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&wait)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    });
    match served {
        // Nobody reads any more: the usual end.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        served => served,
    }
}

/// The loop: `ready` waits for input, but no longer than it is told to, and says whether there is
/// some.
fn serve(
    mut input: impl BufRead,
    mut output: impl Write,
    mut server: Server,
    mut ready: impl FnMut(Duration) -> io::Result<bool>,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        if let Some(due) = server.next_due() {
            let now = Instant::now();
            server.advance(now);
            server.flush(&mut output)?;
            if !ready(due.saturating_duration_since(now))? {
                continue;
            }
        }
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            server.line(&line, Instant::now());
            return server.flush(&mut output);
        }
        let length = chunk.len();
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if line.len() > MAX_LINE {
                return Err(io::Error::new(
                    ErrorKind::InvalidData,
                    format!("a line longer than {MAX_LINE} bytes"),
                ));
            }
            if piece.ends_with(b"\n") {
                server.line(&line, Instant::now());
                server.flush(&mut output)?;
                line.clear();
            }
        }
        input.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_the_last_needs_no_end() {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let input = format!("{ping}\n\n{ping}\r\n{ping}");
        let mut output = Vec::new();
        let input = io::BufReader::with_capacity(7, input.as_bytes());
        serve(input, &mut output, Server::new(None), |_| Ok(true)).unwrap();
        let lines: Vec<&[u8]> = output.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(
            lines,
            vec![&b"{\"id\":1,\"jsonrpc\":\"2.0\",\"result\":{}}\n"[..]; 3]
        );
    }

    #[test]
    fn the_loop_goes_on_counting_while_no_line_comes() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"count","arguments":{"to":3,"delay_ms":1}}}"#;
        let mut output = Vec::new();
        let mut quiet = 0;
        // Input (here: its end) is only there after the count is over.
        let ready = |wait| {
            std::thread::park_timeout(wait);
            quiet += 1;
            Ok(quiet > 1000)
        };
        serve(
            format!("{call}\n").as_bytes(),
            &mut output,
            Server::new(None),
            ready,
        )
        .unwrap();
        assert!(String::from_utf8(output).unwrap().contains("counted to 3"));
    }

    #[test]
    fn a_line_without_end_ends_the_server() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        let error = serve(endless, io::sink(), Server::new(None), |_| Ok(true)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
