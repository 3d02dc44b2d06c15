//! Splitting a tuple result: each item becomes a task.
use pyo3::prelude::*;

use super::*;

impl Graph {
    /// The tasks of the items of a result, `count` of them: made at the first call, found again at the next.
    pub(crate) fn split<'py>(slf: &Bound<'py, Self>, node: &Bound<'py, Node>, count: u32) -> PyResult<Nodes> {
        static ITEM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, index) = (slf.py(), node.get().index());
        let item = ITEM.import(py, "headrace.steps", "item")?;
        let entry = Graph::entry(slf, item, "add")?;
        let mut batch = BatchCiting::default();
        with_encoder(Graph::address(slf), |encoder| {
            for position in 0..count {
                encoder.clear(Graph::address(slf));
                let call = (node, position, count).into_pyobject(py)?;
                slf.get().encode(encoder, item, Passed::positional(call.as_slice()), "add")?;
                batch.push(encoder);
            }
            PyResult::Ok(())
        })?;
        let mut data = slf.get().lock();
        let first = match data.splits.get(&index) {
            Some(&(first, known)) if known == count => first,
            _ => {
                let first = data.append(py, &slf.get().held, entry, batch)?;
                data.splits.insert(index, (first, count));
                first
            }
        };
        Ok(Nodes::range(slf, first, count))
    }
}
