//! Descriptors to sleep on, and threads that take no signals.

mod support;

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headrace_sys::eventfd::EventFd;
use headrace_sys::poll::{self, PollFd};
use headrace_sys::signals::block_all;
use headrace_sys::threads::spawn_native;
use support::*;

#[test]
fn an_eventfd_is_readable_between_signal_and_clear() {
    let event = EventFd::new().unwrap();
    let readable = || poll::wait(&mut [PollFd::input(event.fd())], Some(Duration::ZERO)).unwrap() == 1;
    assert!(!readable() && !event.clear());
    event.signal();
    event.signal();
    assert!(readable() && event.clear());
    assert!(!readable() && !event.clear());
}

#[test]
fn a_wait_tells_which_descriptor_is_ready() {
    let (quiet, ringing) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    ringing.signal();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(writer);
    use std::os::fd::AsRawFd;
    let mut fds = [
        PollFd::input(quiet.fd()),
        PollFd::input(ringing.fd()),
        PollFd::input(reader.as_raw_fd()),
        PollFd::output(quiet.fd()),
        PollFd::input(-1),
    ];
    assert_eq!(poll::wait(&mut fds, None).unwrap(), 3);
    assert_eq!(fds.map(|fd| fd.is_ready()), [false, true, true, true, false]);
    assert_eq!(fds.map(|fd| fd.hung_up()), [false, false, true, false, false]);
    assert!(fds.iter().all(|fd| !fd.failed()));
}

#[test]
fn a_wait_ends_in_time() {
    let event = EventFd::new().unwrap();
    let started = Instant::now();
    assert_eq!(poll::wait(&mut [PollFd::input(event.fd())], Some(Duration::from_millis(20))).unwrap(), 0);
    assert!(started.elapsed() >= Duration::from_millis(20));
}

#[test]
fn a_wait_of_all_time_is_possible() {
    let event = EventFd::new().unwrap();
    event.signal();
    assert_eq!(poll::wait(&mut [PollFd::input(event.fd())], Some(Duration::MAX)).unwrap(), 1);
}

#[test]
fn a_signal_interrupts_a_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a handler that does nothing, for a signal that no other test uses.
    unsafe { libc::signal(libc::SIGUSR1, nothing as *const () as libc::sighandler_t) };
    let event = Arc::new(EventFd::new().unwrap());
    let fd = event.fd();
    let waiter = std::thread::spawn(move || poll::wait(&mut [PollFd::input(fd)], None));
    until("the interrupt", || {
        // It may not have reached the wait yet, so one signal is not always enough.
        // SAFETY: the thread has not been joined.
        unsafe { libc::pthread_kill(waiter.as_pthread_t(), libc::SIGUSR1) };
        waiter.is_finished().then_some(())
    });
    assert_eq!(waiter.join().unwrap().unwrap_err().kind(), io::ErrorKind::Interrupted);
}

#[test]
fn native_threads_take_no_signals() {
    let status = || std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let native = spawn_native("a-native-thread", status).unwrap().join().unwrap();
    assert!(native.starts_with("Name:\ta-native-thread\n"));
    assert_eq!(status_mask(&native, "SigBlk:") & ALL_SIGNALS, ALL_SIGNALS);
    assert_eq!(status_mask(&status(), "SigBlk:") & ALL_SIGNALS, 0);
}

#[test]
fn blocks_may_be_nested() {
    let blocked =
        || status_mask(&std::fs::read_to_string("/proc/thread-self/status").unwrap(), "SigBlk:") & ALL_SIGNALS;
    let outer = block_all();
    drop(block_all());
    assert_eq!(blocked(), ALL_SIGNALS);
    drop(outer);
    assert_eq!(blocked(), 0);
}
