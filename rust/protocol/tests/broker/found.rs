//! What the simulator found, as stories.

use super::story::{CLIENT, Got, Said, Story};
use super::{DONE, run_all};
use headrace_wire::{
    Blobs, BlobsBuf, Citation, EXTERNAL, GiveBack, Message, Outcome, Put, SUBMIT_MORE, Submit, Verdict, Want,
    write_citations,
};

/// A broker that knows how short calls are.
fn measured(workers: u32) -> Story {
    let mut story = Story::new(workers);
    story.submit(1, &[&[]], &[]);
    run_all(&mut story);
    story
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
    story.exit(worker, headrace_protocol::broker::Exit::Signal(9), None);
    let again = story.leases();
    assert_eq!(again[0].1.iter().map(|got| got.index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn segments_go_back_that_came_out_of_use_after_a_rest() {
    let mut story = Story::new(1);
    story.send(CLIENT, &Message::Want(Want { bytes: 4_096 }));
    story.turn();
    let mut value = Vec::new();
    write_citations(&[Citation { segment: 1, offset: 0, bytes: 64 }], &mut value);
    story.send(CLIENT, &Message::Put(Put { index: 0, value: &value }));
    let mut rest = |story: &mut Story| {
        let mut asked = 0;
        for _ in 0..20 {
            story.pass_ns(1_000_000_000);
            asked += story.turn().iter().filter(|said| **said == Said::Cool { peer: CLIENT }).count();
            story.send(story.peer(0), &Message::Heartbeat(headrace_wire::Heartbeat::default()));
        }
        story.send(CLIENT, &Message::GiveBack(GiveBack::default()));
        asked
    };
    assert_eq!(rest(&mut story), 1, "there is none to return yet");
    story.hold(0, &[], &[0], false);
    assert_eq!(rest(&mut story), 1, "now there is");
}

#[test]
fn a_worker_that_cannot_be_reached_is_killed_and_its_work_goes_elsewhere() {
    let mut story = measured(2);
    story.submit_as(2, 1, &[&[]], &[0]);
    let (worker, _) = story.leases().remove(0);
    story.broker.handle_disconnect(story.peer(worker), story.now_ns);
    assert_eq!(story.turn(), [Said::Kill { worker }]);
    story.exit(worker, headrace_protocol::broker::Exit::Signal(9), None);
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
    story.exit(worker, headrace_protocol::broker::Exit::Signal(9), None);
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
