//! Answers of the broker, as tuples for Python.
use headrace_wire::{Because, NO_WORKER, State};

/// Answer to a question: (waiting, ready, leased, done, failed, skipped, cancelled), (first_lease_ns, elapsed_ns), the
/// workers as (number, pid, finished, busy_ms), and the broker's own (lease_frames, report_frames, stale_reports, recalls,
/// worker_deaths, bytes_held, tasks_held), and the store's (limit, owned, peak, mapped, inline, spilled) with the names and
/// bytes of the largest results; the run's (retries, timeouts); and (oom_deaths, blamed_deaths, workers_retired);
/// what all tasks share as (name, is_tag, used, total).
pub(super) type StateParts = (
    (u64, u64, u64, u64, u64, u64, u64),
    (u64, u64),
    Vec<(u32, u32, u32, u32)>,
    (u64, u64, u64, u64, u64, u64, u64),
    (u64, u64, u64, u64, u64, u64),
    Vec<(String, u64)>,
    (u64, u64),
    (u64, u64, u64),
    Vec<(String, bool, u64, u64)>,
);

/// Where a task is: place, worker, pid, attempt, milliseconds, text, stacks.
pub(super) type WhyParts = (u8, Option<u32>, u32, u32, u64, String, String);

/// Where a task is, as Python takes it.
pub(super) fn why_parts(because: &Because<'_>) -> WhyParts {
    let Because { state, worker, pid, attempt, since_ms, text, stacks, .. } = *because;
    let worker = (worker != NO_WORKER).then_some(worker);
    (state, worker, pid, attempt, since_ms, text.to_owned(), stacks.to_owned())
}

/// The state of a run, as Python takes it.
pub(super) fn state_parts(state: &State<'_>) -> StateParts {
    let bytes = state.largest_bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let largest = state.largest.iter().map(|name| String::from_utf8_lossy(name).into_owned()).zip(bytes).collect();
    let amounts = state.thing_amounts.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let amounts: Vec<u64> = amounts.collect();
    let shared = state.things.iter().zip(state.thing_tags).zip(amounts.chunks_exact(2));
    let shared = shared.map(|((name, is_tag), amounts)| {
        (String::from_utf8_lossy(name).into_owned(), *is_tag != 0, amounts[0], amounts[1])
    });
    let shared = shared.collect();
    let workers = (0..state.worker.len())
        .map(|row| {
            let finished = state.worker_finished.at(row);
            (state.worker.at(row), state.worker_pid.at(row), finished, state.worker_busy_ms.at(row))
        })
        .collect();
    (
        (state.waiting, state.ready, state.leased, state.done, state.failed, state.skipped, state.cancelled),
        (state.first_lease_ns, state.elapsed_ns),
        workers,
        (
            state.lease_frames,
            state.report_frames,
            state.stale_reports,
            state.recalls,
            state.worker_deaths,
            state.bytes_held,
            state.tasks_held,
        ),
        (
            state.store_limit,
            state.store_owned,
            state.store_peak,
            state.store_mapped,
            state.store_inline,
            state.store_spilled,
        ),
        largest,
        (state.retries, state.timeouts),
        (state.oom_deaths, state.blamed_deaths, state.workers_retired),
        shared,
    )
}
