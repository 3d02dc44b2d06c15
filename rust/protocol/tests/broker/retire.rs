//! Workers that leave after so many tasks, and what they leave behind.

use headrace_protocol::broker::Exit;
use headrace_wire::{GoodbyeReason, LEASE_HOLD, LEASE_REPORT, Message, Outcome, Verdict};

use crate::story::{Got, Said, Story};

const DONE: Verdict = Verdict::Done;

fn story(workers: u32, tasks_max: u64) -> Story {
    Story::with(workers, |config| config.tasks_max = tasks_max)
}

/// Everything that was leased, and the rest of what was said.
fn turn(story: &mut Story) -> (Vec<Got>, Vec<Said>) {
    let (mut leases, mut rest) = (Vec::new(), Vec::new());
    for said in story.turn() {
        match said {
            Said::Lease { leases: more, .. } => leases.extend(more),
            other => rest.push(other),
        }
    }
    (leases, rest)
}

fn spawned(said: &[Said]) -> usize {
    said.iter().filter(|said| matches!(said, Said::Spawn { .. })).count()
}

fn dismissed(said: &[Said]) -> bool {
    said.iter().any(|said| matches!(said, Said::Goodbye { reason, .. } if *reason == GoodbyeReason::Closed as u8))
}

#[test]
fn a_worker_leaves_after_its_share_and_its_successor_goes_on() {
    let mut story = story(1, 3);
    let deps: Vec<&[u32]> = vec![&[]; 5];
    story.submit(1, &deps, &[0, 1, 2, 3, 4]);
    let mut ran = Vec::new();
    while ran.len() < 3 {
        let (leases, said) = turn(&mut story);
        assert!(!dismissed(&said));
        for got in leases {
            ran.push(got.index);
            story.report(0, &[(got, DONE, b"x")]);
        }
    }
    assert_eq!(ran, [0, 1, 2], "not one more");
    let waiting = story.connect_successor(0);
    let (leases, said) = turn(&mut story);
    assert!(leases.is_empty() && dismissed(&said), "{said:?}");
    assert_eq!(turn(&mut story), (vec![], vec![]), "the successor waits");
    story.exit_of(0, 1, Exit::Code(0), None);
    story.become_peer(0, waiting);
    let (leases, said) = turn(&mut story);
    assert_eq!(spawned(&said), 0, "{said:?}");
    assert_eq!(leases.len(), 2);
    let statistics = story.broker.statistics();
    assert_eq!((statistics.workers_retired, statistics.worker_deaths), (1, 0));
}

#[test]
fn the_successor_starts_with_the_last_batch_and_only_once() {
    let mut story = story(1, 2);
    let deps: Vec<&[u32]> = vec![&[]; 4];
    story.submit(1, &deps, &[]);
    let (leases, said) = turn(&mut story);
    assert_eq!((leases.len(), spawned(&said)), (2, 1));
    story.report(0, &[(leases[0], DONE, b"")]);
    assert_eq!(turn(&mut story), (vec![], vec![]));
}

#[test]
fn leases_that_come_back_do_not_count() {
    let mut story = story(1, 2);
    let deps: Vec<&[u32]> = vec![&[]; 4];
    story.submit(1, &deps, &[]);
    let (leases, _) = turn(&mut story);
    story.report(0, &[(leases[1], Verdict::Returned, b"")]);
    let (again, said) = turn(&mut story);
    assert_eq!((again.len(), dismissed(&said)), (1, false));
}

