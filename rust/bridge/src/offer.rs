//! What tasks of a client may ask for, as Python hands it over.
use std::sync::Arc;

use headrace_protocol::limits::Offer as Things;
use pyo3::prelude::*;

/// What a client's workers offer: resources with their amounts, tags with their limits, resources of which each worker has its
/// own amount, and those that belong to this machine where others may come; and whether these may have what nobody has now.
#[pyclass(frozen, from_py_object, module = "headrace._core")]
#[derive(Clone)]
pub(crate) struct Offer(Arc<Things>);

#[pymethods]
impl Offer {
    #[new]
    #[pyo3(signature = (resources = Vec::new(), tags = Vec::new(), owned = Vec::new(), own = Vec::new(), grows = false))]
    fn new(
        resources: Vec<(String, u64)>,
        tags: Vec<(String, u64)>,
        owned: Vec<(String, Vec<u64>)>,
        own: Vec<(String, u64)>,
        grows: bool,
    ) -> Self {
        let named = |(name, total): (String, u64)| (name.into_boxed_str(), total);
        let owned = owned.into_iter().map(|(name, amounts)| (name.into_boxed_str(), amounts));
        let things = Things::new(resources.into_iter().map(named), tags.into_iter().map(named), owned);
        let mut things = things.with_own(own.into_iter().map(named));
        things.grows = grows;
        Self(Arc::new(things))
    }
}

impl std::ops::Deref for Offer {
    type Target = Things;

    fn deref(&self) -> &Things {
        &self.0
    }
}
