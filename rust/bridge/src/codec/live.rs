//! Arguments of by-reference graphs: live objects, not bytes. Nothing is pickled, and nodes are found in exact lists,
//! tuples and dicts only.
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use smallvec::SmallVec;

use super::encode::{put_str, put_u32};
use super::pickle::as_external;
use super::*;
use crate::node::Node;
use crate::nodes::Nodes;

/// The live objects of a by-reference graph.
pub(crate) type Objects = Mutex<Vec<Py<PyAny>>>;

/// Deepest nesting in which nodes are looked for.
const LIVE_DEPTH_MAX: u32 = DEPTH_MAX;

impl Encoder {
    /// Encodes the arguments of one task; what has no tag joins `objects`.
    pub(crate) fn arguments_live(&mut self, passed: Passed<'_, '_>, objects: &Objects) -> PyResult<()> {
        let keyword_count = u8::try_from(passed.names.len()).map_err(|_| {
            PyOverflowError::new_err("a task of a by-reference graph takes at most 255 keyword arguments")
        })?;
        self.head(passed.positional.len(), keyword_count);
        for value in passed.positional {
            self.live(value, objects, 0)?;
        }
        for (name, value) in passed.names.iter().zip(passed.named) {
            if !put_str(name, &mut self.out) {
                name.extract::<&str>()?;
            }
            self.live(value, objects, 0)?;
        }
        Ok(())
    }

    fn live(&mut self, value: &Bound<'_, PyAny>, objects: &Objects, depth: u32) -> PyResult<()> {
        if put_atom(value, &mut self.out) {
            return Ok(());
        }
        if !cites(value, depth, &mut SmallVec::new()) {
            let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
            self.out.push(OBJECT);
            put_u32(objects.len() as u32, &mut self.out);
            objects.push(value.clone().unbind());
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.put_count(LIST, list.len());
            list.iter().try_for_each(|item| self.live(&item, objects, depth + 1))?;
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.put_count(TUPLE, tuple.len());
            tuple.as_slice().iter().try_for_each(|item| self.live(item, objects, depth + 1))?;
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.put_count(DICT, dict.len());
            dict.iter().try_for_each(|(key, item)| {
                self.live(&key, objects, depth + 1)?;
                self.live(&item, objects, depth + 1)
            })?;
        } else {
            self.by_tag(value, 0)?;
        }
        Ok(())
    }
}

/// Whether `value` is, or holds in exact containers, something that stands for a result.
fn cites(value: &Bound<'_, PyAny>, depth: u32, above: &mut SmallVec<[usize; 8]>) -> bool {
    if is_atom(value) {
        return false;
    }
    let address = value.as_ptr() as usize;
    if depth > LIVE_DEPTH_MAX || above.contains(&address) {
        return false;
    }
    above.push(address);
    let found = if let Ok(list) = value.cast_exact::<PyList>() {
        list.iter().any(|item| cites(&item, depth + 1, above))
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        tuple.as_slice().iter().any(|item| cites(item, depth + 1, above))
    } else if let Ok(dict) = value.cast_exact::<PyDict>() {
        dict.iter().any(|(key, item)| cites(&key, depth + 1, above) || cites(&item, depth + 1, above))
    } else {
        value.cast_exact::<Node>().is_ok()
            || value.cast_exact::<Nodes>().is_ok()
            || as_external(value).is_ok_and(|external| external.is_some())
    };
    above.pop();
    found
}
