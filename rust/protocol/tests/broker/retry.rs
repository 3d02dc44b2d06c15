//! Retries: who is tried again, when, and what is made again for it.

use super::story::{Got, Said, Story};
use super::{DONE, run_all};
use headrace_protocol::broker::Exit;
use headrace_wire::{LEASE_REPORT, Outcome, Policy, Verdict};

const FAILED: Verdict = Verdict::Failed;
const MS: u64 = 1_000_000;

fn retries(retries: u32) -> Policy<'static> {
    Policy { retries, ..Policy::default() }
}

/// The only lease that is given out now.
fn one_lease(story: &mut Story) -> (u32, Got) {
    let leases: Vec<(u32, Got)> =
        story.leases().into_iter().flat_map(|(worker, got)| got.into_iter().map(move |got| (worker, got))).collect();
    assert_eq!(leases.len(), 1, "{leases:?}");
    leases[0]
}

/// The first lease that is given out now, of a task that others stand behind.
fn first_lease(story: &mut Story) -> Got {
    story.leases()[0].1[0]
}

/// A story in which the function that run 1 brought is known to be short.
fn measured(workers: u32) -> Story {
    let mut story = Story::new(workers);
    story.submit(1, &[&[]], &[]);
    run_all(&mut story);
    story
}

#[test]
fn a_failed_attempt_is_followed_by_another_one_and_only_the_last_is_told() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &retries(2));
    for failures in 0..2 {
        let got = first_lease(&mut story);
        assert_eq!((got.index, got.failures), (0, failures));
        story.report(0, &[(got, FAILED, b"once")]);
    }
    let got = first_lease(&mut story);
    assert_eq!((got.index, got.failures), (0, 2));
    story.report(0, &[(got, FAILED, b"at last")]);
    let root = [1u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
    let endings = vec![(0, Outcome::Failed, b"at last".to_vec()), (1, Outcome::Skipped, root)];
    let revoked = Said::Revoke { worker: 0, tasks: vec![1] };
    assert_eq!(story.turn(), [revoked, Said::Ended { run: 1, finished: true, endings }]);
    assert_eq!(story.broker.statistics().retries, 2);
}

#[test]
fn an_attempt_that_succeeds_ends_the_retries() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &retries(5));
    let (_, got) = one_lease(&mut story);
    story.report(0, &[(got, FAILED, b"once")]);
    let (_, got) = one_lease(&mut story);
    story.report(0, &[(got, DONE, b"value")]);
    let endings = vec![(0, Outcome::Done, b"value".to_vec())];
    assert_eq!(story.turn(), [Said::Ended { run: 1, finished: true, endings }]);
    story.hold(1, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
}

#[test]
fn a_failure_that_is_worth_no_retry_ends_the_task() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &retries(5));
    let (_, got) = one_lease(&mut story);
    story.report(0, &[(got, Verdict::FailedForGood, b"never")]);
    let endings = vec![(0, Outcome::Failed, b"never".to_vec())];
    assert_eq!(story.turn(), [Said::Ended { run: 1, finished: true, endings }]);
    assert_eq!(story.broker.statistics().retries, 0);
}

#[test]
fn k4_a_late_failure_costs_no_retry() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &retries(1));
    let (_, got) = one_lease(&mut story);
    story.report(0, &[(got, FAILED, b"once")]);
    story.report(0, &[(got, FAILED, b"once more")]);
    let (_, got) = one_lease(&mut story);
    assert_eq!(got.failures, 1);
    assert_eq!((story.broker.statistics().retries, story.broker.statistics().stale_reports), (1, 1));
    story.report(0, &[(got, DONE, b"value")]);
    assert!(matches!(&story.turn()[..], [Said::Ended { finished: true, .. }]));
}

#[test]
fn k4_crashes_and_recalls_cost_no_retry() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &retries(1));
    let (_, got) = one_lease(&mut story);
    story.report_timed(0, &[(got, Verdict::Returned, b"")], &[]);
    for _ in 0..2 {
        let (_, got) = one_lease(&mut story);
        assert_eq!(got.failures, 0);
        story.exit(0, Exit::Signal(11), Some((got.task, got.attempt)));
        story.pass_ns(0);
        story.turn();
        story.connect_worker(0);
    }
    let (_, got) = one_lease(&mut story);
    story.report(0, &[(got, FAILED, b"once")]);
    let (_, got) = one_lease(&mut story);
    assert_eq!(got.failures, 1);
    story.report(0, &[(got, FAILED, b"at last")]);
    assert!(matches!(&story.turn()[..], [Said::Ended { finished: true, .. }]));
}

/// The pauses before each retry of one task.
fn pauses_ns(story: &mut Story, run: u32, policy: &Policy<'_>) -> Vec<u64> {
    story.submit_policy(run, run, &[&[]], &[0], policy);
    let mut pauses_ns = Vec::new();
    for _ in 0..policy.retries {
        let (_, got) = one_lease(story);
        story.report(0, &[(got, FAILED, b"once")]);
        assert_eq!(story.turn(), []);
        let before_ns = story.now_ns;
        let until_ns = story.broker.next_timeout_ns().expect("the end of the pause");
        story.pass_ns(until_ns - before_ns - 1);
        assert_eq!(story.turn(), [], "the pause has not ended");
        story.pass_ns(1);
        pauses_ns.push(story.now_ns - before_ns);
    }
    let (_, got) = one_lease(story);
    story.report(0, &[(got, DONE, b"")]);
    story.turn();
    pauses_ns
}

