//! What can be wrong with a call.

use std::error::Error;
use std::fmt;

/// Why a chunk was refused. Nothing was changed. Tasks are named by their number inside the chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GraphError {
    /// The columns do not fit together.
    Columns(&'static str),
    /// A predecessor does not exist: no such number in the chunk, or no such position among the external ones.
    UnknownDependency {
        /// The task.
        task: u32,
        /// The entry of its predecessors as it was given.
        dependency: u32,
    },
    /// A task names one predecessor twice.
    DuplicateDependency {
        /// The task.
        task: u32,
        /// The entry of its predecessors as it was given, at its second place.
        dependency: u32,
    },
    /// A task depends on itself.
    SelfDependency {
        /// The task.
        task: u32,
    },
    /// Tasks depend on each other: each on the one before it, and the first on the last. Starts with the smallest number.
    Cycle {
        /// The tasks of one cycle.
        tasks: Vec<u32>,
    },
    /// An external predecessor is no task, or its result is dead (K5).
    ResultReleased {
        /// Its position among the external predecessors.
        position: u32,
    },
    /// The keep set names a task that does not exist.
    UnknownKeep {
        /// The entry of the keep set.
        number: u32,
    },
    /// More tasks or edges than a kernel can number.
    TooLarge,
}

impl fmt::Display for GraphError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GraphError::Columns(what) => write!(f, "columns of the chunk do not fit together: {what}"),
            GraphError::UnknownDependency { task, dependency } => {
                write!(f, "task {task} depends on {dependency}, which does not exist")
            }
            GraphError::DuplicateDependency { task, dependency } => {
                write!(f, "task {task} names its predecessor {dependency} twice")
            }
            GraphError::SelfDependency { task } => write!(f, "task {task} depends on itself"),
            GraphError::Cycle { tasks } => {
                write!(f, "cycle of {} tasks: ", tasks.len())?;
                for task in tasks.iter().take(CYCLE_SHOWN_MAX) {
                    write!(f, "{task} -> ")?;
                }
                if tasks.len() > CYCLE_SHOWN_MAX { write!(f, "...") } else { write!(f, "{}", tasks[0]) }
            }
            GraphError::ResultReleased { position } => {
                write!(f, "the result of external predecessor {position} was released (K5)")
            }
            GraphError::UnknownKeep { number } => write!(f, "the keep set names task {number}, which does not exist"),
            GraphError::TooLarge => write!(f, "more tasks or edges than 32 bits can number"),
        }
    }
}

impl Error for GraphError {}

/// A report that does not match the lease (K4): another worker, an older attempt, or a task that is not leased. It was
/// counted and changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stale;

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stale report: no such lease (K4)")
    }
}

impl Error for Stale {}

/// A long cycle is cut in messages: nobody reads more.
const CYCLE_SHOWN_MAX: usize = 10;
