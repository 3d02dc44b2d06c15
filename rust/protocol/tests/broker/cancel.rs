//! Runs that end early: cancelled in every state, at their deadline, or once a task has failed.

use super::story::{CLIENT, Got, Said, Story};
use super::{DONE, run_all};
use headrace_wire::{
    Blobs, CancelReason, EXTERNAL, Message, Outcome, Policy, SUBMIT_MORE, SUBMIT_STOP_ON_ERROR, Submit, Verdict,
};

const MS: u64 = 1_000_000;

/// A story in which the function of run 1 is known.
fn measured(workers: u32) -> Story {
    let mut story = Story::new(workers);
    story.submit(1, &[&[]], &[]);
    run_all(&mut story);
    story
}

fn leases(story: &mut Story) -> Vec<Got> {
    story.leases().into_iter().flat_map(|(_, got)| got).collect()
}

/// Index and reason of every cancelled task that was told, and whether the run has ended with it.
fn cancelled(said: &[Said], run: u32) -> (Vec<(u32, CancelReason)>, bool) {
    let mut found = (Vec::new(), false);
    for said in said {
        if let Said::Ended { run: told, finished, endings } = said
            && *told == run
        {
            found.1 |= finished;
            let reason = |blob: &[u8]| CancelReason::try_from(blob[0]).unwrap();
            let cancelled = endings.iter().filter(|(_, outcome, _)| *outcome == Outcome::Cancelled);
            found.0.extend(cancelled.map(|(index, _, blob)| (*index, reason(blob))));
        }
    }
    found.0.sort_unstable_by_key(|(index, _)| *index);
    found
}

// -- deadlines --------------------------------------------------------------------------------------------------------

#[test]
fn a_run_ends_at_its_deadline_and_keeps_what_it_has() {
    let mut story = measured(1);
    story.submit_ending(2, 1, &[&[], &[0], &[]], (50, 0));
    let got = leases(&mut story);
    story.report(0, &[(got[0], DONE, b"in time")]);
    story.pass_ns(50 * MS - 1);
    assert_eq!(cancelled(&story.turn(), 2), (vec![], false));
    story.pass_ns(1);
    let said = story.turn();
    let reason = CancelReason::Deadline;
    assert_eq!(cancelled(&said, 2), (vec![(1, reason), (2, reason)], true));
    assert!(said.iter().any(|said| matches!(said, Said::Interrupt { .. })), "what runs is interrupted: {said:?}");
}

#[test]
fn a_run_that_ends_in_time_hears_nothing_of_its_deadline() {
    let mut story = measured(1);
    story.submit_ending(2, 1, &[&[]], (50, 0));
    assert_eq!(run_all(&mut story).len(), 1);
    story.pass_ns(100 * MS);
    assert_eq!(story.turn(), []);
    story.hold(2, &[], &[], true);
    // The number of the run is another run's place by now.
    story.submit_ending(3, 1, &[&[]], (0, 0));
    story.pass_ns(100 * MS);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"0".to_vec())]);
}

#[test]
fn what_comes_after_the_deadline_is_cancelled_as_it_comes() {
    let mut story = measured(1);
    story.submit_ending(2, 1, &[&[]], (50, SUBMIT_MORE));
    leases(&mut story);
    story.pass_ns(50 * MS);
    assert_eq!(cancelled(&story.turn(), 2), (vec![(0, CancelReason::Deadline)], false));
    let (zero, number, keep) = ([0], [1], [1]);
    let more = Submit {
        run: 2,
        first: 1,
        function_map: number[..].into(),
        task_function: zero[..].into(),
        dep_counts: zero[..].into(),
        args: Blobs { lens: zero[..].into(), bytes: &[] },
        keep: keep[..].into(),
        ..Submit::default()
    };
    story.send(CLIENT, &Message::Submit(more));
    assert_eq!(cancelled(&story.turn(), 2), (vec![(1, CancelReason::Deadline)], true));
}

#[test]
fn a_deadline_comes_also_while_the_rest_of_a_large_graph_is_outside() {
    let mut story = measured(1);
    let deps: Vec<&[u32]> = vec![&[]; 70_000];
    story.submit_ending(2, 1, &deps, (1, 0));
    story.now_ns += MS;
    story.broker.finish_turn(story.now_ns);
    let (mut told, mut finished) = cancelled(&story.turn(), 2);
    while !finished {
        story.pass_ns(1);
        let (more, end) = cancelled(&story.turn(), 2);
        told.extend(more);
        finished = end;
    }
    assert_eq!(told.len(), 70_000);
    assert!(told.iter().all(|(_, reason)| *reason == CancelReason::Deadline));
}

#[test]
fn what_other_runs_took_from_a_run_past_its_deadline_is_cancelled_for_it() {
    let mut story = measured(1);
    story.submit_ending(2, 1, &[&[]], (50, 0));
    story.submit_with(3, &[&[EXTERNAL], &[]], &[0, 1], &[(2, 0)], &[]);
    story.turn();
    story.pass_ns(50 * MS);
    let said = story.turn();
    assert_eq!(cancelled(&said, 2), (vec![(0, CancelReason::Deadline)], true));
    assert_eq!(cancelled(&said, 3), (vec![(0, CancelReason::ParentCancelled)], false));
}

