//! Real directories in the directory for temporary files. What needs root is skipped where there is
//! none, and seen again, from outside, by the integration tests.

use std::os::unix::fs::symlink;

use super::*;

/// A state directory, removed at the end.
struct State(PathBuf);

impl State {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let no = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mcp-broker-homes-{}-{no}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn homes(&self, identity: Identity, keep: bool) -> Homes {
        Homes::in_state(&self.0, identity, keep).unwrap()
    }

    fn own(&self, keep: bool) -> Homes {
        self.homes(Identity::Own, keep)
    }

    fn names(&self) -> Vec<String> {
        let listed = list(&self.0.join(IN_STATE)).unwrap_or_default();
        listed.into_iter().map(|(name, _)| name).collect()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        tree::remove(&self.0);
    }
}

fn user(name: &str) -> Principal {
    Principal {
        subject: name.into(),
        ..Principal::anonymous()
    }
}

#[test]
fn a_home_lasts_as_long_as_somebody_uses_it() {
    let state = State::new();
    let homes = state.own(false);
    let first = homes.open(&user("alice")).unwrap();
    let [home, tmp] = first.directories().clone();
    assert_eq!((mode(&home).unwrap(), mode(&tmp).unwrap()), (0o700, 0o700));
    fs::write(home.join("file"), "kept").unwrap();
    let second = homes.open(&user("alice")).unwrap();
    assert_eq!(first.directories(), second.directories());
    let other = homes.open(&user("bob")).unwrap();
    assert_ne!(first.directories(), other.directories());
    drop(first);
    assert_eq!(fs::read_to_string(home.join("file")).unwrap(), "kept");
    drop(second);
    assert!(!home.exists());
    let third = homes.open(&user("alice")).unwrap();
    assert!(home.exists() && !home.join("file").exists());
    drop((third, other, homes));
    assert!(!state.0.join(IN_STATE).exists());
}

#[test]
fn a_kept_home_keeps_all_but_its_tmp() {
    let state = State::new();
    let homes = state.own(true);
    let first = homes.open(&user("alice")).unwrap();
    let [home, tmp] = first.directories().clone();
    fs::write(home.join("file"), "").unwrap();
    fs::write(tmp.join("file"), "").unwrap();
    drop(first);
    assert!(home.join("file").exists() && !tmp.exists());
    drop(homes);
    let homes = state.own(true);
    let again = homes.open(&user("alice")).unwrap();
    assert!(home.join("file").exists() && tmp.exists());
    drop(again);
    drop(homes);
    drop(state.own(false));
    assert_eq!(state.names(), Vec::<String>::new());
}

#[test]
fn what_a_killed_broker_left_is_removed_and_what_another_uses_is_not() {
    let state = State::new();
    let homes = state.own(false);
    let used = homes.open(&user("alice")).unwrap();
    for left in ["0123456789abcdef", "gone-1-0"] {
        fs::create_dir_all(state.0.join(IN_STATE).join(left).join("home/deep")).unwrap();
    }
    let other = state.own(false);
    assert_eq!(state.names(), [used.name.as_str()]);
    // Two brokers, one user: the last session of both counts.
    let same = other.open(&user("alice")).unwrap();
    drop(used);
    assert!(same.directories()[0].exists());
    drop(same);
    assert_eq!(state.names(), Vec::<String>::new());
}

#[test]
fn links_lead_nowhere_and_missing_rights_hold_nothing_up() {
    let state = State::new();
    let outside = state.0.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    let homes = state.own(false);
    let used = homes.open(&user("alice")).unwrap();
    let [home, tmp] = used.directories().clone();
    symlink(&outside, home.join("link")).unwrap();
    fs::create_dir_all(home.join("closed/deep")).unwrap();
    for closed in [home.join("closed/deep"), home.join("closed"), tmp] {
        fs::set_permissions(closed, Permissions::from_mode(0o000)).unwrap();
    }
    drop(used);
    assert_eq!(state.names(), Vec::<String>::new());
    assert!(outside.join("file").exists());
}

#[test]
fn two_lists_of_parts_have_two_names() {
    let name = |parts: [&str; 2]| digest(parts.map(str::as_bytes));
    assert_eq!(name(["a", "bc"]).len(), NAME_DIGITS);
    assert_ne!(name(["a", "bc"]), name(["ab", "c"]));
}

