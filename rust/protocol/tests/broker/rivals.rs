//! Second attempts of tasks that take long.

use super::limits::{self, Ask};
use super::story::{CLIENT, Got, Said, Story};
use super::{DONE, run_all};
use headrace_protocol::broker::{Exit, STRAGGLER_NS};
use headrace_protocol::limits::Offer;
use headrace_wire::{
    Blobs, BlobsBuf, LEASE_HOLD, LEASE_REPORT, Message, Outcome, POLICY_SPECULATIVE, Policy, Submit, TaskPlace,
    Verdict, Waiting, Why,
};

const MS: u64 = 1_000_000;
/// Grace of a story's broker.
const GRACE: u64 = 1_000 * MS;

fn twice() -> Policy<'static> {
    Policy { flags: POLICY_SPECULATIVE, ..Policy::default() }
}

fn all(leases: Vec<(u32, Vec<Got>)>) -> Vec<(u32, Got)> {
    leases.into_iter().flat_map(|(worker, got)| got.into_iter().map(move |got| (worker, got))).collect()
}

fn only(story: &mut Story) -> (u32, Got) {
    match all(story.leases())[..] {
        [lease] => lease,
        ref leases => panic!("one lease, not {leases:?}"),
    }
}

/// Worker 0 runs the task, and worker 1 tries it, too.
fn race(story: &mut Story, policy: &Policy<'_>) -> (Got, Got) {
    story.submit_policy(1, 1, &[&[]], &[0], policy);
    let (worker, first) = only(story);
    assert_eq!(worker, 0);
    story.pass_ns(STRAGGLER_NS);
    let (worker, second) = only(story);
    assert_eq!((worker, second.task), (1, first.task));
    assert!(second.attempt > first.attempt, "K4");
    (first, second)
}

fn endings(said: &[Said]) -> Vec<(u32, Outcome, Vec<u8>)> {
    let ended = said.iter().filter_map(|said| match said {
        Said::Ended { endings, .. } => Some(endings.clone()),
        _ => None,
    });
    ended.flatten().collect()
}

fn stopped(worker: u32, got: Got) -> [Said; 2] {
    let Got { task, attempt, .. } = got;
    [Said::Revoke { worker, tasks: vec![task] }, Said::Interrupt { worker, task, attempt }]
}

