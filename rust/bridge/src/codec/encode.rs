//! Python values to bytes.
use std::sync::Mutex;

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use pyo3::{Borrowed, PyTypeInfo};
use smallvec::SmallVec;

use super::pickle::{as_external, dumps_citing, dumps_plain};
use super::*;
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

/// Appends the encoding of a result.
#[inline]
pub(crate) fn encode_value(py: Python<'_>, value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    if put_atom(value.as_borrowed(), out) {
        return Ok(());
    }
    let mark = out.len();
    let mut encoder = Encoder::new(Encoder::NOWHERE);
    std::mem::swap(&mut encoder.out, out);
    let by_tag = encoder.by_tag(value.as_borrowed(), 0);
    std::mem::swap(&mut encoder.out, out);
    if by_tag? && encoder.cited.len() == 0 {
        return Ok(());
    }
    out.truncate(mark);
    let pickle = dumps_plain(value)?;
    out.push(PICKLE);
    put_blob(py, pickle.as_bytes(), out)
}

/// The positional arguments of one task.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a, 'py> {
    /// A tuple from a position on.
    Tuple(&'a Bound<'py, PyTuple>, usize),
    /// Values in a row.
    Slice(&'a [Bound<'py, PyAny>]),
}

impl<'a, 'py> Row<'a, 'py> {
    fn len(self) -> usize {
        match self {
            Row::Tuple(tuple, skip) => tuple.len() - skip,
            Row::Slice(slice) => slice.len(),
        }
    }

    #[inline]
    fn at(self, position: usize) -> Borrowed<'a, 'py, PyAny> {
        match self {
            Row::Tuple(tuple, skip) => tuple.get_borrowed_item(skip + position).expect("position < len"),
            Row::Slice(slice) => slice[position].as_borrowed(),
        }
    }

    /// The arguments as one tuple.
    pub(crate) fn to_tuple(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, (0..self.len()).map(|position| self.at(position)))
    }
}

/// A keyword argument that many tasks have in common.
pub(crate) struct Constant<'py> {
    /// Its encoded name.
    name: Vec<u8>,
    /// Its value.
    pub(crate) value: ConstantValue<'py>,
}

/// How the tasks get a constant.
pub(crate) enum ConstantValue<'py> {
    /// Each has a copy of these bytes.
    Encoded(Vec<u8>),
    /// Each depends on the task with this index, which returns it.
    Task(u32),
    /// It cites nodes, so it is encoded for each.
    Citing(Bound<'py, PyAny>),
}

/// The live objects of a by-reference graph.
pub(crate) type Objects = Mutex<Vec<Py<PyAny>>>;

/// Encodes the arguments of one task after the other, each from [`Encoder::clear`].
pub(crate) struct Encoder {
    /// The bytes so far.
    pub(crate) out: Vec<u8>,
    /// The predecessors so far.
    pub(crate) cited: Citations,
    /// Address of the graph whose nodes may be cited.
    home: usize,
    /// Addresses of the containers met in this task.
    containers: SmallVec<[usize; 8]>,
    items: usize,
}

impl Encoder {
    /// The home of values that may not cite any node.
    pub(crate) const NOWHERE: usize = 0;

    pub(crate) fn new(home: usize) -> Self {
        Self { out: Vec::new(), cited: Citations::default(), home, containers: SmallVec::new(), items: 0 }
    }

    /// Forgets the last task, keeps the memory, and encodes for another home from now on.
    pub(crate) fn clear(&mut self, home: usize) {
        self.out.clear();
        self.cited.clear();
        self.containers.clear();
        self.items = 0;
        self.home = home;
    }

