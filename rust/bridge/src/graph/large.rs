//! Large parts of a graph's arguments, which the graph holds until somebody submits it.
use std::borrow::Cow;

use pyo3::prelude::*;
use rustc_hash::FxHashSet;

use super::*;
use crate::codec::large_input;

impl GraphData {
    fn large_at(&self, dep: u32) -> Option<LargeId> {
        match self.externals[(dep & EXTERNAL != 0).then_some((dep & !EXTERNAL) as usize)?] {
            ExternalId::Large(id) => Some(id),
            ExternalId::Result { .. } => None,
        }
    }

    /// The parts by their names.
    pub(crate) fn large(&self) -> impl Iterator<Item = &LargeId> {
        self.externals.iter().filter_map(|external| match external {
            ExternalId::Large(id) => Some(id),
            ExternalId::Result { .. } => None,
        })
    }

    /// How many predecessors each of the first `count` tasks has, and which. Large parts are none, and do not count among the
    /// externals.
    pub(crate) fn edges(&self, count: usize) -> (Cow<'_, [u32]>, Cow<'_, [u32]>) {
        let dep_counts = &self.columns.dep_counts[..count];
        let edges = dep_counts.iter().map(|&count| count as usize).sum();
        let deps = &self.columns.deps[..edges];
        if self.large().next().is_none() {
            return (dep_counts.into(), deps.into());
        }
        let mut results = 0..;
        let is_result = |external: &ExternalId| matches!(external, ExternalId::Result { .. });
        let number: Vec<Option<u32>> =
            self.externals.iter().map(|external| is_result(external).then(|| results.next()).flatten()).collect();
        let moved = |&dep: &u32| match dep & EXTERNAL {
            0 => Some(dep),
            _ => number[(dep & !EXTERNAL) as usize].map(|number| EXTERNAL | number),
        };
        let (mut rest, mut left_counts, mut left) = (deps, Vec::with_capacity(count), Vec::new());
        for &count in dep_counts {
            let (own, behind) = rest.split_at(count as usize);
            let before = left.len();
            left.extend(own.iter().filter_map(moved));
            left_counts.push((left.len() - before) as u32);
            rest = behind;
        }
        (left_counts.into(), left.into())
    }

    /// The key of the first task that needs a part.
    pub(crate) fn key_of_taker(&self, part: &LargeId) -> Option<String> {
        let position = self.columns.deps.iter().position(|&dep| self.large_at(dep).as_ref() == Some(part))?;
        let mut end = 0;
        let is_taker = |&count: &u32| {
            end += count as usize;
            end > position
        };
        self.columns.dep_counts.iter().position(is_taker).map(|index| self.key_of(index as u32))
    }
}

impl Graph {
    /// Every large part once.
    pub(crate) fn large(&self, py: Python<'_>) -> Vec<(LargeId, Py<PyAny>)> {
        let data = self.lock();
        let held = self.held.lock(py);
        let mut seen = FxHashSet::default();
        let is_new = |(external, object): (&ExternalId, &Py<PyAny>)| match external {
            ExternalId::Large(id) if seen.insert(*id) => Some((*id, object.clone_ref(py))),
            _ => None,
        };
        data.externals.iter().zip(&held.externals).filter_map(is_new).collect()
    }

    /// What a task cites, given the results: the large parts between them.
    pub(super) fn with_large(&self, py: Python<'_>, index: u32, results: Vec<Py<PyAny>>) -> PyResult<Vec<Py<PyAny>>> {
        let large: Vec<Option<(LargeId, Py<PyAny>)>> = {
            let mut data = self.lock();
            let held = self.held.lock(py);
            let deps = data.columns.deps_of(index).to_vec();
            let part =
                |dep| data.large_at(dep).map(|id| (id, held.externals[(dep & !EXTERNAL) as usize].clone_ref(py)));
            deps.into_iter().map(part).collect()
        };
        let mut results = results.into_iter();
        let inputs = large.into_iter().map_while(|part| match part {
            Some((id, object)) => Some(large_input(id.kind, object.bind(py)).map(Bound::unbind)),
            None => results.next().map(Ok),
        });
        inputs.collect()
    }
}
