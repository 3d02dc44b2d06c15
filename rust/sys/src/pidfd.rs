//! A process by descriptor: signals reach it and nobody who got its number later, and its end can be polled for.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// The signal that makes a worker write down its stacks. A real-time one, near the end, where neither libc nor programs look
/// first; SIGUSR1 and its like are the user's.
pub const STACKS_SIGNAL: i32 = 62;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// It exited.
    Exited {
        /// The code that it gave.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal.
        signal: i32,
    },
    /// Not known: something else in this process waited for it first, such as a call of `os.wait()`.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Exited { code } => write!(f, "exit code {code}"),
            ExitStatus::Signaled { signal } => write!(f, "signal {signal}"),
            ExitStatus::Unknown => write!(f, "unknown exit status"),
        }
    }
}

/// A process.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: u32,
    ended: Option<ExitStatus>,
}

impl PidFd {
    /// The process with number `pid` now. For a child that has not been waited for, that is certain to be the child.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { fd: rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty())?, pid, ended: None })
    }

    /// The number of the process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; a process that has ended is left in peace.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        ended_is_fine(rustix::process::pidfd_send_signal(&self.fd, signal))
    }

    /// Sends [`STACKS_SIGNAL`]; a process that has ended is left in peace.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn ask_for_stacks(&self) -> io::Result<()> {
        // SAFETY: it is a real-time signal that libc keeps for nothing of its own (those are the lowest ones).
        self.send_signal(unsafe { Signal::from_raw_unchecked(STACKS_SIGNAL) })
    }

    /// Sends a signal to all processes of the group that this process leads, also if it has ended itself: what user code
    /// started and left behind. Does nothing once [`try_wait`](PidFd::try_wait) has told the end, because the number of
    /// the group may belong to others from then on.
    ///
    /// # Errors
    /// When the caller may not.
    pub fn send_signal_to_group(&self, signal: Signal) -> io::Result<()> {
        match self.ended {
            None => ended_is_fine(rustix::process::kill_process_group(to_pid(self.pid)?, signal)),
            Some(_) => Ok(()),
        }
    }

    /// As [`try_wait`](PidFd::try_wait), and kills what is left of the group that the process led, while that number is
    /// still its own.
    ///
    /// # Errors
    /// None that a child can cause.
    pub fn try_wait_with_group(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), peek) {
                Ok(None) => return Ok(None),
                Ok(Some(_)) => self.send_signal_to_group(Signal::KILL)?,
                // Somebody else waited for it, and its number is free: the group is left in peace.
                Err(Errno::CHILD) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.try_wait()
    }

    /// How the process ended, `None` while it lives. For children; the first answer releases the process number.
    ///
    /// # Errors
    /// None that a child can cause.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            self.ended = match rustix::process::waitid(WaitId::PidFd(self.fd.as_fd()), options) {
                Ok(None) => None,
                Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => ExitStatus::Exited { code },
                    (None, Some(signal)) => ExitStatus::Signaled { signal },
                    (None, None) => ExitStatus::Unknown,
                }),
                Err(Errno::CHILD) => Some(ExitStatus::Unknown),
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(self.ended)
    }

    /// The descriptor to poll for input: it is readable once the process has ended.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn from_fd(fd: OwnedFd, pid: u32) -> Self {
        Self { fd, pid, ended: None }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process number"))
}

fn ended_is_fine(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
