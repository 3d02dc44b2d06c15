//! What tasks print: marked with the attempt that prints it, and out of the buffers before the attempt ends.
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use headrace_sys::standard::Standard;
use headrace_sys::status_page::StatusPage;
use headrace_wire::{MARK_BYTES, MARKED_BYTES_MAX, Mark, PIECE_BYTES_MAX};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

/// No attempt: attempts are counted from 1 on.
const NOBODY: u64 = 0;

/// Standard output and error of a worker process, as Python's streams write to them.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Output {
    page: Arc<StatusPage>,
    stdout: Standard,
    stderr: Standard,
    /// Number of the next piece.
    number: AtomicU32,
    /// Streams, by bit, of which something may stand in Python's buffers.
    pending: AtomicU8,
    flush: OnceLock<Py<PyAny>>,
    /// The attempt that forked last, in one word for children that come at any moment; [`NOBODY`] if none executed.
    forked_by: AtomicU64,
    /// Whether this is a forked child: the page goes on to other attempts.
    is_child: AtomicBool,
}

#[pymethods]
impl Output {
    /// Writes the beginning of `data` to standard output (1) or error (2) in one piece, with a mark if a task executes; how
    /// many bytes of it that took, or None if there is no room and the descriptor does not block.
    fn write(&self, py: Python<'_>, stream: u8, data: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let file = if stream == 2 { self.stderr } else { self.stdout };
        // A file that a task has put in the place of our pipe is to have its text alone.
        let author = self.author().filter(|_| file.is_unchanged());
        let mut piece = Vec::with_capacity(PIECE_BYTES_MAX);
        let buffer = PyBuffer::<u8>::get(data)?;
        let bytes = buffer.as_slice(py).ok_or_else(|| PyBufferError::new_err("the bytes do not lie in a row"))?;
        let bytes = &bytes[..bytes.len().min(MARKED_BYTES_MAX)];
        if let (Some((task, attempt)), false) = (author, bytes.is_empty()) {
            // Relaxed: numbers only say what came first, where that is known at all.
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            piece.extend_from_slice(&Mark { task, attempt, number }.write(bytes.len() as u16));
        }
        let mark_bytes = piece.len();
        piece.extend(bytes.iter().map(|byte| byte.get()));
        debug_assert!(mark_bytes == 0 || mark_bytes == MARK_BYTES);
        loop {
            match py.detach(|| file.write(&piece)) {
                Ok(written) => {
                    self.page.note_write();
                    return Ok(Some(written.saturating_sub(mark_bytes)));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => py.check_signals()?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The method `write` of standard output (1) or error (2), or of its buffer, which is to be flushed before the task ends.
    fn noting(slf: Py<Self>, stream: u8, write: Py<PyAny>) -> Noting {
        Noting { output: slf, bit: 1 << (stream & 1), write }
    }

    /// Says what flushes the buffers; what it raises is ignored.
    fn set_flush(&self, flush: Py<PyAny>) {
        let _ = self.flush.set(flush);
    }
}

/// Calls a method and notes that a buffer may have something since. It is native, so that no other thread takes its turn
/// between a text of `print` and the end of its line.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Noting {
    output: Py<Output>,
    bit: u8,
    write: Py<PyAny>,
}

#[pymethods]
impl Noting {
    fn __call__(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        // Relaxed: a thread that prints while the main thread's task ends may be early or late.
        self.output.get().pending.fetch_or(self.bit, Ordering::Relaxed);
        self.write.call1(py, (data,))
    }
}

impl Output {
    pub(crate) fn new(page: Arc<StatusPage>) -> Self {
        Self {
            page,
            stdout: Standard::output(),
            stderr: Standard::error(),
            number: AtomicU32::new(0),
            pending: AtomicU8::new(0),
            flush: OnceLock::new(),
            forked_by: AtomicU64::new(NOBODY),
            is_child: AtomicBool::new(false),
        }
    }

    /// The task that executes is over: what it printed leaves under its name.
    #[inline]
    pub(crate) fn finish_task(&self, py: Python<'_>) {
        if self.pending.load(Ordering::Relaxed) != 0 {
            self.flush(py);
        }
    }

    /// A fork follows. The child may come to itself when the attempt is over.
    pub(crate) fn prepare_fork(&self) {
        // Relaxed, as below: the thread that forks writes this, and is the one that the child has.
        let author = self.author().map_or(NOBODY, |(task, attempt)| u64::from(task) << 32 | u64::from(attempt));
        self.forked_by.store(author, Ordering::Relaxed);
    }

    /// This is the child.
    pub(crate) fn note_fork(&self) {
        self.is_child.store(true, Ordering::Relaxed);
    }

    #[cold]
    fn flush(&self, py: Python<'_>) {
        self.pending.store(0, Ordering::Relaxed);
        if let Some(flush) = self.flush.get() {
            // Whatever it raises, an interrupt that came too late among it, the task has ended.
            let _ = flush.call0(py);
        }
    }

    fn author(&self) -> Option<(u32, u32)> {
        if !self.is_child.load(Ordering::Relaxed) {
            return self.page.executing();
        }
        let author = self.forked_by.load(Ordering::Relaxed);
        (author != NOBODY).then_some(((author >> 32) as u32, author as u32))
    }
}