/// Everything is as if nothing had been.
fn is_over(story: &mut Story) {
    story.broker.check().unwrap();
    story.hold(1, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
    assert_eq!(story.broker.statistics().timers, 0);
    story.pass_ns(10 * STRAGGLER_NS);
    assert!(story.leases().is_empty());
}

#[test]
fn an_idle_worker_tries_what_takes_long_and_the_first_that_ends_counts() {
    let mut story = Story::new(2);
    story.submit_policy(1, 1, &[&[]], &[0], &twice());
    let (_, first) = only(&mut story);
    assert_eq!(story.broker.next_timeout_ns(), Some(STRAGGLER_NS));
    story.pass_ns(STRAGGLER_NS - 1);
    assert_eq!(story.turn(), []);
    story.pass_ns(1);
    let (worker, second) = only(&mut story);
    assert_eq!((worker, second.task, second.attempt), (1, first.task, first.attempt + 1));
    assert_eq!(second.flags & (LEASE_REPORT | LEASE_HOLD), LEASE_REPORT);
    story.broker.check().unwrap();
    story.report(1, &[(second, DONE, b"second")]);
    let said = story.turn();
    assert_eq!(endings(&said), [(0, Outcome::Done, b"second".to_vec())]);
    assert!(stopped(0, first).iter().all(|stop| said.contains(stop)), "{said:?}");
    story.submit_as(2, 1, &[&[], &[]], &[]);
    assert!(all(story.leases()).iter().all(|(worker, _)| *worker == 1), "the other has not stopped");
    story.report(0, &[(first, DONE, b"first")]);
    assert_eq!(endings(&story.turn()), []);
    let statistics = story.broker.statistics();
    assert_eq!((statistics.second_attempts, statistics.stale_reports), (1, 1));
    assert_eq!((statistics.retries, statistics.timeouts, statistics.blamed_deaths), (0, 0, 0));
}

#[test]
fn where_the_first_attempt_ends_first_the_second_is_stopped() {
    let mut story = Story::new(2);
    let (first, second) = race(&mut story, &twice());
    story.report(0, &[(first, DONE, b"first")]);
    let said = story.turn();
    assert_eq!(endings(&said), [(0, Outcome::Done, b"first".to_vec())]);
    assert!(stopped(1, second).iter().all(|stop| said.contains(stop)), "{said:?}");
    story.report(1, &[(second, Verdict::Cancelled, b"")]);
    is_over(&mut story);
}

#[test]
fn a_loser_that_does_not_stop_is_killed_and_nobody_is_blamed() {
    let mut story = Story::with(2, |config| config.crash_limit = 1);
    let (first, second) = race(&mut story, &twice());
    story.report(1, &[(second, DONE, b"second")]);
    story.turn();
    story.pass_ns(GRACE);
    assert!(story.turn().contains(&Said::Kill { worker: 0 }));
    story.exit(0, Exit::Signal(9), Some((first.task, first.attempt)));
    story.turn();
    assert_eq!(story.broker.statistics().blamed_deaths, 0);
    is_over(&mut story);
}

#[test]
fn a_worker_that_is_stopped_keeps_its_task_no_longer_than_a_slow_one() {
    let mut story = Story::new(2);
    let (first, second) = race(&mut story, &twice());
    // Worker 0 says nothing; four questions in a row are asked before that counts.
    story.pass_ns(STRAGGLER_NS);
    story.report(1, &[(second, DONE, b"second")]);
    assert_eq!(endings(&story.turn()), [(0, Outcome::Done, b"second".to_vec())]);
    story.pass_ns(GRACE);
    assert!(story.turn().contains(&Said::Kill { worker: 0 }), "before it counts as silent");
    story.exit(0, Exit::Signal(9), Some((first.task, first.attempt)));
    is_over(&mut story);
}

#[test]
fn other_tasks_are_never_tried_twice() {
    let mut story = Story::new(2);
    story.submit(1, &[&[]], &[0]);
    let (_, first) = only(&mut story);
    for _ in 0..10 {
        story.pass_ns(STRAGGLER_NS);
        for worker in 0..2 {
            story.report_timed(worker, &[], &[]); // it answers
        }
        assert!(story.leases().is_empty());
    }
    story.report(0, &[(first, DONE, b"x")]);
    is_over(&mut story);
}

#[test]
fn three_times_what_the_function_takes_is_long() {
    let mut story = Story::new(2);
    story.submit_policy(1, 1, &[&[]], &[0], &twice());
    let (_, first) = only(&mut story);
    story.report_timed(0, &[(first, DONE, b"x")], &[(first.function, 1, 900_000_000)]);
    story.turn();
    story.submit_policy(2, 1, &[&[]], &[0], &twice());
    let (_, first) = only(&mut story);
    story.pass_ns(2_700 * MS - 1);
    assert!(story.leases().is_empty());
    story.pass_ns(1);
    assert_eq!(only(&mut story).1.task, first.task);
}

#[test]
fn what_ends_badly_does_not_count_while_the_other_goes_on() {
    for verdict in [Verdict::Failed, Verdict::FailedForGood, Verdict::TimedOut, Verdict::Cancelled, Verdict::Returned] {
        for fails in [0, 1] {
            let mut story = Story::new(2);
            let (first, second) = race(&mut story, &twice());
            let attempts = [first, second];
            story.report(fails as u32, &[(attempts[fails], verdict, b"bad")]);
            assert_eq!(story.turn(), [], "{verdict:?} of {fails}");
            story.broker.check().unwrap();
            story.report(1 - fails as u32, &[(attempts[1 - fails], DONE, b"good")]);
            assert_eq!(endings(&story.turn()), [(0, Outcome::Done, b"good".to_vec())]);
            let statistics = story.broker.statistics();
            assert_eq!((statistics.retries, statistics.timeouts, statistics.stale_reports), (0, 0, 0));
            is_over(&mut story);
        }
    }
}

#[test]
fn if_both_fail_the_task_fails_once_and_is_tried_again_as_any_other() {
    let mut story = Story::new(2);
    let (first, second) = race(&mut story, &Policy { retries: 1, ..twice() });
    story.report(1, &[(second, Verdict::Failed, b"second")]);
    story.report(0, &[(first, Verdict::Failed, b"first")]);
    let (worker, again) = only(&mut story);
    assert_eq!((again.failures, again.task), (1, first.task));
    assert!(again.attempt > second.attempt, "K4");
    story.report(worker, &[(again, Verdict::Failed, b"again")]);
    assert_eq!(endings(&story.turn()), [(0, Outcome::Failed, b"again".to_vec())]);
    assert_eq!(story.broker.statistics().retries, 1);
    is_over(&mut story);
}

#[test]
fn the_attempt_that_is_left_has_no_rival_and_its_end_counts() {
    for left in [0, 1] {
        let mut story = Story::new(3);
        let (first, second) = race(&mut story, &Policy { retries: 1, ..twice() });
        let attempts = [first, second];
        story.report(1 - left as u32, &[(attempts[1 - left], Verdict::Failed, b"one")]);
        story.pass_ns(10 * STRAGGLER_NS);
        assert!(story.leases().is_empty(), "or a task that always fails late would never end");
        story.report(left as u32, &[(attempts[left], Verdict::Failed, b"other")]);
        let (worker, again) = only(&mut story);
        assert_eq!(again.failures, 1);
        story.pass_ns(STRAGGLER_NS);
        let (beside, rival) = only(&mut story);
        assert_ne!(beside, worker);
        story.report(beside, &[(rival, DONE, b"at last")]);
        assert_eq!(endings(&story.turn()), [(0, Outcome::Done, b"at last".to_vec())]);
        story.report(worker, &[(again, Verdict::Cancelled, b"")]);
        is_over(&mut story);
    }
}

#[test]
fn a_death_does_not_count_while_the_other_goes_on() {
    for dies in [0, 1] {
        let mut story = Story::with(2, |config| config.crash_limit = 1);
        let (first, second) = race(&mut story, &twice());
        let attempts = [first, second];
        let got = attempts[dies];
        story.exit(dies as u32, Exit::Signal(11), Some((got.task, got.attempt)));
        assert!(matches!(story.turn()[..], [Said::Gone { .. }, Said::Spawn { .. }]));
        story.broker.check().unwrap();
        story.connect_worker(dies as u32);
        story.report(1 - dies as u32, &[(attempts[1 - dies], DONE, b"good")]);
        assert_eq!(endings(&story.turn()), [(0, Outcome::Done, b"good".to_vec())]);
        assert_eq!(story.broker.statistics().blamed_deaths, 0);
        is_over(&mut story);
    }
}

#[test]
fn a_death_behind_the_task_counts_against_what_was_executing() {
    let mut story = Story::with(2, |config| config.crash_limit = 1);
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &twice());
    let leases = all(story.leases());
    let [(0, first), (0, behind)] = leases[..] else { panic!("both go to one worker: {leases:?}") };
    story.pass_ns(STRAGGLER_NS);
    let (_, second) = only(&mut story);
    assert_eq!(second.task, first.task);
    // It has ended, and nobody knows yet.
    story.exit(0, Exit::Signal(11), Some((behind.task, behind.attempt)));
    let told = endings(&story.turn());
    assert_eq!((told[0].0, told[0].1), (1, Outcome::Died));
    story.report(1, &[(second, DONE, b"second")]);
    is_over(&mut story);
}

