//! Bytes to Python values. The bytes come from a peer: damaged ones give an error, never a panic.
use std::sync::Arc;

use headrace_wire::CARRIED;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;

use super::array::read_array;
use super::pickle::{loads, loads_with};
use super::shared::{decode_carried, decode_shared};
use super::*;
use crate::memory::Memory;

/// Nesting at which damaged bytes are told from honest ones; twice what the encoder writes.
const DECODE_DEPTH_MAX: u32 = 2 * DEPTH_MAX;

/// The arguments of one task, ready to call with.
pub(crate) struct Arguments<'py> {
    positional: SmallVec<[Bound<'py, PyAny>; 4]>,
    keywords: Option<Bound<'py, PyDict>>,
    /// Set instead of `positional` when the arguments came as one pickle.
    whole: Option<Bound<'py, PyTuple>>,
}

impl<'py> Arguments<'py> {
    /// Calls `function` with the arguments.
    #[inline]
    pub(crate) fn call(self, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let keywords = self.keywords.as_ref();
        if let Some(args) = self.whole {
            return function.call(args, keywords);
        }
        if keywords.is_some() {
            return function.call(PyTuple::new(function.py(), self.positional)?, keywords);
        }
        match self.positional.as_slice() {
            [] => function.call0(),
            [a] => function.call1((a,)),
            [a, b] => function.call1((a, b)),
            [a, b, c] => function.call1((a, b, c)),
            _ => function.call1(PyTuple::new(function.py(), self.positional)?),
        }
    }
}

type Deps<'s> = &'s mut dyn FnMut(u32) -> PyResult<Py<PyAny>>;
type Live<'s> = &'s dyn Fn(u32) -> PyResult<Py<PyAny>>;

/// Where values outside the bytes come from.
struct Sources<'s> {
    deps: Deps<'s>,
    live: Option<Live<'s>>,
}

/// Decodes a result.
pub(crate) fn decode_value(py: Python<'_>, bytes: &[u8], memory: Option<&Arc<Memory>>) -> PyResult<Py<PyAny>> {
    if headrace_wire::cites(bytes) {
        let memory = memory.ok_or_else(|| damaged("it lies in shared memory, of which there is none here"))?;
        return decode_shared(py, bytes, memory);
    }
    if bytes.first() == Some(&CARRIED) {
        return decode_carried(py, bytes);
    }
    let mut reader = Reader { bytes };
    let mut sources = Sources { deps: &mut |_| Err(damaged("a result cites a predecessor")), live: None };
    let value = reader.value(py, &mut sources, 0)?;
    reader.end()?;
    Ok(value.unbind())
}

/// Decodes the arguments of a task; `deps(k)` gives the result of its k-th predecessor.
#[inline]
pub(crate) fn decode_args<'py>(py: Python<'py>, bytes: &[u8], deps: Deps<'_>) -> PyResult<Arguments<'py>> {
    Reader { bytes }.arguments(py, &mut Sources { deps, live: None })
}

/// Decodes the arguments of a task of a by-reference graph, whose live objects `live(i)` gives.
pub(crate) fn decode_args_live<'py>(
    py: Python<'py>,
    bytes: &[u8],
    deps: Deps<'_>,
    live: Live<'_>,
) -> PyResult<Arguments<'py>> {
    Reader { bytes }.arguments(py, &mut Sources { deps, live: Some(live) })
}

