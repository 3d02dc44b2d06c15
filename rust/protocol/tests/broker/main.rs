//! The broker's machine, told as stories: what came in, what went out, and that nothing else was said.

mod cancel;
mod clients;
mod deaths;
mod found;
mod limits;
mod machine_stores;
mod machines;
mod nested;
mod observer;
mod output;
mod retire;
mod retry;
mod rivals;
mod spill;
mod store;
mod story;
mod time_limits;
mod unruly;
mod watch;
mod why;

use headrace_protocol::broker::{Exit, LEASE_BYTES_MAX, PeerId};
use headrace_wire::{
    EXTERNAL, GoodbyeReason, Heartbeat, LEASE_HOLD, LEASE_REPORT, Message, Outcome, Query, SUBMIT_MORE, Submit, Verdict,
};
use story::{CLIENT, Got, Said, Story};

const DONE: Verdict = Verdict::Done;

/// Runs everything that is leased until nobody has work; each task returns its index as text. Returns what clients heard.
fn run_all(story: &mut Story) -> Vec<(u32, Outcome, Vec<u8>)> {
    let mut heard = Vec::new();
    for _ in 0..10_000 {
        let said = story.turn();
        if said.is_empty() {
            return heard;
        }
        for event in said {
            match event {
                Said::Lease { worker, leases, .. } => {
                    for got in leases {
                        let value = got.index.to_string();
                        match got.flags & LEASE_REPORT {
                            0 => story.report(worker, &[(got, Verdict::DoneHeld, b"")]),
                            _ => story.report(worker, &[(got, DONE, value.as_bytes())]),
                        }
                    }
                }
                Said::Ended { endings, .. } => heard.extend(endings),
                Said::Forget { .. } | Said::Revoke { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
    panic!("the run does not end");
}

#[test]
fn an_unmeasured_function_is_leased_one_by_one() {
    let mut story = Story::new(2);
    story.submit(1, &[&[], &[], &[], &[], &[], &[]], &[5]);
    let leases = story.leases();
    let sizes: Vec<(u32, usize)> = leases.iter().map(|(worker, got)| (*worker, got.len())).collect();
    assert_eq!(sizes, [(0, 1), (1, 1), (0, 1), (1, 1)]);
    assert_eq!(story.turn(), []);
}

#[test]
fn a_measured_function_is_leased_in_bulk() {
    let mut story = Story::new(1);
    let deps: Vec<&[u32]> = vec![&[]; 100];
    story.submit(1, &deps, &[99]);
    let first = story.leases();
    for (worker, leases) in first {
        let entries: Vec<(Got, Verdict, &[u8])> = leases.iter().map(|got| (*got, DONE, &b""[..])).collect();
        story.report(worker, &entries);
    }
    let sizes: Vec<usize> = story.leases().iter().map(|(_, leases)| leases.len()).collect();
    // Slow start: the third and fourth frame of a worker hold up to 32 and 64 tasks.
    assert_eq!(sizes, [32, 64]);
}

#[test]
fn a_chain_travels_as_one_batch_and_only_the_kept_end_is_reported() {
    let mut story = Story::new(2);
    story.submit(1, &[&[]], &[0]);
    run_all(&mut story);
    story.submit(1 + 1, &[&[], &[0], &[1], &[2]], &[3]);
    let unmeasured = story.leases();
    // The function of run 2 is another one, so the first two tasks go out one by one, the second behind the first.
    assert_eq!(unmeasured.len(), 2);
    assert!(unmeasured.iter().all(|(worker, _)| *worker == unmeasured[0].0));
    let flags: Vec<u8> = unmeasured.iter().map(|(_, leases)| leases[0].flags).collect();
    assert_eq!(flags, [LEASE_HOLD | LEASE_REPORT, LEASE_HOLD | LEASE_REPORT]);
}

#[test]
fn k2_a_measured_chain_is_one_frame_with_held_values() {
    let mut story = Story::new(2);
    let chain: Vec<Vec<u32>> = (0..6).map(|task: u32| task.checked_sub(1).into_iter().collect()).collect();
    let deps: Vec<&[u32]> = chain.iter().map(Vec::as_slice).collect();
    story.submit(1, &deps, &[5]);
    let first = story.leases();
    let (worker, got) = (first[0].0, first[0].1[0]);
    story.report(worker, &[(got, DONE, b"0")]);
    let second = story.leases();
    assert_eq!(second.len(), 1, "the rest of the chain follows in one frame");
    let indices: Vec<u32> = second[0].1.iter().map(|got| got.index).collect();
    assert_eq!(indices, [2, 3, 4, 5]);
    let reports: Vec<bool> = second[0].1.iter().map(|got| got.flags & LEASE_REPORT != 0).collect();
    assert_eq!(reports, [false, false, false, true]);
}

#[test]
fn b2_an_input_travels_to_a_worker_once() {
    let mut story = Story::new(2);
    story.submit_with(1, &[&[], &[0], &[0], &[0]], &[1, 2, 3], &[], &[0, 1, 1, 1]);
    let first = story.leases();
    assert_eq!(first.len(), 1);
    story.report(0, &[(first[0].1[0], DONE, b"input")]);
    let values: Vec<(u32, Vec<Vec<u8>>)> = story
        .turn()
        .into_iter()
        .filter_map(|said| match said {
            Said::Lease { worker, values, .. } => Some((worker, values)),
            _ => None,
        })
        .collect();
    let sent: Vec<&Vec<u8>> = values.iter().flat_map(|(_, values)| values).collect();
    assert_eq!(sent, [b"input"]);
    assert!(values.iter().all(|(worker, _)| *worker == 1));
}

#[test]
fn b3_kept_results_are_told_once_and_others_never() {
    let mut story = Story::new(2);
    story.submit(1, &[&[], &[0], &[0], &[1, 2]], &[3, 1]);
    let mut heard = run_all(&mut story);
    heard.sort_by_key(|(index, ..)| *index);
    assert_eq!(heard, [(1, Outcome::Done, b"1".to_vec()), (3, Outcome::Done, b"3".to_vec())]);
}

#[test]
fn a_failure_skips_what_depends_on_it_and_names_the_root() {
    let mut story = Story::new(1);
    story.submit(7, &[&[], &[0], &[1], &[]], &[2, 3]);
    let first = story.leases();
    let failed =
        first.iter().flat_map(|(_, leases)| leases).find(|got| got.index == 0).copied().expect("task 0 is leased");
    story.report(0, &[(failed, Verdict::Failed, b"boom")]);
    let heard: Vec<(u32, Outcome, Vec<u8>)> = run_all(&mut story);
    let root = [7u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    let skipped: Vec<&(u32, Outcome, Vec<u8>)> = heard.iter().filter(|(_, how, _)| *how == Outcome::Skipped).collect();
    assert_eq!(skipped, [&(1, Outcome::Skipped, root.clone()), &(2, Outcome::Skipped, root)]);
    assert!(heard.contains(&(0, Outcome::Failed, b"boom".to_vec())));
}

#[test]
fn k4_late_and_duplicate_reports_are_dropped() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    let got = story.leases()[0].1[0];
    story.report(0, &[(got, DONE, b"first")]);
    story.report(0, &[(got, DONE, b"second")]);
    story.report(0, &[(Got { task: 4_000_000, ..got }, DONE, b"from nowhere")]);
    let ended = story.turn();
    assert_eq!(ended, [Said::Ended { run: 1, finished: true, endings: vec![(0, Outcome::Done, b"first".to_vec())] }]);
    assert_eq!(story.broker.statistics().stale_reports, 2);
}

#[test]
fn b4_an_idle_worker_gets_what_another_has_not_started() {
    let mut story = Story::new(2);
    let deps: Vec<&[u32]> = vec![&[]; 40];
    story.submit(1, &deps, &[]);
    // Both workers learn that a task takes 1 µs, so that all the rest is handed out.
    for (worker, leases) in story.leases() {
        for got in leases {
            story.report(worker, &[(got, DONE, b"")]);
        }
    }
    let handed = story.leases();
    // Worker 1 gets through all that it is given; worker 0 sits in its first task, far beyond the estimate.
    let mut handed = handed;
    let mut done = 0;
    while done < handed.len() {
        if handed[done].0 == 1 {
            for got in handed[done].1.clone() {
                story.report(1, &[(got, DONE, b"")]);
            }
        }
        done += 1;
        for event in story.turn() {
            let Said::Lease { worker, leases, .. } = event else { panic!("a recall is not worth it yet: {event:?}") };
            handed.push((worker, leases));
        }
    }
    story.pass_ns(10_000_000);
    let Some(Said::Recall { worker: 0, tasks, .. }) = story.turn().into_iter().next() else { panic!("a recall") };
    let queued: usize = handed.iter().filter(|(worker, _)| *worker == 0).map(|(_, leases)| leases.len()).sum();
    assert_eq!(tasks.len(), (queued - 1).div_ceil(2));
    let given_back: Vec<Got> =
        handed.iter().flat_map(|(_, leases)| leases).filter(|got| tasks.contains(&got.task)).copied().collect();
    let entries: Vec<(Got, Verdict, &[u8])> =
        given_back.iter().map(|got| (*got, Verdict::Returned, &b""[..])).collect();
    story.report_timed(0, &entries, &[]);
    let again = story.leases();
    assert_eq!(again[0].0, 1, "the idle worker is served first");
    let leased: usize = again.iter().map(|(_, leases)| leases.len()).sum();
    assert!(leased > tasks.len() / 2 && leased <= tasks.len());
}

#[test]
fn a_recall_fetches_the_inputs_that_only_the_donor_has() {
    let mut story = Story::new(2);
    // Task 0 feeds tasks 1–9. A first run teaches the broker that a call is short, so that all of them travel together.
    let fan: Vec<&[u32]> = std::iter::once(&[][..]).chain(std::iter::repeat_n(&[0][..], 9)).collect();
    story.submit(1, &fan, &[]);
    run_all(&mut story);
    story.submit_as(2, 1, &fan, &[]);
    let frames = story.leases();
    assert_eq!(frames.len(), 1, "the fan travels in one frame");
    let leases = frames[0].1.clone();
    let donor = frames[0].0;
    assert_eq!(leases[0].flags & LEASE_REPORT, 0, "nobody elsewhere needs task 0");
    story.report(donor, &[(leases[0], Verdict::DoneHeld, b"")]);
    story.pass_ns(10_000_000);
    let said = story.turn();
    let Some(Said::Recall { tasks, fetch, .. }) = said.first() else { panic!("a recall, not {said:?}") };
    assert_eq!(fetch, &[leases[0].task]);
    let mut entries = vec![(leases[0], Verdict::Value, &b"input"[..])];
    entries
        .extend(leases.iter().filter(|got| tasks.contains(&got.task)).map(|got| (*got, Verdict::Returned, &b""[..])));
    story.report_timed(donor, &entries, &[]);
    let said = story.turn();
    let Some(Said::Lease { worker, values, .. }) = said.first() else { panic!("a lease, not {said:?}") };
    assert_ne!(*worker, donor);
    assert_eq!(values, &[b"input"]);
}

#[test]
fn b5_a_death_blames_only_the_executing_attempt() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[]], &[0, 1]);
    for death in 1..=3 {
        let leases: Vec<Got> = story.leases().into_iter().flat_map(|(_, leases)| leases).collect();
        let poison = leases.iter().find(|got| got.index == 0).expect("task 0 is tried again");
        story.exit(0, Exit::Signal(9), Some((poison.task, poison.attempt)));
        let said = story.turn();
        let died = said.iter().any(
            |said| matches!(said, Said::Ended { endings, .. } if endings.iter().any(|end| end.1 == Outcome::Died)),
        );
        assert_eq!(died, death == 3, "the crash limit is 3");
        story.pass_ns(0);
        story.turn();
        story.connect_worker(0);
    }
    let heard = run_all(&mut story);
    assert_eq!(heard, [(1, Outcome::Done, b"1".to_vec())]);
}

#[test]
fn a_dead_workers_unreported_results_are_made_again() {
    let mut story = Story::new(2);
    let chain: Vec<Vec<u32>> = (0..6).map(|task: u32| task.checked_sub(1).into_iter().collect()).collect();
    let deps: Vec<&[u32]> = chain.iter().map(Vec::as_slice).collect();
    story.submit(1, &deps, &[5]);
    let first = story.leases();
    let worker = first[0].0;
    story.report(worker, &[(first[0].1[0], DONE, b"0")]);
    let rest = story.leases();
    story.report(worker, &[(first[1].1[0], DONE, b"1"), (rest[0].1[0], Verdict::DoneHeld, b"")]);
    story.turn();
    story.exit(worker, Exit::Code(1), None);
    let heard = run_all_after_respawn(&mut story);
    assert_eq!(heard, [(5, Outcome::Done, b"5".to_vec())]);
}

fn run_all_after_respawn(story: &mut Story) -> Vec<(u32, Outcome, Vec<u8>)> {
    let mut heard = Vec::new();
    for _ in 0..100 {
        for event in story.turn() {
            match event {
                Said::Lease { worker, leases, .. } => {
                    for got in leases {
                        story.report(worker, &[(got, DONE, got.index.to_string().as_bytes())]);
                    }
                }
                Said::Ended { endings, .. } => heard.extend(endings),
                _ => {}
            }
        }
    }
    heard
}

#[test]
fn a_cancelled_lease_is_revoked_and_its_worker_waits_for_the_end_of_it() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[], &[], &[]], &[0, 1, 2, 3]);
    let leases: Vec<Got> = story.leases().into_iter().flat_map(|(_, leases)| leases).collect();
    let running = leases[0];
    story.cancel(1, &[running.index]);
    let said = story.turn();
    assert_eq!(
        said,
        [
            Said::Revoke { worker: 0, tasks: vec![running.task] },
            Said::Interrupt { worker: 0, task: running.task, attempt: running.attempt },
            Said::Ended { run: 1, finished: false, endings: vec![(running.index, Outcome::Cancelled, vec![0])] },
        ]
    );
    story.report(0, &[(running, Verdict::Cancelled, b"")]);
    assert_eq!(story.leases().len(), 1, "the slot is free once the worker says so");
}

