//! Who opens connections, for whom, and who waits for that: one leads, up to some number follow,
//! and the others stand in line. Knows no connections; `T` is what they wait for.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

/// How long one may stand in line, whatever those before it meet.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(20);
/// Those in line; more are refused at once.
pub(super) const LINE_MAX: usize = 1024;

/// The line, and whether somebody leads. Those who follow have left it.
pub(super) struct Turnstile<T = UnixStream>(Mutex<Line<T>>);

struct Line<T> {
    is_led: bool,
    last_no: u64,
    waiting: VecDeque<(u64, Follower<T>)>,
}

impl<T> Default for Turnstile<T> {
    fn default() -> Self {
        Self(Mutex::new(Line {
            is_led: false,
            last_no: 0,
            waiting: VecDeque::new(),
        }))
    }
}

/// What waiting came to.
pub(super) enum Turn<'a, T = UnixStream> {
    /// Somebody else has brought it.
    Served(T),
    /// It is for the caller to bring it, and what others wait for.
    Lead(Lead<'a, T>),
}

enum Word<T> {
    Served(io::Result<T>),
    Lead,
}

/// One in line, as those see it who lead.
pub(super) struct Follower<T = UnixStream>(Sender<Word<T>>);

impl<T> Follower<T> {
    pub(super) fn serve(self, result: io::Result<T>) {
        // It waits for a word once it has left the line.
        let _ = self.0.send(Word::Served(result));
    }
}

impl<T> Turnstile<T> {
    /// How many stand in line.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Waits to be served, or to lead.
    ///
    /// # Errors
    /// That of the one who led; `ResourceBusy` if the line is too long, or takes too long.
    pub(super) fn enter(&self) -> io::Result<Turn<'_, T>> {
        self.enter_within(WAIT_MAX)
    }

    fn enter_within(&self, wait: Duration) -> io::Result<Turn<'_, T>> {
        let (no, word) = {
            let mut line = self.0.lock();
            if !line.is_led {
                line.is_led = true;
                return Ok(Turn::Lead(Lead(self)));
            }
            if line.waiting.len() >= LINE_MAX {
                return Err(io::ErrorKind::ResourceBusy.into());
            }
            let (sender, receiver) = bounded(1);
            line.last_no += 1;
            let no = line.last_no;
            line.waiting.push_back((no, Follower(sender)));
            (no, receiver)
        };
        self.wait(no, &word, Instant::now() + wait)
    }

    fn wait(
        &self,
        no: u64,
        word: &Receiver<Word<T>>,
        deadline: Instant,
    ) -> io::Result<Turn<'_, T>> {
        let said = word.recv_deadline(deadline).ok().or_else(|| {
            let mut line = self.0.lock();
            let at = line.waiting.iter().position(|(other, _)| *other == no);
            match at {
                Some(at) => {
                    line.waiting.remove(at);
                    None
                }
                None => {
                    drop(line);
                    // Whoever took it out of the line has a word for it, or is gone.
                    word.recv().ok()
                }
            }
        });
        match said {
            Some(Word::Served(result)) => result.map(Turn::Served),
            Some(Word::Lead) => Ok(Turn::Lead(Lead(self))),
            None => Err(io::ErrorKind::ResourceBusy.into()),
        }
    }
}

/// The right to serve others. Whoever lets go of it gives it to the next in line.
pub(super) struct Lead<'a, T = UnixStream>(&'a Turnstile<T>);

impl<T> Lead<'_, T> {
    /// Takes those who have waited for longest out of the line.
    pub(super) fn followers(&self, max: usize) -> Vec<Follower<T>> {
        let mut line = self.0.0.lock();
        let count = line.waiting.len().min(max);
        let taken = line.waiting.drain(..count);
        taken.map(|(_, follower)| follower).collect()
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        let next = {
            let mut line = self.0.0.lock();
            let next = line.waiting.pop_front();
            line.is_led = next.is_some();
            next
        };
        if let Some((_, next)) = next {
            // It waits for a word now, for as long as it takes.
            let _ = next.0.send(Word::Lead);
        }
    }
}

#[cfg(test)]
mod tests;
