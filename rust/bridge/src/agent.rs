//! The agent of a machine, as `headrace worker` runs it.
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headrace_runtime::agent::{AgentConfig, AgentHandle, State};
use headrace_runtime::broker::Launch;
use pyo3::prelude::*;

use crate::client::{peer_keys, python_version};
use crate::errors::infra_error;

/// An agent with its worker processes.
#[pyclass(frozen, module = "headrace._core")]
pub(crate) struct Agent(Mutex<Option<AgentHandle>>);

#[pymethods]
impl Agent {
    /// Starts the agent; it joins the broker in the background, as often as it takes.
    #[new]
    #[pyo3(signature = (*, endpoint, keys, libzmq, slots, store_limit, name, resources, program, arguments, environment, boot))]
    #[expect(clippy::too_many_arguments, reason = "they are all keywords of one call")]
    fn new(
        py: Python<'_>,
        endpoint: String,
        keys: Option<(String, String, String)>,
        libzmq: Vec<PathBuf>,
        slots: u32,
        store_limit: u64,
        name: String,
        resources: Vec<(String, u64)>,
        program: PathBuf,
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        boot: Vec<u8>,
    ) -> PyResult<Self> {
        let config = AgentConfig {
            endpoint,
            keys: keys.map(peer_keys).transpose()?,
            libzmq,
            slots,
            store_limit,
            name,
            resources,
            launch: Launch { program, args: arguments, env: environment, worker_env: Vec::new(), boot },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            python: python_version(),
        };
        let handle = headrace_runtime::agent::start(config);
        let handle = handle.map_err(|error| infra_error(py, "InfraError", &error.to_string()))?;
        Ok(Self(Mutex::new(Some(handle))))
    }

    /// Waits until something is other than (`joined`, `is_up`), for at most `timeout_s` seconds. The answer: how often it has
    /// joined, whether it is with the broker, whether it has ended, and why if the broker does not want it.
    fn wait(&self, py: Python<'_>, joined: u64, is_up: bool, timeout_s: f64) -> (u64, bool, bool, Option<String>) {
        let timeout = Duration::from_secs_f64(timeout_s.clamp(0.0, 60.0));
        let state = py.detach(|| {
            let handle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            handle.as_ref().map_or_else(State::default, |handle| handle.wait(joined, is_up, timeout))
        });
        let why = state.over.as_ref().and_then(|over| over.as_ref().err().cloned());
        (state.joined, state.is_up, state.over.is_some(), why)
    }

    /// Has it leave once its workers have ended what they run.
    fn drain(&self, py: Python<'_>) {
        py.detach(|| self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(AgentHandle::drain));
    }

    /// Leaves the broker and ends the workers.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| {
            let handle = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(handle) = handle {
                handle.stop();
            }
        });
    }
}