#[test]
fn an_interrupt_is_tried_again_until_the_attempt_is_over() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    let got = story.leases()[0].1[0];
    story.cancel(1, &[]);
    story.turn();
    story.pass_ns(10_000_000);
    let again = Said::Interrupt { worker: 0, task: got.task, attempt: got.attempt };
    assert_eq!(story.turn(), [again]);
    story.report(0, &[(got, Verdict::Cancelled, b"")]);
    story.pass_ns(10_000_000);
    assert_eq!(story.turn(), []);
}

#[test]
fn an_attempt_that_ignores_its_interrupt_costs_its_worker_the_life() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    story.leases();
    story.cancel(1, &[]);
    story.turn();
    story.pass_ns(2_000_000_000);
    assert!(story.turn().contains(&Said::Kill { worker: 0 }));
}

#[test]
fn nothing_of_a_finished_and_released_run_stays() {
    let mut story = Story::new(2);
    story.submit(1, &[&[], &[0], &[0], &[1, 2]], &[3]);
    run_all(&mut story);
    assert!(story.broker.statistics().tasks_held > 0, "the kept result is held");
    story.hold(1, &[], &[], true);
    story.turn();
    assert_eq!((story.broker.statistics().tasks_held, story.broker.statistics().bytes_held), (0, 0));
}