#[test]
fn if_both_die_the_second_death_counts() {
    for order in [[0, 1], [1, 0]] {
        let mut story = Story::with(2, |config| config.crash_limit = 1);
        let (first, second) = race(&mut story, &twice());
        for worker in order {
            let got = [first, second][worker];
            story.exit(worker as u32, Exit::Signal(11), Some((got.task, got.attempt)));
        }
        let told = endings(&story.turn());
        assert_eq!((told[0].0, told[0].1, told.len()), (0, Outcome::Died, 1));
        assert_eq!(story.broker.statistics().blamed_deaths, 1);
        is_over(&mut story);
    }
}

#[test]
fn no_third_worker_tries_it_and_none_a_second_time_beside_the_same_attempt() {
    let mut story = Story::new(3);
    let (_, second) = race(&mut story, &twice());
    story.pass_ns(STRAGGLER_NS);
    assert!(story.leases().is_empty(), "two are enough");
    story.report(1, &[(second, Verdict::Failed, b"it is locked")]);
    story.pass_ns(STRAGGLER_NS);
    assert!(story.leases().is_empty(), "a third one would fail, too");
    story.broker.check().unwrap();
}

#[test]
fn a_cancel_stops_both() {
    let mut story = Story::new(2);
    let (first, second) = race(&mut story, &twice());
    story.cancel(1, &[0]);
    let said = story.turn();
    assert_eq!(endings(&said)[0].1, Outcome::Cancelled);
    let stops = stopped(0, first).into_iter().chain(stopped(1, second));
    assert!(stops.into_iter().all(|stop| said.contains(&stop)), "{said:?}");
    story.report(0, &[(first, DONE, b"late")]);
    story.report(1, &[(second, DONE, b"late")]);
    assert_eq!(endings(&story.turn()), []);
    is_over(&mut story);
}

