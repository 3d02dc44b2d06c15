//! Arguments of by-reference graphs: live objects, not bytes. Nothing is pickled, and nodes are found in exact lists,
//! tuples and dicts only.
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use rustc_hash::FxHashMap;

use super::encode::{BLOB_BYTES_MAX, items_of, put_atom, put_str, put_u32};
use super::pickle::is_external;
use super::*;
use crate::node::Node;
use crate::nodes::Nodes;

/// Live arguments of tasks that have not joined their graph: the numbers that they get there are filled in then.
#[derive(Default)]
pub(crate) struct LiveObjects {
    objects: Vec<Py<PyAny>>,
    /// Where in the encoded arguments the number of each belongs.
    places: Vec<usize>,
}

impl LiveObjects {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        if !self.is_empty() {
            self.places.clear();
            // Their finalizers find nothing here.
            drop(std::mem::take(&mut self.objects));
        }
    }

    /// Adds those of a task whose arguments come `args_before` bytes later.
    pub(crate) fn append(&mut self, other: &mut Self, args_before: usize) {
        self.objects.append(&mut other.objects);
        self.places.extend(other.places.drain(..).map(|place| place + args_before));
    }

    /// Moves the objects behind those that a graph has already, and enters their numbers in the arguments.
    pub(crate) fn settle(&mut self, args: &mut [u8], graph: &mut Vec<Py<PyAny>>) {
        for (place, number) in self.places.drain(..).zip(graph.len() as u32..) {
            args[place..place + 4].copy_from_slice(&number.to_le_bytes());
        }
        graph.append(&mut self.objects);
    }
}

/// Deepest nesting in which nodes are looked for.
const LIVE_DEPTH_MAX: u32 = DEPTH_MAX;

impl Encoder {
    /// Encodes the arguments of one task; what has no tag stays an object.
    pub(crate) fn arguments_live(&mut self, passed: Passed<'_, '_>) -> PyResult<()> {
        let keyword_count = u8::try_from(passed.names.len()).map_err(|_| {
            PyOverflowError::new_err("a task of a by-reference graph takes at most 255 keyword arguments")
        })?;
        let mut plain = Plain::default();
        self.head(passed.positional.len(), keyword_count);
        for value in passed.positional {
            self.live_value(value, &mut plain, 0)?;
        }
        for (name, value) in passed.names.iter().zip(passed.named) {
            if !put_str(name, BLOB_BYTES_MAX, &mut self.out) {
                name.extract::<&str>()?;
            }
            self.live_value(value, &mut plain, 0)?;
        }
        Ok(())
    }

    fn live_value(&mut self, value: &Bound<'_, PyAny>, plain: &mut Plain, depth: u32) -> PyResult<()> {
        if put_atom(value, BLOB_BYTES_MAX, &mut self.out) {
            return Ok(());
        }
        if !plain.cites(value, depth) {
            self.out.push(OBJECT);
            self.live.places.push(self.out.len());
            self.live.objects.push(value.clone().unbind());
            put_u32(0, &mut self.out);
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            // A property of a future may change a container meanwhile.
            let items: Vec<_> = list.iter().collect();
            self.put_count(LIST, items.len());
            items.iter().try_for_each(|item| self.live_value(item, plain, depth + 1))?;
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.put_count(TUPLE, tuple.len());
            tuple.as_slice().iter().try_for_each(|item| self.live_value(item, plain, depth + 1))?;
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            let items = items_of(dict);
            self.put_count(DICT, items.len());
            items.iter().try_for_each(|(key, item)| {
                self.live_value(key, plain, depth + 1)?;
                self.live_value(item, plain, depth + 1)
            })?;
        } else {
            self.by_tag(value, 0)?;
        }
        Ok(())
    }
}

/// Containers of one task that hold nothing that stands for a result.
#[derive(Default)]
struct Plain {
    /// Address of each container, with the depth from which on it was walked: the deeper, the less of it was seen.
    from_depth: FxHashMap<usize, u32>,
    /// What the walk that goes on has entered, and what stood there before.
    entered: Vec<(usize, Option<u32>)>,
}

impl Plain {
    /// Whether `value` is, or holds in exact containers, something that stands for a result. It runs no code of anybody's,
    /// and meets each container once a depth, however often they share it.
    fn cites(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> bool {
        self.entered.clear();
        let found = self.walk(value, depth);
        if found {
            // The walk ended early, or took a container for plain that is above itself.
            for (address, before) in self.entered.drain(..).rev() {
                match before {
                    Some(depth) => self.from_depth.insert(address, depth),
                    None => self.from_depth.remove(&address),
                };
            }
        }
        found
    }

    fn walk(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> bool {
        if depth > LIVE_DEPTH_MAX || is_atom(value) {
            return false;
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            self.enter(value, depth) && list.iter().any(|item| self.walk(&item, depth + 1))
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.enter(value, depth) && tuple.as_slice().iter().any(|item| self.walk(item, depth + 1))
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.enter(value, depth)
                && dict.iter().any(|(key, item)| self.walk(&key, depth + 1) || self.walk(&item, depth + 1))
        } else {
            value.cast_exact::<Node>().is_ok() || value.cast_exact::<Nodes>().is_ok() || is_external(value)
        }
    }

    /// Enters a container; false if it was walked from here, or from further up.
    fn enter(&mut self, container: &Bound<'_, PyAny>, depth: u32) -> bool {
        let address = container.as_ptr() as usize;
        let before = self.from_depth.get(&address).copied();
        if before.is_some_and(|before| before <= depth) {
            return false;
        }
        self.from_depth.insert(address, depth);
        self.entered.push((address, before));
        true
    }
}
