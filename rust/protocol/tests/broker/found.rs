//! What the simulator found, as stories.

use super::story::{CLIENT, Got, Said, Story};
use super::{DONE, run_all};
use headrace_protocol::broker::Exit;
use headrace_wire::{Blobs, BlobsBuf, EXTERNAL, Message, Outcome, Policy, Put, SUBMIT_MORE, Submit, Verdict};

/// A broker that knows how short calls are.
fn measured(workers: u32) -> Story {
    let mut story = Story::new(workers);
    measure(&mut story);
    story
}

fn measure(story: &mut Story) {
    story.submit(1, &[&[]], &[]);
    run_all(story);
}

/// The first chunk of run 2: a lone task that nobody reads yet; then one that reads it.
fn submit_in_chunks(story: &mut Story, between: impl FnOnce(&mut Story)) {
    let (one, ids) = ([0], [1]);
    let mut names = BlobsBuf::default();
    names.push(b"work");
    let first = Submit {
        run: 2,
        flags: SUBMIT_MORE,
        function_map: ids[..].into(),
        task_function: one[..].into(),
        dep_counts: one[..].into(),
        args: Blobs { lens: one[..].into(), bytes: b"" },
        ..Submit::default()
    };
    story.send(CLIENT, &Message::Submit(first.clone()));
    between(story);
    let second =
        Submit { first: 1, flags: 0, dep_counts: [1][..].into(), deps: [0][..].into(), keep: [1][..].into(), ..first };
    story.send(CLIENT, &Message::Submit(second));
}

#[test]
fn a_chunk_that_comes_late_finds_the_results_that_it_reads() {
    let mut story = measured(1);
    submit_in_chunks(&mut story, |story| assert_eq!(run_all(story), []));
    assert_eq!(run_all(&mut story), [(1, Outcome::Done, b"1".to_vec())]);
    story.hold(2, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0, "they are held for the chunks alone");
}

#[test]
fn a_chunk_that_comes_while_what_it_reads_is_being_made_gets_its_value() {
    let mut story = measured(1);
    submit_in_chunks(&mut story, |story| {
        let got = story.leases()[0].1[0];
        assert_eq!(got.flags, headrace_wire::LEASE_REPORT);
        story.report(0, &[(got, DONE, b"made")]);
    });
    let said = story.turn();
    let Some(Said::Lease { values, .. }) = said.iter().find(|said| matches!(said, Said::Lease { .. })) else {
        panic!("a lease, not {said:?}")
    };
    assert_eq!(values, &[b"made".to_vec()]);
}

#[test]
fn chunks_whose_client_is_gone_leave_nothing() {
    let mut story = measured(1);
    submit_in_chunks(&mut story, |story| drop(run_all(story)));
    story.broker.handle_disconnect(CLIENT, story.now_ns);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
}

/// Two workers, of which the first has made the input of a task and keeps it to itself, and gives the task back. It gets no
/// work, because a task of it was cancelled that it has not stopped.
fn input_out_of_reach(story: &mut Story) -> (u32, Got, Got) {
    story.submit_as(2, 1, &[&[], &[0]], &[1]);
    let (worker, got) = story.leases().remove(0);
    assert_eq!(got.len(), 2);
    story.submit_with(3, &[&[]], &[0], &[], &[worker]);
    let busy = story.leases();
    assert_eq!(busy[0].0, worker);
    story.cancel(3, &[0]);
    story.report(worker, &[(got[0], Verdict::DoneHeld, b""), (got[1], Verdict::Returned, b"")]);
    (worker, got[0], busy[0].1[0])
}

#[test]
fn a_task_waits_for_an_input_that_only_another_worker_has() {
    let mut story = measured(2);
    let (worker, input, _) = input_out_of_reach(&mut story);
    let said = story.turn();
    assert!(said.contains(&Said::Recall { worker, tasks: vec![], fetch: vec![input.task] }));
    assert!(!said.iter().any(|said| matches!(said, Said::Lease { .. })), "the other one cannot have it: {said:?}");
    story.report_timed(worker, &[(input, Verdict::Value, b"input")], &[]);
    let said = story.turn();
    let Some(Said::Lease { worker: taker, leases, values, .. }) = said.first() else { panic!("a lease, not {said:?}") };
    assert_ne!(*taker, worker);
    assert_eq!((leases[0].index, values.as_slice()), (1, &[b"input".to_vec()][..]));
}

