//! What must hold between the fields of a message, so that its users may index without a further look.
//!
//! The rules name fields as `message.rs` does; each is cited in the error by its own words.

use crate::columns::U32s;
use crate::error::DecodeError;
use crate::message::*;

/// A message that can tell whether its fields agree.
pub(crate) trait Check {
    fn check(&self) -> Result<(), DecodeError>;
}

/// `rules!(Message: condition, …)`: the first condition that is false is the error.
macro_rules! rules {
    ($message:ident: $($rule:expr),+ $(,)?) => {{
        $(if !$rule {
            return Err(DecodeError::Inconsistent { message: stringify!($message), rule: stringify!($rule) });
        })+
        Ok(())
    }};
}

macro_rules! no_rules {
    ($($message:ty),+) => {
        $(impl Check for $message {
            fn check(&self) -> Result<(), DecodeError> {
                Ok(())
            }
        })+
    };
}

// A reason for GOODBYE that this version does not know is still a goodbye, and so are orders and events; the other fields stand alone.
no_rules!(
    Hello<'_>,
    Welcome<'_>,
    Goodbye<'_>,
    Heartbeat,
    Hold<'_>,
    Query,
    Forget<'_>,
    Put<'_>,
    Want,
    Withdraw,
    Lack,
    Overrun<'_>,
    Overdue,
    Waiting,
    Standstill<'_>,
    Why<'_>,
    Because<'_>,
    Order,
    Event<'_>,
    Estate<'_>,
    Neighbour<'_>
);

impl Check for Release<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Release { segment, offset, citations } = *self;
        rules!(Release: offset.len() == segment.len(), citations.len() == segment.len())
    }
}

impl Check for Transfer<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Transfer { from_segment, from_offset, to_segment, to_offset, length, .. } = *self;
        let blocks = from_segment.len();
        rules!(
            Transfer: from_offset.len() == blocks,
            to_segment.len() == blocks,
            to_offset.len() == blocks,
            length.len() == blocks
        )
    }
}

impl Check for GiveBack<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let GiveBack { segment, pages, .. } = *self;
        rules!(GiveBack: pages.len() == segment.len())
    }
}

impl Check for Moved<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Moved { index, values, .. } = *self;
        rules!(Moved: values.len() == index.len())
    }
}

impl Check for Released<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Released { segment, offset } = *self;
        rules!(Released: offset.len() == segment.len())
    }
}

impl Check for Submit<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Submit { function_ids, function_names, functions, function_map, task_function, .. } = *self;
        let Submit { dep_counts, deps, external_run, external_index, args, .. } = *self;
        let Submit { task_options, priority, worker, key_index, keys, keep, policies, .. } = *self;
        let (tasks, functions_known) = (task_function.len(), function_map.len());
        let (externals, options) = (external_run.len(), priority.len());
        // Indices of this chunk's tasks within the run, and of all tasks of the run so far.
        let run_len = u64::from(self.first) + tasks as u64;
        let chunk = u64::from(self.first)..run_len;
        let dep_in_range = |dep| match dep & EXTERNAL {
            0 => u64::from(dep) < run_len,
            _ => ((dep & !EXTERNAL) as usize) < externals,
        };
        rules!(Submit:
            run_len <= u64::from(EXTERNAL),
            function_names.len() == function_ids.len(),
            functions.len() == function_ids.len(),
            dep_counts.len() == tasks,
            args.len() == tasks,
            task_function.all(|function| (function as usize) < functions_known),
            dep_counts.sum() == deps.len() as u64,
            external_index.len() == externals,
            deps.all(dep_in_range),
            worker.len() == options,
            policies.is_empty() || policies.len() == options,
            task_options.is_empty() || task_options.len() == tasks,
            task_options.all(|option| (option as usize) < options),
            keys.len() == key_index.len(),
            is_ascending(key_index),
            key_index.all(|index| chunk.contains(&index.into())),
            keep.all(|index| chunk.contains(&index.into())),
        )
    }
}

