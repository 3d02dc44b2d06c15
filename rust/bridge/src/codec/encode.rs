//! Python values to bytes.
use std::sync::Arc;

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;

use super::array::PlainArray;
use super::large::{LARGE_BYTES_MIN, large_atom, large_pickle};
use super::pickle::{Pickled, as_external, dumps_citing, dumps_plain};
use super::shared::{encode_array, encode_long_atom, encode_pickle};
use super::*;
use crate::inline_limit::{INLINE_BYTES_MAX, NO_LIMIT};
use crate::memory::Memory;
use crate::node::Node;
use crate::nodes::Nodes;

/// Whether `value` is an exact immutable atom, which consumers may share as it is.
pub(crate) fn is_atom(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_none()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyBytes>()
}

/// Appends the encoding of a result, its large parts in shared memory if there is any. The encoding has a reference to each
/// block that it cites.
#[inline]
pub(crate) fn encode_value(value: &Bound<'_, PyAny>, memory: Option<&Arc<Memory>>, out: &mut Vec<u8>) -> PyResult<()> {
    let mark = out.len();
    if !put_atom(value, BLOB_BYTES_MAX, out) {
        return encode_compound(value, memory, out);
    }
    if let Some(memory) = memory
        && out.len() - mark > memory.inline_bytes_max
    {
        out.truncate(mark);
        return encode_long_atom(value, memory, out);
    }
    Ok(())
}

fn encode_compound(value: &Bound<'_, PyAny>, memory: Option<&Arc<Memory>>, out: &mut Vec<u8>) -> PyResult<()> {
    let mark = out.len();
    let mut encoder = Encoder { atom_bytes_max: BLOB_BYTES_MAX, ..Encoder::new(Encoder::NOWHERE) };
    std::mem::swap(&mut encoder.out, out);
    let by_tag = encoder.by_tag(value, 0);
    std::mem::swap(&mut encoder.out, out);
    let inline_bytes_max = memory.map_or(NO_LIMIT, |memory| memory.inline_bytes_max);
    if by_tag? && encoder.cited.len() == 0 && out.len() - mark <= inline_bytes_max {
        return Ok(());
    }
    out.truncate(mark);
    let array = PlainArray::of(value)?.filter(|array| array.bytes().len() > inline_bytes_max || !array.is_read_only());
    match (memory, array) {
        (Some(memory), Some(array)) if array.bytes().len() > inline_bytes_max => {
            encode_array(value.py(), &array, memory, out)
        }
        (_, Some(array)) => {
            out.push(ARRAY);
            put_blob(array.bytes(), out)?;
            array.describe(out);
            Ok(())
        }
        (Some(memory), None) => encode_pickle(value, memory, out),
        (None, None) => put_pickle(&dumps_plain(value)?, out),
    }
}

/// Appends a pickle.
pub(super) fn put_pickle(pickle: &Bound<'_, PyBytes>, out: &mut Vec<u8>) -> PyResult<()> {
    out.push(PICKLE);
    put_blob(pickle.as_bytes(), out)
}

/// Encodes the arguments of one task after the other, each from [`Encoder::clear`].
pub(crate) struct Encoder {
    /// The bytes so far.
    pub(crate) out: Vec<u8>,
    /// The predecessors so far.
    pub(crate) cited: Citations,
    /// The live objects so far.
    pub(crate) live: LiveObjects,
    /// Address of the graph whose nodes may be cited.
    pub(super) home: usize,
    /// Addresses of the containers met in this task.
    containers: SmallVec<[usize; 8]>,
    items: usize,
    /// Longer atoms are large parts; a result has none.
    atom_bytes_max: usize,
    /// Bytes of the atoms in containers of this argument.
    atom_bytes: usize,
}

impl Encoder {
    /// The home of values that may not cite any node.
    pub(crate) const NOWHERE: usize = 0;

    pub(crate) fn new(home: usize) -> Self {
        Self {
            out: Vec::new(),
            cited: Citations::default(),
            live: LiveObjects::default(),
            home,
            containers: SmallVec::new(),
            items: 0,
            atom_bytes_max: LARGE_BYTES_MIN - 1,
            atom_bytes: 0,
        }
    }

    /// Forgets everything, keeps the memory, and encodes for another home from now on.
    pub(crate) fn reset(&mut self, home: usize) {
        self.cited.reset();
        self.clear(home);
    }

