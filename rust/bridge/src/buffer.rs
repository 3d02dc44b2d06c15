//! The buffer protocol, from both sides.
use std::ffi::{c_char, c_int, c_void};
use std::ptr::{self, NonNull};

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Memory that an object hands out by the buffer protocol.
pub(crate) struct Exported {
    pub(crate) start: NonNull<u8>,
    pub(crate) bytes: usize,
    pub(crate) writable: bool,
}

impl Exported {
    /// Answers a `__getbuffer__` of `owner`.
    ///
    /// # Safety
    /// `view` is the caller's, as the buffer protocol has it. The memory can be read, and written to if it is `writable`,
    /// for as long as `owner` lives.
    pub(crate) unsafe fn fill(
        &self,
        owner: &Bound<'_, PyAny>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        if !self.writable && flags & ffi::PyBUF_WRITABLE == ffi::PyBUF_WRITABLE {
            return Err(PyBufferError::new_err("this is a read-only view of shared memory"));
        }
        // SAFETY: `view` is good, and holds a reference to `owner`, which keeps the memory, until it is released.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                owner.as_ptr(),
                self.start.as_ptr().cast::<c_void>(),
                self.bytes as ffi::Py_ssize_t,
                c_int::from(!self.writable),
                flags,
            )
        };
        if filled == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        unsafe { (*view).obj = ptr::null_mut() };
        Err(PyErr::fetch(owner.py()))
    }
}

/// Which index of an array's items runs fastest.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// The last, as in C.
    C = b'C',
    /// The first, as in Fortran.
    Fortran = b'F',
}

/// The bytes of an object with the buffer protocol, as they lie in memory.
pub(crate) struct Contiguous {
    view: Box<ffi::Py_buffer>,
}

impl Contiguous {
    /// Those of a `pickle.PickleBuffer`.
    pub(crate) fn of(buffer: &Bound<'_, PyAny>) -> PyResult<Self> {
        // `raw` gives one dimension of bytes whatever the order was, or refuses.
        Self::plain(&buffer.call_method0(pyo3::intern!(buffer.py(), "raw"))?)
    }

    pub(crate) fn plain(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::get(object, ffi::PyBUF_SIMPLE)
    }

    /// Those of an array, and their order; `None` if there are gaps.
    pub(crate) fn in_order(array: &Bound<'_, PyAny>) -> PyResult<Option<(Self, Order)>> {
        let items = Self::get(array, ffi::PyBUF_STRIDES)?;
        // SAFETY: the view was filled with shape and strides.
        let is = |order: Order| unsafe { ffi::PyBuffer_IsContiguous(&raw const *items.view, order as c_char) } == 1;
        let order = [Order::C, Order::Fortran].into_iter().find(|order| is(*order));
        Ok(order.map(|order| (items, order)))
    }

    fn get(object: &Bound<'_, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut view = Box::<ffi::Py_buffer>::new(ffi::Py_buffer::new());
        // SAFETY: `view` is ours, at an address that stays; it is released once, when this is dropped.
        match unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } {
            0 => Ok(Contiguous { view }),
            _ => Err(PyErr::fetch(object.py())),
        }
    }

    /// How many items there are in each dimension, if it was asked for: by [`Contiguous::in_order`].
    pub(crate) fn shape(&self) -> &[ffi::Py_ssize_t] {
        if self.view.shape.is_null() {
            return &[];
        }
        // SAFETY: the exporter keeps one number for each dimension at `shape` until the view is released.
        unsafe { std::slice::from_raw_parts(self.view.shape, usize::try_from(self.view.ndim).unwrap_or(0)) }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.view.readonly != 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.view.len).unwrap_or(0);
        if len == 0 {
            return &[];
        }
        // SAFETY: the exporter keeps `len` bytes at `buf` until the view is released. Another thread that writes to them
        // meanwhile, through the user's own object, races with the copy as with any other reader of that object.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast::<u8>(), len) }
    }
}

impl Drop for Contiguous {
    fn drop(&mut self) {
        // SAFETY: it was filled by PyObject_GetBuffer, the interpreter lock is held wherever one is made, and it is released
        // once.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) }
    }
}