impl Check for Policy<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Policy { resources, amounts, .. } = *self;
        rules!(Policy: amounts.len() == 8 * resources.len())
    }
}

impl Check for Death<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Death { workers, pids, signals, exit_codes, causes, .. } = *self;
        rules!(Death:
            pids.len() == workers.len(),
            signals.len() == workers.len(),
            exit_codes.len() == workers.len(),
            causes.len() == workers.len(),
        )
    }
}

impl Check for Results<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Results { index, outcome, values, .. } = *self;
        rules!(Results:
            outcome.len() == index.len(),
            values.len() == index.len(),
            outcome.iter().zip(values.iter()).all(|(&outcome, blob)| fits_outcome(outcome, blob)),
        )
    }
}

impl Check for Cancel<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        rules!(Cancel: !self.whole || self.index.is_empty())
    }
}

impl Check for State<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let State { worker, worker_pid, worker_finished, worker_busy_ms, largest, largest_bytes, .. } = *self;
        let State { things, thing_tags, thing_amounts, .. } = *self;
        rules!(State:
            worker_pid.len() == worker.len(),
            worker_finished.len() == worker.len(),
            worker_busy_ms.len() == worker.len(),
            largest_bytes.len() == 8 * largest.len(),
            thing_tags.len() == things.len(),
            thing_amounts.len() == 16 * things.len(),
        )
    }
}

impl Check for Log<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        rules!(Log: matches!(self.stream, 1 | 2))
    }
}

impl Check for Lease<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Lease { function_ids, function_names, functions, value_task, values, .. } = *self;
        let Lease {
            task,
            attempt,
            function,
            flags,
            index,
            dep_counts,
            deps,
            args,
            key_position,
            keys,
            timeout_ms,
            failures,
            ..
        } = *self;
        let leases = task.len();
        rules!(Lease:
            function_names.len() == function_ids.len(),
            functions.len() == function_ids.len(),
            values.len() == value_task.len(),
            attempt.len() == leases,
            function.len() == leases,
            flags.len() == leases,
            index.len() == leases,
            dep_counts.len() == leases,
            args.len() == leases,
            dep_counts.sum() == deps.len() as u64,
            keys.len() == key_position.len(),
            is_ascending(key_position),
            key_position.all(|position| (position as usize) < leases),
            timeout_ms.is_empty() || timeout_ms.len() == leases,
            failures.is_empty() || failures.len() == leases,
        )
    }
}

impl Check for Report<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        let Report { task, attempt, verdict, values, timed_function, timed_calls, timed_ns } = *self;
        rules!(Report:
            attempt.len() == task.len(),
            verdict.len() == task.len(),
            values.len() == task.len(),
            verdict.iter().all(|&verdict| Verdict::try_from(verdict).is_ok()),
            timed_calls.len() == timed_function.len(),
            timed_ns.len() == timed_function.len(),
        )
    }
}

impl Check for Recall<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        rules!(Recall: self.attempt.len() == self.task.len())
    }
}

impl Check for Revoke<'_> {
    fn check(&self) -> Result<(), DecodeError> {
        rules!(Revoke: self.attempt.len() == self.task.len())
    }
}

/// Whether the outcome is known and its blob has the form that [`Outcome`] gives it. The blobs of a death, an overrun
/// and of values are read by whoever wants them.
fn fits_outcome(outcome: u8, blob: &[u8]) -> bool {
    match Outcome::try_from(outcome) {
        Ok(Outcome::Skipped) => blob.len() == 8,
        Ok(Outcome::Cancelled) => matches!(*blob, [reason] if CancelReason::try_from(reason).is_ok()),
        Ok(Outcome::Done | Outcome::Failed | Outcome::Died | Outcome::Refused | Outcome::TimedOut) => true,
        Err(_) => false,
    }
}

fn is_ascending(column: U32s<'_>) -> bool {
    column.iter().zip(column.iter().skip(1)).all(|(one, next)| one < next)
}
