//! Arbitrary valid messages.
//!
//! A message borrows its columns; here they are leaked, since test data is small and lives until the process ends.

use headrace_wire::*;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

/// Any message of any type.
pub(crate) fn message() -> BoxedStrategy<Message<'static>> {
    prop_oneof![
        hello().prop_map(Message::Hello),
        welcome().prop_map(Message::Welcome),
        (any::<u8>(), text()).prop_map(|(reason, text)| Message::Goodbye(Goodbye { reason, text })),
        any::<(u64, u64)>().prop_map(|(number, finished)| Message::Heartbeat(Heartbeat { number, finished })),
        submit().prop_map(Message::Submit),
        results().prop_map(Message::Results),
        (any::<u32>(), column(0..9), column(0..9), any::<bool>())
            .prop_map(|(run, add, remove, release_run)| Message::Hold(Hold { run, add, remove, release_run })),
        (any::<u32>(), any::<bool>(), column(0..9)).prop_map(|(run, whole, index)| {
            let index = if whole { U32s::default() } else { index };
            Message::Cancel(Cancel { run, whole, index, spare_leased: run % 2 == 0 })
        }),
        any::<(u32, u64)>().prop_map(|(run, number)| Message::Query(Query { run, number })),
        state().prop_map(Message::State),
        (any::<(u32, u32, u32, u32, u64)>(), 1..=2_u8, bytes(0..300)).prop_map(
            |((worker, run, index, attempt, before), stream, text)| {
                Message::Log(Log { worker, stream, text, run, index, attempt, before })
            }
        ),
        lease().prop_map(Message::Lease),
        report().prop_map(Message::Report),
        (0..9_usize)
            .prop_flat_map(|tasks| (column(tasks), column(tasks), column(0..9)))
            .prop_map(|(task, attempt, fetch)| Message::Recall(Recall { task, attempt, fetch })),
        (0..9_usize)
            .prop_flat_map(|tasks| (column(tasks), column(tasks)))
            .prop_map(|(task, attempt)| Message::Revoke(Revoke { task, attempt })),
        column(0..70).prop_map(|dead| Message::Forget(Forget { dead })),
        (any::<u32>(), bytes(0..300)).prop_map(|(index, value)| Message::Put(Put { index, value })),
        any::<u64>().prop_map(|bytes| Message::Want(Want { bytes })),
        any::<u64>().prop_map(|bytes| Message::Withdraw(Withdraw { bytes })),
        any::<u32>().prop_map(|segment| Message::Lack(Lack { segment })),
        (0..9_usize)
            .prop_flat_map(|blocks| (column(blocks), column(blocks), column(blocks)))
            .prop_map(|(segment, offset, citations)| Message::Release(Release { segment, offset, citations })),
        (0..9_usize)
            .prop_flat_map(|blocks| (column(blocks), column(blocks)))
            .prop_map(|(segment, offset)| Message::Released(Released { segment, offset })),
        (0..9_usize)
            .prop_flat_map(|segments| (column(segments), column(segments), any::<u8>()))
            .prop_map(|(segment, pages, urgency)| Message::GiveBack(GiveBack { segment, pages, urgency })),
        (any::<u32>(), 0..9_usize)
            .prop_flat_map(|(run, results)| (Just(run), column(results), blobs(results)))
            .prop_map(|(run, index, values)| Message::Moved(Moved { run, index, values })),
        death().prop_map(Message::Death),
        policy().prop_map(Message::Policy),
        (any::<(bool, u32, u32, u32, u32)>(), text()).prop_map(
            |((queued, worker, attempt, limit_ms, failures), key)| {
                Message::Overrun(Overrun { queued, worker, attempt, limit_ms, failures, key })
            }
        ),
        any::<(u32, u32)>().prop_map(|(task, attempt)| Message::Overdue(Overdue { task, attempt })),
        any::<(u32, u32, bool, u32, u32, bool)>().prop_map(|(task, attempt, waits, run, index, helps)| {
            Message::Waiting(Waiting { task, attempt, waits, run, index, helps })
        }),
        (any::<(u32, u32)>(), text()).prop_map(|((task, attempt), text)| Message::Standstill(Standstill {
            task,
            attempt,
            text
        })),
        any::<(u8, u32, u64, u32, u32)>().prop_map(|(kind, worker, incarnation, task, attempt)| {
            Message::Order(Order { kind, worker, incarnation, task, attempt })
        }),
        (any::<(u8, u32, u64, u32, u32, u32)>(), bytes(0..300)).prop_map(|(numbers, text)| {
            let (kind, worker, incarnation, number, task, attempt) = numbers;
            Message::Event(Event { kind, worker, incarnation, number, task, attempt, text })
        }),
        (any::<(u8, u32, u32, u64)>(), text()).prop_map(|((kind, worker, segment, bytes), text)| {
            Message::Estate(Estate { kind, worker, segment, bytes, text })
        }),
        (any::<u64>(), text(), 0..9_usize)
            .prop_flat_map(|(job, key, blocks)| {
                let columns = (column(blocks), column(blocks), column(blocks), column(blocks), column(blocks));
                (Just((job, key)), columns)
            })
            .prop_map(|((job, key), (from_segment, from_offset, to_segment, to_offset, length))| {
                let endpoint = key;
                Message::Transfer(Transfer {
                    job,
                    endpoint,
                    key,
                    from_segment,
                    from_offset,
                    to_segment,
                    to_offset,
                    length,
                })
            }),
        (text(), any::<bool>()).prop_map(|(key, left)| Message::Neighbour(Neighbour { key, left })),
        (any::<(u64, u32, u32, bool)>(), text())
            .prop_map(|((number, run, index, stacks), key)| { Message::Why(Why { number, run, index, key, stacks }) }),
        (any::<(u64, u8, u32, u32, u32, u64)>(), text(), text()).prop_map(|(numbers, text, stacks)| {
            let (number, state, worker, pid, attempt, since_ms) = numbers;
            Message::Because(Because { number, state, worker, pid, attempt, since_ms, text, stacks })
        }),
    ]
    .boxed()
}