#[test]
fn a_task_whose_input_is_out_of_reach_runs_where_it_is() {
    let mut story = measured(2);
    let (worker, input, cancelled) = input_out_of_reach(&mut story);
    story.turn();
    story.report_timed(worker, &[(cancelled, Verdict::Cancelled, b"")], &[]);
    let said = story.turn();
    let Some(Said::Lease { worker: taker, values, deps, .. }) = said.first() else { panic!("a lease, not {said:?}") };
    assert_eq!((*taker, values.len(), deps.as_slice()), (worker, 0, &[input.task][..]), "it is there");
}

#[test]
fn an_input_that_dies_out_of_reach_is_made_again() {
    let mut story = measured(2);
    let (worker, ..) = input_out_of_reach(&mut story);
    story.turn();
    story.exit(worker, Exit::Signal(9), None);
    let again = story.leases();
    assert_eq!(again[0].1.iter().map(|got| got.index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_worker_that_cannot_be_reached_is_killed_and_its_work_goes_elsewhere() {
    let mut story = measured(2);
    story.submit_as(2, 1, &[&[]], &[0]);
    let (worker, _) = story.leases().remove(0);
    story.broker.handle_disconnect(story.peer(worker), story.now_ns);
    assert_eq!(story.turn(), [Said::Kill { worker }]);
    story.exit(worker, Exit::Signal(9), None);
    assert_ne!(story.leases()[0].0, worker);
}

#[test]
fn what_a_client_has_put_stays_while_a_reader_may_run_again() {
    let mut story = measured(1);
    story.send(CLIENT, &Message::Put(Put { index: 0, value: b"put" }));
    story.submit_from(2, 1, &[&[EXTERNAL], &[0]], &[1], &[(0, 0)]);
    let (worker, got) = story.leases().remove(0);
    assert_eq!(got.len(), 2);
    story.hold(0, &[], &[0], false);
    story.report(worker, &[(got[0], Verdict::DoneHeld, b"")]);
    story.turn();
    story.exit(worker, Exit::Signal(9), None);
    story.pass_ns(1);
    story.turn();
    story.connect_worker(worker);
    let said = story.turn();
    let Some(Said::Lease { leases, values, .. }) = said.first() else { panic!("a lease, not {said:?}") };
    assert_eq!((leases.len(), values.as_slice()), (2, &[b"put".to_vec()][..]));
    let again = leases.clone();
    story.report(worker, &[(again[0], Verdict::DoneHeld, b""), (again[1], DONE, b"end")]);
    story.turn();
    story.hold(2, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
}

#[test]
fn a_death_blames_who_executed_though_the_end_of_an_overdue_attempt_is_not_known() {
    let mut story = measured(1);
    let policy = Policy { timeout_ms: 5, retries: 9, ..Policy::default() };
    story.submit_policy(2, 1, &[&[], &[]], &[0, 1], &policy);
    for death in 1..=3 {
        let (worker, got) = story.leases().remove(0);
        assert_eq!(got.len(), 2, "death {death}");
        story.overdue(worker, got[0]);
        // Its report was on the way when the next one killed the process.
        let executing = Some((got[1].task, got[1].attempt));
        story.exit(worker, Exit::Signal(11), executing);
        let said = story.turn();
        let died = said.iter().any(|said| match said {
            Said::Ended { endings, .. } => endings.iter().any(|ending| (ending.0, ending.1) == (1, Outcome::Died)),
            _ => false,
        });
        assert_eq!(died, death == 3, "{said:?}");
        story.pass_ns(1_000_000_000);
        story.turn();
        story.connect_worker(worker);
    }
    let (worker, got) = story.leases().remove(0);
    assert_eq!((got.len(), got[0].failures), (1, 3), "the other one was too slow three times");
    story.report(worker, &[(got[0], DONE, b"at last")]);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"at last".to_vec())]);
}

#[test]
fn a_result_that_was_lost_and_is_made_again_too_late_is_not_done_as_well() {
    let mut story = measured(1);
    let policy = Policy { queue_timeout_ms: 20, ..Policy::default() };
    story.submit_policy(2, 1, &[&[], &[0]], &[1], &policy);
    let (worker, got) = story.leases().remove(0);
    assert_eq!(got.len(), 2);
    story.report(worker, &[(got[0], Verdict::DoneHeld, b"")]);
    story.exit(worker, Exit::Signal(9), Some((got[1].task, got[1].attempt)));
    story.turn();
    story.pass_ns(20_000_000);
    let said = story.turn();
    let ended = said.iter().find_map(|said| match said {
        Said::Ended { finished: true, endings, .. } => Some(endings),
        _ => None,
    });
    let outcomes: Vec<_> = ended.expect("the run is over").iter().map(|ending| (ending.0, ending.1)).collect();
    assert_eq!(outcomes, [(0, Outcome::TimedOut), (1, Outcome::Skipped)]);
    assert_eq!(story.broker.check(), Ok(()), "two have ended");
}

#[test]
fn what_runs_behind_a_result_that_was_refused_is_stopped() {
    let mut story = Story::with_store(1, 4_096);
    measure(&mut story);
    story.submit_as(2, 1, &[&[], &[0]], &[0, 1]);
    let (worker, got) = story.leases().remove(0);
    assert_eq!(got.len(), 2);
    story.report(worker, &[(got[0], DONE, &[0; 5_000])]);
    let said = story.turn();
    assert_eq!(said[0], Said::Revoke { worker, tasks: vec![got[1].task] }, "it may have begun: {said:?}");
    story.submit_as(3, 1, &[&[]], &[0]);
    assert_eq!(story.turn(), [], "until it has ended its worker gets nothing more, and keeps what it holds");
    story.report(worker, &[(got[1], DONE, b"in vain")]);
    assert_eq!(story.leases().len(), 1);
}

#[test]
fn a_lease_that_is_skipped_goes_before_another_task_has_its_slot() {
    let mut story = measured(1);
    story.submit_as(2, 1, &[&[], &[0], &[1]], &[]);
    let (worker, got) = story.leases().remove(0);
    assert_eq!(got.len(), 3);
    // The worker may not have looked at the others yet, and would take the next value in the slot of the first for their input.
    story.report(worker, &[(got[0], Verdict::Failed, b"boom")]);
    let said = story.turn();
    assert_eq!(said[0], Said::Revoke { worker, tasks: vec![got[1].task, got[2].task] }, "{said:?}");
}

#[test]
fn a_result_that_dies_and_is_needed_again_at_once_is_forgotten_everywhere() {
    let mut story = Story::with(2, |config| config.crash_limit = 1);
    story.submit(1, &[&[], &[0], &[0], &[0, 2], &[2]], &[4]);
    let first: Vec<(u32, Got)> = story.leases().into_iter().map(|(worker, got)| (worker, got[0])).collect();
    let [(0, input), (0, reader)] = first[..] else { panic!("two frames for one worker, not {first:?}") };
    story.report(0, &[(input, DONE, b"input")]);
    let (worker, got) = story.leases().remove(0);
    assert_eq!((worker, got.len()), (1, 3));
    story.report(0, &[(reader, DONE, b"")]);
    // The other worker keeps to itself what it has made of the input, and dies of the task that reads the input last.
    story.report(1, &[(got[0], Verdict::DoneHeld, b"")]);
    story.exit(1, Exit::Signal(11), Some((got[1].task, got[1].attempt)));
    // For the one behind it the input had to be made again, but that is cancelled.
    story.cancel(1, &[0]);
    story.turn();
    story.pass_ns(1_000_000_000);
    let said = story.turn();
    assert!(said.contains(&Said::Forget { worker: 0, dead: vec![input.task] }), "{said:?}");
}
