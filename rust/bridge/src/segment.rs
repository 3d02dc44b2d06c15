//! Shared memory that stands alone: [`Segment`], made here or attached by its descriptor. Neither broker nor blocks: a
//! segment is all of a memory, and the system frees it with the last map and descriptor.
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use headrace_sys::segment;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::buffer::{Contiguous, Exported};
use crate::errors::{infra_error, usage_error};

/// Most bytes that are allocated before signals are heard again: a quarter of a second's worth.
const COMMIT_STEP_BYTES: u64 = 256 << 20;

/// A piece of shared memory, mapped whole.
#[pyclass(frozen, weakref, module = "headrace._core")]
pub(crate) struct Segment {
    memory: segment::Segment,
}

#[pymethods]
impl Segment {
    /// A segment of this process, without pages.
    #[staticmethod]
    fn _create(py: Python<'_>, nbytes: u64) -> PyResult<Self> {
        let memory = segment::create(nbytes).and_then(|fd| segment::Segment::map(fd, nbytes, true));
        memory.map(|memory| Self { memory }).map_err(|error| out_of_memory(py, nbytes, &error))
    }

    /// Allocates all its pages. After that no access can fail.
    fn _commit(&self, py: Python<'_>) -> PyResult<()> {
        let bytes = self.memory.len();
        let mut at = 0;
        while at < bytes {
            let step = COMMIT_STEP_BYTES.min(bytes - at);
            py.detach(|| self.memory.commit(at, step)).map_err(|error| out_of_memory(py, bytes, &error))?;
            py.check_signals()?;
            at += step;
        }
        Ok(())
    }

    #[staticmethod]
    fn _attach(py: Python<'_>, fd: RawFd, writable: bool) -> PyResult<Self> {
        match segment::Segment::attach(fd, writable) {
            Ok(memory) => Ok(Self { memory }),
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
                let text = format!("descriptor {fd} is no memory of a store: no memfd whose size is sealed");
                Err(usage_error(py, &text))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Copies bytes to `offset`.
    fn _write(&self, py: Python<'_>, offset: u64, contents: &Bound<'_, PyAny>) -> PyResult<()> {
        let contents = Contiguous::plain(contents)?;
        let bytes = contents.bytes();
        let fits = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.memory.len());
        if !fits || !self.memory.is_writable() {
            return Err(PyValueError::new_err("bytes outside the segment, or a segment that may only be read"));
        }
        py.detach(|| self.memory.write(offset, bytes));
        Ok(())
    }

    /// Where these bytes start in it, if all of them lie in this very map.
    fn _offset_of(&self, contents: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
        let contents = Contiguous::plain(contents)?;
        let bytes = contents.bytes();
        let offset = self.memory.offset_of(bytes.as_ptr().addr());
        Ok(offset.filter(|offset| !bytes.is_empty() && offset + bytes.len() as u64 <= self.memory.len()))
    }

    fn fileno(&self) -> RawFd {
        self.memory.as_fd().as_raw_fd()
    }

    fn __len__(&self) -> usize {
        self.memory.len() as usize
    }

    fn __repr__(&self) -> String {
        let access = if self.memory.is_writable() { "writable" } else { "read-only" };
        format!("<Segment of {} bytes, {access}>", self.memory.len())
    }

    /// `multiprocessing` does not come here: it has a function of `headrace.store` for segments.
    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "shared memory of headrace.store travels by multiprocessing alone (arguments of a Process, Pipe, Queue); elsewhere \
             pass on its descriptor, fileno(), and attach() it there. For tasks there is client.put(item.get())",
        ))
    }

    /// # Safety
    /// As the buffer protocol has it: `view` is the caller's.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = &slf.get().memory;
        let bytes = memory.len() as usize;
        let exported = Exported { start: memory.at(0), bytes, writable: memory.is_writable() };
        // SAFETY: `view` is good. The map is whole and belongs to `slf`; its size is sealed, so that it ends nowhere before.
        unsafe { exported.fill(&slf, view, flags) }
    }
}

#[cold]
fn out_of_memory(py: Python<'_>, bytes: u64, error: &io::Error) -> PyErr {
    infra_error(py, "StoreFull", &format!("{bytes} bytes of shared memory cannot be had: {error}"))
}
