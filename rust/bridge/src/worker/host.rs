//! A worker's process as those see it who submit tasks in it: the way to the broker, and the main thread, which may run other
//! tasks within the wait of one.
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use headrace_protocol::worker::Start;
use headrace_runtime::inproc::ClientEnd;
use headrace_runtime::transport::WorkerLink;
use headrace_runtime::worker_loop::{Waited, WorkerLoop};
use headrace_sys::exit::exit_now;
use pyo3::prelude::*;

use super::bench::{Bench, Tools};
use crate::garbage;
use crate::memory::Memory;
use crate::output::Output;

/// See the module.
pub(crate) struct Host {
    tasks: WorkerLoop<WorkerLink>,
    memory: Arc<Memory>,
    tools: Arc<Tools>,
    output: Py<Output>,
    /// The thread that runs tasks.
    main: ThreadId,
    waits: Mutex<Waits>,
}

/// What threads of the process wait for.
#[derive(Default)]
struct Waits {
    /// The thread that runs tasks, outermost first.
    main: Vec<(u32, u32)>,
    /// How many others.
    others: u32,
}

/// What stops a wait, apart from its end.
pub(crate) enum Broken {
    /// Nothing can run that the task waits for, and why.
    Standstill(String),
    /// The session is over.
    Over,
}

impl Host {
    /// To be made by a task, on the main thread or any other.
    pub(super) fn new(
        tasks: WorkerLoop<WorkerLink>,
        memory: Arc<Memory>,
        tools: Arc<Tools>,
        output: Py<Output>,
    ) -> Self {
        let main = tools.main;
        Self { tasks, memory, tools, output, main, waits: Mutex::default() }
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The channel to the broker; to be opened once.
    pub(crate) fn open(&self) -> io::Result<ClientEnd> {
        self.tasks.open_nested()
    }

    /// Sends what was put into it.
    pub(crate) fn deliver(&self) {
        self.tasks.deliver_nested();
    }

    /// Whether this is the thread that runs tasks, and within one.
    pub(crate) fn is_here(&self) -> bool {
        thread::current().id() == self.main && self.tasks.running_attempt().is_some()
    }

    /// The task that runs waits until the answer is dropped.
    pub(crate) fn begin_wait(&self, run: u32, index: u32) -> Waiting<'_> {
        self.waits().main.push((run, index));
        self.tasks.begin_nested_wait(run, index, true);
        Waiting { host: self, is_main: true }
    }

    /// The same on another thread that a task has started; `None` if no task runs.
    pub(crate) fn begin_wait_aside(&self, run: u32, index: u32) -> Option<Waiting<'_>> {
        self.tasks.running_attempt()?;
        let mut waits = self.waits();
        waits.others += 1;
        if waits.others == 1 && waits.main.is_empty() {
            self.tasks.begin_nested_wait(run, index, false);
        }
        Some(Waiting { host: self, is_main: false })
    }

    fn end_wait(&self, is_main: bool) {
        let mut waits = self.waits();
        let ended = match is_main {
            true => waits.main.pop(),
            false => {
                waits.others -= 1;
                None
            }
        };
        match ended {
            Some((run, index)) if waits.others > 0 && waits.main.is_empty() => {
                self.tasks.begin_nested_wait(run, index, false);
            }
            None if waits.others > 0 || !waits.main.is_empty() => {}
            _ => self.tasks.end_nested_wait(),
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until there is something to look at.
    pub(crate) fn sleep(&self, has_come: impl Fn() -> bool, timeout: Duration) -> PyResult<()> {
        match self.tasks.wait_nested(has_come, timeout)? {
            Waited::News | Waited::Interrupted => Ok(()),
        }
    }

    /// Runs a task that the one that runs waits for, if one is here; whether it was.
    pub(crate) fn run_nested(&self, py: Python<'_>) -> bool {
        let mut start = Start::default();
        if !self.tasks.start_nested(&mut start) {
            return false;
        }
        let mut bench = Bench::new(self.tasks.clone(), Arc::clone(&self.memory), Arc::clone(&self.tools));
        match bench.execute(py, &start) {
            Ok(ending) => {
                self.output.get().finish_task(py);
                self.tasks.finish_nested(ending);
            }
            Err(error) => {
                // Not even the failure could be recorded, which ends a worker.
                error.print(py);
                exit_now(1);
            }
        }
        true
    }

    /// What stops the wait, if anything does.
    pub(crate) fn broken(&self) -> Option<Broken> {
        if self.tasks.is_over() {
            return Some(Broken::Over);
        }
        self.tasks.take_standstill().map(Broken::Standstill)
    }

    /// Looks for garbage that keeps memory, if somebody waits for some.
    pub(crate) fn collect_if_due(&self, py: Python<'_>) -> PyResult<()> {
        let urgency = self.tasks.garbage_due();
        if urgency == 0 {
            return Ok(());
        }
        let done = garbage::collect_as_urgent(py, urgency);
        self.tasks.note_collected(urgency);
        done.map(drop)
    }
}

/// A task waits.
pub(crate) struct Waiting<'a> {
    host: &'a Host,
    is_main: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.host.end_wait(self.is_main);
    }
}
