//! The status page: what a worker is doing, readable by the broker at any time, also after the worker's death.
//!
//! One page of shared memory with a few words, each written by one side only. Each is whole in itself: no word is read
//! together with another, so each needs to pair with its own store alone.
//!
//! | byte | word | written by | read by |
//! | --- | --- | --- | --- |
//! | 0 | layout number | broker, at creation | worker, at its start |
//! | 64 | executing (task, attempt) | worker's main thread | warden; broker |
//! | 72 | beats | worker's main thread | warden; broker |
//! | 80 | frames received | worker, under the lock of its socket | broker |
//! | 88 | overdue (task, attempt) | warden | worker's signal handler |
//! | 96 | pieces written to standard output and error | worker, any thread, and its forked children | broker |
//! | 128 | cancel (task, attempt) | broker | worker's signal handler and warden |
//!
//! What the two sides write lies in different cache lines.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use crate::memfd::{self, SharedWords};

/// The size of the page.
pub const PAGE_BYTES: u64 = 4096;

/// Number of the layout above; a worker of another layout refuses the page.
const LAYOUT: u64 = 0x6865_6164_0000_0003;

const WORDS: usize = PAGE_BYTES as usize / 8;
const LAYOUT_WORD: usize = 0;
const EXECUTING_WORD: usize = 64 / 8;
const BEATS_WORD: usize = 72 / 8;
const FRAMES_WORD: usize = 80 / 8;
const OVERDUE_WORD: usize = 88 / 8;
const WRITES_WORD: usize = 96 / 8;
const CANCEL_WORD: usize = 128 / 8;

/// No task: a slot number that no kernel reaches.
const NOTHING: u64 = u64::MAX;

/// One status page, as either side has it.
#[derive(Debug)]
pub struct StatusPage {
    fd: OwnedFd,
    map: SharedWords,
}

impl StatusPage {
    /// A new page, for a worker that is about to start: nothing executes, nothing is cancelled.
    ///
    /// # Errors
    /// When the process is out of descriptors or maps.
    pub fn create() -> io::Result<Self> {
        let fd = memfd::create_fixed("headrace-status", PAGE_BYTES)?;
        let map = SharedWords::map(&fd, WORDS)?;
        let page = Self { fd, map };
        // Relaxed: the worker that reads these is started later, and starting a process orders everything before it.
        page.word(EXECUTING_WORD).store(NOTHING, Ordering::Relaxed);
        page.word(OVERDUE_WORD).store(NOTHING, Ordering::Relaxed);
        page.word(CANCEL_WORD).store(NOTHING, Ordering::Relaxed);
        page.word(LAYOUT_WORD).store(LAYOUT, Ordering::Relaxed);
        Ok(page)
    }

    /// The page that a worker inherited.
    ///
    /// # Errors
    /// When `fd` is not a status page of this layout.
    pub fn attach(fd: OwnedFd) -> io::Result<Self> {
        let map = SharedWords::map(&fd, WORDS)?;
        let page = Self { fd, map };
        // Relaxed: written before this process began.
        if page.word(LAYOUT_WORD).load(Ordering::Relaxed) != LAYOUT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a status page of this version of headrace"));
        }
        Ok(page)
    }

    /// Worker: user code of this attempt is about to run. Precedes the call, and is seen by who reads the page after that
    /// call has killed the process.
    #[inline]
    pub fn set_executing(&self, task: u32, attempt: u32) {
        // Release pairs with the Acquire in `executing`: a living reader that sees the attempt also sees what the worker
        // did before it. After the worker's death the kernel orders all its stores before the pidfd turns readable.
        self.word(EXECUTING_WORD).store(pack(task, attempt), Ordering::Release);
        // A release store does not keep *later* work behind it. For the processor that does not matter, since a store
        // that has been executed is not lost with the process; this keeps the compiler to the same order.
        compiler_fence(Ordering::SeqCst);
    }

    /// Worker: no user code runs.
    #[inline]
    pub fn clear_executing(&self) {
        // Release, paired with `executing`: nothing of the call moves behind the note that it is over.
        self.word(EXECUTING_WORD).store(NOTHING, Ordering::Release);
    }

    /// The task and the attempt whose user code runs, or ran when the process died.
    #[inline]
    #[must_use]
    pub fn executing(&self) -> Option<(u32, u32)> {
        unpack(self.word(EXECUTING_WORD).load(Ordering::Acquire)) // pairs with `set_executing` and `clear_executing`
    }

    /// Worker, main thread only: one more sign of life.
    #[inline]
    pub fn beat(&self) {
        let beats = self.word(BEATS_WORD);
        // Not a read-modify-write, because one thread writes. Relaxed: it orders nothing, only change is of interest.
        beats.store(beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The number of beats so far.
    #[inline]
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.word(BEATS_WORD).load(Ordering::Relaxed)
    }

    /// Worker, whoever holds its socket: one more frame was received.
    #[inline]
    pub fn note_frame(&self) {
        let frames = self.word(FRAMES_WORD);
        // Not a read-modify-write, because the socket's lock orders the writers. Relaxed: only change is of interest.
        frames.store(frames.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// The number of frames received so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.word(FRAMES_WORD).load(Ordering::Relaxed)
    }

    /// Worker: one more piece stands in a pipe.
    pub fn note_write(&self) {
        // Release pairs with the Acquire in `writes`: who sees the count finds the piece in the pipe.
        self.word(WRITES_WORD).fetch_add(1, Ordering::Release);
    }

    /// The number of pieces written so far.
    #[inline]
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.word(WRITES_WORD).load(Ordering::Acquire) // pairs with `note_write`
    }

    /// Warden: this attempt runs for longer than it may, and shall be interrupted if it is the one that executes when the
    /// signal arrives. Precedes the signal.
    pub fn set_overdue(&self, task: u32, attempt: u32) {
        // Release pairs with the Acquire in `overdue`; the signal that follows brings the reader there.
        self.word(OVERDUE_WORD).store(pack(task, attempt), Ordering::Release);
    }

    /// The task and the attempt that is overdue.
    #[must_use]
    pub fn overdue(&self) -> Option<(u32, u32)> {
        unpack(self.word(OVERDUE_WORD).load(Ordering::Acquire)) // pairs with `set_overdue`
    }

    /// Broker: this attempt shall be interrupted, if it is the one that executes when the signal arrives. Precedes the
    /// signal. A later call replaces an earlier one.
    pub fn set_cancel(&self, task: u32, attempt: u32) {
        // Release pairs with the Acquire in `cancel`; the signal that follows brings the reader there.
        self.word(CANCEL_WORD).store(pack(task, attempt), Ordering::Release);
    }

    /// Broker: nothing is to be interrupted any more.
    pub fn clear_cancel(&self) {
        self.word(CANCEL_WORD).store(NOTHING, Ordering::Release); // pairs with `cancel`
    }

    /// The task and the attempt to interrupt.
    #[must_use]
    pub fn cancel(&self) -> Option<(u32, u32)> {
        unpack(self.word(CANCEL_WORD).load(Ordering::Acquire)) // pairs with `set_cancel` and `clear_cancel`
    }

    /// The descriptor, for a worker to inherit.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.map.words()[index]
    }
}

impl AsFd for StatusPage {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn pack(task: u32, attempt: u32) -> u64 {
    u64::from(task) << 32 | u64::from(attempt)
}

fn unpack(word: u64) -> Option<(u32, u32)> {
    (word != NOTHING).then_some(((word >> 32) as u32, word as u32))
}