    /// Encodes the arguments of one task.
    #[inline]
    pub(crate) fn arguments<'py>(
        &mut self,
        py: Python<'py>,
        row: Row<'_, 'py>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let keyword_count = keywords.map_or(0, |keywords| keywords.len());
        if keyword_count <= KEYWORDS_MAX && self.in_parts(py, row, keywords, keyword_count as u8)? {
            return Ok(());
        }
        self.whole(py, row, keywords.cloned(), 0)
    }

    /// Encodes the positional arguments of one of many tasks that have the same keyword arguments.
    #[inline]
    pub(crate) fn arguments_with<'py>(
        &mut self,
        py: Python<'py>,
        row: Row<'_, 'py>,
        constants: &[Constant<'py>],
    ) -> PyResult<()> {
        if !self.in_parts(py, row, None, constants.len() as u8)? {
            self.whole(py, row, None, constants.len() as u8)?;
        }
        for constant in constants {
            self.out.extend_from_slice(&constant.name);
            match &constant.value {
                ConstantValue::Encoded(bytes) => self.out.extend_from_slice(bytes),
                ConstantValue::Task(index) => {
                    let k = self.cited.cite(*index);
                    self.put_dep(k);
                }
                ConstantValue::Citing(value) => {
                    if !self.by_tag(value.as_borrowed(), 0)? {
                        self.pickle(value)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Encodes the keyword arguments that many tasks have in common, once.
    pub(crate) fn constants<'py>(&mut self, keywords: &Bound<'py, PyDict>) -> PyResult<Vec<Constant<'py>>> {
        if keywords.len() > KEYWORDS_MAX {
            return Err(PyOverflowError::new_err("map takes at most 255 constants"));
        }
        let mut constants = Vec::new();
        for (name, value) in keywords.iter() {
            let home = self.home;
            self.clear(home);
            if !put_str(name.as_borrowed(), &mut self.out) {
                name.extract::<&str>()?;
            }
            let name = std::mem::take(&mut self.out);
            self.argument(value.as_borrowed(), Row::Slice(&[]), None)?;
            let encoded = std::mem::take(&mut self.out);
            let value =
                if self.cited.len() > 0 { ConstantValue::Citing(value) } else { ConstantValue::Encoded(encoded) };
            constants.push(Constant { name, value });
        }
        Ok(constants)
    }

    /// Encodes a task whose positional arguments are the results of these tasks.
    pub(crate) fn results_of(&mut self, indices: &[u32]) {
        self.head(indices.len(), 0);
        for &index in indices {
            let k = self.cited.cite(index);
            self.put_dep(k);
        }
    }

    /// Encodes all arguments as one pickle, so that they keep the objects that they share.
    fn whole<'py>(
        &mut self,
        py: Python<'py>,
        row: Row<'_, 'py>,
        keywords: Option<Bound<'py, PyDict>>,
        more_keywords: u8,
    ) -> PyResult<()> {
        self.clear(self.home);
        let kwargs = keywords.unwrap_or_else(|| PyDict::new(py));
        let whole = PyTuple::new(py, [row.to_tuple(py)?.into_any(), kwargs.into_any()])?;
        self.out.push(HEAD_WHOLE);
        self.pickle(whole.as_any())?;
        self.out.push(more_keywords);
        Ok(())
    }

    /// Encodes the arguments one by one; false if two of them could share an object.
    #[inline]
    fn in_parts<'py>(
        &mut self,
        py: Python<'py>,
        row: Row<'_, 'py>,
        keywords: Option<&Bound<'py, PyDict>>,
        keyword_count: u8,
    ) -> PyResult<bool> {
        self.head(row.len(), keyword_count);
        for position in 0..row.len() {
            if !self.argument(row.at(position), row, keywords)? {
                return Ok(false);
            }
        }
        for (name, value) in keywords.into_iter().flatten() {
            if !put_str(name.as_borrowed(), &mut self.out) || !self.argument(value.as_borrowed(), row, keywords)? {
                return Ok(false);
            }
        }
        if self.out.len() > u32::MAX as usize { Err(too_long(py)) } else { Ok(true) }
    }

    fn head(&mut self, positional_count: usize, keyword_count: u8) {
        if positional_count < HEAD_LONG as usize {
            self.out.extend_from_slice(&[positional_count as u8, keyword_count]);
        } else {
            self.out.push(HEAD_LONG);
            put_u32(positional_count as u32, &mut self.out);
            self.out.push(keyword_count);
        }
    }

    #[inline]
    fn argument<'py>(
        &mut self,
        value: Borrowed<'_, 'py, PyAny>,
        row: Row<'_, 'py>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<bool> {
        let (bytes_mark, cited_mark) = (self.out.len(), self.cited.len());
        if put_atom(value, &mut self.out) || self.by_tag(value, 0)? {
            return Ok(true);
        }
        let positional = (0..row.len()).map(|position| row.at(position).to_owned());
        let named = keywords.into_iter().flatten().map(|(_, value)| value);
        let shareable = positional.chain(named).filter(|other| !is_flat(other.as_borrowed())).count();
        if shareable > 1 {
            return Ok(false);
        }
        self.out.truncate(bytes_mark);
        self.cited.truncate(cited_mark);
        self.pickle(&value.to_owned())?;
        Ok(true)
    }

    /// Encodes one value by tag; false (and what was written so far is void) if it needs a pickle.
    fn by_tag(&mut self, value: Borrowed<'_, '_, PyAny>, depth: u32) -> PyResult<bool> {
        if let Ok(node) = value.cast_exact::<Node>() {
            let k = self.cited.cite(node.get().index_in(value.py(), self.home)?);
            self.put_dep(k);
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            if list.len() > ITEMS_MAX {
                return self.list_of_nodes(&list);
            }
            if !self.enter(value, list.len(), depth, LIST) {
                return Ok(false);
            }
            for item in list.iter() {
                if !put_atom(item.as_borrowed(), &mut self.out) && !self.by_tag(item.as_borrowed(), depth + 1)? {
                    return Ok(false);
                }
            }
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            if !self.enter(value, tuple.len(), depth, TUPLE) {
                return Ok(false);
            }
            for item in tuple.iter_borrowed() {
                if !put_atom(item, &mut self.out) && !self.by_tag(item, depth + 1)? {
                    return Ok(false);
                }
            }
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            if !self.enter(value, dict.len(), depth, DICT) {
                return Ok(false);
            }
            for (key, item) in dict.iter() {
                for part in [key.as_borrowed(), item.as_borrowed()] {
                    if !put_atom(part, &mut self.out) && !self.by_tag(part, depth + 1)? {
                        return Ok(false);
                    }
                }
            }
        } else if let Ok(nodes) = value.cast_exact::<Nodes>() {
            nodes.get().check_home(value.py(), self.home)?;
            self.put_nodes(nodes.get());
        } else if let Some(external) = as_external(&value)? {
            let k = self.cited.cite_external(external);
            self.put_dep(k);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Writes a container's tag and length; false if it must not be written by tag.
    fn enter(&mut self, container: Borrowed<'_, '_, PyAny>, len: usize, depth: u32, tag: u8) -> bool {
        self.items += len;
        if len > ITEMS_MAX || depth >= DEPTH_MAX || self.items > ITEMS_TOTAL_MAX {
            return false;
        }
        let address = container.as_ptr() as usize;
        // There is only one empty tuple; to meet it twice says nothing.
        if len > 0 || tag != TUPLE {
            if self.containers.contains(&address) {
                return false;
            }
            self.containers.push(address);
        }
        self.out.push(tag);
        put_u32(len as u32, &mut self.out);
        true
    }

    /// Encodes a list too long for tags if it holds nothing but nodes.
    fn list_of_nodes(&mut self, list: &Bound<'_, PyList>) -> PyResult<bool> {
        let mark = self.cited.len();
        self.out.push(LIST);
        put_u32(list.len() as u32, &mut self.out);
        let bytes_mark = self.out.len();
        let mut consecutive = true;
        for (position, item) in list.iter().enumerate() {
            let Ok(node) = item.cast_exact::<Node>() else { return Ok(false) };
            let k = self.cited.cite(node.get().index_in(list.py(), self.home)?);
            consecutive &= k as usize == mark + position;
            self.put_dep(k);
        }
        if consecutive {
            self.out.truncate(bytes_mark - 5);
            self.put_dep_range(mark as u32, list.len() as u32);
        }
        Ok(true)
    }

    fn put_nodes(&mut self, nodes: &Nodes) {
        let count = nodes.len() as u32;
        if let Some(first) = self.cited.cite_distinct(nodes.indices()) {
            self.put_dep_range(first, count);
        } else {
            self.out.push(LIST);
            put_u32(count, &mut self.out);
            for index in nodes.indices() {
                let k = self.cited.cite(index);
                self.put_dep(k);
            }
        }
    }

    fn put_dep(&mut self, k: u32) {
        self.out.push(DEP);
        put_u32(k, &mut self.out);
    }

    fn put_dep_range(&mut self, first: u32, count: u32) {
        self.out.push(DEP_RANGE);
        put_u32(first, &mut self.out);
        put_u32(count, &mut self.out);
    }

    fn pickle(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let (pickle, mut used) = dumps_citing(value, self.home, &mut self.cited)?;
        if used.is_empty() {
            self.out.push(PICKLE);
        } else {
            used.sort_unstable();
            used.dedup();
            self.out.push(CITING_PICKLE);
            put_u32(used.len() as u32, &mut self.out);
            used.iter().for_each(|&k| put_u32(k, &mut self.out));
        }
        put_blob(value.py(), pickle.as_bytes(), &mut self.out)
    }

    /// Encodes the arguments of one task of a by-reference graph: nothing is pickled, and nodes are found in exact
    /// lists, tuples and dicts only.
    pub(crate) fn arguments_live<'py>(
        &mut self,
        row: Row<'_, 'py>,
        keywords: Option<&Bound<'py, PyDict>>,
        objects: &Objects,
    ) -> PyResult<()> {
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let keyword_count = keywords.map_or(0, |keywords| keywords.len());
        let keyword_count = u8::try_from(keyword_count).map_err(|_| {
            PyOverflowError::new_err("a task of a by-reference graph takes at most 255 keyword arguments")
        })?;
        self.head(row.len(), keyword_count);
        for position in 0..row.len() {
            self.live(row.at(position), objects, 0)?;
        }
        for (name, value) in keywords.into_iter().flatten() {
            if !put_str(name.as_borrowed(), &mut self.out) {
                name.extract::<&str>()?;
            }
            self.live(value.as_borrowed(), objects, 0)?;
        }
        Ok(())
    }

    fn live(&mut self, value: Borrowed<'_, '_, PyAny>, objects: &Objects, depth: u32) -> PyResult<()> {
        let mut seen = SmallVec::new();
        if depth < LIVE_DEPTH_MAX && cites(value, depth, &mut seen) {
            if let Ok(list) = value.cast_exact::<PyList>() {
                self.out.push(LIST);
                put_u32(list.len() as u32, &mut self.out);
                return list.iter().try_for_each(|item| self.live(item.as_borrowed(), objects, depth + 1));
            }
            if let Ok(tuple) = value.cast_exact::<PyTuple>() {
                self.out.push(TUPLE);
                put_u32(tuple.len() as u32, &mut self.out);
                return tuple.iter_borrowed().try_for_each(|item| self.live(item, objects, depth + 1));
            }
            if let Ok(dict) = value.cast_exact::<PyDict>() {
                self.out.push(DICT);
                put_u32(dict.len() as u32, &mut self.out);
                return dict.iter().try_for_each(|(key, item)| {
                    self.live(key.as_borrowed(), objects, depth + 1)?;
                    self.live(item.as_borrowed(), objects, depth + 1)
                });
            }
            self.by_tag(value, 0)?;
            return Ok(());
        }
        if !put_atom(value, &mut self.out) {
            let mut objects = objects.lock().unwrap_or_else(|poison| poison.into_inner());
            self.out.push(OBJECT);
            put_u32(objects.len() as u32, &mut self.out);
            objects.push(value.to_owned().unbind());
        }
        Ok(())
    }
}

/// Deepest nesting in which nodes are looked for in a by-reference graph.
const LIVE_DEPTH_MAX: u32 = DEPTH_MAX;

/// Whether `value` is, or holds in exact containers, something that stands for a result.
fn cites(value: Borrowed<'_, '_, PyAny>, depth: u32, seen: &mut SmallVec<[usize; 8]>) -> bool {
    if is_atom(&value) {
        return false;
    }
    let address = value.as_ptr() as usize;
    if depth > LIVE_DEPTH_MAX || seen.contains(&address) {
        return false;
    }
    seen.push(address);
    let found = if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().any(|item| cites(item.as_borrowed(), depth + 1, seen))
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple.iter_borrowed().any(|item| cites(item, depth + 1, seen))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter()
            .any(|(key, item)| cites(key.as_borrowed(), depth + 1, seen) || cites(item.as_borrowed(), depth + 1, seen))
    } else {
        value.cast_exact::<Node>().is_ok()
            || value.cast_exact::<Nodes>().is_ok()
            || as_external(&value).is_ok_and(|external| external.is_some())
    };
    seen.pop();
    found
}