// -- failures ---------------------------------------------------------------------------------------------------------

#[test]
fn a_failure_stops_a_run_that_asked_for_it() {
    let mut story = measured(1);
    story.submit_ending(2, 1, &[&[], &[], &[1], &[]], (0, SUBMIT_STOP_ON_ERROR));
    let got = leases(&mut story);
    let failed = got.iter().find(|got| got.index == 1).copied().unwrap();
    story.report(0, &[(got[0], DONE, b"value"), (failed, Verdict::Failed, b"boom")]);
    let said = story.turn();
    assert_eq!(cancelled(&said, 2), (vec![(3, CancelReason::RunFailed)], true));
    let outcomes: Vec<(u32, Outcome)> = said
        .iter()
        .flat_map(|said| match said {
            Said::Ended { endings, .. } => &endings[..],
            _ => &[],
        })
        .map(|(index, outcome, _)| (*index, *outcome))
        .collect();
    for expected in [(0, Outcome::Done), (1, Outcome::Failed), (2, Outcome::Skipped)] {
        assert!(outcomes.contains(&expected), "{outcomes:?}");
    }
}

#[test]
fn a_failure_that_is_followed_by_a_retry_stops_nothing() {
    let mut story = Story::new(1);
    story.submit_policy(1, 1, &[&[]], &[0], &Policy { retries: 1, ..Policy::default() });
    let got = leases(&mut story)[0];
    story.report(0, &[(got, Verdict::Failed, b"once")]);
    assert_eq!(leases(&mut story).len(), 1);
}

#[test]
fn a_failure_stops_no_other_run_and_none_that_goes_on() {
    let mut story = measured(1);
    story.submit_ending(2, 1, &[&[]], (0, SUBMIT_STOP_ON_ERROR));
    story.submit_ending(3, 1, &[&[], &[]], (0, 0));
    let got = leases(&mut story);
    let entries: Vec<(Got, Verdict, &[u8])> =
        got[..2].iter().map(|got| (*got, Verdict::Failed, &b"boom"[..])).collect();
    story.report(0, &entries);
    let said = story.turn();
    assert_eq!((cancelled(&said, 2).0.len(), cancelled(&said, 3).0.len()), (0, 0));
    story.report(0, &[(got[2], DONE, b"value")]);
    assert_eq!(run_all(&mut story), [(1, Outcome::Done, b"value".to_vec())]);
}

#[test]
fn a_wait_that_was_too_long_stops_a_run() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[]], &[]);
    assert_eq!(leases(&mut story).len(), 2);
    let zero = [0, 0];
    let mut blob = Vec::new();
    Message::Policy(Policy { queue_timeout_ms: 20, ..Policy::default() }).encode(&mut blob);
    let lens = [blob.len() as u32];
    let submit = Submit {
        run: 2,
        flags: SUBMIT_STOP_ON_ERROR,
        function_map: [1][..].into(),
        task_function: zero[..].into(),
        dep_counts: zero[..].into(),
        args: Blobs { lens: zero[..].into(), bytes: &[] },
        task_options: zero[..].into(),
        priority: [0][..].into(),
        worker: [headrace_wire::ANY_WORKER][..].into(),
        policies: Blobs { lens: lens[..].into(), bytes: &blob },
        keep: [0, 1][..].into(),
        ..Submit::default()
    };
    story.send(CLIENT, &Message::Submit(submit));
    story.turn();
    story.pass_ns(20 * MS);
    let said = story.turn();
    let failed = said.iter().any(|said| matches!(said, Said::Ended { run: 2, finished: true, .. }));
    assert!(failed, "both waited for too long: {said:?}");
}

// -- by hand, in every state -------------------------------------------------------------------------------------------

#[test]
fn what_waits_is_cancelled_at_once_and_what_needs_it_with_it() {
    let mut story = measured(1);
    story.submit(2, &[&[], &[0], &[1], &[]], &[0, 1, 2, 3]);
    story.turn();
    story.cancel(2, &[1]);
    let expected = vec![(1, CancelReason::User), (2, CancelReason::ParentCancelled)];
    assert_eq!(cancelled(&story.turn(), 2), (expected, false));
    story.cancel(2, &[1]);
    assert_eq!(cancelled(&story.turn(), 2).0, [], "once");
}

#[test]
fn what_has_ended_stays_what_it_is() {
    let mut story = measured(1);
    story.submit_as(2, 1, &[&[], &[]], &[0, 1]);
    let got = leases(&mut story);
    story.report(0, &[(got[0], DONE, b"value"), (got[1], Verdict::Failed, b"boom")]);
    story.turn();
    story.cancel(2, &[]);
    story.cancel(2, &[0, 1, 77]);
    assert_eq!(story.turn(), []);
}

#[test]
fn a_value_that_crosses_its_cancel_does_not_count() {
    let mut story = measured(1);
    story.submit_as(2, 1, &[&[]], &[0]);
    let got = leases(&mut story)[0];
    story.cancel(2, &[]);
    assert_eq!(cancelled(&story.turn(), 2), (vec![(0, CancelReason::User)], true));
    story.report(0, &[(got, DONE, b"late")]);
    assert!(!story.turn().iter().any(|said| matches!(said, Said::Ended { .. })));
    assert_eq!(story.broker.statistics().stale_reports, 1);
}
