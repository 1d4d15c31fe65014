//! Threads that do one kind of work, which takes a while: so many at a time, and a queue before
//! them. None is there while there is nothing to do.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::thread::{self, Joined};

/// Threads, and the jobs that wait for them.
pub(super) struct Workers<J> {
    name: &'static str,
    threads_max: usize,
    queue_max: usize,
    run: Box<dyn Fn(J) + Send + Sync>,
    state: Mutex<State<J>>,
}

struct State<J> {
    /// Those at work, and some that have ended.
    threads: Vec<Joined<()>>,
    at_work: usize,
    queue: VecDeque<J>,
}

/// Why a job is not done.
pub(super) enum NotTaken<J> {
    /// All threads are at work, and the queue is full.
    Busy(J),
    /// No thread can be started; the job was dropped.
    NoThread(io::Error),
}

impl<J: Send + 'static> Workers<J> {
    /// What a job panics with has been logged by the hook; `run` need not care.
    pub(super) fn new(
        name: &'static str,
        threads_max: usize,
        queue_max: usize,
        run: impl Fn(J) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            threads_max,
            queue_max,
            run: Box::new(run),
            state: Mutex::new(State {
                threads: Vec::new(),
                at_work: 0,
                queue: VecDeque::new(),
            }),
        }
    }

    /// Has it done on another thread, now or when one is free.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(super) fn take(self: &Arc<Self>, job: J) -> Result<(), NotTaken<J>> {
        {
            let mut state = self.state.lock();
            if state.at_work == self.threads_max {
                if state.queue.len() == self.queue_max {
                    return Err(NotTaken::Busy(job));
                }
                state.queue.push_back(job);
                return Ok(());
            }
            state.at_work += 1;
        }
        let workers = Arc::clone(self);
        let work = move || {
            let mut next = Some(job);
            while let Some(job) = next {
                let _ = catch_unwind(AssertUnwindSafe(|| (workers.run)(job)));
                next = workers.next();
            }
        };
        let spawned = thread::spawn_brief(self.name, work);
        let mut state = self.state.lock();
        let ended: Vec<_> = state
            .threads
            .extract_if(.., |it| it.is_finished())
            .collect();
        let result = match spawned {
            Ok(thread) => {
                state.threads.push(thread);
                Ok(())
            }
            Err(error) => {
                state.at_work -= 1;
                Err(NotTaken::NoThread(error))
            }
        };
        drop(state);
        drop(ended);
        result
    }

    /// What the calling thread shall do next; `None`: it shall end.
    fn next(&self) -> Option<J> {
        let mut state = self.state.lock();
        let next = state.queue.pop_front();
        state.at_work -= usize::from(next.is_none());
        next
    }

    /// Waits for the jobs that were begun and those that wait.
    pub(super) fn join_all(&self) {
        let threads = std::mem::take(&mut self.state.lock().threads);
        drop(threads);
    }

    /// Waits for the jobs that were begun, and drops those that wait.
    pub(super) fn stop(&self) {
        let queue = std::mem::take(&mut self.state.lock().queue);
        drop(queue);
        self.join_all();
    }
}
