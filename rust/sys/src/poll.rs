//! Waiting for descriptors.

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

/// One descriptor to wait for, and what the last [`wait`] found. A list of them may be kept from turn to turn.
///
/// It does not own the descriptor: one that was closed meanwhile shows as [`failed`](PollFd::failed), and one below
/// zero is skipped.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits until `fd` can be read, or its other end is gone.
    pub fn input(fd: RawFd) -> Self {
        Self(libc::pollfd { fd, events: libc::POLLIN, revents: 0 })
    }

    /// Waits until `fd` can be written, or its other end is gone.
    pub fn output(fd: RawFd) -> Self {
        Self(libc::pollfd { fd, events: libc::POLLOUT, revents: 0 })
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.0.fd
    }

    /// Whether the last wait found anything: data, room, the end of the file or an error.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }

    /// Whether the last wait found that the other end hung up; data may still be there to read.
    #[must_use]
    pub fn hung_up(&self) -> bool {
        self.0.revents & libc::POLLHUP != 0
    }

    /// Whether the last wait found an error, or that the descriptor is not open.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.0.revents & (libc::POLLERR | libc::POLLNVAL) != 0
    }
}

/// Sleeps until a descriptor is ready, for at most `timeout` (`None`: for ever); returns how many are, 0 after a timeout.
///
/// # Errors
/// [`io::ErrorKind::Interrupted`] when a signal handler ran, so that the caller can look what it did. Everything else
/// means that the arguments were impossible or the system is out of memory.
pub fn wait(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `PollFd` is a transparent `pollfd`, so the slice is an array of its length that poll may write to;
    // `timeout` is null or points to a timespec that outlives the call; a null mask leaves the signal mask alone.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, timeout, ptr::null()) };
    usize::try_from(ready).map_err(|_| io::Error::last_os_error())
}
