//! Python stacks of a worker process, on request.
//!
//! The worker has registered a handler of `faulthandler` for a signal, which writes the stacks of all its threads to a file in
//! memory that both sides have. The handler is C and takes no interpreter lock, so it answers from a process that hangs
//! in native code, or whose lock is taken. Nothing marks the end of what it writes: the text is whole once it has
//! stopped to grow.

use headrace_sys::memfd;
use headrace_sys::pidfd::PidFd;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Time between two looks at the text.
const LOOK_NS: u64 = 5_000_000;
/// How long the text must not have grown to be whole.
const QUIET_NS: u64 = 20_000_000;
/// Time after which there is no text.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Bytes of the text that are read; a hundred threads with a hundred frames each.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// The stacks of one process.
#[derive(Debug)]
pub(super) struct Stacks {
    file: OwnedFd,
    asked: Option<Asked>,
}

/// A dump under way.
#[derive(Clone, Copy, Debug)]
struct Asked {
    since_ns: u64,
    bytes: u64,
    /// When the text last grew.
    grown_ns: u64,
}

impl Stacks {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Stacks { file: memfd::create_file("headrace-stacks")?, asked: None })
    }

    /// The file that the process inherits.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Asks the process for its stacks.
    pub(super) fn ask(&mut self, process: &PidFd, now_ns: u64) -> io::Result<()> {
        memfd::empty(&self.file)?;
        process.ask_for_stacks()?;
        self.asked = Some(Asked { since_ns: now_ns, bytes: 0, grown_ns: now_ns });
        Ok(())
    }

    /// When to look again.
    pub(super) fn due_ns(&self, now_ns: u64) -> Option<u64> {
        self.asked.map(|_| now_ns + LOOK_NS)
    }

    /// The text, or why there is none, once that is known.
    pub(super) fn poll(&mut self, now_ns: u64) -> Option<String> {
        let asked = self.asked.as_mut()?;
        let bytes = memfd::len(&self.file).unwrap_or(0);
        if bytes > asked.bytes {
            (asked.bytes, asked.grown_ns) = (bytes, now_ns);
        }
        let is_whole = bytes > 0 && now_ns >= asked.grown_ns + QUIET_NS;
        let is_late = now_ns >= asked.since_ns + PATIENCE_NS;
        if !is_whole && !is_late {
            return None;
        }
        self.asked = None;
        if bytes == 0 {
            return Some(
                "the process has not written its stacks within a second: it may be stopped, its main thread may block \
                 signals, or user code has taken the signal"
                    .to_owned(),
            );
        }
        let text = memfd::read(&self.file, bytes.min(TEXT_BYTES_MAX) as usize).unwrap_or_default();
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}
