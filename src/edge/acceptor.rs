//! The accepting thread (`edge`): takes connections of all listeners, gives each a thread, and
//! joins those that have ended. It alone knows how many there are.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, Socket, TcpKeepalive};

use super::connection::{self, Client};
use super::listener::{Door, Listener};
use super::refuse::Refusal;
use super::{ADMIN_CONNECTIONS_MAX, LAST_RESPONSE, Shared};
use crate::metrics::{self, Gauge};
use crate::thread::{self, Joined};

/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Connections taken in a row before those that have ended are joined.
const ACCEPTS_MAX: usize = 64;
/// How often the end looks whether the last responses are through.
const END_TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};
/// A client that has just connected is given this time for its request, and then an answer.
pub(super) const FRESH: Duration = Duration::from_millis(500);
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
/// Clients that were turned away and may still be reading why; the oldest goes first.
const TURNED_AWAY_MAX: usize = 16;
const TURNED_AWAY_LINGER: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

struct Served {
    door: Door,
    socket: Arc<Socket>,
    since: Instant,
    /// A response is due, or on its way.
    owing: Arc<AtomicBool>,
    address: Option<IpAddr>,
    thread: Joined<()>,
}

/// The accepting thread: owns all connections, and joins their threads.
pub(super) struct Acceptor {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    served: HashMap<u64, Served>,
    by_address: HashMap<IpAddr, usize>,
    admin_served: usize,
    last_no: u64,
    ended: (Sender<u64>, Receiver<u64>),
    turned_away: VecDeque<Arc<Socket>>,
}