    /// Forgets the last task, keeps the memory, and encodes for another home from now on.
    #[inline]
    pub(crate) fn clear(&mut self, home: usize) {
        self.out.clear();
        self.cited.clear();
        self.live.clear();
        self.containers.clear();
        self.items = 0;
        self.home = home;
    }

    /// Whether it keeps objects of the last task alive.
    #[inline]
    pub(crate) fn holds_objects(&self) -> bool {
        self.cited.has_externals() || !self.live.is_empty()
    }

    /// Encodes the arguments of one task.
    #[inline]
    pub(crate) fn arguments(&mut self, passed: Passed<'_, '_>) -> PyResult<()> {
        if passed.names.len() <= KEYWORDS_MAX && self.in_parts(passed, passed.names.len() as u8)? {
            return Ok(());
        }
        self.whole(passed, 0)
    }

    /// Encodes the arguments one by one, up to the keywords that the caller adds; false if two could share an object.
    #[inline]
    pub(super) fn in_parts(&mut self, passed: Passed<'_, '_>, keyword_count: u8) -> PyResult<bool> {
        self.head(passed.positional.len(), keyword_count);
        for value in passed.positional {
            if !self.atom(value) && !self.argument(value, passed)? {
                return Ok(false);
            }
        }
        for (name, value) in passed.names.iter().zip(passed.named) {
            if !put_str(name, BLOB_BYTES_MAX, &mut self.out) || !(self.atom(value) || self.argument(value, passed)?) {
                return Ok(false);
            }
        }
        if self.out.len() > u32::MAX as usize { Err(too_long()) } else { Ok(true) }
    }

    #[inline]
    pub(super) fn head(&mut self, positional_count: usize, keyword_count: u8) {
        if positional_count < HEAD_LONG as usize {
            self.out.extend_from_slice(&[positional_count as u8, keyword_count]);
        } else {
            self.out.push(HEAD_LONG);
            put_u32(positional_count as u32, &mut self.out);
            self.out.push(keyword_count);
        }
    }

    /// Appends an exact atom that is not large; false if it is another value.
    #[inline]
    pub(super) fn atom(&mut self, value: &Bound<'_, PyAny>) -> bool {
        put_atom(value, self.atom_bytes_max, &mut self.out)
    }

    /// Encodes one argument of a task; false if it needs a pickle and could share an object with another.
    pub(super) fn argument(&mut self, value: &Bound<'_, PyAny>, passed: Passed<'_, '_>) -> PyResult<bool> {
        let (bytes_mark, cited_mark) = (self.out.len(), self.cited.len());
        self.atom_bytes = 0;
        // Of many texts that are not large in themselves, the pickle is.
        if self.by_tag(value, 0)? && self.atom_bytes <= in_task_max(self.cited.cites_large(cited_mark)) {
            return Ok(true);
        }
        if passed.values().filter(|other| !is_flat(other)).count() > 1 {
            return Ok(false);
        }
        self.out.truncate(bytes_mark);
        self.cited.truncate(cited_mark);
        self.pickle(value)?;
        Ok(true)
    }

    /// Encodes all arguments as one pickle, so that they keep the objects that they share.
    pub(super) fn whole(&mut self, passed: Passed<'_, '_>, more_keywords: u8) -> PyResult<()> {
        self.clear(self.home);
        let Some(py) = passed.values().next().map(|value| value.py()) else {
            self.out.extend_from_slice(&[0, more_keywords]);
            return Ok(());
        };
        self.out.push(HEAD_WHOLE);
        self.pickle(passed.to_python(py)?.into_pyobject(py)?.as_any())?;
        self.out.push(more_keywords);
        Ok(())
    }

    /// Encodes a task whose positional arguments are the results of these tasks.
    pub(crate) fn results_of(&mut self, indices: &[u32]) {
        self.head(indices.len(), 0);
        for &index in indices {
            self.put_result_of(index);
        }
    }

