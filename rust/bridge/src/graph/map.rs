//! `map`: many tasks of one function in one verb.
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyFrozenSet, PyIterator, PyRange, PyRangeMethods, PySet, PyString};

use headrace_wire::EXTERNAL;

use super::*;
use crate::codec::{Constant, ConstantValue, put_int};

/// A constant longer than this becomes a task of its own, so that it travels once and not with each task. One with large parts
/// is never as long.
const CONSTANT_BYTES_MAX: usize = 64 * 1024;

/// Stands for the task of the n-th long constant while its index is not known: `CONSTANT_TASK - n`.
const CONSTANT_TASK: u32 = EXTERNAL - 1;

/// Adds one task for each step through the iterables, which are the positional arguments.
pub(super) fn map<'py>(
    slf: &Bound<'py, Graph>,
    callable: &Bound<'py, PyAny>,
    passed: Passed<'_, 'py>,
) -> PyResult<Nodes> {
    let py = slf.py();
    if passed.positional.is_empty() {
        return Err(PyTypeError::new_err("map() needs at least one iterable after the function"));
    }
    passed.positional.iter().try_for_each(refuse_scalar)?;
    refuse_endless(passed.positional)?;
    let entry = Graph::entry(slf, callable, "map")?;
    if let ([range], []) = (passed.positional, passed.names)
        && let Ok(range) = range.cast_exact::<PyRange>()
        && let Some(batch) = map_range(range)?
    {
        let count = batch.len() as u32;
        let first = slf.get().lock().append(py, &slf.get().held, entry, batch.into())?;
        return Ok(Nodes::range(slf, first, count));
    }
    let mut rows = Rows::new(passed.positional)?;
    with_encoder(Graph::address(slf), |encoder| {
        let (batch, long) = if passed.names.is_empty() || slf.get().is_by_reference() {
            (map_rows(slf, callable, &mut rows, encoder, passed)?, Vec::new())
        } else {
            map_with(slf, callable, &mut rows, encoder, passed)?
        };
        commit(slf, entry, batch, &long)
    })
}

/// Refuses what iterates, but hardly into what was meant.
fn refuse_scalar(iterable: &Bound<'_, PyAny>) -> PyResult<()> {
    let remedy = if iterable.is_instance_of::<PyString>() {
        "a str; wrap it in a list for one task, or write list(text) for one task a character"
    } else if iterable.is_instance_of::<PyBytes>() || iterable.is_instance_of::<PyByteArray>() {
        "bytes; wrap them in a list for one task, or write list(data) for one task a byte"
    } else if iterable.is_instance_of::<PyDict>() {
        "a dict; write .keys(), .values() or .items()"
    } else if iterable.is_instance_of::<PySet>() || iterable.is_instance_of::<PyFrozenSet>() {
        "a set, which has no order; write sorted(values) or list(values)"
    } else if iterable.is_exact_instance_of::<Node>() {
        "one node, whose result is not known yet; use add(fn, node), or split it first: parts = list(node) with \
         .options(nout=…)"
    } else {
        return Ok(());
    };
    Err(graph_error(iterable.py(), &format!("map() was given {remedy}")))
}

/// The tasks of a `range` of machine integers, without making an object of any; nothing for other ranges.
fn map_range(range: &Bound<'_, PyRange>) -> PyResult<Option<Batch>> {
    let (Ok(start), Ok(step), Ok(count)) = (range.start(), range.step(), range.len()) else { return Ok(None) };
    let (start, step) = (start as i64, step as i64);
    // Where the last number is one, those before it are.
    let distance = (count as i64).saturating_sub(1).checked_mul(step);
    let Some(last) = distance.and_then(|distance| start.checked_add(distance)) else { return Ok(None) };
    let is_short = |number: i64| i32::try_from(number).is_ok();
    let task_bytes_max = if is_short(start) && is_short(last) { 2 + 5 } else { 2 + 9 };
    let mut batch = Batch::default();
    batch.try_reserve(count, task_bytes_max).map_err(|_| PyMemoryError::new_err(()))?;
    batch.dep_counts.resize(count, 0);
    for position in 0..count as i64 {
        let before = batch.args.len();
        batch.args.extend_from_slice(&[1, 0]);
        put_int(start + position * step, &mut batch.args);
        batch.arg_lens.push((batch.args.len() - before) as u32);
    }
    Ok(Some(batch))
}

/// Refuses ranges that all have more numbers than a graph may have tasks, before the memory is full.
fn refuse_endless(iterables: &[Bound<'_, PyAny>]) -> PyResult<()> {
    let is_endless = |iterable: &Bound<'_, PyAny>| {
        // A length that is no machine integer is too long as well.
        iterable.cast_exact::<PyRange>().is_ok_and(|range| range.len().map_or(true, |count| count > TASKS_MAX))
    };
    if iterables.iter().all(is_endless) { Err(too_many_tasks(iterables[0].py())) } else { Ok(()) }
}

