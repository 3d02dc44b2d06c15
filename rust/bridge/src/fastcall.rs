//! Methods that take `*args, **kwargs` without a tuple or dict for them (METH_FASTCALL | METH_KEYWORDS).
//!
//! PyO3 packs the arguments of such a method into a tuple for each call: 0.04 µs of 0.2 for `Graph.add`. So the few
//! methods that are called once per task are entered here.
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use pyo3::{PyClass, ffi};

use crate::codec::Passed;

/// A method with this calling convention.
pub(crate) trait FastMethod {
    /// Its class.
    type Class: PyClass;
    /// Its name.
    const NAME: &'static CStr;
    /// Its signature and docstring, as `name(…)\n--\n\ntext`.
    const DOC: &'static CStr;

    /// Calls it. Dropping a `Py` here may be put off to the next call into native code.
    fn call<'py>(slf: &Bound<'py, Self::Class>, passed: Passed<'_, 'py>) -> PyResult<Bound<'py, PyAny>>;
}

/// Gives `class`, which must be that of the method, the method.
pub(crate) fn install<M: FastMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: enter::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS as c_int,
        ml_doc: M::DOC.as_ptr(),
    }));
    // SAFETY: the interpreter lock is held (`class` proves it), `class` is a type object, and the definition lives as long
    // as the process, because it was leaked. The answer is a new reference or null with an error set.
    let method = unsafe {
        let method = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(class.py(), method)?
    };
    class.setattr(M::NAME.to_str().expect("a method's name is ASCII"), method)
}

/// What the interpreter calls.
///
/// # Safety
/// To be called by the interpreter alone, as METH_FASTCALL | METH_KEYWORDS says: with the lock held, `slf` an instance of
/// the class that the method was installed on, `args` pointing at `nargs` objects and then one for each name in `names`,
/// which is null or a tuple. All of them live until the call returns.
unsafe extern "C" fn enter<M: FastMethod>(
    slf: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargs: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter holds its lock while it calls, and nothing that borrows `py` leaves this function.
    let py = unsafe { Python::assume_attached() };
    let called = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `slf` is borrowed and an instance of `M::Class`: a method descriptor checks that before it calls.
        let slf = unsafe { Borrowed::from_ptr(py, slf).cast_unchecked::<M::Class>() };
        // SAFETY: `names` is null or a borrowed tuple.
        let names = unsafe { Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>()) };
        let count = names.as_ref().map_or(0, |names| names.len());
        let all = if args.is_null() {
            &[]
        } else {
            // SAFETY: `args` points at `nargs + count` borrowed objects, which outlive the call, and a `Bound` is
            // represented as one pointer to an object. The slice is only shared, so no reference count is given up.
            unsafe { std::slice::from_raw_parts(args.cast::<Bound<'_, PyAny>>(), nargs as usize + count) }
        };
        let (positional, named) = all.split_at(nargs as usize);
        let names = names.as_ref().map_or(&[][..], |names| names.as_slice());
        M::call(&slf, Passed { positional, names, named })
    }));
    match called {
        Ok(Ok(answer)) => answer.into_ptr(),
        Ok(Err(error)) => {
            error.restore(py);
            std::ptr::null_mut()
        }
        Err(_) => {
            let text = "headrace panicked: this should never happen, please report it with the text on standard error";
            PySystemError::new_err(text).restore(py);
            std::ptr::null_mut()
        }
    }
}
