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
    let root = with_encoder(home, |encoder| {
        let mut tree = Tree::default();
        if let Some(initial) = initial {
            let first = level.drain(..level.len().min(arity - 1)).collect::<Vec<_>>();
            let mut row = vec![initial.get_item(0)?];
            for &index in &first {
                row.push(Bound::new(py, Node::new(slf, index))?.into_any());
            }
            slf.get().encode(encoder, step, Passed::positional(&row), "reduce")?;
            tree.count = 1;
        }
        let mut data = slf.get().lock();
        tree.first = data.columns.len() as u32;
        if tree.count > 0 {
            level = tree.fold(encoder, home, &level, arity);
            level.insert(0, tree.first);
        }
        while level.len() > 1 {
            level = tree.fold(encoder, home, &level, arity);
        }
        if tree.count > 0 {
            // The key names the root; the tasks below it go by their defaults.
            let mut root = BatchCiting::default();
            root.push(encoder);
            data.append_behind(py, &slf.get().held, (entry, tree.below), (entry, root))?;
        }
        PyResult::Ok(level[0])
    })?;
    Py::new(py, Node::new(slf, root))
}

/// The tasks of a reduction. They join the graph together, or not at all.
#[derive(Default)]
struct Tree {
    /// Index of the first.
    first: u32,
    count: u32,
    /// All but the last, which is in the encoder.
    below: BatchCiting,
}

impl Tree {
    /// Makes way for the next task; the answer is its index.
    fn next(&mut self, encoder: &mut Encoder, home: usize) -> u32 {
        if self.count > 0 {
            self.below.push(encoder);
        }
        encoder.clear(home);
        self.count += 1;
        self.first + self.count - 1
    }

    /// One level of the tree; a lone leftover moves up without a task.
    fn fold(&mut self, encoder: &mut Encoder, home: usize, level: &[u32], arity: usize) -> Vec<u32> {
        let mut above = Vec::with_capacity(level.len().div_ceil(arity));
        for group in level.chunks(arity) {
            above.push(match group {
                [lone] => *lone,
                _ => {
                    let index = self.next(encoder, home);
                    encoder.results_of(group);
                    index
                }
            });
        }
        above
    }
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