#[test]
fn each_attempt_has_its_time_and_an_overdue_one_that_goes_on_is_killed() {
    for overdue in [0, 1] {
        let mut story = Story::with(2, |config| config.crash_limit = 1);
        let (first, second) = race(&mut story, &Policy { timeout_ms: 700, ..twice() });
        assert_eq!(second.timeout_ms, 700);
        let attempts = [first, second];
        let got = attempts[overdue];
        story.overdue(overdue as u32, got);
        story.pass_ns(GRACE);
        assert!(story.turn().contains(&Said::Kill { worker: overdue as u32 }));
        story.exit(overdue as u32, Exit::Signal(9), Some((got.task, got.attempt)));
        assert_eq!(endings(&story.turn()), []);
        story.report(1 - overdue as u32, &[(attempts[1 - overdue], DONE, b"good")]);
        assert_eq!(endings(&story.turn()), [(0, Outcome::Done, b"good".to_vec())]);
        assert_eq!(story.broker.statistics().timeouts, 0);
        is_over(&mut story);
    }
}

#[test]
fn each_attempt_takes_what_the_task_takes_until_it_has_stopped() {
    let license = |amount: u64| Offer::new([("license".into(), amount)], [], []);
    let policy = Policy {
        resources: Blobs { lens: [7][..].into(), bytes: b"license" },
        amounts: &[1, 0, 0, 0, 0, 0, 0, 0],
        ..twice()
    };
    let mut story = Story::with_offer(2, license(1));
    story.submit_policy(1, 1, &[&[]], &[0], &policy);
    only(&mut story);
    story.pass_ns(STRAGGLER_NS);
    assert!(story.leases().is_empty(), "there is one license");
    let mut story = Story::with_offer(3, license(2));
    let (first, second) = race(&mut story, &policy);
    story.submit_policy(2, 1, &[&[]], &[0], &policy);
    assert!(story.leases().is_empty(), "both are taken");
    story.report(1, &[(second, DONE, b"")]);
    // The license of the one that has ended is free, that of the other one is not before it has stopped.
    let (taker, _) = only(&mut story);
    story.submit_policy(3, 1, &[&[], &[]], &[0], &policy);
    let (behind, _) = only(&mut story);
    assert_eq!(behind, taker, "it has a license already");
    story.report(0, &[(first, Verdict::Cancelled, b"")]);
    assert_ne!(only(&mut story).0, taker);
}

#[test]
fn what_others_wait_for_is_not_taken_twice() {
    let policy = Policy {
        resources: Blobs { lens: [7][..].into(), bytes: b"license" },
        amounts: &[1, 0, 0, 0, 0, 0, 0, 0],
        ..twice()
    };
    let mut story = Story::with_offer(3, Offer::new([("license".into(), 3)], [], []));
    story.submit_policy(1, 1, &[&[]], &[0], &policy);
    let (_, got) = only(&mut story);
    limits::submit(&mut story, CLIENT, 2, 0, &[Ask { pin: Some(2), ..limits::taking(&[("license", 3)]) }]);
    story.pass_ns(STRAGGLER_NS);
    assert!(story.leases().is_empty(), "the other task needs all three");
    story.report(0, &[(got, DONE, b"")]);
    assert_eq!(only(&mut story).0, 2);
}

#[test]
fn what_stands_behind_is_asked_back_before_somebody_else_makes_its_input() {
    let mut story = Story::new(3);
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &twice());
    let leases = all(story.leases());
    let [(0, first), (0, behind)] = leases[..] else { panic!("both go to one worker: {leases:?}") };
    story.pass_ns(STRAGGLER_NS);
    let said = story.turn();
    let second = said.iter().find_map(|said| match said {
        Said::Lease { worker: 1, leases, .. } => Some(leases[0]),
        _ => None,
    });
    let second = second.expect("a second attempt");
    assert!(said.contains(&Said::Recall { worker: 0, tasks: vec![behind.task], fetch: vec![] }), "{said:?}");
    story.report(0, &[(behind, Verdict::Returned, b"")]);
    assert_eq!(story.turn(), [], "nothing is given to a worker to queue behind");
    story.report(1, &[(second, DONE, b"second")]);
    let said = story.turn();
    assert!(stopped(0, first).iter().all(|stop| said.contains(stop)), "{said:?}");
    let next = said.iter().find_map(|said| match said {
        Said::Lease { worker, leases, values, .. } => Some((*worker, leases[0].task, values.clone())),
        _ => None,
    });
    let (worker, task, values) = next.expect("it goes on at once");
    assert_ne!(worker, 0);
    assert_eq!(task, behind.task);
    assert!(worker == 2 || values.is_empty() || values == [b"second".to_vec()], "{values:?}");
    story.broker.check().unwrap();
}

