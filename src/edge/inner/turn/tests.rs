//! The line without any connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::thread::{self, Joined};

type Line = Turnstile<u32>;

fn lead(line: &Line) -> Lead<'_, u32> {
    match line.enter() {
        Ok(Turn::Lead(lead)) => lead,
        _ => panic!("somebody else leads"),
    }
}

/// One more in line: what it was served, or `None` if it was to lead, which it then did.
fn follow(line: &Arc<Line>) -> Joined<io::Result<Option<u32>>> {
    let before = line.0.lock().waiting.len();
    let own = Arc::clone(line);
    let thread = thread::spawn("follow", move || {
        own.enter().map(|turn| match turn {
            Turn::Served(it) => Some(it),
            Turn::Lead(_) => None,
        })
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while line.0.lock().waiting.len() == before {
        assert!(Instant::now() < deadline, "it does not stand in line");
        std::thread::yield_now();
    }
    thread.unwrap()
}

fn told(thread: Joined<io::Result<Option<u32>>>) -> Result<Option<u32>, io::ErrorKind> {
    thread.join().expect("no panic").map_err(|why| why.kind())
}

#[test]
fn whoever_waited_longest_is_served_first_and_the_next_one_leads() {
    let line = Arc::new(Line::default());
    let leads = lead(&line);
    let waiting: Vec<_> = (0..4).map(|_| follow(&line)).collect();
    let followers = leads.followers(2);
    assert_eq!(followers.len(), 2);
    for (no, follower) in (0..).zip(followers) {
        follower.serve(Ok(no));
    }
    drop(leads);
    let told: Vec<_> = waiting.into_iter().map(told).collect();
    assert_eq!(told, [Ok(Some(0)), Ok(Some(1)), Ok(None), Ok(None)]);
    drop(lead(&line)); // nobody leads any more
}

#[test]
fn those_whom_a_leader_forgets_are_told() {
    let line = Arc::new(Line::default());
    let leads = lead(&line);
    let waiting = [follow(&line), follow(&line)];
    let mut followers = leads.followers(9).into_iter();
    followers
        .next()
        .unwrap()
        .serve(Err(io::ErrorKind::TimedOut.into()));
    drop(followers);
    drop(leads);
    let told = waiting.map(told);
    assert_eq!(
        told,
        [io::ErrorKind::TimedOut, io::ErrorKind::ResourceBusy].map(Err)
    );
    drop(lead(&line));
}

#[test]
fn the_line_has_an_end_and_nobody_waits_for_ever() {
    let line = Line::default();
    let leads = lead(&line);
    let none = line.enter_within(Duration::ZERO).err();
    assert_eq!(none.unwrap().kind(), io::ErrorKind::ResourceBusy);
    assert!(line.0.lock().waiting.is_empty());
    let (sender, _receiver) = bounded(1);
    let one = |no| (no, Follower(sender.clone()));
    line.0.lock().waiting.extend((0..LINE_MAX as u64).map(one));
    let none = line.enter().err(); // at once
    assert_eq!(none.unwrap().kind(), io::ErrorKind::ResourceBusy);
    drop(leads);
}

/// Some give up just when they are called: the lead must not be lost with them.
#[test]
fn whoever_gives_up_takes_nothing_along() {
    let line = Arc::new(Line::default());
    let (served, led) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..8)
        .map(|no| {
            let (line, served, led) = (Arc::clone(&line), Arc::clone(&served), Arc::clone(&led));
            let work = move || {
                for round in 0..500 {
                    match line.enter_within(Duration::from_micros(no * round % 97)) {
                        Ok(Turn::Served(_)) => _ = served.fetch_add(1, SeqCst),
                        Ok(Turn::Lead(lead)) => {
                            led.fetch_add(1, SeqCst);
                            let followers = lead.followers(3);
                            followers.into_iter().for_each(|it| it.serve(Ok(1)));
                        }
                        Err(why) => assert_eq!(why.kind(), io::ErrorKind::ResourceBusy),
                    }
                }
            };
            thread::spawn("crowd", work).unwrap()
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(led.load(SeqCst) > 0);
    drop(lead(&line));
    assert!(line.0.lock().waiting.is_empty());
}