fn hello() -> impl Strategy<Value = Hello<'static>> {
    let role = prop_oneof![Just(Role::Client), Just(Role::Worker), Just(Role::Observer), Just(Role::Agent)];
    (role, text(), text(), any::<(u32, u64, u32, u64, u32)>()).prop_map(|(role, version, python, numbers)| {
        let (protocol, features, worker, incarnation, pid) = numbers;
        Hello { protocol, role, version, python, features, worker, incarnation, pid }
    })
}

fn welcome() -> impl Strategy<Value = Welcome<'static>> {
    (text(), any::<(u32, u64, u64, u64)>()).prop_map(|(version, (protocol, features, session, result_bytes_max))| {
        Welcome { protocol, version, features, session, result_bytes_max }
    })
}

fn submit() -> impl Strategy<Value = Submit<'static>> {
    let sizes = (1..9_usize, 1..4_usize, 0..4_usize, 0..3_usize, 0..1000_u32);
    sizes.prop_flat_map(|(tasks, functions, externals, options, first)| {
        let run_len = first + tasks as u32;
        let dep = match externals {
            0 => (0..run_len).boxed(),
            _ => prop_oneof![0..run_len, EXTERNAL..EXTERNAL + externals as u32].boxed(),
        };
        let task_options = if options == 0 { column(0) } else { column_of(0..options as u32, tasks) };
        let functions_sent = (0..=functions).prop_flat_map(|count| (column(count), blobs(count), blobs(count)));
        let keys = ascending(first..run_len).prop_flat_map(|index| (Just(index), blobs(index.len())));
        (
            (any::<u32>(), any::<u32>(), functions_sent, column(functions), column_of(0..functions as u32, tasks)),
            vec(vec(dep, 0..5), tasks),
            (column(externals), column(externals), blobs(tasks), task_options, column(options), column(options)),
            (keys, column_of(first..run_len, 0..5), prop_oneof![Just(0), Just(options)].prop_flat_map(blobs)),
            any::<(u64, i32, u32, u32)>(),
        )
            .prop_map(
                move |(
                    head,
                    deps,
                    middle,
                    ((key_index, keys), keep, policies),
                    (deadline_ms, run_priority, parent, parent_attempt),
                )| {
                    let (run, flags, (function_ids, function_names, functions), function_map, task_function) = head;
                    let (external_run, external_index, args, task_options, priority, worker) = middle;
                    let (dep_counts, deps) = csr(deps);
                    Submit {
                        run,
                        first,
                        flags,
                        function_ids,
                        function_names,
                        functions,
                        function_map,
                        task_function,
                        dep_counts,
                        deps,
                        external_run,
                        external_index,
                        args,
                        task_options,
                        priority,
                        worker,
                        key_index,
                        keys,
                        keep,
                        policies,
                        deadline_ms,
                        run_priority,
                        parent,
                        parent_attempt,
                    }
                },
            )
    })
}

