//! What the tests of this crate share.
#![allow(dead_code)] // each test binary uses a part

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_sys::pidfd::{ExitStatus, PidFd};
use headrace_sys::poll::{self, PollFd};
use headrace_sys::zmq::{Context, Dealer, Events, Frame, Library, Router, RoutingId, find_candidates};
use rustix::io::Errno;

/// Far longer than anything here takes, so that a test that waits for it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// The libzmq to test with.
pub(crate) fn library() -> Arc<Library> {
    Library::open(&find_candidates())
        .unwrap_or_else(|error| panic!("{error}\n(HEADRACE_LIBZMQ=/path/to/libzmq.so names one)"))
}

pub(crate) fn context() -> Context {
    Context::new(&library()).unwrap()
}

/// An endpoint that nobody else has; its path is removed at the end.
pub(crate) struct Endpoint(String);

pub(crate) fn endpoint() -> Endpoint {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("headrace-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Endpoint(format!("ipc://{}", std::env::temp_dir().join(name).display()))
}

impl Deref for Endpoint {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0.trim_start_matches("ipc://"));
    }
}

/// Sleeps until `fd` is readable.
pub(crate) fn await_input(fd: RawFd, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    assert!(!left.is_zero(), "nothing came in time");
    poll::wait(&mut [PollFd::input(fd)], Some(left)).unwrap();
}

/// Repeats `attempt` until it gives something.
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

pub(crate) fn router_recv(router: &mut Router) -> (RoutingId, Frame) {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(received) = router.try_recv().unwrap() {
            return received;
        }
        if !router.has_input().unwrap() {
            await_input(router.fd(), deadline);
        }
    }
}

pub(crate) fn dealer_recv(dealer: &mut Dealer) -> Frame {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(received) = dealer.try_recv().unwrap() {
            return received;
        }
        if !dealer.has_input().unwrap() {
            await_input(dealer.fd(), deadline);
        }
    }
}

/// A dealer with a living connection.
pub(crate) fn connected(context: &Context, endpoint: &str, name: &[u8]) -> Dealer {
    let mut dealer = Dealer::connect(context, endpoint, name).unwrap();
    assert!(dealer.wait_connected(LONG).unwrap());
    assert_eq!(dealer.events().unwrap(), Events { input: false, output: true });
    dealer
}

/// How the child ended.
pub(crate) fn end_of(process: &mut PidFd) -> ExitStatus {
    await_input(process.fd(), Instant::now() + LONG);
    process.try_wait().unwrap().expect("a readable pidfd means that the process has ended")
}

/// Everything until the end of the file.
pub(crate) fn read_all(fd: impl AsFd) -> String {
    read_while(fd, |_| true)
}

/// The first line, without its end.
pub(crate) fn read_line(fd: impl AsFd) -> String {
    read_while(fd, |text| !text.ends_with(b"\n")).trim_end().to_owned()
}

fn read_while(fd: impl AsFd, wants_more: impl Fn(&[u8]) -> bool) -> String {
    let mut text = Vec::new();
    while wants_more(&text) {
        let mut byte = [0];
        match rustix::io::read(&fd, &mut byte) {
            Ok(0) => break,
            Ok(_) => text.push(byte[0]),
            Err(Errno::AGAIN) => await_input(fd.as_fd().as_raw_fd(), Instant::now() + LONG),
            Err(errno) => panic!("{errno}"),
        }
    }
    String::from_utf8(text).unwrap()
}

/// A line such as `SigBlk:` of a `/proc/…/status`, as a number.
pub(crate) fn status_mask(status: &str, name: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel writes this line");
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

/// Every signal that can be blocked: all but KILL, STOP and the two that the C library keeps for itself.
pub(crate) const ALL_SIGNALS: u64 = !(1 << (9 - 1) | 1 << (19 - 1) | 1 << (32 - 1) | 1 << (33 - 1));