#[test]
fn a_worker_that_keeps_what_stands_behind_is_killed_and_heard_no_more() {
    let mut story = Story::new(2);
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &twice());
    let leases = all(story.leases());
    let [(0, first), (0, behind)] = leases[..] else { panic!("both go to one worker: {leases:?}") };
    story.pass_ns(STRAGGLER_NS);
    let (_, second) = only(&mut story);
    // It is stopped, wakes up, and goes on with a value that is not the task's.
    story.report(1, &[(second, DONE, b"second")]);
    let said = story.turn();
    assert!(said.contains(&Said::Kill { worker: 0 }), "{said:?}");
    assert!(!said.iter().any(|said| matches!(said, Said::Lease { .. })), "it may run there: {said:?}");
    story.report(0, &[(first, Verdict::DoneHeld, b""), (behind, DONE, b"of the first")]);
    assert_eq!(endings(&story.turn()), []);
    story.exit(0, Exit::Signal(9), Some((behind.task, behind.attempt)));
    assert_eq!(run_all_of(&mut story), [(1, Outcome::Done, b"1".to_vec())]);
    assert_eq!(story.broker.statistics().blamed_deaths, 0);
}

/// Runs what is leased; the endings.
fn run_all_of(story: &mut Story) -> Vec<(u32, Outcome, Vec<u8>)> {
    let said = story.turn();
    let mut heard = endings(&said);
    for said in said {
        if let Said::Lease { worker, leases, .. } = said {
            for got in leases {
                story.report(worker, &[(got, DONE, got.index.to_string().as_bytes())]);
            }
        }
    }
    heard.extend(endings(&story.turn()));
    heard
}

#[test]
fn an_attempt_that_fails_leaves_what_stood_behind_it_to_the_other() {
    let mut story = Story::new(2);
    story.submit_policy(1, 1, &[&[], &[0]], &[1], &twice());
    let leases = all(story.leases());
    let [(0, first), (0, behind)] = leases[..] else { panic!("both go to one worker: {leases:?}") };
    story.pass_ns(STRAGGLER_NS);
    let (_, second) = only(&mut story);
    story.report(0, &[(first, Verdict::Failed, b"bad")]);
    let said = story.turn();
    assert!(said.contains(&Said::Revoke { worker: 0, tasks: vec![behind.task] }), "{said:?}");
    story.broker.check().unwrap();
    let next = said.iter().find_map(|said| match said {
        Said::Lease { worker: 1, leases, .. } => Some(leases[0]),
        _ => None,
    });
    let next = next.expect("it follows the attempt that goes on");
    assert_eq!(next.task, behind.task);
    story.report(1, &[(second, DONE, b"second"), (next, DONE, b"next")]);
    assert_eq!(endings(&story.turn()), [(1, Outcome::Done, b"next".to_vec())]);
}

#[test]
fn an_input_that_only_the_slow_worker_has_comes_first() {
    let mut story = Story::new(2);
    story.submit(1, &[&[]], &[]);
    run_all(&mut story);
    story.submit_policy(2, 1, &[&[], &[0]], &[1], &twice());
    let leases = all(story.leases());
    let [(0, input), (0, first)] = leases[..] else { panic!("one batch: {leases:?}") };
    assert_eq!(input.flags & (LEASE_HOLD | LEASE_REPORT), LEASE_HOLD);
    story.report(0, &[(input, Verdict::DoneHeld, b"")]);
    story.pass_ns(STRAGGLER_NS);
    assert_eq!(story.turn(), [Said::Recall { worker: 0, tasks: vec![], fetch: vec![input.task] }]);
    story.pass_ns(STRAGGLER_NS / 10);
    assert_eq!(story.turn(), [], "it is asked for once");
    story.report(0, &[(input, Verdict::Value, b"input")]);
    // Whoever answers has said something, so the time counts anew.
    story.pass_ns(STRAGGLER_NS);
    let said = story.turn();
    let second = said.iter().find_map(|said| match said {
        Said::Lease { worker: 1, leases, values, .. } => Some((leases[0].task, values.clone())),
        _ => None,
    });
    assert_eq!(second, Some((first.task, vec![b"input".to_vec()])), "{said:?}");
}

