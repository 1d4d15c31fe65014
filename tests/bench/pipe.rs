//! The pipe alone: a child spoken to over its stdin and stdout, nothing in between. Half of the
//! floor of a call.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::echo::{self, Calls, Era};
use super::failure::{Context, Failure, Outcome};
use super::load::Caller;

/// A child of the bench's own. Ends with it.
pub(crate) struct Pipe {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
    out: Vec<u8>,
    /// From starting the child to its answer to `initialize`.
    opening: Duration,
    calls: Calls,
}

impl Pipe {
    /// Starts `command` (program first) and initializes it.
    pub(crate) fn open(command: &[String], session: usize) -> Outcome<Self> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| Failure::new("no command"))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let begin = Instant::now();
        #[expect(clippy::disallowed_methods, reason = "a bench has no supervisor")]
        let mut child = command.spawn().at(program)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("a child without pipes"));
        };
        let mut pipe = Self {
            child,
            input: Some(input),
            output: BufReader::new(output),
            line: Vec::new(),
            out: Vec::new(),
            opening: Duration::ZERO,
            calls: Calls::new(session, Era::Legacy),
        };
        pipe.send(echo::initialize().as_bytes())?;
        pipe.receive()?;
        pipe.opening = begin.elapsed();
        echo::settled_version(&pipe.line)?;
        pipe.send(echo::INITIALIZED.as_bytes())?;
        Ok(pipe)
    }

    /// How long the child took to start and to answer `initialize`.
    pub(crate) fn opening(&self) -> Duration {
        self.opening
    }

    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.out.clear();
        self.out.extend_from_slice(message);
        self.out.push(b'\n');
        self.write()
    }

    fn write(&mut self) -> Outcome<()> {
        let input = self
            .input
            .as_mut()
            .ok_or_else(|| Failure::new("a pipe that was closed"))?;
        input.write_all(&self.out).at(&"child")
    }

    fn receive(&mut self) -> Outcome<()> {
        self.line.clear();
        self.output.read_until(b'\n', &mut self.line).at(&"child")?;
        Ok(())
    }
}

impl Caller for Pipe {
    fn call(&mut self) -> Outcome<()> {
        self.out.clear();
        self.out.extend_from_slice(self.calls.next()?);
        self.out.push(b'\n');
        self.write()?;
        self.receive()?;
        self.calls.check(&self.line)
    }

    fn close(self) -> Outcome<()> {
        Ok(()) // see `drop`
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        drop(self.input.take()); // the end of stdin ends the demo server
        let _ = self.child.wait(); // it cannot fail for a child that was not waited for
    }
}