#[test]
fn pauses_double_up_to_the_longest_one_and_differ_a_little() {
    let policy = Policy { retries: 6, backoff_ms: 10, backoff_max_ms: 80, ..Policy::default() };
    let mut story = Story::new(1);
    let first = pauses_ns(&mut story, 1, &policy);
    let mut means = [10, 20, 40, 80, 80, 80].into_iter();
    assert!(
        first.iter().zip(means.by_ref()).all(|(pause, mean)| pause.abs_diff(mean * MS) <= mean * MS / 4),
        "{first:?}"
    );
    assert!(first[3..].windows(2).all(|pair| pair[0] != pair[1]), "equal pauses are no chance: {first:?}");
    assert_ne!(first, pauses_ns(&mut story, 2, &policy), "two tasks come back at different times");
    assert_eq!(first, pauses_ns(&mut Story::new(1), 1, &policy), "the seed decides");
}

#[test]
fn other_tasks_run_during_a_pause() {
    let mut story = Story::new(1);
    let policy = Policy { retries: 1, backoff_ms: 50, backoff_max_ms: 50, ..Policy::default() };
    story.submit_policy(1, 1, &[&[]], &[0], &policy);
    let (_, got) = one_lease(&mut story);
    story.report(0, &[(got, FAILED, b"once")]);
    story.submit(2, &[&[]], &[0]);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"0".to_vec())]);
    story.pass_ns(100 * MS);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"0".to_vec())]);
}

#[test]
fn a_task_in_its_pause_can_be_cancelled() {
    let mut story = Story::new(1);
    let policy = Policy { retries: 1, backoff_ms: 50, backoff_max_ms: 50, ..Policy::default() };
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &policy);
    let got = first_lease(&mut story);
    story.report(0, &[(got, FAILED, b"once")]);
    assert!(matches!(story.turn()[..], [Said::Revoke { .. }]), "what stood behind it");
    story.cancel(1, &[0]);
    let endings = vec![(0, Outcome::Cancelled, vec![0]), (1, Outcome::Cancelled, vec![1])];
    assert_eq!(story.turn(), [Said::Ended { run: 1, finished: true, endings }]);
    story.hold(1, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
    // The slot is another task's when the pause would have ended.
    story.submit(2, &[&[]], &[0]);
    story.pass_ns(100 * MS);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"0".to_vec())]);
}

/// A batch 0 → 1 → 2, of which task 1 fails while the value of task 0 is with the worker alone.
fn fail_behind_a_held_value(story: &mut Story, policy: &Policy<'_>) -> (u32, Vec<Got>) {
    story.submit_policy(2, 1, &[&[], &[0], &[0, 1]], &[2], policy);
    let (worker, got) = story.leases().remove(0);
    assert_eq!(got.iter().map(|got| got.flags & LEASE_REPORT).collect::<Vec<_>>(), [0, 0, LEASE_REPORT]);
    story.report(worker, &[(got[0], Verdict::DoneHeld, b""), (got[1], FAILED, b"once")]);
    (worker, got)
}

#[test]
fn inputs_that_only_the_worker_has_are_fetched_and_not_made_again() {
    let mut story = measured(2);
    let (worker, got) = fail_behind_a_held_value(&mut story, &retries(1));
    let said = story.turn();
    let fetch = Said::Recall { worker, tasks: vec![], fetch: vec![got[0].task] };
    assert_eq!(said[..2], [fetch, Said::Revoke { worker, tasks: vec![got[2].task] }]);
    // Meanwhile only the worker that has the input may run it.
    let Said::Lease { worker: holder, leases, .. } = &said[2] else { panic!("a lease, not {said:?}") };
    let indices: Vec<(u32, u32)> = leases.iter().map(|got| (got.index, got.failures)).collect();
    assert_eq!((*holder, indices, said.len()), (worker, vec![(1, 1), (2, 0)], 3));
    let leases = leases.clone();
    story.report_timed(worker, &[(got[2], Verdict::Cancelled, b""), (got[0], Verdict::Value, b"input")], &[]);
    story.report(worker, &[(leases[0], Verdict::DoneHeld, b""), (leases[1], DONE, b"end")]);
    assert_eq!(run_all(&mut story), [(2, Outcome::Done, b"end".to_vec())]);
}

#[test]
fn inputs_that_cannot_be_fetched_are_made_again() {
    for dies in [true, false] {
        let mut story = measured(2);
        let (worker, got) = fail_behind_a_held_value(&mut story, &retries(1));
        story.turn();
        if dies {
            story.exit(worker, Exit::Signal(9), None);
        } else {
            story.report_timed(worker, &[(Got { attempt: 0, ..got[0] }, Verdict::Lost, b"")], &[]);
        }
        let again = story.leases();
        assert_eq!(again[0].1.iter().map(|got| got.index).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(again[0].1[1].failures, 1);
    }
}