#[test]
fn what_only_a_leaving_worker_has_is_fetched_before_its_goodbye() {
    let mut story = story(1, 7);
    story.submit(1, &[&[]], &[]);
    let (leases, _) = turn(&mut story);
    story.report(0, &[(leases[0], DONE, b"")]);
    // A chain of a function that is measured now: one batch, and values that stay with the worker.
    story.submit_as(2, 1, &[&[], &[0], &[1], &[2], &[3], &[4]], &[5]);
    let (leases, _) = turn(&mut story);
    assert_eq!(leases.len(), 6);
    assert_eq!(leases[2].flags & (LEASE_REPORT | LEASE_HOLD), LEASE_HOLD);
    for got in &leases[..5] {
        story.report(0, &[(*got, Verdict::DoneHeld, b"")]);
        if got.index == 2 {
            // Late, but its consumer has not ended.
            story.hold(2, &[2], &[], false);
        }
    }
    story.report(0, &[(leases[5], DONE, b"end")]);
    let said = story.turn();
    let told: Vec<&Said> = said
        .iter()
        .filter(|said| matches!(said, Said::Recall { .. } | Said::Cool { .. } | Said::Goodbye { .. }))
        .collect();
    let [Said::Recall { tasks, fetch, .. }, Said::Cool { .. }, Said::Goodbye { .. }] = told[..] else {
        panic!("{said:?}")
    };
    assert_eq!((tasks, fetch), (&vec![], &vec![leases[2].task]));
    story.report_timed(0, &[(leases[2], Verdict::Value, b"held")], &[]);
    let waiting = story.connect_successor(0);
    story.exit_of(0, 1, Exit::Code(0), None);
    story.become_peer(0, waiting);
    // Another run may cite it.
    story.submit_with(3, &[&[headrace_wire::EXTERNAL]], &[0], &[(2, leases[2].index)], &[]);
    let values: Vec<Vec<u8>> = story
        .turn()
        .into_iter()
        .filter_map(|said| match said {
            Said::Lease { values, .. } => Some(values),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(values, [b"held"]);
}

#[test]
fn a_worker_that_dies_before_its_share_is_done_is_no_retired_one() {
    let mut story = story(1, 1);
    story.submit(1, &[&[]], &[0]);
    let (leases, _) = turn(&mut story);
    let waiting = story.connect_successor(0);
    story.exit_of(0, 1, Exit::Signal(11), Some((leases[0].task, leases[0].attempt)));
    story.become_peer(0, waiting);
    let (leases, _) = turn(&mut story);
    assert_eq!(leases.len(), 1, "its successor is there already");
    story.report(0, &[(leases[0], DONE, b"x")]);
    let said = story.turn();
    assert!(said.iter().any(|said| matches!(said, Said::Ended { endings, .. } if endings[0].1 == Outcome::Done)));
    let statistics = story.broker.statistics();
    assert_eq!((statistics.workers_retired, statistics.worker_deaths, statistics.blamed_deaths), (0, 1, 1));
}

#[test]
fn a_successor_that_dies_is_not_missed_before_the_place_is_free() {
    let mut story = story(1, 1);
    story.submit(1, &[&[], &[]], &[]);
    let (leases, _) = turn(&mut story);
    let waiting = story.connect_successor(0);
    story.exit_of(0, 2, Exit::Signal(9), None);
    let (_, said) = turn(&mut story);
    assert_eq!(said, [Said::Gone { peer: waiting }]);
    story.report(0, &[(leases[0], DONE, b"")]);
    assert!(dismissed(&turn(&mut story).1));
    story.exit_of(0, 1, Exit::Code(0), None);
    assert_eq!(spawned(&turn(&mut story).1), 1);
    story.connect_worker(0);
    assert_eq!(turn(&mut story).0.len(), 1);
}

#[test]
fn a_worker_that_does_not_leave_is_killed() {
    let mut story = story(1, 1);
    story.submit(1, &[&[]], &[0]);
    let (leases, _) = turn(&mut story);
    story.report(0, &[(leases[0], DONE, b"x")]);
    assert!(dismissed(&story.turn()));
    story.pass_ns(1_000_000_000);
    assert_eq!(story.turn(), [Said::Kill { worker: 0 }]);
    story.pass_ns(1_000_000_000);
    assert_eq!(story.turn(), [], "once");
    story.exit_of(0, 1, Exit::Signal(9), None);
    assert_eq!(story.broker.statistics().workers_retired, 1);
}

#[test]
fn a_successor_that_speaks_before_it_is_welcome_is_cut() {
    let mut story = story(1, 1);
    story.submit(1, &[&[], &[]], &[]);
    let (leases, _) = turn(&mut story);
    let waiting = story.connect_successor(0);
    story.send(waiting, &Message::Report(headrace_wire::Report::default()));
    let said = story.turn();
    assert!(matches!(said[..], [Said::Goodbye { .. }, Said::Cut { .. }]), "{said:?}");
    story.report(0, &[(leases[0], DONE, b"")]);
    story.turn();
    story.exit_of(0, 1, Exit::Code(0), None);
    assert_eq!(spawned(&story.turn()), 1, "the place is filled by another");
}

#[test]
fn memory_that_was_granted_to_a_process_is_not_its_successors() {
    let mut story = story(1, 1);
    story.submit(1, &[&[]], &[]);
    let (leases, _) = turn(&mut story);
    let waiting = story.connect_successor(0);
    story.send(story.peer(0), &Message::Want(headrace_wire::Want { bytes: 1_000 }));
    story.exit_of(0, 1, Exit::Signal(9), Some((leases[0].task, leases[0].attempt)));
    story.become_peer(0, waiting);
    let (leases, said) = turn(&mut story);
    assert_eq!(leases.len(), 1);
    assert!(!said.iter().any(|said| matches!(said, Said::Segment { .. })), "{said:?}");
}
