//! The thread that starts all children, and so is their parent in the eyes of the kernel: the
//! signal that ends a child when its parent dies (`PR_SET_PDEATHSIG`) is sent when the *thread*
//! ends that started it. So there is one, named `spawn`, and it ends after the last child.

use std::io;
use std::process::{Child, Command};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::thread::{self, Joined};

/// Owns the thread. To be dropped when no child is left: those that are would be killed.
pub(crate) struct Parent {
    orders: Sender<Order>,
    _thread: Joined<()>,
}

enum Order {
    Spawn {
        command: Box<Command>,
        child: Sender<io::Result<Child>>,
    },
    End,
}

impl Parent {
    /// # Errors
    /// The OS error if no thread can be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, taken) = unbounded();
        let thread = thread::spawn("spawn", move || serve(&taken))?;
        Ok(Self {
            orders,
            _thread: thread,
        })
    }

    /// For whoever starts children.
    pub(crate) fn nursery(&self) -> Nursery {
        Nursery(self.orders.clone())
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // It listens until this comes.
        let _ = self.orders.send(Order::End);
    }
}

/// Where children are started.
#[derive(Clone)]
pub(crate) struct Nursery(Sender<Order>);

impl Nursery {
    /// # Errors
    /// The OS error, or that [`Parent`] has been dropped.
    pub(super) fn spawn(&self, command: Command) -> io::Result<Child> {
        let (child, born) = bounded(1);
        let order = Order::Spawn {
            command: Box::new(command),
            child,
        };
        let over = || io::Error::other("the broker is about to end");
        self.0.send(order).map_err(|_| over())?;
        born.recv().map_err(|_| over())?
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that starts children"
)]
fn serve(orders: &Receiver<Order>) {
    while let Ok(Order::Spawn { mut command, child }) = orders.recv() {
        // Who asked waits for it.
        let _ = child.send(command.spawn());
    }
}