#[test]
fn the_lowest_free_uid_is_given() {
    let homes = |taken: &[(&str, u32)]| -> Vec<(String, u32)> {
        let own = taken.iter().map(|(name, uid)| ((*name).to_owned(), *uid));
        own.collect()
    };
    let taken = homes(&[("a", 10), ("gone-1-0", 12), ("old", 0)]);
    let none = HashSet::new();
    assert_eq!(choose(&(10..=13), "b", &taken, &none), Ok(11));
    assert_eq!(choose(&(10..=13), "a", &taken, &none), Ok(10));
    assert_eq!(
        choose(&(11..=13), "a", &taken, &none),
        Ok(11),
        "out of range"
    );
    let in_use = HashSet::from([10, 11]);
    assert_eq!(choose(&(10..=13), "b", &taken, &in_use), Ok(13));
    assert_eq!(choose(&(10..=13), "a", &taken, &in_use), Ok(10));
    let why = choose(&(10..=10), "b", &taken, &none).unwrap_err();
    assert!(why.contains("no uid of 10-10 is free"), "{why}");
}

#[test]
fn each_user_has_a_uid_and_the_way_to_it_is_open() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let state = State::new();
    let homes = state.homes(Identity::Each(61284..=61285), false);
    let alice = homes.open(&user("alice")).unwrap();
    let again = homes.open(&user("alice")).unwrap();
    let bob = homes.open(&user("bob")).unwrap();
    let uid = |home: &Home| home.ids().unwrap().uid;
    assert_eq!((uid(&alice), uid(&again), uid(&bob)), (61284, 61284, 61285));
    let why = homes.open(&user("carol")).unwrap_err();
    assert!(why.contains("no uid"), "{why}");
    let [home, _] = alice.directories();
    let found = fs::metadata(home).unwrap();
    assert_eq!((found.uid(), found.gid()), (61284, 61284));
    assert_eq!(mode(home.parent().unwrap()).unwrap(), 0o710);
    assert_eq!(mode(homes.base()).unwrap(), 0o711);
    assert_eq!(mode(&state.0).unwrap(), 0o711);
    drop((alice, again));
    assert_eq!(uid(&homes.open(&user("carol")).unwrap()), 61284);
}

#[test]
fn a_state_directory_out_of_reach_has_its_homes_elsewhere() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let state = State::new();
    let inner = state.0.join("deep");
    fs::create_dir(&inner).unwrap();
    let homes = Homes::in_state(&inner, Identity::Each(61284..=61285), false).unwrap();
    assert!(homes.base().starts_with(ELSEWHERE), "{homes}");
    let _home = homes.open(&user("alice")).unwrap();
    assert!(is_passable(&homes.base().join("of alice")), "{homes}");
}

#[test]
fn directories_nested_without_end_do_not_take_the_stack() {
    let state = State::new();
    let homes = state.own(false);
    let used = homes.open(&user("alice")).unwrap();
    // The names that those get which are moved up.
    let [home, tmp] = used.directories().clone();
    fs::create_dir_all(tmp.join("1/2/3")).unwrap();
    fs::write(home.join("1"), "").unwrap();
    // Deeper than any path can name.
    let mut place = File::open(&home).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&place, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        let next = rustix::fs::openat(&place, "d", flags, rustix::fs::Mode::empty());
        place = next.unwrap().into();
    }
    drop(place);
    let stack = crate::thread::spawn("small", move || drop(used)).unwrap();
    assert_eq!(stack.join(), Some(()));
    assert_eq!(state.names(), Vec::<String>::new());
}

#[test]
fn whoever_locks_the_directories_holds_nothing_up() {
    let state = State::new();
    let homes = state.own(false);
    let used = homes.open(&user("alice")).unwrap();
    // What a child with the broker's uid can do: Landlock lets it open every directory.
    let opened = [homes.base(), used.directories()[0].parent().unwrap()].map(open);
    let held = opened.map(Result::unwrap);
    for directory in &held {
        directory.lock().unwrap();
    }
    let (done, is_done) = crossbeam_channel::bounded(1);
    let user_thread = crate::thread::spawn("user", move || {
        let again = homes.open(&user("alice")).unwrap();
        drop((used, again));
        drop(homes);
        done.send(()).unwrap();
    });
    let freed = is_done.recv_timeout(std::time::Duration::from_secs(20));
    drop(held);
    user_thread.unwrap().join();
    assert_eq!(freed, Ok(()));
    assert!(!state.0.join(IN_STATE).exists());
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process that outlives its session"
)]
#[test]
fn the_uid_of_a_process_is_not_given_to_another_user() {
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let state = State::new();
    let homes = state.homes(Identity::Each(61390..=61391), false);
    let uid = |name| homes.open(&user(name)).unwrap().ids().unwrap().uid;
    assert_eq!(uid("alice"), 61390);
    let mut command = std::process::Command::new("sleep");
    let mut escaped = command.arg("60").uid(61390).gid(61390).spawn().unwrap();
    assert_eq!(uid("bob"), 61391);
    escaped.kill().unwrap();
    escaped.wait().unwrap();
    assert_eq!(uid("bob"), 61390);
}
