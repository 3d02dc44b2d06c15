//! `reduce`: a tree of tasks over the results of nodes.
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::*;

/// Folds adjacent results, `arity` at a time, until one is left. The shape depends on the count alone.
pub(super) fn reduce<'py>(
    slf: &Bound<'py, Graph>,
    step: &Bound<'py, PyAny>,
    nodes: &Bound<'py, PyAny>,
    arity: usize,
    initial: Option<Bound<'py, PyTuple>>,
) -> PyResult<Py<Node>> {
    let (py, home) = (slf.py(), Graph::address(slf));
    let entry = Graph::entry(slf, step, "reduce")?;
    let mut level = inputs(slf, nodes)?;
    // The key names the root; the tasks below it go by their defaults.
    let inner = Entry { key: None, ..entry };
    let entry_of = |is_root: bool| if is_root { entry } else { inner };
    if let Some(initial) = initial {
        let first = level.drain(..level.len().min(arity - 1)).collect::<Vec<_>>();
        let mut row = vec![initial.get_item(0)?];
        for &index in &first {
            row.push(Bound::new(py, Node::new(slf, index))?.into_any());
        }
        let head = with_encoder(home, |encoder| {
            slf.get().encode(encoder, step, Passed::positional(&row), "reduce")?;
            slf.get().lock().push(py, entry_of(level.is_empty()), encoder)
        })?;
        level = fold(slf, entry_of(false), &level, arity)?;
        level.insert(0, head);
    }
    while level.len() > 1 {
        level = fold(slf, entry_of(level.len() <= arity), &level, arity)?;
    }
    Py::new(py, Node::new(slf, level[0]))
}

/// One level of the tree; a lone leftover moves up without a task.
fn fold(slf: &Bound<'_, Graph>, entry: Entry, level: &[u32], arity: usize) -> PyResult<Vec<u32>> {
    with_encoder(Graph::address(slf), |encoder| {
        let mut data = slf.get().lock();
        let mut above = Vec::with_capacity(level.len().div_ceil(arity));
        for group in level.chunks(arity) {
            above.push(match group {
                [lone] => *lone,
                _ => {
                    encoder.clear(Graph::address(slf));
                    encoder.results_of(group);
                    data.push(slf.py(), entry, encoder)?
                }
            });
        }
        Ok(above)
    })
}

fn inputs(slf: &Bound<'_, Graph>, nodes: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let (py, home) = (slf.py(), Graph::address(slf));
    if let Ok(nodes) = nodes.cast_exact::<Nodes>() {
        nodes.get().check_home(py, home)?;
        return Ok(nodes.get().indices().collect());
    }
    if nodes.cast_exact::<Node>().is_ok() {
        return Err(graph_error(py, "reduce() takes a sequence of nodes, not one node; wrap it in a list"));
    }
    let mut indices = Vec::new();
    for item in nodes.try_iter()? {
        let item = item?;
        let Ok(node) = item.cast_exact::<Node>() else {
            let text = format!(
                "reduce() folds the results of nodes, not {}; make tasks of values by map() first",
                item.get_type().name()?
            );
            return Err(graph_error(py, &text));
        };
        indices.push(node.get().index_in(py, home)?);
    }
    Ok(indices)
}
