//! What of a run has to be done once more, because it did not end well.
use headrace_wire::{EXTERNAL, Outcome};
use pyo3::prelude::*;

use super::failures::error;
use super::live::LiveEnding;
use super::results::Slot;
use super::run::RunCore;
use super::tables::Ending;

impl RunCore {
    /// The tasks that did not end well, in the order in which that was told; without those whose endings were let go of.
    pub(super) fn ended_badly(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        let state = self.session.lock();
        if !state.tables.knows(self.run) {
            let text =
                format!("run {} was released, and with it what is known of it; submit the graph again", self.run);
            return Err(error(py, "ResultReleased", &text));
        }
        let is_bad = |index: &u32| state.tables.peek(py, self.run, *index).is_some_and(|ending| !is_value(&ending));
        Ok(state.tables.arrivals(self.run, 0).iter().copied().filter(is_bad).collect())
    }

    /// The tasks that are to run again, and those whose results are there and stand for them; both ascend. To run again are
    /// those that did not end well, those whose results were let go of, and whatever these need and nobody has kept.
    pub(super) fn plan_again(&self, py: Python<'_>) -> PyResult<(Vec<u32>, Vec<u32>)> {
        let tasks = self.tasks as usize;
        let (mut again, mut kept) = (vec![false; tasks], vec![false; tasks]);
        self.ended_badly(py)?.into_iter().for_each(|index| again[index as usize] = true);
        for (position, &index) in self.keep.indices().iter().enumerate() {
            match self.results.get(py, position) {
                Slot::Released | Slot::Error(_) => again[index as usize] = true,
                Slot::Unread | Slot::Value(_) | Slot::Weak(_) => kept[index as usize] = !again[index as usize],
            }
        }
        let mut open: Vec<u32> = (0..self.tasks).filter(|index| again[*index as usize]).collect();
        let mut data = self.graph.get().lock();
        while let Some(index) = open.pop() {
            for &needed in data.columns.deps_of(index).iter().filter(|dep| **dep & EXTERNAL == 0) {
                let needed_again = &mut again[needed as usize];
                if !kept[needed as usize] && !std::mem::replace(needed_again, true) {
                    open.push(needed);
                }
            }
        }
        drop(data);
        let all = |marks: &[bool]| (0..self.tasks).filter(|index| marks[*index as usize]).collect();
        Ok((all(&again), all(&kept)))
    }
}

fn is_value(ending: &Ending) -> bool {
    match ending {
        Ending::Told(told) => told.outcome() == Outcome::Done,
        Ending::Live(LiveEnding::Value(_)) => true,
        Ending::Live(LiveEnding::Error(_)) => false,
    }
}