#[test]
fn kept_results_can_be_let_go_one_by_one() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[]], &[0, 1]);
    run_all(&mut story);
    story.hold(1, &[], &[0], false);
    story.hold(1, &[], &[0], false);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 1, "the other is held still");
    story.hold(1, &[], &[], true);
    story.turn();
    assert_eq!((story.broker.statistics().tasks_held, story.broker.statistics().bytes_held), (0, 0));
}

#[test]
fn a_million_calls_in_a_row_leave_nothing() {
    let mut story = Story::new(1);
    for index in 0..1_000 {
        story.submit_call(index);
        run_all(&mut story);
        story.hold(0, &[], &[index], false);
    }
    story.turn();
    assert_eq!((story.broker.statistics().tasks_held, story.broker.statistics().bytes_held), (0, 0));
}

#[test]
fn a_ref_outlives_its_run_and_feeds_another() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    run_all(&mut story);
    story.hold(1, &[0], &[], true);
    story.turn();
    story.submit_with(2, &[&[EXTERNAL]], &[0], &[(1, 0)], &[]);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"0".to_vec())]);
    story.hold(1, &[], &[0], false);
    story.hold(2, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
}

#[test]
fn a_released_result_cannot_be_cited() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    run_all(&mut story);
    story.hold(1, &[], &[], true);
    story.turn();
    story.submit_with(2, &[&[EXTERNAL]], &[0], &[(1, 0)], &[]);
    let said = story.turn();
    let [Said::Ended { run: 2, finished: true, endings }] = said.as_slice() else { panic!("refused, not {said:?}") };
    assert_eq!(endings[0].1, Outcome::Refused);
    assert!(String::from_utf8_lossy(&endings[0].2).contains("task 0 of run 1 was released"));
}

