//! A reader that trusts a decoded message and follows every number in it.

use headrace_wire::*;

/// Reads a message as its users do. Panics if the decoder let something through that is out of range.
pub(crate) fn walk(message: &Message<'_>) -> u64 {
    match message {
        Message::Submit(submit) => walk_submit(submit),
        Message::Lease(lease) => walk_lease(lease),
        Message::Results(results) => (0..results.index.len())
            .zip(results.values.iter())
            .map(|(row, blob)| {
                let outcome = Outcome::try_from(results.outcome[row]).unwrap();
                let detail = match outcome {
                    Outcome::Skipped => {
                        u32::from_le_bytes(blob[..4].try_into().unwrap())
                            ^ u32::from_le_bytes(blob[4..].try_into().unwrap())
                    }
                    Outcome::Cancelled => CancelReason::try_from(blob[0]).unwrap() as u32,
                    _ => blob.len() as u32,
                };
                u64::from(results.index.at(row)) + u64::from(detail)
            })
            .sum(),
        Message::Report(report) => {
            let entries = (0..report.task.len()).zip(report.values.iter()).map(|(row, blob)| {
                let verdict = Verdict::try_from(report.verdict[row]).unwrap();
                u64::from(report.task.at(row)) + u64::from(report.attempt.at(row)) + verdict as u64 + blob.len() as u64
            });
            let rows = (0..report.timed_function.len()).map(|row| {
                u64::from(report.timed_function.at(row))
                    + u64::from(report.timed_calls.at(row))
                    + u64::from(report.timed_ns.at(row))
            });
            entries.sum::<u64>() + rows.sum::<u64>()
        }
        Message::State(state) => (0..state.worker.len())
            .map(|row| {
                let pid = u64::from(state.worker_pid.at(row));
                pid + u64::from(state.worker_finished.at(row)) + u64::from(state.worker_busy_ms.at(row))
            })
            .sum(),
        Message::Recall(Recall { task, attempt, .. }) | Message::Revoke(Revoke { task, attempt }) => {
            (0..task.len()).map(|row| u64::from(task.at(row)) + u64::from(attempt.at(row))).sum()
        }
        Message::Hold(hold) => hold.add.sum() + hold.remove.sum(),
        Message::Cancel(cancel) => cancel.index.sum(),
        Message::Forget(forget) => forget.dead.sum(),
        Message::Put(put) => u64::from(put.index) + put.value.len() as u64,
        Message::Want(want) => want.bytes,
        Message::Withdraw(withdraw) => withdraw.bytes,
        Message::Lack(lack) => lack.segment.into(),
        Message::Release(release) => (0..release.segment.len())
            .map(|at| u64::from(release.offset.at(at)) + u64::from(release.citations.at(at)))
            .sum(),
        Message::Released(released) => (0..released.segment.len()).map(|at| u64::from(released.offset.at(at))).sum(),
        Message::GiveBack(give_back) => (0..give_back.segment.len()).map(|at| u64::from(give_back.pages.at(at))).sum(),
        Message::Moved(moved) => moved.index.iter().zip(moved.values.iter()).map(|(_, value)| value.len() as u64).sum(),
        Message::Hello(_) | Message::Welcome(_) | Message::Goodbye(_) | Message::Heartbeat(_) => 0,
        Message::Query(_) | Message::Log(_) => 0,
        Message::Overrun(overrun) => overrun.key.len() as u64,
        Message::Waiting(_) | Message::Standstill(_) => 0,
        Message::Order(order) => order.incarnation ^ u64::from(order.worker),
        Message::Event(event) => event.incarnation ^ event.text.len() as u64,
        Message::Estate(estate) => estate.bytes ^ estate.text.len() as u64,
        Message::Transfer(transfer) => (0..transfer.length.len())
            .map(|at| {
                let from = u64::from(transfer.from_segment.at(at)) + u64::from(transfer.from_offset.at(at));
                from + u64::from(transfer.to_segment.at(at)) + u64::from(transfer.to_offset.at(at))
            })
            .sum(),
        Message::Neighbour(neighbour) => neighbour.key.len() as u64,
        Message::Death(death) => (0..death.workers.len())
            .map(|at| {
                let signal = u64::from(death.signals.at(at)) + u64::from(death.exit_codes.at(at));
                signal + u64::from(death.pids.at(at)) + u64::from(death.causes[at])
            })
            .sum(),
        Message::Why(why) => why.key.len() as u64,
        Message::Because(because) => (because.text.len() + because.stacks.len()) as u64,
        Message::Overdue(overdue) => u64::from(overdue.task) + u64::from(overdue.attempt),
        Message::Policy(policy) => {
            let amounts = policy.amounts.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            let named = policy.resources.iter().zip(amounts).map(|(name, amount)| name.len() as u64 ^ amount);
            named.fold(policy.tags.iter().count() as u64, u64::wrapping_add)
        }
    }
}

fn walk_submit(submit: &Submit<'_>) -> u64 {
    let functions = submit.function_names.iter().zip(submit.functions.iter());
    let mut sum = functions.map(|(name, pickle)| (name.len() + pickle.len()) as u64).sum();
    let run_len = submit.first as usize + submit.task_function.len();
    let mut deps = submit.deps.iter();
    for (task, args) in (0..submit.task_function.len()).zip(submit.args.iter()) {
        sum += u64::from(submit.function_map.at(submit.task_function.at(task) as usize)) + args.len() as u64;
        for _ in 0..submit.dep_counts.at(task) {
            let dep = deps.next().unwrap();
            if dep & EXTERNAL == 0 {
                assert!((dep as usize) < run_len);
            } else {
                let position = (dep & !EXTERNAL) as usize;
                sum += u64::from(submit.external_run.at(position)) + u64::from(submit.external_index.at(position));
            }
        }
        if !submit.task_options.is_empty() {
            let option = submit.task_options.at(task) as usize;
            sum += u64::from(submit.priority.at(option)) + u64::from(submit.worker.at(option));
            sum += submit.policies.iter().nth(option).map_or(0, |policy| policy.len() as u64);
        }
    }
    for index in submit.key_index.iter().chain(submit.keep.iter()) {
        assert!(((index - submit.first) as usize) < submit.task_function.len());
    }
    assert_eq!((submit.keys.iter().count(), deps.next()), (submit.key_index.len(), None));
    sum
}

fn walk_lease(lease: &Lease<'_>) -> u64 {
    let functions = lease.function_names.iter().zip(lease.functions.iter());
    let mut sum = functions.map(|(name, pickle)| (name.len() + pickle.len()) as u64).sum();
    let mut deps = lease.deps.iter();
    for (row, args) in (0..lease.task.len()).zip(lease.args.iter()) {
        sum += u64::from(lease.task.at(row)) + u64::from(lease.attempt.at(row)) + u64::from(lease.function.at(row));
        sum += u64::from(lease.flags[row]) + u64::from(lease.index.at(row)) + args.len() as u64;
        sum += (0..lease.dep_counts.at(row)).map(|_| u64::from(deps.next().unwrap())).sum::<u64>();
    }
    for (position, key) in lease.key_position.iter().zip(lease.keys.iter()) {
        sum += u64::from(lease.task.at(position as usize)) + key.len() as u64;
    }
    for (task, value) in lease.value_task.iter().zip(lease.values.iter()) {
        sum += u64::from(task) + value.len() as u64;
    }
    sum
}