    /// Encodes one value by tag; false (and what was written so far is void) if it needs a pickle.
    pub(super) fn by_tag(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> PyResult<bool> {
        if let Ok(node) = value.cast_exact::<Node>() {
            self.put_result_of(node.get().index_in(value.py(), self.home)?);
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            if list.len() > ITEMS_MAX {
                return self.list_of_nodes(list);
            }
            let len = list.len();
            if !self.enter(value, len, depth, LIST) {
                return Ok(false);
            }
            let mut count = 0;
            for item in list.iter() {
                if !self.item(&item, depth)? {
                    return Ok(false);
                }
                count += 1;
            }
            // A property of a future may have made the list shorter meanwhile.
            return Ok(count == len);
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            if !self.enter(value, tuple.len(), depth, TUPLE) {
                return Ok(false);
            }
            for item in tuple.as_slice() {
                if !self.item(item, depth)? {
                    return Ok(false);
                }
            }
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            if !self.enter(value, dict.len(), depth, DICT) {
                return Ok(false);
            }
            let mark = self.out.len();
            if dict.iter().all(|(key, item)| self.atom(&key) && self.atom(&item)) {
                self.atom_bytes += self.out.len() - mark;
            } else {
                self.out.truncate(mark);
                for (key, item) in items_of(dict) {
                    if !self.item(&key, depth)? || !self.item(&item, depth)? {
                        return Ok(false);
                    }
                }
            }
        } else if let Ok(nodes) = value.cast_exact::<Nodes>() {
            nodes.get().check_home(value.py(), self.home)?;
            self.put_results_of(nodes.get());
        } else if let Some(external) = as_external(value)? {
            let k = self.cited.cite_external(external);
            self.put_dep(k);
        } else if self.atom_bytes_max < LARGE_BYTES_MIN
            && let Some(large) = large_atom(value)
        {
            let k = self.cited.cite_external(large);
            self.put_dep(k);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    #[inline]
    fn item(&mut self, item: &Bound<'_, PyAny>, depth: u32) -> PyResult<bool> {
        let mark = self.out.len();
        if !self.atom(item) {
            return self.by_tag(item, depth + 1);
        }
        self.atom_bytes += self.out.len() - mark;
        Ok(true)
    }

    /// Writes a container's tag and length; false if it must not be written by tag.
    fn enter(&mut self, container: &Bound<'_, PyAny>, len: usize, depth: u32, tag: u8) -> bool {
        self.items += len;
        if len > ITEMS_MAX || depth >= DEPTH_MAX || self.items > ITEMS_TOTAL_MAX {
            return false;
        }
        let address = container.as_ptr() as usize;
        // There is only one empty tuple; to meet it twice says nothing.
        if (len > 0 || tag != TUPLE) && !self.meet(address) {
            return false;
        }
        self.put_count(tag, len);
        true
    }

    /// Notes a container; false if the task has it already, so that two places share it.
    fn meet(&mut self, address: usize) -> bool {
        let is_new = !self.containers.contains(&address);
        if is_new {
            self.containers.push(address);
        }
        is_new
    }

    /// Encodes a list too long for tags if it holds nothing but nodes.
    fn list_of_nodes(&mut self, list: &Bound<'_, PyList>) -> PyResult<bool> {
        if !self.meet(list.as_ptr() as usize) {
            return Ok(false);
        }
        let (bytes_mark, first) = (self.out.len(), self.cited.len());
        self.put_count(LIST, list.len());
        let mut consecutive = true;
        for (position, item) in list.iter().enumerate() {
            let Ok(node) = item.cast_exact::<Node>() else { return Ok(false) };
            let k = self.cited.cite(node.get().index_in(list.py(), self.home)?);
            consecutive &= k as usize == first + position;
            self.put_dep(k);
        }
        if consecutive {
            self.out.truncate(bytes_mark);
            self.put_dep_range(first as u32, list.len() as u32);
        }
        Ok(true)
    }

    fn put_results_of(&mut self, nodes: &Nodes) {
        if let Some(first) = self.cited.cite_distinct(nodes.indices()) {
            self.put_dep_range(first, nodes.len() as u32);
        } else {
            self.put_count(LIST, nodes.len());
            nodes.indices().for_each(|index| self.put_result_of(index));
        }
    }

    #[inline]
    pub(super) fn put_result_of(&mut self, index: u32) {
        let k = self.cited.cite(index);
        self.put_dep(k);
    }

    #[inline]
    fn put_dep(&mut self, k: u32) {
        let k = k.to_le_bytes();
        self.out.extend_from_slice(&[DEP, k[0], k[1], k[2], k[3]]);
    }

    fn put_dep_range(&mut self, first: u32, count: u32) {
        self.out.push(DEP_RANGE);
        put_u32(first, &mut self.out);
        put_u32(count, &mut self.out);
    }

    pub(super) fn put_count(&mut self, tag: u8, count: usize) {
        self.out.push(tag);
        put_u32(count as u32, &mut self.out);
    }

    pub(super) fn pickle(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let Pickled { pickle, used, large } = dumps_citing(value, self.home, &mut self.cited)?;
        let is_long = pickle.as_bytes().len() > in_task_max(!large.is_empty());
        if is_long || !large.is_empty() {
            self.put_count(LARGE_PICKLE, large.len());
            for buffer in large {
                let k = self.cited.cite_external(buffer);
                put_u32(k, &mut self.out);
            }
            self.put_numbers(&used);
            if is_long {
                let k = self.cited.cite_external(large_pickle(&pickle));
                self.put_dep(k);
                return Ok(());
            }
            self.out.push(BYTES);
        } else if used.is_empty() {
            self.out.push(PICKLE);
        } else {
            self.out.push(CITING_PICKLE);
            self.put_numbers(&used);
        }
        put_blob(pickle.as_bytes(), &mut self.out)
    }

    fn put_numbers(&mut self, numbers: &[u32]) {
        put_u32(numbers.len() as u32, &mut self.out);
        numbers.iter().for_each(|&k| put_u32(k, &mut self.out));
    }
}

/// How much of an argument travels with its task at most. Of one with large parts, only what would not be worth a block.
fn in_task_max(has_large: bool) -> usize {
    if has_large { INLINE_BYTES_MAX } else { LARGE_BYTES_MIN - 1 }
}

/// The items of a dict as it is now. What is done with them may change it.
pub(super) fn items_of<'py>(dict: &Bound<'py, PyDict>) -> SmallVec<[(Bound<'py, PyAny>, Bound<'py, PyAny>); 8]> {
    dict.iter().collect()
}

/// Whether `value` cannot share an object with another argument.
fn is_flat(value: &Bound<'_, PyAny>) -> bool {
    is_atom(value) || value.cast_exact::<Node>().is_ok() || value.cast_exact::<Nodes>().is_ok()
}

/// Longest bytes or text that a tag can hold.
pub(super) const BLOB_BYTES_MAX: usize = u32::MAX as usize;

/// Appends an exact atom; false if it is not one, or not one that has a tag, or has more than `bytes_max` bytes.
#[inline]
pub(super) fn put_atom(value: &Bound<'_, PyAny>, bytes_max: usize, out: &mut Vec<u8>) -> bool {
    if value.is_exact_instance_of::<PyInt>() {
        let Ok(number) = value.extract::<i64>() else { return false };
        put_int(number, out);
    } else if value.is_exact_instance_of::<PyString>() {
        return put_str(value, bytes_max, out);
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        let word = float.value().to_le_bytes();
        out.push(FLOAT);
        out.extend_from_slice(&word);
    } else if value.is_none() {
        out.push(NONE);
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.push(if truth.is_true() { TRUE } else { FALSE });
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        let bytes = bytes.as_bytes();
        if bytes.len() > bytes_max {
            return false;
        }
        out.push(BYTES);
        put_u32(bytes.len() as u32, out);
        out.extend_from_slice(bytes);
    } else {
        return false;
    }
    true
}

/// Appends an integer in its shortest form.
#[inline]
pub(crate) fn put_int(number: i64, out: &mut Vec<u8>) {
    if let Ok(number) = i8::try_from(number) {
        out.extend_from_slice(&[INT8, number as u8]);
    } else if let Ok(number) = i32::try_from(number) {
        let word = number.to_le_bytes();
        out.extend_from_slice(&[INT32, word[0], word[1], word[2], word[3]]);
    } else {
        out.push(INT64);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

/// Appends a text; false if it has no UTF-8, as one with lone surrogates, or more than `bytes_max` bytes of it.
pub(super) fn put_str(value: &Bound<'_, PyAny>, bytes_max: usize, out: &mut Vec<u8>) -> bool {
    let Ok(text) = value.extract::<&str>() else { return false };
    if text.len() > bytes_max {
        return false;
    }
    out.push(STR);
    put_u32(text.len() as u32, out);
    out.extend_from_slice(text.as_bytes());
    true
}

#[inline]
pub(super) fn put_u32(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_blob(blob: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    let len = u32::try_from(blob.len()).map_err(|_| too_long())?;
    put_u32(len, out);
    out.extend_from_slice(blob);
    Ok(())
}

#[cold]
fn too_long() -> PyErr {
    PyOverflowError::new_err("one task's arguments, or one result, must be shorter than 4 GiB")
}
