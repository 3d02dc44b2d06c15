//! A graph once more, for a run that makes good what went wrong in another one: indices stay what they are, and tasks that
//! need not run again become such that pass on a result of that run, or do nothing.
use pyo3::types::PyTuple;

use super::*;

/// What stands in the place of a task that need not run again.
struct StandIns {
    entry: Entry,
    /// By index of the task: what passes on its result.
    passes: Vec<(u32, EncodedCall)>,
    nothing: EncodedCall,
}

impl Graph {
    /// Fills this empty graph with the first `count` tasks of another. Those of `again` are as they were; `taken` has the refs
    /// that stand for the results of others. Both ascend, and all that a task of `again` needs is in one of them.
    pub(super) fn fill_again<'py>(
        slf: &Bound<'py, Self>,
        source: &Bound<'py, Graph>,
        count: u32,
        again: &[u32],
        taken: &[(u32, Bound<'py, PyAny>)],
    ) -> PyResult<()> {
        static CONSTANT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let constant = CONSTANT.import(py, "headrace.steps", "constant")?;
        let call = |value: &Bound<'py, PyAny>| {
            let args = PyTuple::new(py, [value])?;
            encode_call("resubmit", constant, &args, 0, None)
        };
        let passes = taken.iter().map(|(index, value)| Ok((*index, call(value)?))).collect::<PyResult<Vec<_>>>()?;
        let nothing = call(&py.None().into_bound(py))?;
        let (this, source) = (slf.get(), source.get());

        let empty = {
            let data = source.lock();
            let mut empty = GraphData { functions: data.functions.clone(), ..GraphData::default() };
            empty.columns.options = data.columns.options.clone();
            empty
        };
        let _empty = std::mem::replace(&mut *this.lock(), empty);
        let objects = source.held.lock(py).share(py, &[]);
        let _empty = std::mem::replace(&mut *this.held.lock(py), objects);
        let entry = Graph::entry(slf, constant, "resubmit")?;

        let stand_ins = StandIns { entry, passes, nothing };
        let externals = this.lock().repeat(&mut source.lock(), count, again, &stand_ins);
        let (from, mut held) = (source.held.lock(py), this.held.lock(py));
        held.externals.extend(externals.into_iter().map(|external| match external {
            Cited::Source(position) => from.externals[position as usize].clone_ref(py),
            Cited::Ref(object) => object.clone_ref(py),
        }));
        Ok(())
    }
}

/// Where the object of an external is.
enum Cited<'a> {
    /// At this position among those of the other graph.
    Source(u32),
    Ref(&'a Py<PyAny>),
}

impl GraphData {
    fn repeat<'a>(
        &mut self,
        source: &mut GraphData,
        count: u32,
        again: &[u32],
        stand_ins: &'a StandIns,
    ) -> Vec<Cited<'a>> {
        let StandIns { entry, passes, nothing } = stand_ins;
        let mut cited = Vec::new();
        let mut number = vec![u32::MAX; source.externals.len()];
        let (mut again, mut passes) = (again.iter().peekable(), passes.iter().peekable());
        for index in 0..count {
            if again.next_if(|next| **next == index).is_some() {
                let deps: Vec<u32> = source.columns.deps_of(index).to_vec();
                let moved = |dep: u32| {
                    if dep & EXTERNAL == 0 {
                        return dep;
                    }
                    let position = dep & !EXTERNAL;
                    let number = &mut number[position as usize];
                    if *number == u32::MAX {
                        *number = self.externals.len() as u32;
                        self.externals.push(source.externals[position as usize]);
                        cited.push(Cited::Source(position));
                    }
                    EXTERNAL | *number
                };
                let deps: Vec<u32> = deps.into_iter().map(moved).collect();
                let row = source.columns.task_options.get(index as usize).copied().unwrap_or(0);
                let function = source.columns.task_function[index as usize];
                self.columns.push(function, row, &deps, source.columns.args_of(index));
                if source.key_shift > 0 || source.columns.own_key(index).is_some() {
                    self.columns.name(index, &source.key_of(index));
                }
            } else if let Some((_, call)) = passes.next_if(|(next, _)| *next == index) {
                let External { id, object } = &call.externals[0];
                self.columns.push(
                    entry.function,
                    entry.option_row,
                    &[EXTERNAL | self.externals.len() as u32],
                    &call.args,
                );
                self.externals.push(*id);
                cited.push(Cited::Ref(object));
                self.columns.name(index, &source.key_of(index));
            } else {
                self.columns.push(entry.function, entry.option_row, &[], &nothing.args);
            }
        }
        cited
    }
}
