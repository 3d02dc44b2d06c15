//! The Rust side of `headrace._core`: converts, calls, converts back. It holds no rule.
use pyo3::prelude::*;

mod agent;
mod buffer;
mod client;
mod codec;
mod errors;
mod fastcall;
mod garbage;
mod graph;
mod inline_limit;
mod kernel;
mod memory;
mod node;
mod nodes;
mod offer;
mod order;
mod output;
mod segment;
mod toposort;
mod worker;

/// The native half of headrace.
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    use crate::fastcall::install;
    use crate::graph::Add;
    use crate::toposort::{SorterAdd, SorterDone};

    #[pymodule_export]
    use crate::agent::Agent;
    #[pymodule_export]
    use crate::client::{ClientCore, ExternalRef, RunCore, end_brokers, forget_parent};
    #[pymodule_export]
    use crate::client::{connect_client, drain_broker, farewell_of, wait_over};
    #[pymodule_export]
    use crate::codec::{_dep, cite, names_main, try_pickle};
    #[pymodule_export]
    use crate::graph::Graph;
    #[pymodule_export]
    use crate::kernel::Kernel;
    #[pymodule_export]
    use crate::memory::Block;
    #[pymodule_export]
    use crate::node::Node;
    #[pymodule_export]
    use crate::nodes::Nodes;
    #[pymodule_export]
    use crate::offer::Offer;
    #[pymodule_export]
    use crate::order::depth_first;
    #[pymodule_export]
    use crate::output::Output;
    #[pymodule_export]
    use crate::segment::Segment;
    #[pymodule_export]
    use crate::toposort::Sorter;
    #[pymodule_export]
    use crate::worker::Worker;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        install::<Add>(&py.get_type::<Graph>())?;
        install::<SorterAdd>(&py.get_type::<Sorter>())?;
        install::<SorterDone>(&py.get_type::<Sorter>())?;
        module.add("STACKS_SIGNAL", headrace_sys::pidfd::STACKS_SIGNAL)?;
        module.add("PROFILE", env!("HEADRACE_PROFILE"))?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
