//! The predecessors that one task's arguments cite: each once, in the order of their first mention.
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use headrace_wire::EXTERNAL;

use super::LargeId;

/// Names what stands outside the graph.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExternalId {
    /// A result.
    Result {
        /// Session of the client that knows it.
        session: u64,
        /// Its run.
        run: u32,
        /// Its index within that run.
        index: u32,
    },
    /// A large part of an argument, which is no result before somebody submits the graph.
    Large(LargeId),
}

/// What an argument cites from outside the graph.
pub(crate) struct External {
    pub(crate) id: ExternalId,
    /// The future or ref, which holds the result alive until the graph is submitted; or the part itself.
    pub(crate) object: Py<PyAny>,
}

impl ExternalId {
    /// Run and index of a result; `place` gives those of a large part.
    pub(crate) fn place(&self, place: impl Fn(&LargeId) -> (u32, u32)) -> (u32, u32) {
        match self {
            ExternalId::Result { run, index, .. } => (*run, *index),
            ExternalId::Large(id) => place(id),
        }
    }
}

impl External {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { id: self.id, object: self.object.clone_ref(py) }
    }
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
    /// So many of the first deps and externals, which are the same ones, are those of every task.
    shared: usize,
}

impl Citations {
    pub(crate) fn deps(&self) -> &[u32] {
        &self.deps
    }

    /// Whether any objects are kept alive.
    pub(crate) fn has_externals(&self) -> bool {
        !self.externals.is_empty()
    }

    /// Takes the externals behind those of every task.
    pub(crate) fn take_externals(&mut self) -> Vec<External> {
        self.externals.split_off(self.shared)
    }

    /// Lets every task from now on begin with what this one cites, if that is large parts alone.
    pub(crate) fn share(&mut self) -> bool {
        let is_large = |external: &External| matches!(external.id, ExternalId::Large(_));
        let alone = self.deps.len() == self.externals.len() && self.externals.iter().all(is_large);
        if alone {
            self.shared = self.deps.len();
        }
        alone
    }

    /// The externals of every task.
    pub(crate) fn shared(&self, py: Python<'_>) -> Vec<External> {
        self.externals[..self.shared].iter().map(|external| external.clone_ref(py)).collect()
    }

    /// Whether a large part is cited from number `mark` on.
    pub(crate) fn cites_large(&self, mark: usize) -> bool {
        let external = |dep: &u32| (dep & EXTERNAL != 0).then(|| &self.externals[(dep & !EXTERNAL) as usize]);
        self.deps[mark..].iter().filter_map(external).any(|external| matches!(external.id, ExternalId::Large(_)))
    }

    pub(crate) fn len(&self) -> usize {
        self.deps.len()
    }

    /// Forgets what the last task cited, but not what every task does.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.deps.len() > self.shared {
            self.truncate(self.shared);
        }
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self) {
        self.shared = 0;
        self.clear();
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