fn policy() -> impl Strategy<Value = Policy<'static>> {
    let resources = (0..4_usize).prop_flat_map(|count| (blobs(count), bytes(8 * count)));
    (any::<[u32; 6]>(), resources, (0..4_usize).prop_flat_map(blobs)).prop_map(
        |([retries, flags, backoff_ms, backoff_max_ms, timeout_ms, queue_timeout_ms], (resources, amounts), tags)| {
            Policy {
                retries,
                flags,
                backoff_ms,
                backoff_max_ms,
                timeout_ms,
                queue_timeout_ms,
                resources,
                amounts,
                tags,
            }
        },
    )
}

fn results() -> impl Strategy<Value = Results<'static>> {
    let ending =
        (0..=6_u8, vec(any::<u8>(), 0..40), any::<u32>(), 0..=5_u8).prop_map(|(outcome, blob, root, reason)| {
            match Outcome::try_from(outcome).unwrap() {
                Outcome::Skipped => (outcome, [3, root].map(u32::to_le_bytes).concat()),
                Outcome::Cancelled => (outcome, vec![reason]),
                _ => (outcome, blob),
            }
        });
    (any::<(u32, bool, u64)>(), vec((any::<u32>(), ending), 0..9)).prop_map(|((run, finished, ended), endings)| {
        let (index, endings): (Vec<u32>, Vec<(u8, Vec<u8>)>) = endings.into_iter().unzip();
        let (outcome, blobs): (Vec<u8>, Vec<Vec<u8>>) = endings.into_iter().unzip();
        Results { run, finished, index: words(index), outcome: outcome.leak(), values: blobs_of(&blobs), ended }
    })
}

fn state() -> impl Strategy<Value = State<'static>> {
    let workers = (0..9_usize).prop_flat_map(|count| vec(column(count), 4));
    let largest = (0..4_usize).prop_flat_map(|count| (blobs(count), bytes(8 * count)));
    let things = (0..4_usize).prop_flat_map(|count| (blobs(count), bytes(count), bytes(16 * count)));
    (any::<[u64; 17]>(), any::<[u64; 11]>(), any::<u32>(), workers, largest, things).prop_map(
        |(numbers, more, run, workers, (largest, largest_bytes), (things, thing_tags, thing_amounts))| {
            let [number, waiting, ready, leased, done, failed, skipped, cancelled, first_lease_ns, ..] = numbers;
            let [.., elapsed_ns, lease_frames, report_frames, stale_reports, recalls, deaths, held, tasks] = numbers;
            State {
                run,
                number,
                waiting,
                ready,
                leased,
                done,
                failed,
                skipped,
                cancelled,
                first_lease_ns,
                elapsed_ns,
                worker: workers[0],
                worker_pid: workers[1],
                worker_finished: workers[2],
                worker_busy_ms: workers[3],
                lease_frames,
                report_frames,
                stale_reports,
                recalls,
                worker_deaths: deaths,
                bytes_held: held,
                tasks_held: tasks,
                store_limit: more[0],
                store_owned: more[1],
                store_peak: more[2],
                store_mapped: more[3],
                store_inline: more[4],
                store_spilled: more[5],
                largest,
                largest_bytes,
                retries: more[6],
                timeouts: more[7],
                oom_deaths: more[8],
                blamed_deaths: more[9],
                workers_retired: more[10],
                things,
                thing_tags,
                thing_amounts,
            }
        },
    )
}

