//! Time limits: of attempts, which workers enforce, and of waits for a start.

use super::story::{Got, Said, Story};
use super::{DONE, run_all};
use headrace_protocol::broker::Exit;
use headrace_wire::{Message, Outcome, Overrun, Policy, Verdict};

const MS: u64 = 1_000_000;
/// Grace of a story's broker.
const GRACE: u64 = 1_000 * MS;

fn limit(timeout_ms: u32, retries: u32) -> Policy<'static> {
    Policy { timeout_ms, retries, ..Policy::default() }
}

fn wait(queue_timeout_ms: u32) -> Policy<'static> {
    Policy { queue_timeout_ms, ..Policy::default() }
}

/// All leases that are given out now.
fn leases(story: &mut Story) -> Vec<(u32, Got)> {
    let flat = |(worker, got): (u32, Vec<Got>)| got.into_iter().map(move |got| (worker, got));
    story.leases().into_iter().flat_map(flat).collect()
}

fn overrun(said: &[Said]) -> (u32, Overrun<'static>) {
    let endings = said.iter().find_map(|said| match said {
        Said::Ended { endings, .. } => Some(endings),
        _ => None,
    });
    let (index, _, blob) = endings
        .into_iter()
        .flatten()
        .find(|(_, outcome, _)| *outcome == Outcome::TimedOut)
        .unwrap_or_else(|| panic!("nothing timed out: {said:?}"));
    match Message::decode(blob) {
        Ok(Message::Overrun(overrun)) if overrun.key.is_empty() => (*index, Overrun { key: "", ..overrun }),
        other => panic!("{other:?}"),
    }
}

// -- attempts ---------------------------------------------------------------------------------------------------------

#[test]
fn a_lease_says_how_long_its_attempt_may_run() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &limit(70, 0));
    story.submit_as(2, 1, &[&[]], &[0]);
    let limits: Vec<u32> = leases(&mut story).iter().map(|(_, got)| got.timeout_ms).collect();
    assert_eq!(limits, [70, 0]);
}

#[test]
fn an_overdue_attempt_ends_its_task_once_its_worker_says_that_it_is_over() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &limit(70, 0));
    let got = leases(&mut story)[0].1;
    story.overdue(0, got);
    story.submit(2, &[&[]], &[0]);
    assert_eq!(story.turn(), [], "no other work meanwhile, and nothing to tell");
    story.report(0, &[(got, Verdict::TimedOut, b"")]);
    let said = story.turn();
    let expected = Overrun { queued: false, worker: 0, attempt: got.attempt, limit_ms: 70, failures: 0, key: "" };
    assert_eq!(overrun(&said), (0, expected));
    assert!(said.iter().any(|said| matches!(said, Said::Lease { .. })), "the slot is free: {said:?}");
    let statistics = story.broker.statistics();
    assert_eq!((statistics.timeouts, statistics.retries, statistics.worker_deaths), (1, 0, 0));
}

#[test]
fn an_overdue_attempt_is_tried_again_after_it_is_over_and_not_before() {
    let mut story = Story::new(2);
    story.submit_policy(1, 1, &[&[]], &[0], &limit(70, 1));
    let (worker, got) = leases(&mut story)[0];
    story.overdue(worker, got);
    story.pass_ns(GRACE / 2);
    assert_eq!(story.turn(), [], "never two attempts of one task");
    story.report(worker, &[(got, Verdict::TimedOut, b"")]);
    let (worker, got) = leases(&mut story)[0];
    assert_eq!((got.failures, got.timeout_ms), (1, 70));
    story.overdue(worker, got);
    story.report(worker, &[(got, Verdict::TimedOut, b"")]);
    let (_, overrun) = overrun(&story.turn());
    assert_eq!((overrun.attempt, overrun.failures), (got.attempt, 1));
    let statistics = story.broker.statistics();
    assert_eq!((statistics.timeouts, statistics.retries), (2, 1));
}

#[test]
fn b5_a_worker_that_is_killed_for_an_overdue_attempt_is_no_crash() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &limit(70, 4));
    // The crash limit is 3.
    for failures in 0..5 {
        let got = leases(&mut story)[0].1;
        assert_eq!(got.failures, failures);
        story.overdue(0, got);
        story.pass_ns(GRACE - 1);
        assert!(!story.turn().contains(&Said::Kill { worker: 0 }));
        story.pass_ns(1);
        assert!(story.turn().contains(&Said::Kill { worker: 0 }));
        story.exit(0, Exit::Signal(9), Some((got.task, got.attempt)));
        if failures == 4 {
            assert_eq!(overrun(&story.turn()).1.failures, 4);
        }
        story.pass_ns(0);
        story.turn();
        story.connect_worker(0);
    }
    let statistics = story.broker.statistics();
    assert_eq!((statistics.timeouts, statistics.retries, statistics.worker_deaths), (5, 4, 5));
}

