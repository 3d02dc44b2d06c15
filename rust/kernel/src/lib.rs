//! Pure readiness engine: which tasks are ready, alive, dead.
//!
//! Invariants, cited by number in code, checker, tests and error texts:
//!
//! - **K1** A task is in exactly one [`TaskState`], and only the edges of [`TRANSITIONS`] happen.
//! - **K2** `missing` counts distinct predecessors that are not done: above 0 while waiting, 0 when ready or done. A leased
//!   task's missing predecessors are leased to the same worker, earlier in its queue.
//! - **K3** One ready queue per class holds all and only its ready tasks, each once, in order: priority; then tasks readied
//!   by a completion at the front in order of submission, roots at the back, tasks given back at the front. A ready task
//!   goes before one that would follow (K2) if its priority is higher.
//! - **K4** A lease is (task, worker, attempt), and every lease has a new attempt number, as has a rival of one. A report that
//!   does not match is counted and dropped.
//! - **K5** A result is alive while a consumer has not ended or somebody holds it. Its death is told once.
//! - **K6** Failure and cancellation reach every descendant once; none of them is leased afterwards.
//! - **K7** No call scans all tasks; a completion costs O(its edges).
//! - **K8** No clock, no I/O, no randomness, no hash order: equal inputs give equal outputs.
#![forbid(unsafe_code)]

mod attempts;
mod batch;
mod check;
mod chunk;
mod error;
mod frontier;
mod graph;
mod growth;
mod ids;
mod kernel;
mod lifetime;
mod lists;
mod order;
mod ready;
pub mod seeded;
mod slots;
mod state;
mod watch;
mod worker_set;

pub use batch::{LeaseRequest, Leased, Oracle, Preference};
pub use chunk::{Chunk, Classes, EXTERNAL, Priorities};
pub use error::{GraphError, Stale};
pub use ids::{Attempt, ClassId, Handle, TaskIndex, WorkerId};
pub use kernel::{Ended, HowEnded, Kernel, Returned, Statistics};
pub use order::depth_first;
pub use state::{TRANSITIONS, TaskState};
