//! The predecessors that one task's arguments cite: each once, in the order of their first mention.
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use headrace_wire::EXTERNAL;

/// Names a result outside the graph.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExternalId {
    /// Session of the client that knows the result.
    pub(crate) session: u64,
    /// Run of the result.
    pub(crate) run: u32,
    /// Index within that run.
    pub(crate) index: u32,
}

/// A result outside the graph that an argument cites: a future, or a ref.
pub(crate) struct External {
    pub(crate) id: ExternalId,
    /// The future or ref itself: it holds the result alive until the graph is submitted.
    pub(crate) object: Py<PyAny>,
}

/// Number of citations up to which a look-up walks the list instead of a map.
const WALK_MAX: usize = 16;

/// The predecessors of one task, as they are being cited.
#[derive(Default)]
pub(crate) struct Citations {
    /// Index within the graph, or [`EXTERNAL`] `|` position in `externals`.
    deps: Vec<u32>,
    /// Position of each of the first `mapped` deps.
    positions: FxHashMap<u32, u32>,
    mapped: usize,
    externals: Vec<External>,
}

impl Citations {
    pub(crate) fn deps(&self) -> &[u32] {
        &self.deps
    }

    pub(crate) fn externals(&self) -> &[External] {
        &self.externals
    }

    pub(crate) fn take_externals(&mut self) -> Vec<External> {
        std::mem::take(&mut self.externals)
    }

    pub(crate) fn len(&self) -> usize {
        self.deps.len()
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        if !self.deps.is_empty() {
            self.truncate(0);
        }
    }

    /// Forgets every citation from number `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        if len >= self.deps.len() {
            return;
        }
        if self.mapped > len {
            self.positions.clear();
            self.mapped = 0;
        }
        for dep in self.deps.drain(len..).rev() {
            if dep & EXTERNAL != 0 {
                self.externals.truncate((dep & !EXTERNAL) as usize);
            }
        }
    }

    /// Cites task `index` of the graph; the answer is its number among the predecessors.
    pub(crate) fn cite(&mut self, index: u32) -> u32 {
        if let Some(position) = self.position(index) {
            return position;
        }
        self.deps.push(index);
        (self.deps.len() - 1) as u32
    }

    /// Cites distinct tasks; the answer is the first of their consecutive numbers, or nothing (and nothing is cited) if
    /// some of them were cited before.
    pub(crate) fn cite_distinct(&mut self, indices: impl Iterator<Item = u32> + Clone) -> Option<u32> {
        let first = self.deps.len();
        if first > 0 && indices.clone().any(|index| self.position(index).is_some()) {
            return None;
        }
        self.deps.extend(indices);
        Some(first as u32)
    }

    /// Cites a result of another run.
    pub(crate) fn cite_external(&mut self, external: External) -> u32 {
        let known = self.externals.iter().position(|other| other.id == external.id);
        let place = known.unwrap_or_else(|| {
            self.externals.push(external);
            self.externals.len() - 1
        });
        self.cite(EXTERNAL | place as u32)
    }

    fn position(&mut self, dep: u32) -> Option<u32> {
        if self.deps.len() <= WALK_MAX {
            return self.deps.iter().position(|&other| other == dep).map(|position| position as u32);
        }
        for position in self.mapped..self.deps.len() {
            self.positions.insert(self.deps[position], position as u32);
        }
        self.mapped = self.deps.len();
        self.positions.get(&dep).copied()
    }
}
