//! Tasks that all run one function, with what they cite, before they join a graph.
use headrace_wire::EXTERNAL;

use super::columns::Batch;
use crate::codec::{Encoder, External, LiveObjects};

/// A batch with the objects that it cites.
#[derive(Default)]
pub(super) struct BatchCiting {
    pub(super) batch: Batch,
    /// Results of other runs.
    pub(super) externals: Vec<External>,
    /// Live arguments of a by-reference graph.
    pub(super) live: LiveObjects,
}

impl BatchCiting {
    /// Adds the task that `encoder` holds.
    pub(super) fn push(&mut self, encoder: &mut Encoder) {
        let first = self.batch.deps.len();
        let args_before = self.batch.args.len();
        self.batch.push(encoder.cited.deps(), &encoder.out);
        if !encoder.cited.externals().is_empty() {
            let base = self.externals.len() as u32;
            for dep in &mut self.batch.deps[first..] {
                if *dep & EXTERNAL != 0 {
                    *dep += base;
                }
            }
            self.externals.extend(encoder.cited.take_externals());
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