#[test]
fn a_pin_to_a_worker_that_does_not_exist_is_refused() {
    let mut story = Story::new(2);
    story.submit_with(1, &[&[]], &[0], &[], &[5]);
    let said = story.turn();
    let [Said::Ended { finished: true, endings, .. }] = said.as_slice() else { panic!("refused, not {said:?}") };
    assert!(String::from_utf8_lossy(&endings[0].2).contains("worker 5"));
}

#[test]
fn pinned_tasks_run_where_they_are_pinned() {
    let mut story = Story::new(3);
    story.submit_with(1, &[&[], &[], &[]], &[], &[], &[2, 0, 2]);
    let mut placed: Vec<(u32, u32)> = story
        .leases()
        .into_iter()
        .flat_map(|(worker, got)| got.into_iter().map(move |got| (got.index, worker)))
        .collect();
    placed.sort_unstable();
    assert_eq!(placed, [(0, 2), (1, 0), (2, 2)]);
}

#[test]
fn a_client_that_leaves_takes_its_tasks_along() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[0], &[1]], &[2]);
    story.leases();
    story.broker.handle_disconnect(CLIENT, 0);
    story.turn();
    assert_eq!((story.broker.statistics().tasks_held, story.broker.statistics().bytes_held), (0, 0));
}

#[test]
fn garbage_is_answered_once_and_then_not_read() {
    let mut story = Story::new(1);
    let stranger = PeerId(77);
    story.send_bytes(stranger, b"\xff\xff nonsense".to_vec());
    let said = story.turn();
    let reason = GoodbyeReason::ProtocolError as u8;
    assert!(
        matches!(&said[..], [Said::Goodbye { peer, reason: r, .. }, Said::Cut { .. }] if *peer == stranger && *r == reason)
    );
    story.send_bytes(stranger, b"more".to_vec());
    assert_eq!(story.turn(), []);
}