#[cold]
fn damaged(what: &str) -> PyErr {
    PyValueError::new_err(format!("damaged value: {what}"))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(len).ok_or_else(|| damaged("it ends too early"))?;
        self.bytes = tail;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or_else(|| damaged("it ends too early"))?;
        self.bytes = tail;
        Ok(*head)
    }

    #[inline]
    fn u8(&mut self) -> PyResult<u8> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    fn u32(&mut self) -> PyResult<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn blob(&mut self) -> PyResult<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn string<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        let text = std::str::from_utf8(self.blob()?).map_err(|_| damaged("a text is not UTF-8"))?;
        Ok(PyString::new(py, text))
    }

    /// A number of items that follow, each at least one byte long.
    fn count(&mut self) -> PyResult<usize> {
        let count = self.u32()? as usize;
        if count > self.bytes.len() { Err(damaged("it ends too early")) } else { Ok(count) }
    }

    fn end(&self) -> PyResult<()> {
        if self.bytes.is_empty() { Ok(()) } else { Err(damaged("bytes are left over")) }
    }

    #[inline]
    fn arguments<'py>(&mut self, py: Python<'py>, sources: &mut Sources<'_>) -> PyResult<Arguments<'py>> {
        let positional_count = match self.u8()? {
            HEAD_WHOLE => return self.whole(py, sources),
            HEAD_LONG => self.count()?,
            short => short as usize,
        };
        let keyword_count = self.u8()?;
        let mut positional = SmallVec::with_capacity(positional_count.min(self.bytes.len()));
        for _ in 0..positional_count {
            positional.push(self.value(py, sources, 0)?);
        }
        let keywords = self.keywords(py, sources, keyword_count, None)?;
        self.end()?;
        Ok(Arguments { positional, keywords, whole: None })
    }

    fn whole<'py>(&mut self, py: Python<'py>, sources: &mut Sources<'_>) -> PyResult<Arguments<'py>> {
        let (args, kwargs): (Bound<'py, PyTuple>, Bound<'py, PyDict>) = self.value(py, sources, 0)?.extract()?;
        let keyword_count = self.u8()?;
        let keywords = self.keywords(py, sources, keyword_count, (!kwargs.is_empty()).then_some(kwargs))?;
        self.end()?;
        Ok(Arguments { positional: SmallVec::new(), keywords, whole: Some(args) })
    }

    #[inline]
    fn keywords<'py>(
        &mut self,
        py: Python<'py>,
        sources: &mut Sources<'_>,
        count: u8,
        known: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        if count == 0 {
            return Ok(known);
        }
        let keywords = known.unwrap_or_else(|| PyDict::new(py));
        for _ in 0..count {
            if self.u8()? != STR {
                return Err(damaged("a keyword is not a text"));
            }
            let name = self.string(py)?;
            keywords.set_item(name, self.value(py, sources, 0)?)?;
        }
        Ok(Some(keywords))
    }

    #[inline]
    fn value<'py>(&mut self, py: Python<'py>, sources: &mut Sources<'_>, depth: u32) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.u8()? {
            INT8 => int(py, i64::from(i8::from_le_bytes(self.array()?))),
            INT32 => int(py, i64::from(i32::from_le_bytes(self.array()?))),
            INT64 => int(py, i64::from_le_bytes(self.array()?)),
            DEP => (sources.deps)(self.u32()?)?.into_bound(py),
            FLOAT => PyFloat::new(py, f64::from_le_bytes(self.array()?)).into_any(),
            STR => self.string(py)?.into_any(),
            NONE => py.None().into_bound(py),
            TRUE => PyBool::new(py, true).to_owned().into_any(),
            FALSE => PyBool::new(py, false).to_owned().into_any(),
            BYTES => PyBytes::new(py, self.blob()?).into_any(),
            PICKLE => loads(py, self.blob()?, Vec::new())?,
            tag => self.compound(tag, py, sources, depth)?,
        })
    }

    fn compound<'py>(
        &mut self,
        tag: u8,
        py: Python<'py>,
        sources: &mut Sources<'_>,
        depth: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        if depth > DECODE_DEPTH_MAX {
            return Err(damaged("it is nested too deeply"));
        }
        Ok(match tag {
            LIST => PyList::new(py, self.items(py, sources, depth)?)?.into_any(),
            TUPLE => PyTuple::new(py, self.items(py, sources, depth)?)?.into_any(),
            DICT => {
                let dict = PyDict::new(py);
                for _ in 0..self.count()? {
                    let key = self.value(py, sources, depth + 1)?;
                    dict.set_item(key, self.value(py, sources, depth + 1)?)?;
                }
                dict.into_any()
            }
            DEP_RANGE => {
                let (first, count) = (self.u32()?, self.u32()?);
                let end = first.checked_add(count).ok_or_else(|| damaged("a range of predecessors overflows"))?;
                let values = (first..end).map(|k| (sources.deps)(k)).collect::<PyResult<Vec<_>>>()?;
                PyList::new(py, values)?.into_any()
            }
            OBJECT => {
                let number = self.u32()?;
                let live = sources.live.ok_or_else(|| damaged("a live object outside its process"))?;
                live(number)?.into_bound(py)
            }
            CITING_PICKLE => {
                let cited = self.cited(sources)?;
                loads(py, self.blob()?, cited)?
            }
            LARGE_PICKLE => {
                let buffers = PyList::empty(py);
                for (_, buffer) in self.cited(sources)? {
                    buffers.append(buffer)?;
                }
                let cited = self.cited(sources)?;
                let pickle = self.value(py, sources, depth + 1)?;
                loads_with(&pickle, Some(&buffers), cited)?
            }
            ARRAY => {
                let bytes = PyByteArray::new(py, self.blob()?).into_any();
                let described = std::mem::take(&mut self.bytes);
                read_array(py, &bytes, described)?.ok_or_else(|| damaged("an array without a type or shape"))?
            }
            _ => return Err(damaged("an unknown tag")),
        })
    }

    /// Numbers of predecessors, with their results.
    fn cited(&mut self, sources: &mut Sources<'_>) -> PyResult<Vec<(u32, Py<PyAny>)>> {
        let count = self.count()?;
        (0..count).map(|_| self.u32().and_then(|k| Ok((k, (sources.deps)(k)?)))).collect()
    }

    fn items<'py>(
        &mut self,
        py: Python<'py>,
        sources: &mut Sources<'_>,
        depth: u32,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let count = self.count()?;
        (0..count).map(|_| self.value(py, sources, depth + 1)).collect()
    }
}

#[inline]
fn int(py: Python<'_>, number: i64) -> Bound<'_, PyAny> {
    let Ok(number) = number.into_pyobject(py);
    let number: Bound<'_, PyInt> = number;
    number.into_any()
}
