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
    /// The most memory that it is certain not to have had itself, and the most that is told of it, in bytes.
    floor: u64,
    peak: u64,
}

impl PidFd {
    /// The process with number `pid` now. For a child that has not been waited for, that is certain to be the child.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        let fd = rustix::process::pidfd_open(to_pid(pid)?, PidfdFlags::empty())?;
        Ok(Self { fd, pid, ended: None, floor: u64::MAX, peak: 0 })
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
            self.ended = match wait_for(&self.fd) {
                Ok(None) => None,
                Ok(Some((status, peak))) => {
                    self.peak = peak;
                    Some(status)
                }
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Some(ExitStatus::Unknown),
                Err(error) => return Err(error),
            };
        }
        Ok(self.ended)
    }

    /// The most memory in bytes that the process had in use, once [`try_wait`](PidFd::try_wait) has told its end. `None` if
    /// that is not known: the system gives one figure for the child and for what it was before it had its own program, which
    /// is this process.
    pub fn peak_bytes(&self) -> Option<u64> {
        (self.peak > self.floor).then_some(self.peak)
    }

    /// Nanoseconds of processor time that the process has used, all its threads together; `None` if that is not known.
    pub fn cpu_ns(&self) -> Option<u64> {
        let mut clock = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let pid = libc::pid_t::try_from(self.pid).ok()?;
        // SAFETY: each call writes to the one variable that it is given.
        let are_known = unsafe {
            libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
        };
        let ns = || u64::try_from(time.tv_sec).ok()?.checked_mul(1_000_000_000)?.checked_add(time.tv_nsec as u64);
        if are_known && self.ended.is_none() { ns() } else { None }
    }

    /// The descriptor to poll for input: it is readable once the process has ended.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn from_fd(fd: OwnedFd, pid: u32) -> Self {
        Self { fd, pid, ended: None, floor: own_peak_bytes(), peak: 0 }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How a child ended and the peak of its memory, `None` while it lives.
fn wait_for(fd: &OwnedFd) -> io::Result<Option<(ExitStatus, u64)>> {
    // SAFETY: zeros are valid in both plain structures.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG;
    // SAFETY: the kernel writes to the two structures only. The wrapper of libc does not pass the second one on.
    let result = unsafe {
        libc::syscall(libc::SYS_waitid, libc::P_PIDFD, fd.as_raw_fd(), &raw mut info, options, &raw mut usage)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `waitid` fills in these fields, or leaves the zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let status = match info.si_code {
        libc::CLD_EXITED => ExitStatus::Exited { code: status },
        libc::CLD_KILLED | libc::CLD_DUMPED => ExitStatus::Signaled { signal: status },
        _ => ExitStatus::Unknown,
    };
    Ok(Some((status, peak_of(&usage))))
}

fn own_peak_bytes() -> u64 {
    // SAFETY: zeros are valid in a plain structure, which the kernel fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    peak_of(&usage)
}

fn peak_of(usage: &libc::rusage) -> u64 {
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024
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