#[test]
fn a_version_mismatch_names_both_versions() {
    let mut story = Story::new(1);
    let peer = PeerId(77);
    let hello = headrace_wire::Hello {
        protocol: headrace_wire::PROTOCOL_VERSION,
        role: headrace_wire::Role::Client,
        version: "0.1.0",
        python: "3.12.1",
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: 1,
    };
    story.send(peer, &Message::Hello(hello));
    let said = story.turn();
    let Said::Goodbye { text, .. } = &said[0] else { panic!("a goodbye, not {said:?}") };
    assert!(text.contains("3.11.7") && text.contains("3.12.1"));
}

#[test]
fn workers_that_cannot_start_make_the_broker_give_up() {
    let mut story = Story::new(1);
    // A death without any work is one of them.
    story.exit(0, Exit::Code(0), None);
    for _ in 0..2 {
        story.pass_ns(1_000_000_000);
        assert!(story.turn().iter().any(|said| matches!(said, Said::Spawn { .. })));
        story.broker.handle_output(0, 2, b"ImportError: no module named nonsense\n", None);
        story.exit(0, Exit::Code(3), None);
    }
    let said = story.turn();
    let Some(Said::Goodbye { reason, text, .. }) = said.iter().find(|said| matches!(said, Said::Goodbye { .. })) else {
        panic!("a goodbye, not {said:?}")
    };
    assert_eq!(*reason, GoodbyeReason::WorkersFailed as u8);
    assert!(story.broker.has_given_up());
    assert!(text.contains("exited with code 3") && text.contains("no module named nonsense"), "{text}");
}

