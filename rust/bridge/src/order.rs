//! An order of tasks for few live results, over any hashable keys.
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::errors::graph_error;

/// Most keys of a cycle that an error names.
const CYCLE_SHOWN_MAX: usize = 10;

/// Order tasks so that each comes behind what it needs, and few results are alive at a time.
///
/// Of several such orders it is the one in which the least is alive, if the kernel runs them one by one: depth first; depth
/// first, and of what a task needs first that whose own needs take the most room; on with what is nearest to the results that
/// are there.
///
/// Args:
///     needs: gives what a task needs, in the order that decides where nothing else does; None for what is there already,
///         and is no part of the order.
///     wanted: the tasks whose results are wanted.
///     levels: give a priority to each task, of so many at most, where it is better to let some wait that are ready.
///
/// Returns:
///     The tasks; with `levels` pairs of a task and its priority, which is 0 or less.
///
/// Raises:
///     GraphError: tasks need each other in a cycle (it is named).
///
/// Cost: linear in the tasks and what they need; about a microsecond a task, and the calls of `needs`.
#[pyfunction]
#[pyo3(signature = (needs, wanted, /, *, levels = None))]
pub(crate) fn depth_first<'py>(
    needs: &Bound<'py, PyAny>,
    wanted: &Bound<'py, PyAny>,
    levels: Option<u32>,
) -> PyResult<Bound<'py, PyList>> {
    let py = needs.py();
    let mut numbered = Numbered { numbers: PyDict::new(py), keys: Vec::new() };
    let wanted = wanted.try_iter()?.map(|key| numbered.number(&key?)).collect::<PyResult<Vec<u32>>>()?;
    // By task: what it needs, if it was asked.
    let mut rows: Vec<Option<Row>> = Vec::new();
    let mut edges: Vec<u32> = Vec::new();
    let mut open = wanted.clone();
    while let Some(task) = open.pop() {
        rows.resize_with(numbered.keys.len(), || None);
        if rows[task as usize].is_some() {
            continue;
        }
        let first = edges.len();
        let found = needs.call1((&numbered.keys[task as usize],))?;
        if !found.is_none() {
            for need in found.try_iter()? {
                edges.push(numbered.number(&need?)?);
            }
        }
        open.extend_from_slice(&edges[first..]);
        rows[task as usize] = Some(Row { first, len: edges.len() - first, is_there: found.is_none() });
    }
    rows.resize_with(numbered.keys.len(), || None);
    let is_there = |task: &u32| rows[*task as usize].as_ref().is_none_or(|row| row.is_there);
    let (mut starts, mut flat) = (Vec::with_capacity(rows.len() + 1), Vec::with_capacity(edges.len()));
    starts.push(0);
    for row in &rows {
        if let Some(row) = row {
            flat.extend(edges[row.first..row.first + row.len].iter().filter(|need| !is_there(need)));
        }
        starts.push(flat.len() as u32);
    }
    let wanted: Vec<u32> = wanted.into_iter().filter(|task| !is_there(task)).collect();
    let (order, used) = headrace_kernel::depth_first(&starts, &flat, &wanted, levels.unwrap_or(1).max(1))
        .map_err(|cycle| numbered.cycle_error(py, &cycle))?;
    let keys = order.iter().map(|&task| &numbered.keys[task as usize]);
    match levels {
        None => PyList::new(py, keys),
        Some(_) => {
            let priority = |place: usize| -((place as u64 * u64::from(used) / order.len() as u64) as i64);
            PyList::new(py, keys.enumerate().map(|(place, key)| (key, priority(place))))
        }
    }
}

/// What a task needs, among all edges.
struct Row {
    first: usize,
    len: usize,
    is_there: bool,
}

/// Keys by the numbers that they were given.
struct Numbered<'py> {
    numbers: Bound<'py, PyDict>,
    keys: Vec<Bound<'py, PyAny>>,
}

impl<'py> Numbered<'py> {
    fn number(&mut self, key: &Bound<'py, PyAny>) -> PyResult<u32> {
        if let Some(number) = self.numbers.get_item(key)? {
            return number.extract();
        }
        let number = self.keys.len() as u32;
        self.numbers.set_item(key, number)?;
        self.keys.push(key.clone());
        Ok(number)
    }

    fn cycle_error(&self, py: Python<'py>, cycle: &[u32]) -> PyErr {
        let name = |task: &u32| self.keys[*task as usize].to_string();
        let mut shown: Vec<String> = cycle.iter().take(CYCLE_SHOWN_MAX).map(name).collect();
        shown.push(if cycle.len() > CYCLE_SHOWN_MAX { "…".to_owned() } else { shown[0].clone() });
        let noun = if cycle.len() == 1 { "task" } else { "tasks" };
        let text = format!("cycle of {} {noun} that wait for each other: {}", cycle.len(), shown.join(" -> "));
        graph_error(py, &text)
    }
}