impl Acceptor {
    pub(super) fn new(shared: Arc<Shared>, listeners: Vec<Listener>) -> Self {
        Self {
            shared,
            listeners,
            served: HashMap::new(),
            by_address: HashMap::new(),
            admin_served: 0,
            last_no: 0,
            ended: unbounded(),
            turned_away: VecDeque::new(),
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            let (woken, incoming) = self.wait();
            if woken {
                // EAGAIN: somebody else's wake-up was counted in.
                let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]);
                // Full: an answer waits to be taken.
                let _ = self.shared.awake.0.try_send(());
                self.join_ended();
            }
            if self.shared.leaving_passed.load(Ordering::Acquire)
                && self.listeners.iter().any(|listener| listener.is_passed)
            {
                self.listeners.retain(|listener| !listener.is_passed);
                continue;
            }
            for at in incoming {
                self.accept(at);
            }
        }
        self.end();
    }

    /// Waits for a wake-up or for connections; gives which listeners have some.
    fn wait(&mut self) -> (bool, Vec<usize>) {
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let sockets = self.listeners.iter().map(|listener| &listener.socket);
        fds.extend(sockets.map(|socket| PollFd::new(socket, PollFlags::IN)));
        let linger = (!self.turned_away.is_empty()).then_some(&TURNED_AWAY_LINGER);
        if let Ok(0) = poll(&mut fds, linger) {
            self.turned_away.clear();
        }
        // EINTR is one more turn of the loop.
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let woken = ready.next().unwrap_or_default();
        let incoming = ready.enumerate().filter(|(_, is_ready)| *is_ready);
        (woken, incoming.map(|(at, _)| at).collect())
    }

    /// Closes idle connections at once, and the others when their response is through, or cuts
    /// them if that takes too long.
    fn end(&mut self) {
        let deadline = Instant::now() + LAST_RESPONSE;
        loop {
            self.join_ended();
            let is_late = Instant::now() >= deadline;
            let cut = is_late || self.shared.cutting.load(Ordering::Acquire);
            for served in self.served.values() {
                let is_idle = !served.owing.load(Ordering::SeqCst);
                if cut || (is_idle && served.since.elapsed() >= FRESH) {
                    // ENOTCONN: it is closed already.
                    let _ = served.socket.shutdown(Shutdown::Both);
                }
            }
            if cut || self.served.is_empty() {
                return;
            }
            let mut wake = [PollFd::new(&self.shared.wake, PollFlags::IN)];
            let _ = poll(&mut wake, Some(&END_TICK));
            let _ = rustix::io::read(&self.shared.wake, &mut [0u8; 8]);
        }
    }

    /// Takes connections; one is never left waiting on purpose.
    fn accept(&mut self, at: usize) {
        let door = self.listeners[at].door;
        for _ in 0..ACCEPTS_MAX {
            match self.listeners[at].socket.accept() {
                Ok((socket, address)) => {
                    let address = address.as_socket().map(|addr| addr.ip().to_canonical());
                    self.take(Arc::new(socket), door, address);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    log::error!("cannot accept a connection: {error}");
                    let mut wake = [PollFd::new(&self.shared.wake, PollFlags::IN)];
                    self.turned_away.clear();
                    // A connection that ends cuts the pause short: it frees what was missing.
                    let _ = poll(&mut wake, Some(&ACCEPT_PAUSE));
                    return;
                }
            }
        }
    }

    fn take(&mut self, socket: Arc<Socket>, door: Door, address: Option<IpAddr>) {
        let options = &self.shared.options;
        let counted = address
            .filter(|ip| door == Door::Public && !options.trusted_proxies.contains(ip))
            .map(network);
        if let Some(why) = self.lacks_room(door, counted) {
            return self.turn_away(socket, why);
        }
        if let Err(error) = prepare(&socket, address.is_some()) {
            log::debug!("connection lost before it began: {error}");
            return;
        }
        self.last_no += 1;
        let (no, shared, own, ended) = (
            self.last_no,
            Arc::clone(&self.shared),
            Arc::clone(&socket),
            self.ended.0.clone(),
        );
        // Before the connection can ask how many there are.
        open_connections(door).increase();
        let owing: Arc<AtomicBool> = Arc::default();
        let is_owing = Arc::clone(&owing);
        let thread = thread::spawn(format!("c:{no}"), move || {
            // Reports the end also when the thread panics.
            let _report = Report {
                no,
                ended,
                shared: Arc::clone(&shared),
            };
            let client = Client {
                no,
                socket: &own,
                door,
                hop: address,
            };
            connection::serve(&shared, client, &is_owing);
        });
        match thread {
            Ok(thread) => {
                if let Some(ip) = counted {
                    *self.by_address.entry(ip).or_default() += 1;
                }
                self.admin_served += usize::from(door == Door::Admin);
                self.served.insert(
                    no,
                    Served {
                        door,
                        socket,
                        since: Instant::now(),
                        owing,
                        address: counted,
                        thread,
                    },
                );
            }
            Err(error) => {
                open_connections(door).decrease();
                log::error!("cannot start a thread for a connection: {error}");
                self.turn_away(socket, "no thread to serve this connection");
            }
        }
    }

    fn lacks_room(&self, door: Door, address: Option<IpAddr>) -> Option<&'static str> {
        let options = &self.shared.options;
        let (open, max) = match door {
            Door::Public => (
                self.served.len() - self.admin_served,
                options.max_connections,
            ),
            Door::Admin => (self.admin_served, ADMIN_CONNECTIONS_MAX),
        };
        if open >= max {
            return Some("too many connections");
        }
        let of_address = address.and_then(|ip| self.by_address.get(&ip)).copied();
        let max = options.max_connections_per_address;
        (max > 0 && of_address.unwrap_or(0) >= max)
            .then_some("too many connections from your address")
    }

    /// Says why, without waiting for the client. A socket that is closed while its client is
    /// sending resets it, and the answer with it; so it stays open for a while.
    fn turn_away(&mut self, socket: Arc<Socket>, why: &'static str) {
        metrics::CONNECTIONS_TURNED_AWAY.add(1);
        let _ = socket.set_nonblocking(true);
        let _ = rustix::io::write(&*socket, &Refusal::Busy(why).response());
        let _ = socket.shutdown(Shutdown::Write);
        if self.turned_away.len() == TURNED_AWAY_MAX
            && let Some(oldest) = self.turned_away.pop_front()
        {
            // What has come meanwhile must not be unread when it closes.
            let _ = rustix::io::read(&*oldest, &mut [0u8; 4096]);
        }
        self.turned_away.push_back(socket);
    }

    fn join_ended(&mut self) {
        while let Ok(no) = self.ended.1.try_recv() {
            let Some(Served {
                door,
                address,
                thread,
                ..
            }) = self.served.remove(&no)
            else {
                continue;
            };
            thread.join();
            self.admin_served -= usize::from(door == Door::Admin);
            open_connections(door).decrease();
            if let Some(ip) = address
                && let Some(count) = self.by_address.get_mut(&ip)
            {
                *count -= 1;
                if *count == 0 {
                    self.by_address.remove(&ip);
                }
            }
        }
    }
}

fn open_connections(door: Door) -> &'static Gauge {
    match door {
        Door::Public => &metrics::PUBLIC_CONNECTIONS,
        Door::Admin => &metrics::ADMIN_CONNECTIONS,
    }
}

/// Whom connections of this address are counted for: a client of IPv6 has a whole /64 to choose
/// from (RFC 4291, section 2.5.4).
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

struct Report {
    no: u64,
    ended: Sender<u64>,
    shared: Arc<Shared>,
}

impl Drop for Report {
    fn drop(&mut self) {
        // The acceptor is gone only when nothing is left to report to.
        let _ = self.ended.send(self.no);
        self.shared.wake();
    }
}

fn prepare(socket: &Socket, is_tcp: bool) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    if !is_tcp {
        return Ok(());
    }
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_ipv6_client_are_one() {
        for (ip, counted) in [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ] {
            let (ip, counted): (IpAddr, IpAddr) = (ip.parse().unwrap(), counted.parse().unwrap());
            assert_eq!(network(ip), counted);
        }
    }
}