#[test]
fn workers_that_refuse_to_work_make_the_broker_give_up() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    for _ in 0..3 {
        let peer = story.peer(0);
        story.send(
            peer,
            &Message::Goodbye(headrace_wire::Goodbye {
                reason: GoodbyeReason::WorkersFailed as u8,
                text: "RuntimeError: no database here",
            }),
        );
        story.exit(0, Exit::Code(3), None);
        story.pass_ns(1_000_000_000);
        if story.turn().iter().any(|said| matches!(said, Said::Goodbye { text, .. } if text.contains("no database"))) {
            return;
        }
        story.connect_worker(0);
    }
    panic!("the broker goes on for ever");
}

#[test]
fn a_large_graph_starts_before_all_of_it_is_in() {
    let mut story = Story::new(2);
    let tasks: u32 = 70_000;
    // Every third task reads one of the first hundred, so results of the first part are read by the second.
    let rows: Vec<Vec<u32>> =
        (0..tasks).map(|task| if task % 3 == 0 && task > 0 { vec![task % 100 % task] } else { vec![] }).collect();
    let deps: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    story.submit(1, &deps, &[0, tasks - 1]);
    let first = story.leases();
    assert!(!first.is_empty());
    assert!(story.broker.statistics().tasks_held < u64::from(tasks), "the second part is still outside");
    for (worker, leases) in first {
        for got in leases {
            story.report(worker, &[(got, DONE, b"early")]);
        }
    }
    story.pass_ns(1);
    let heard = run_all(&mut story);
    assert!(heard.contains(&(tasks - 1, Outcome::Done, (tasks - 1).to_string().into_bytes())), "{heard:?}");
    story.hold(1, &[], &[], true);
    while story.broker.statistics().tasks_held > 0 {
        story.turn();
    }
    assert_eq!(story.broker.statistics().bytes_held, 0);
}

#[test]
fn a_cancel_reaches_the_part_that_is_still_outside() {
    let mut story = Story::new(1);
    let deps: Vec<&[u32]> = vec![&[]; 70_000];
    story.submit(1, &deps, &[69_999]);
    let leases: Vec<Got> = story.leases().into_iter().flat_map(|(_, leases)| leases).collect();
    story.cancel(1, &[]);
    for got in leases {
        story.report(0, &[(got, Verdict::Cancelled, b"")]);
    }
    let said = story.turn();
    let last = said.iter().rev().find_map(|said| match said {
        Said::Ended { finished: true, endings, .. } => endings.last(),
        _ => None,
    });
    assert_eq!(last, Some(&(69_999, Outcome::Cancelled, vec![0])));
}

#[test]
fn a_query_is_answered_with_counts() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[0], &[]], &[1]);
    story.turn();
    story.send(CLIENT, &Message::Query(Query { run: 1, number: 5 }));
    let state = story.last_state();
    assert_eq!((state.waiting + state.ready + state.leased, state.done, state.number), (3, 0, 5));
}

/// Bytes that the columns of a small lease frame may take beside its blobs.
const COLUMNS_BYTES: usize = 64 << 10;