fn lease() -> impl Strategy<Value = Lease<'static>> {
    (0..9_usize, 0..4_usize, 0..4_usize).prop_flat_map(|(leases, functions, values)| {
        let keys = ascending(0..leases as u32).prop_flat_map(|position| (Just(position), blobs(position.len())));
        (
            (any::<u32>(), column(0..9), column(functions), blobs(functions), blobs(functions)),
            (column(values), blobs(values), vec(vec(any::<u32>(), 0..5), leases), keys),
            (column(leases), column(leases), column(leases), bytes(leases), column(leases), blobs(leases)),
            [(); 2].map(|()| prop_oneof![Just(0), Just(leases)].prop_flat_map(column)),
        )
            .prop_map(
                |(head, (value_task, values, deps, (key_position, keys)), leases, [timeout_ms, failures])| {
                    let (frame, dead, function_ids, function_names, functions) = head;
                    let (task, attempt, function, flags, index, args) = leases;
                    let (dep_counts, deps) = csr(deps);
                    Lease {
                        frame,
                        dead,
                        function_ids,
                        function_names,
                        functions,
                        value_task,
                        values,
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
                    }
                },
            )
    })
}

fn report() -> impl Strategy<Value = Report<'static>> {
    (0..9_usize, 0..9_usize).prop_flat_map(|(entries, rows)| {
        let verdict = vec(0..=8_u8, entries).prop_map(|verdict| &*verdict.leak());
        let entries = (column(entries), column(entries), verdict, blobs(entries));
        let rows = (column(rows), column(rows), column(rows));
        (entries, rows).prop_map(|((task, attempt, verdict, values), (timed_function, timed_calls, timed_ns))| Report {
            task,
            attempt,
            verdict,
            values,
            timed_function,
            timed_calls,
            timed_ns,
        })
    })
}

fn death() -> impl Strategy<Value = Death<'static>> {
    let last = (any::<(u32, u32, u32, i32, u32, u32)>(), bytes(0..300), any::<(u8, u64, u64, u32)>(), text());
    let columns = (0..5_usize).prop_flat_map(|deaths| {
        let words = (column(deaths), column(deaths), column(deaths), column(deaths));
        (words, bytes(deaths..=deaths))
    });
    (last, columns).prop_map(|((numbers, stderr, memory, key), ((workers, pids, signals, exit_codes), causes))| {
        let (worker, pid, signal, exit_code, attempts, limit) = numbers;
        let (cause, memory_limit, memory_peak, group_others) = memory;
        let death = Death { worker, pid, signal, exit_code, attempts, limit, stderr, ..Death::default() };
        let death = Death { cause, memory_limit, memory_peak, group_others, ..death };
        Death { workers, pids, signals, exit_codes, causes, key, ..death }
    })
}

fn text() -> impl Strategy<Value = &'static str> {
    "\\PC{0,40}".prop_map(|text| &*text.leak())
}

fn bytes(len: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), len).prop_map(|bytes| &*bytes.leak())
}

fn column(len: impl Into<proptest::collection::SizeRange>) -> BoxedStrategy<U32s<'static>> {
    column_of(any::<u32>(), len)
}

fn column_of(
    value: impl Strategy<Value = u32> + 'static,
    len: impl Into<proptest::collection::SizeRange>,
) -> BoxedStrategy<U32s<'static>> {
    vec(value, len).prop_map(words).boxed()
}

fn ascending(values: std::ops::Range<u32>) -> impl Strategy<Value = U32s<'static>> {
    let candidates: Vec<u32> = values.collect();
    let size_max = candidates.len().min(4);
    match size_max {
        0 => column(0),
        _ => btree_set(proptest::sample::select(candidates), 0..=size_max)
            .prop_map(|set| words(set.into_iter().collect()))
            .boxed(),
    }
}

fn blobs(len: usize) -> impl Strategy<Value = Blobs<'static>> {
    vec(vec(any::<u8>(), 0..40), len).prop_map(|blobs| blobs_of(&blobs))
}

fn blobs_of(blobs: &[Vec<u8>]) -> Blobs<'static> {
    Blobs { lens: words(blobs.iter().map(|blob| blob.len() as u32).collect()), bytes: blobs.concat().leak() }
}

/// Counts and members, end to end.
fn csr(rows: Vec<Vec<u32>>) -> (U32s<'static>, U32s<'static>) {
    (words(rows.iter().map(|row| row.len() as u32).collect()), words(rows.concat()))
}

fn words(words: Vec<u32>) -> U32s<'static> {
    U32s::Words(words.leak())
}