#[test]
fn an_overdue_attempt_that_crashes_before_the_kill_has_timed_out() {
    for executing in [true, false] {
        let mut story = Story::new(1);
        story.submit_policy(1, 1, &[&[]], &[0], &limit(70, 0));
        let got = leases(&mut story)[0].1;
        story.overdue(0, got);
        story.exit(0, Exit::Signal(11), executing.then_some((got.task, got.attempt)));
        assert_eq!(overrun(&story.turn()).0, 0);
    }
}

#[test]
fn what_stands_behind_an_overdue_attempt_runs_after_it() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[], &[], &[]], &[0, 1, 2], &limit(70, 0));
    let got = leases(&mut story);
    story.overdue(0, got[0].1);
    story.pass_ns(2 * GRACE);
    story.turn();
    story.exit(0, Exit::Signal(9), Some((got[0].1.task, got[0].1.attempt)));
    story.pass_ns(0);
    assert_eq!(overrun(&story.turn()).0, 0);
    story.connect_worker(0);
    let mut done = run_all(&mut story);
    done.sort_unstable_by_key(|(index, ..)| *index);
    assert_eq!(
        done.iter().map(|(index, outcome, _)| (*index, *outcome)).collect::<Vec<_>>(),
        [(1, Outcome::Done), (2, Outcome::Done)]
    );
}

#[test]
fn an_overdue_attempt_that_is_cancelled_is_not_interrupted_once_more() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &limit(70, 3));
    let got = leases(&mut story)[0].1;
    story.overdue(0, got);
    story.pass_ns(GRACE / 2);
    story.cancel(1, &[]);
    assert_eq!(story.turn(), [Said::Ended { run: 1, finished: true, endings: vec![(0, Outcome::Cancelled, vec![0])] }]);
    story.pass_ns(GRACE / 2);
    assert!(story.turn().contains(&Said::Kill { worker: 0 }), "its time counts from the first interrupt");
    story.exit(0, Exit::Signal(9), Some((got.task, got.attempt)));
    assert!(!story.turn().iter().any(|said| matches!(said, Said::Ended { .. })));
    assert_eq!(story.broker.statistics().timeouts, 0);
}

#[test]
fn k4_a_late_word_of_an_overdue_attempt_means_nothing() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &limit(70, 0));
    let got = leases(&mut story)[0].1;
    story.report(0, &[(got, DONE, b"")]);
    story.turn();
    story.overdue(0, got);
    story.overdue(0, Got { task: 4_000_000, ..got });
    // Nor of one that has no limit.
    story.submit(2, &[&[], &[]], &[0, 1]);
    let got = leases(&mut story);
    story.overdue(0, got[0].1);
    story.report(0, &[(got[0].1, DONE, b"")]);
    story.pass_ns(2 * GRACE);
    assert!(!story.turn().contains(&Said::Kill { worker: 0 }));
    assert_eq!(story.broker.statistics().timeouts, 0);
}

// -- waits ------------------------------------------------------------------------------------------------------------

/// Two tasks of run 1 with a worker, which holds no more, and a third one that waits for it, of this policy.
fn busy(policy: &Policy<'_>) -> (Story, Vec<Got>) {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[]], &[]);
    let got = leases(&mut story).into_iter().map(|(_, got)| got).collect();
    story.submit_policy(2, 1, &[&[], &[0]], &[1], policy);
    assert_eq!(story.turn(), []);
    (story, got)
}

#[test]
fn a_task_that_stands_ready_for_too_long_fails() {
    let (mut story, _) = busy(&wait(50));
    assert!(story.broker.next_timeout_ns() <= Some(50 * MS));
    story.pass_ns(50 * MS - 1);
    assert_eq!(story.turn(), []);
    story.pass_ns(1);
    let said = story.turn();
    let expected = Overrun { queued: true, worker: 0, attempt: 0, limit_ms: 50, failures: 0, key: "" };
    assert_eq!(overrun(&said), (0, expected));
    let [Said::Ended { run: 2, finished: true, endings }] = &said[..] else { panic!("{said:?}") };
    assert_eq!((endings[1].0, endings[1].1), (1, Outcome::Skipped));
    assert_eq!(story.broker.statistics().timeouts, 1);
}

#[test]
fn a_task_that_starts_in_time_may_run_for_long() {
    let (mut story, got) = busy(&wait(50));
    story.pass_ns(20 * MS);
    story.report_timed(0, &[(got[0], DONE, b""), (got[1], DONE, b"")], &[]);
    let [(_, started), (_, behind)] = leases(&mut story)[..] else { panic!("it and what follows it") };
    story.pass_ns(100 * MS);
    // The broker does not know that it runs: it asks, and gets nothing back.
    let said = story.turn();
    assert!(matches!(&said[..], [Said::Recall { tasks, .. }] if *tasks == [started.task]), "{said:?}");
    story.report_timed(0, &[], &[]);
    story.pass_ns(100 * MS);
    assert_eq!(story.turn(), []);
    story.report(0, &[(started, DONE, b""), (behind, DONE, b"1")]);
    assert_eq!(run_all(&mut story), [(1, Outcome::Done, b"1".to_vec())]);
    assert_eq!(story.broker.statistics().timeouts, 0);
}