/// Steps through iterables together, and minds that they end together.
struct Rows<'py> {
    iterators: Vec<Bound<'py, PyIterator>>,
    row: Vec<Bound<'py, PyAny>>,
    steps: usize,
}

impl<'py> Rows<'py> {
    fn new(iterables: &[Bound<'py, PyAny>]) -> PyResult<Self> {
        let iterators = iterables.iter().map(|iterable| iterable.try_iter()).collect::<PyResult<Vec<_>>>()?;
        Ok(Self { iterators, row: Vec::new(), steps: 0 })
    }

    /// Takes the next step; false at the end.
    fn step(&mut self) -> PyResult<bool> {
        self.row.clear();
        for iterator in &mut self.iterators {
            match iterator.next() {
                Some(item) => self.row.push(item?),
                None if self.row.is_empty() => break,
                None => return Err(self.uneven()),
            }
        }
        if !self.row.is_empty() {
            self.steps += 1;
            return Ok(true);
        }
        for iterator in self.iterators.iter_mut().skip(1) {
            if iterator.next().transpose()?.is_some() {
                return Err(self.uneven());
            }
        }
        Ok(false)
    }

    #[cold]
    fn uneven(&self) -> PyErr {
        let py = self.iterators[0].py();
        let text = format!(
            "map() steps through its iterables together, so they must be equally long: iterable {} ends after step {}, \
             another goes on",
            self.row.len() + 1,
            self.steps
        );
        graph_error(py, &text)
    }
}

/// Encodes a task for each row, keyword arguments and all.
fn map_rows<'py>(
    slf: &Bound<'py, Graph>,
    callable: &Bound<'py, PyAny>,
    rows: &mut Rows<'py>,
    encoder: &mut Encoder,
    passed: Passed<'_, 'py>,
) -> PyResult<BatchCiting> {
    let mut batch = BatchCiting::default();
    while rows.step()? {
        encoder.clear(Graph::address(slf));
        slf.get().encode(encoder, callable, Passed { positional: &rows.row, ..passed }, "map")?;
        batch.push(encoder);
    }
    Ok(batch)
}

/// Encodes a task for each row, with keyword arguments that are encoded once. The answer has the long ones beside.
fn map_with<'py>(
    slf: &Bound<'py, Graph>,
    callable: &Bound<'py, PyAny>,
    rows: &mut Rows<'py>,
    encoder: &mut Encoder,
    passed: Passed<'_, 'py>,
) -> PyResult<(BatchCiting, Vec<Vec<u8>>)> {
    let explained =
        |error, row: &[Bound<'py, PyAny>]| explain(error, "map", callable, Passed { positional: row, ..passed });
    let mut constants = encoder.constants(passed).map_err(|error| explained(error, &[]))?;
    let mut long = Vec::new();
    for Constant { value, .. } in &mut constants {
        if let ConstantValue::Encoded(bytes) = value
            && bytes.len() > CONSTANT_BYTES_MAX
        {
            long.push(std::mem::take(bytes));
            *value = ConstantValue::Task(CONSTANT_TASK - (long.len() as u32 - 1));
        }
    }
    let mut batch = BatchCiting::sharing(encoder.cited.shared(slf.py()));
    while rows.step()? {
        encoder.clear(Graph::address(slf));
        encoder.arguments_with(&rows.row, &constants).map_err(|error| explained(error, &rows.row))?;
        batch.push(encoder);
    }
    Ok((batch, long))
}

/// Appends the tasks of a batch, behind the tasks of its long constants.
fn commit(slf: &Bound<'_, Graph>, entry: Entry, mut citing: BatchCiting, long: &[Vec<u8>]) -> PyResult<Nodes> {
    static CONSTANT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (py, graph) = (slf.py(), slf.get());
    let count = citing.len() as u32;
    if count == 0 || long.is_empty() {
        let first = graph.lock().append(py, &graph.held, entry, citing)?;
        return Ok(Nodes::range(slf, first, count));
    }
    let constant = Graph::entry(slf, CONSTANT.import(py, "headrace.steps", "constant")?, "map")?;
    let mut ahead = Batch::default();
    for value in long {
        ahead.push(&[], &[&[1, 0], &value[..]].concat());
    }
    let mut data = graph.lock();
    let tasks = CONSTANT_TASK - long.len() as u32 + 1..=CONSTANT_TASK;
    let first = data.columns.len() as u32;
    for dep in citing.batch.deps.iter_mut().filter(|dep| tasks.contains(dep)) {
        *dep = first + (CONSTANT_TASK - *dep);
    }
    let first = data.append_behind(py, &graph.held, (constant, ahead.into()), (entry, citing))?;
    Ok(Nodes::range(slf, first, count))
}
