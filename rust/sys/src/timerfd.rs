//! A timer that turns a descriptor readable, once for each time it is set.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// A timer.
#[derive(Debug)]
pub struct TimerFd {
    fd: OwnedFd,
}

impl TimerFd {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { fd: rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)? })
    }

    /// Makes [`fd`](TimerFd::fd) readable after this time, which is less than a second and not zero.
    pub fn set(&self, after: Duration) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time = Timespec { tv_sec: 0, tv_nsec: after.subsec_nanos().into() };
        let once = Itimerspec { it_interval: zero, it_value: time };
        rustix::time::timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)
            .expect("setting a timer fails only for a time that is none");
    }

    /// Makes the descriptor unreadable again; whether it was readable.
    pub fn clear(&self) -> bool {
        let mut expirations = [0; 8];
        rustix::io::read(&self.fd, &mut expirations).is_ok()
    }

    /// The descriptor to poll for input.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{self, PollFd};

    #[test]
    fn it_fires_once_for_each_time_it_is_set() {
        let timer = TimerFd::new().unwrap();
        assert!(!timer.clear());
        for _ in 0..2 {
            timer.set(Duration::from_micros(50));
            let deadline = Some(Duration::from_secs(10));
            assert_eq!(poll::wait(&mut [PollFd::input(timer.fd())], deadline).unwrap(), 1);
            assert!(timer.clear());
            assert!(!timer.clear());
        }
    }
}