#[test]
fn a_task_that_stands_in_its_worker_for_too_long_comes_back_and_fails() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[]);
    leases(&mut story);
    story.submit_policy(2, 1, &[&[]], &[0], &wait(50));
    let queued = leases(&mut story)[0].1;
    story.pass_ns(50 * MS);
    let recall = Said::Recall { worker: 0, tasks: vec![queued.task], fetch: vec![] };
    assert_eq!(story.turn(), [recall]);
    story.report_timed(0, &[(queued, Verdict::Returned, b"")], &[]);
    let (index, overrun) = overrun(&story.turn());
    assert_eq!((index, overrun.queued), (0, true));
}

#[test]
fn a_wait_goes_on_through_a_recall_and_the_death_of_a_worker() {
    for dies in [true, false] {
        let mut story = Story::new(1);
        story.submit(1, &[&[]], &[]);
        let running = leases(&mut story)[0].1;
        story.submit_policy(2, 1, &[&[]], &[0], &wait(50));
        let queued = leases(&mut story)[0].1;
        story.pass_ns(30 * MS);
        if dies {
            story.exit(0, Exit::Signal(9), Some((running.task, running.attempt)));
        } else {
            story.report_timed(0, &[(queued, Verdict::Returned, b"")], &[]);
        }
        story.pass_ns(0);
        story.turn();
        story.pass_ns(20 * MS);
        let said = story.turn();
        match dies {
            true => assert_eq!(overrun(&said).0, 0),
            // It went to the worker again.
            false => assert!(said.iter().any(|said| matches!(said, Said::Recall { .. })), "{said:?}"),
        }
    }
}

#[test]
fn a_wait_begins_when_the_inputs_are_there() {
    let mut story = Story::new(1);
    // Task 1 is pinned to nobody, but its input takes longer than it may wait.
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &wait(50));
    let first = leases(&mut story)[0].1;
    story.pass_ns(40 * MS);
    story.report(0, &[(first, DONE, b"")]);
    story.turn();
    story.pass_ns(40 * MS);
    assert!(!story.turn().iter().any(|said| matches!(said, Said::Ended { .. } | Said::Recall { .. })));
}

#[test]
fn a_pause_is_no_wait_and_a_retry_waits_anew() {
    let policy = Policy { retries: 1, backoff_ms: 100, backoff_max_ms: 100, queue_timeout_ms: 50, ..Policy::default() };
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &policy);
    let got = leases(&mut story)[0].1;
    story.pass_ns(40 * MS);
    story.report(0, &[(got, Verdict::Failed, b"once")]);
    assert_eq!(story.turn(), []);
    // Whatever chance made of the pause, this is in it, and beyond what was left of the first wait.
    story.pass_ns(60 * MS);
    assert_eq!(story.turn(), []);
    story.submit(2, &[&[], &[]], &[]);
    assert_eq!(leases(&mut story).len(), 2, "the worker is busy when the pause ends");
    let until_ns = story.broker.next_timeout_ns().unwrap();
    story.pass_ns(until_ns - story.now_ns);
    story.turn();
    story.pass_ns(50 * MS - 1);
    assert!(!story.turn().iter().any(|said| matches!(said, Said::Ended { .. })));
    story.pass_ns(1);
    let (_, overrun) = overrun(&story.turn());
    assert_eq!((overrun.queued, overrun.failures), (true, 1));
}

#[test]
fn a_task_that_is_cancelled_while_it_waits_does_not_fail_later() {
    let (mut story, _) = busy(&wait(50));
    story.cancel(2, &[]);
    assert!(matches!(&story.turn()[..], [Said::Ended { finished: true, .. }]));
    story.hold(2, &[], &[], true);
    story.turn();
    story.submit_as(3, 1, &[&[]], &[0]);
    story.pass_ns(100 * MS);
    assert!(!story.turn().iter().any(|said| matches!(said, Said::Ended { .. })));
}

#[test]
fn waits_that_are_over_leave_nothing_behind() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[], &wait(60_000));
    run_all(&mut story);
    let empty = story.broker.statistics().timers;
    for run in 2..40 {
        let deps: Vec<&[u32]> = vec![&[]; 100];
        story.submit_policy(run, 1, &deps, &[], &wait(60_000));
        run_all(&mut story);
        story.hold(run, &[], &[], true);
        story.turn();
    }
    assert!(story.broker.statistics().timers <= empty + 1_200, "{}", story.broker.statistics().timers);
    assert_eq!(story.broker.statistics().timeouts, 0);
}
