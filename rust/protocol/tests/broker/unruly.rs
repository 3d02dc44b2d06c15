//! Peers that break the protocol, in every role: they are cut with a reason, the work goes on, and little is kept of them.

use crate::story::{CLIENT, Got, Said, Story};
use crate::{DONE, run_all};
use headrace_protocol::broker::{Exit, PeerId};
use headrace_wire::{
    Citation, EXTERNAL, Heartbeat, LEASE_REPORT, Message, Outcome, Put, Query, Results, Role, Verdict, Want,
    write_citations,
};

const STRANGER: PeerId = PeerId(77);

/// The text with which a peer was cut; it heard nothing else.
fn refusal(said: &[Said], cut: PeerId) -> &str {
    match said {
        [Said::Goodbye { peer, text, .. }, rest @ ..] if *peer == cut && rest.contains(&Said::Cut { peer: cut }) => {
            text
        }
        _ => panic!("{cut:?} was not cut: {said:?}"),
    }
}

fn leases_in(said: &[Said]) -> Vec<Got> {
    let leases = said.iter().filter_map(|said| match said {
        Said::Lease { leases, .. } => Some(leases.clone()),
        _ => None,
    });
    leases.flatten().collect()
}

// -- workers -----------------------------------------------------------------------------------------------------------

#[test]
fn a_worker_that_breaks_the_protocol_is_told_why_killed_and_told_nothing_more() {
    let mut story = Story::new(2);
    story.submit(1, &[&[], &[], &[], &[]], &[0, 1, 2, 3]);
    assert_eq!(story.leases().len(), 4);
    let unruly = story.peer(0);
    story.send(unruly, &Message::Results(Results::default()));
    let said = story.turn();
    assert_eq!(refusal(&said, unruly), "a message that this peer may not send");
    assert_eq!(said[1..], [Said::Kill { worker: 0 }, Said::Cut { peer: unruly }]);

    story.submit(2, &[&[], &[]], &[0, 1]);
    for second in 1..20 {
        story.pass_ns(1_000_000_000);
        story.send(story.peer(1), &Message::Heartbeat(Heartbeat { number: second, finished: 0 }));
        let said = story.turn();
        assert!(said.iter().all(|said| !matches!(said, Said::Lease { worker: 0, .. } | Said::Kill { .. })), "{said:?}");
    }
    story.exit(0, Exit::Signal(9), None);
    assert_eq!(story.turn()[0], Said::Gone { peer: unruly });
    story.pass_ns(0);
    story.turn();
    story.connect_worker(0);
    assert_eq!(leases_in(&story.turn()).len(), 2, "what it held is leased once more");
}

#[test]
fn a_worker_that_keeps_a_value_to_itself_is_killed_and_the_value_made_again() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    let got = story.leases()[0].1[0];
    assert_eq!(got.flags & LEASE_REPORT, LEASE_REPORT);
    story.report(0, &[(got, Verdict::DoneHeld, b"")]);
    let said = story.turn();
    assert_eq!(refusal(&said, story.peer(0)), "a value that was to be reported did not come");
    story.exit(0, Exit::Signal(9), None);
    story.pass_ns(0);
    story.turn();
    story.connect_worker(0);
    assert_eq!(run_all(&mut story), [(0, Outcome::Done, b"0".to_vec())]);
}

#[test]
fn a_value_that_is_wanted_after_its_lease_was_made_is_made_once_more() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[]);
    let got = story.leases()[0].1[0];
    assert_eq!(got.flags, 0, "nobody wants it");
    story.submit_with(2, &[&[EXTERNAL]], &[0], &[(1, 0)], &[]);
    story.report(0, &[(got, Verdict::DoneHeld, b"")]);
    let again = leases_in(&story.turn());
    let tasks: Vec<u32> = again.iter().map(|lease| lease.index).collect();
    assert_eq!((tasks, again[0].task), (vec![0, 0], got.task), "and then who reads it");
    story.report(0, &[(again[0], DONE, b"7"), (again[1], DONE, b"8")]);
    let ended = Said::Ended { run: 2, finished: true, endings: vec![(0, Outcome::Done, b"8".to_vec())] };
    assert!(story.turn().contains(&ended));
}

#[test]
fn a_value_that_cites_memory_beyond_any_segment_ends_its_worker() {
    for (segment, offset, bytes) in [(9, 0, 64), (1, 64, 1 << 40), (1, 64, u64::MAX), (1, u64::MAX - 63, 64)] {
        let mut story = Story::new(1);
        story.send(story.peer(0), &Message::Want(Want { bytes: 4_096 }));
        story.submit(1, &[&[]], &[0]);
        let got = story.leases()[0].1[0];
        let mut value = Vec::new();
        write_citations(&[Citation { segment, offset, bytes }], &mut value);
        story.report(0, &[(got, DONE, &value)]);
        assert_eq!(refusal(&story.turn(), story.peer(0)), "a value cites shared memory that does not exist");
    }
}

