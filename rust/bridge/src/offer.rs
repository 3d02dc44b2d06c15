//! What tasks of a client may ask for, as Python hands it over.
use std::sync::Arc;

use headrace_protocol::limits::Offer as Things;
use pyo3::prelude::*;

/// What a client's workers offer: resources with their amounts, tags with their limits, and resources of which each worker
/// has its own amount.
#[pyclass(frozen, from_py_object, module = "headrace._core")]
#[derive(Clone)]
pub(crate) struct Offer(Arc<Things>);

#[pymethods]
impl Offer {
    #[new]
    #[pyo3(signature = (resources = Vec::new(), tags = Vec::new(), owned = Vec::new()))]
    fn new(resources: Vec<(String, u64)>, tags: Vec<(String, u64)>, owned: Vec<(String, Vec<u64>)>) -> Self {
        let named = |(name, total): (String, u64)| (name.into_boxed_str(), total);
        let owned = owned.into_iter().map(|(name, amounts)| (name.into_boxed_str(), amounts));
        Self(Arc::new(Things::new(resources.into_iter().map(named), tags.into_iter().map(named), owned)))
    }
}

impl std::ops::Deref for Offer {
    type Target = Things;

    fn deref(&self) -> &Things {
        &self.0
    }
}