/// Whether `value` cannot share an object with another argument.
fn is_flat(value: Borrowed<'_, '_, PyAny>) -> bool {
    is_atom(&value) || Node::is_exact_type_of(&value) || Nodes::is_exact_type_of(&value)
}

/// Appends an exact atom; false if it is not one, or not one that has a tag.
#[inline]
fn put_atom(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) -> bool {
    if value.is_exact_instance_of::<PyInt>() {
        let Ok(number) = value.extract::<i64>() else { return false };
        put_int(number, out);
    } else if value.is_exact_instance_of::<PyString>() {
        return put_str(value, out);
    } else if let Ok(float) = value.cast_exact::<PyFloat>() {
        out.push(FLOAT);
        out.extend_from_slice(&float.value().to_le_bytes());
    } else if value.is_none() {
        out.push(NONE);
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.push(if truth.is_true() { TRUE } else { FALSE });
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        if bytes.as_bytes().len() > u32::MAX as usize {
            return false;
        }
        out.push(BYTES);
        put_u32(bytes.as_bytes().len() as u32, out);
        out.extend_from_slice(bytes.as_bytes());
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

fn put_str(value: Borrowed<'_, '_, PyAny>, out: &mut Vec<u8>) -> bool {
    let Ok(text) = value.extract::<&str>() else { return false };
    if text.len() > u32::MAX as usize {
        return false;
    }
    out.push(STR);
    put_u32(text.len() as u32, out);
    out.extend_from_slice(text.as_bytes());
    true
}

#[inline]
fn put_u32(number: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_blob(py: Python<'_>, blob: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    let len = u32::try_from(blob.len()).map_err(|_| too_long(py))?;
    put_u32(len, out);
    out.extend_from_slice(blob);
    Ok(())
}

fn too_long(_py: Python<'_>) -> PyErr {
    PyOverflowError::new_err("one task's arguments, or one result, must be shorter than 4 GiB")
}
