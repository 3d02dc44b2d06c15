//! Tasks that all run one function, with what they cite, before they join a graph.
use headrace_wire::EXTERNAL;

use super::columns::Batch;
use crate::codec::{Encoder, External, LiveObjects};

/// A batch with the objects that it cites.
#[derive(Default)]
pub(super) struct BatchCiting {
    pub(super) batch: Batch,
    /// What they cite from outside.
    pub(super) externals: Vec<External>,
    /// So many of the first externals every task cites, under the same numbers.
    shared: usize,
    /// Live arguments of a by-reference graph.
    pub(super) live: LiveObjects,
}

impl BatchCiting {
    /// A batch of tasks that all cite these large parts first.
    pub(super) fn sharing(externals: Vec<External>) -> Self {
        Self { shared: externals.len(), externals, ..Self::default() }
    }

    /// Adds the task that `encoder` holds.
    pub(super) fn push(&mut self, encoder: &mut Encoder) {
        let first = self.batch.deps.len();
        let args_before = self.batch.args.len();
        self.batch.push(encoder.cited.deps(), &encoder.out);
        let own = encoder.cited.take_externals();
        if !own.is_empty() {
            let base = (self.externals.len() - self.shared) as u32;
            for dep in &mut self.batch.deps[first..] {
                if *dep & EXTERNAL != 0 && (*dep & !EXTERNAL) as usize >= self.shared {
                    *dep += base;
                }
            }
            self.externals.extend(own);
        }
        self.live.append(&mut encoder.live, args_before);
    }

    pub(super) fn len(&self) -> usize {
        self.batch.len()
    }
}

impl From<Batch> for BatchCiting {
    fn from(batch: Batch) -> Self {
        Self { batch, ..Self::default() }
    }
}
