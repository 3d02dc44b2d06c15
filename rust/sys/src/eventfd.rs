//! A counter in the kernel that a thread can sleep on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::EventfdFlags;
use rustix::io::Errno;

/// An eventfd: readable from the first [`signal`](EventFd::signal) until the next [`clear`](EventFd::clear).
#[derive(Debug)]
pub struct EventFd {
    fd: OwnedFd,
}

impl EventFd {
    /// A new one, not signalled, closed on exec.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self { fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Makes it readable and wakes who polls it. One system call.
    pub fn signal(&self) {
        loop {
            match rustix::io::write(&self.fd, &1u64.to_ne_bytes()) {
                Err(Errno::INTR) => {}
                // Full after 2^64 - 2 signals without a clear: it is readable, which is all that counts.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Makes it unreadable; returns whether it was signalled. One system call.
    pub fn clear(&self) -> bool {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&self.fd, &mut count) {
                Err(Errno::INTR) => {}
                result => return result.is_ok(),
            }
        }
    }

    /// The descriptor to poll for input.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