#[test]
fn long_arguments_share_a_frame_up_to_a_bound() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[]);
    run_all(&mut story);
    let mib = 1 << 20;
    story.submit_lens(2, 1, &[10 * mib, 10 * mib, 10 * mib, 10 * mib, 1, 1, 40 * mib, 1]);
    let mut frames = Vec::new();
    while frames.iter().map(Vec::len).sum::<usize>() < 8 {
        for (worker, leases) in story.leases() {
            frames.push(leases.iter().map(|got| got.index).collect::<Vec<_>>());
            for got in leases {
                story.report(worker, &[(got, DONE, b"")]);
            }
        }
    }
    assert_eq!(frames, [vec![0, 1, 2, 3], vec![4, 5, 6], vec![7]]);
    assert!(story.longest.0 <= LEASE_BYTES_MAX + story.longest.1 + COLUMNS_BYTES, "{:?}", story.longest);
}

#[test]
fn long_inputs_travel_ahead_of_the_lease_that_reads_them() {
    let mut story = Story::new(2);
    let sources: Vec<&[u32]> = vec![&[]; 5];
    let deps: Vec<&[u32]> = sources.into_iter().chain([&[0, 1, 2, 3, 4][..]]).collect();
    story.submit_with(1, &deps, &[5], &[], &[0, 0, 0, 0, 0, 1]);
    let value = vec![1; 20 << 20];
    let mut ahead = Vec::new();
    for _ in 0..10 {
        for said in story.turn() {
            let Said::Lease { worker, leases, values, .. } = said else { continue };
            if worker == 1 {
                ahead.push((leases.len(), values.len()));
            } else {
                leases.into_iter().for_each(|got| story.report(0, &[(got, DONE, &value)]));
            }
        }
    }
    assert_eq!(ahead, [(0, 1), (0, 1), (0, 1), (0, 1), (1, 1)]);
    assert!(story.longest.0 <= LEASE_BYTES_MAX + story.longest.1 + COLUMNS_BYTES, "{:?}", story.longest);
}

#[test]
fn a_worker_that_leaves_questions_unanswered_is_killed_and_the_reason_is_told() {
    let mut story = Story::new(2);
    story.submit(1, &[&[]], &[0]);
    story.leases();
    for number in 1..=4 {
        story.pass_ns(1_000_000_000);
        story.send(story.peer(1), &Message::Heartbeat(Heartbeat { number, finished: 0 }));
        assert_eq!(story.turn(), [], "after {number} s");
    }
    story.pass_ns(1_000_000_000);
    let said = story.turn();
    let [Said::Log { text }, Said::Kill { worker: 0 }] = &said[..] else { panic!("a kill, not {said:?}") };
    assert!(String::from_utf8_lossy(text).contains("worker 0 (process 4000) is stopped or has lost its connection"));
}

#[test]
fn a_worker_whose_answer_stands_behind_a_long_frame_is_not_silent() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    story.leases();
    for _ in 0..60 {
        story.pass_ns(1_000_000_000);
        assert_eq!(story.turn(), []);
        story.broker.handle_sign_of_life(0);
    }
}

#[test]
fn a_worker_that_was_sent_a_long_frame_gets_time_for_it() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    run_all(&mut story);
    story.submit_lens(2, 1, &[40 << 20]);
    story.leases();
    for second in 1..=14 {
        story.pass_ns(1_000_000_000);
        assert_eq!(story.turn(), [], "after {second} s");
    }
    story.pass_ns(1_000_000_000);
    assert!(story.turn().contains(&Said::Kill { worker: 0 }));
}

#[test]
fn a_broker_that_was_stopped_itself_blames_nobody() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    story.leases();
    for _ in 0..4 {
        story.pass_ns(3_600_000_000_000);
        assert_eq!(story.turn(), []);
    }
}

#[test]
fn a_dead_workers_connection_is_forgotten() {
    let mut story = Story::new(1);
    let peer = story.peer(0);
    story.exit(0, Exit::Signal(9), None);
    assert!(story.turn().contains(&Said::Gone { peer }));
}