#[test]
fn a_pinned_task_has_one_worker() {
    let mut story = Story::new(2);
    let mut blob = Vec::new();
    Message::Policy(twice()).encode(&mut blob);
    let (mut policies, mut names) = (BlobsBuf::default(), BlobsBuf::default());
    policies.push(&blob);
    names.push(b"work");
    let submit = Submit {
        run: 1,
        function_ids: [1][..].into(),
        function_names: names.as_blobs(),
        functions: names.as_blobs(),
        function_map: [1][..].into(),
        task_function: [0][..].into(),
        dep_counts: [0][..].into(),
        args: Blobs { lens: [0][..].into(), bytes: b"" },
        task_options: [0][..].into(),
        priority: [0][..].into(),
        worker: [1][..].into(),
        policies: policies.as_blobs(),
        keep: [0][..].into(),
        ..Submit::default()
    };
    story.send(CLIENT, &Message::Submit(submit));
    let (worker, got) = only(&mut story);
    assert_eq!(worker, 1);
    story.pass_ns(STRAGGLER_NS);
    assert!(story.leases().is_empty());
    story.report(1, &[(got, DONE, b"x")]);
    is_over(&mut story);
}

/// An attempt submits a task.
fn submit_nested(story: &mut Story, worker: u32, parent: Got, run: u32) {
    let (mut names, number, one) = (BlobsBuf::default(), [run], [0]);
    names.push(b"inner");
    let submit = Submit {
        run,
        function_ids: number[..].into(),
        function_names: names.as_blobs(),
        functions: names.as_blobs(),
        function_map: number[..].into(),
        task_function: one[..].into(),
        dep_counts: one[..].into(),
        args: Blobs { lens: one[..].into(), bytes: &[] },
        keep: one[..].into(),
        parent: parent.task,
        parent_attempt: parent.attempt,
        ..Submit::default()
    };
    story.send(story.peer(worker), &Message::Submit(submit));
}

#[test]
fn a_task_that_has_submitted_others_is_tried_by_nobody_else() {
    let mut story = Story::new(2);
    story.submit_policy(1, 1, &[&[]], &[0], &twice());
    let (_, parent) = only(&mut story);
    submit_nested(&mut story, 0, parent, 1);
    let (worker, inner) = only(&mut story);
    story.report(worker, &[(inner, DONE, b"inner")]);
    story.pass_ns(STRAGGLER_NS);
    assert!(story.leases().is_empty());
}

#[test]
fn of_two_attempts_the_first_that_submits_or_waits_goes_on_alone() {
    for submits in [0, 1] {
        let mut story = Story::new(2);
        let (first, second) = race(&mut story, &twice());
        let attempts = [first, second];
        let (winner, loser) = (submits as u32, 1 - submits as u32);
        submit_nested(&mut story, winner, attempts[submits], 1);
        let Got { task, attempt, .. } = attempts[submits];
        let waiting = Waiting { task, attempt, waits: true, ..Waiting::default() };
        story.send(story.peer(winner), &Message::Waiting(waiting));
        let said = story.turn();
        assert!(stopped(loser, attempts[1 - submits]).iter().all(|stop| said.contains(stop)), "{said:?}");
        story.report(loser, &[(attempts[1 - submits], DONE, b"late")]);
        let (_, inner) = only(&mut story);
        story.report(loser, &[(inner, DONE, b"inner")]);
        story.report(winner, &[(attempts[submits], DONE, b"sum")]);
        assert!(endings(&story.turn()).contains(&(0, Outcome::Done, b"sum".to_vec())));
        story.broker.check().unwrap();
    }
}

#[test]
fn whoever_asks_is_told_of_both() {
    let mut story = Story::new(2);
    race(&mut story, &twice());
    story.send(CLIENT, &Message::Why(Why { number: 7, run: 1, index: 0, ..Why::default() }));
    let said = story.turn();
    let text =
        "'work-0' runs in worker 0 (pid 4000), attempt 1, for 500 ms (and a second attempt in worker 1)".to_owned();
    let stacks = String::new();
    assert_eq!(said, [Said::Because { number: 7, place: TaskPlace::Running as u8, text, stacks }]);
}