#[test]
fn a_worker_that_wishes_for_memory_without_an_end_is_killed() {
    let mut story = Story::with_store(1, 1 << 20);
    for _ in 0..1_030 {
        story.send(story.peer(0), &Message::Want(Want { bytes: 1 << 20 }));
    }
    let said = story.turn();
    let told = said.iter().find_map(|said| match said {
        Said::Goodbye { text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(told, Some("more than 1024 open wishes for memory"));
    assert!(said.contains(&Said::Kill { worker: 0 }));
}

// -- clients -----------------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_leaves_lets_go_of_every_ref() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    run_all(&mut story);
    story.hold(1, &[0, 0, 0], &[], false);
    story.broker.handle_disconnect(CLIENT, 0);
    assert!(story.turn().contains(&Said::Gone { peer: CLIENT }));
    assert_eq!((story.broker.statistics().tasks_held, story.broker.statistics().bytes_held), (0, 0));
}

#[test]
fn a_client_that_is_cut_leaves_nothing_behind_and_hears_nothing() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[0]], &[0, 1]);
    story.hold(1, &[1], &[], false);
    let leases: Vec<Got> = story.leases().into_iter().flat_map(|(_, leases)| leases).collect();
    story.send_bytes(CLIENT, b"\xc1".to_vec());
    assert!(refusal(&story.turn(), CLIENT).starts_with("a frame could not be decoded"));
    story.report(0, &[(leases[0], DONE, b"0")]);
    story.turn();
    assert_eq!((story.broker.statistics().tasks_held, story.broker.statistics().bytes_held), (0, 0));
    assert_eq!(story.turn(), []);
}

#[test]
fn a_broker_that_serves_one_client_takes_no_other() {
    let mut story = Story::new(1);
    story.broker.live_with(CLIENT, false);
    story.hello(STRANGER, Role::Client, 0, 0);
    let text = "this broker serves the process that it runs in, and no other client";
    assert_eq!(refusal(&story.turn(), STRANGER), text);
    story.submit(1, &[&[]], &[0]);
    assert_eq!(story.leases().len(), 1);
}

// -- strangers ---------------------------------------------------------------------------------------------------------

#[test]
fn a_stranger_is_not_read_beyond_a_few_kibibytes() {
    let mut story = Story::new(1);
    for (peer, greets) in [(STRANGER, false), (PeerId(78), true)] {
        if greets {
            story.hello(peer, Role::Observer, 0, 0);
            story.turn();
        }
        story.send(peer, &Message::Put(Put { index: 0, value: &[0; 5_000] }));
        assert!(refusal(&story.turn(), peer).ends_with("bytes in a frame, where at most 4096 are read"));
    }
}

#[test]
fn strangers_in_any_number_leave_little_behind() {
    let mut story = Story::new(1);
    let workers_and_client = story.broker.statistics().peers;
    for number in 0..5_000 {
        let peer = PeerId(1_000 + number);
        story.send_bytes(peer, b"\xff nonsense".to_vec());
        let said = story.turn();
        assert!(refusal(&said, peer).starts_with("a frame could not be decoded"));
        let gone = number.checked_sub(1_024).map(|oldest| Said::Gone { peer: PeerId(1_000 + oldest) });
        assert_eq!(said.last().filter(|said| matches!(said, Said::Gone { .. })), gone.as_ref());
    }
    assert_eq!(story.broker.statistics().peers, workers_and_client + 1_024);
}

#[test]
fn observers_in_any_number_are_no_more_than_some() {
    let mut story = Story::new(1);
    for number in 0..2_000 {
        story.hello(PeerId(1_000 + number), Role::Observer, 0, 0);
        let said = story.turn();
        match number {
            0..256 => assert_eq!(said, []),
            _ => assert_eq!(refusal(&said, PeerId(1_000 + number)), "256 observers are here already"),
        }
    }
    story.send(PeerId(1_000), &Message::Query(Query { run: 0, number: 3 }));
    assert_eq!(story.last_state().number, 3, "who was there first is served");
}

#[test]
fn a_peer_that_does_not_read_is_cut() {
    let mut story = Story::new(1);
    story.hello(STRANGER, Role::Observer, 0, 0);
    story.turn();
    story.broker.handle_congestion(STRANGER, 0);
    story.broker.handle_congestion(STRANGER, 0);
    let said = story.turn();
    assert_eq!(refusal(&said, STRANGER), "it does not read what it is sent");
    assert_eq!(said.len(), 2, "once");
}