/// Leases a task that hands its value over within the worker, takes its consumers away, and lets it end. Returns its lease;
/// the broker has asked for its value then.
fn awaited_value(story: &mut Story) -> Got {
    let fan: Vec<&[u32]> = std::iter::once(&[][..]).chain(std::iter::repeat_n(&[0][..], 9)).collect();
    story.submit(1, &fan, &[]);
    run_all(story);
    story.submit_as(2, 1, &fan, &[]);
    let (donor, leases) = story.leases().remove(0);
    assert_eq!((donor, leases[0].flags), (0, LEASE_HOLD));
    story.report(0, &[(leases[9], Verdict::Returned, b"")]);
    story.report(0, &[(leases[0], Verdict::DoneHeld, b"")]);
    let fetch = Said::Recall { worker: 0, tasks: vec![], fetch: vec![leases[0].task] };
    assert!(story.turn().contains(&fetch));
    leases[0]
}

#[test]
fn a_value_that_was_asked_for_and_is_lost_is_made_again() {
    let mut story = Story::new(1);
    let got = awaited_value(&mut story);
    story.report_timed(0, &[(Got { attempt: 0, ..got }, Verdict::Lost, b"")], &[]);
    let again: Vec<Got> = story.leases().into_iter().flat_map(|(_, leases)| leases).collect();
    assert_eq!((again[0].task, again[0].attempt), (got.task, got.attempt + 1));
}

#[test]
fn a_chunk_that_does_not_follow_its_run_ends_the_session() {
    let bad = [
        Submit { run: 1, first: 1, ..Submit::default() },
        Submit { run: 1, keep: [0, 0][..].into(), ..Submit::default() },
        Submit { run: 0, keep: [0, 0][..].into(), ..Submit::default() },
    ];
    for submit in bad {
        let mut story = Story::new(1);
        let (one, lens) = ([0], [0]);
        let submit = Submit {
            function_map: one[..].into(),
            task_function: one[..].into(),
            dep_counts: one[..].into(),
            args: headrace_wire::Blobs { lens: lens[..].into(), bytes: b"" },
            ..submit
        };
        story.submit_call(7);
        story.turn();
        story.send(CLIENT, &Message::Submit(submit));
        let said = story.turn();
        let is_refusal = |said: &Said| matches!(said, Said::Goodbye { peer: CLIENT, .. });
        assert!(said.iter().any(is_refusal), "{said:?}");
    }
}

#[test]
fn calls_and_chunks_that_come_twice_end_the_session() {
    let twice: [fn(&mut Story); 2] = [|story| story.submit(1, &[&[]], &[]), |story| story.submit_call(0)];
    for submit in twice {
        let mut story = Story::new(1);
        submit(&mut story);
        story.turn();
        submit(&mut story);
        assert!(story.turn().iter().any(|said| matches!(said, Said::Goodbye { peer: CLIENT, .. })));
    }
}

#[test]
fn a_chunk_behind_a_refused_one_is_still_counted() {
    let mut story = Story::new(1);
    let (one, lens, externals) = ([0], [0], [9]);
    let first = Submit {
        run: 1,
        flags: SUBMIT_MORE,
        function_map: one[..].into(),
        task_function: one[..].into(),
        dep_counts: [1][..].into(),
        deps: [EXTERNAL][..].into(),
        external_run: externals[..].into(),
        external_index: one[..].into(),
        args: headrace_wire::Blobs { lens: lens[..].into(), bytes: b"" },
        keep: one[..].into(),
        ..Submit::default()
    };
    story.submit_call(0);
    story.send(CLIENT, &Message::Submit(first.clone()));
    let second = Submit { first: 1, flags: 0, deps: [0][..].into(), keep: [1][..].into(), ..first };
    story.send(CLIENT, &Message::Submit(second));
    let said = story.turn();
    let Some(Said::Ended { finished: true, endings, .. }) =
        said.iter().rfind(|said| matches!(said, Said::Ended { .. }))
    else {
        panic!("an end, not {said:?}")
    };
    assert_eq!(endings.last().map(|ending| (ending.0, ending.1)), Some((1, Outcome::Refused)));
}
