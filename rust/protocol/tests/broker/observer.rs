//! Observers: what they are told, what they may not do, and that they leave nothing behind.

use crate::story::{CLIENT, Said, Story};
use crate::{DONE, run_all};
use headrace_protocol::broker::{Exit, PeerId};
use headrace_wire::{GoodbyeReason, Heartbeat, Hello, Message, PROTOCOL_VERSION, Put, Query, Role, Submit};

const OBSERVER: PeerId = PeerId(77);
const SECOND_NS: u64 = 1_000_000_000;

fn observed(workers: u32) -> Story {
    let mut story = Story::new(workers);
    story.hello(OBSERVER, Role::Observer, 0, 0);
    assert_eq!(story.turn(), []);
    story
}

fn ask(story: &mut Story) {
    story.send(OBSERVER, &Message::Query(Query { run: 7, number: 9 }));
}

/// Passes a minute in which the workers answer.
fn pass_minute(story: &mut Story, workers: u32) -> Vec<Said> {
    let mut said = Vec::new();
    for number in 0..60 {
        story.pass_ns(SECOND_NS);
        for worker in 0..workers {
            story.send(story.peer(worker), &Message::Heartbeat(Heartbeat { number, finished: 0 }));
        }
        said.extend(story.turn());
    }
    said
}

#[test]
fn an_observer_is_told_of_all_runs_also_of_those_that_are_over() {
    let mut story = observed(1);
    story.submit(1, &[&[], &[0], &[1]], &[2]);
    run_all(&mut story);
    story.hold(1, &[], &[], true);
    story.submit(2, &[&[], &[]], &[]);
    run_all(&mut story);
    story.submit(3, &[&[], &[0], &[0]], &[1, 2]);
    story.turn();
    story.submit_call(0);
    ask(&mut story);
    let state = story.last_state();
    assert_eq!((state.number, state.done, state.leased + state.ready + state.waiting), (9, 5, 4));
    assert_eq!(state.worker_finished, [5]);
}

#[test]
fn tasks_are_counted_where_they_stand() {
    let mut story = observed(1);
    story.submit(1, &[&[], &[], &[], &[], &[0, 1, 2, 3]], &[4]);
    let got = story.leases()[0].1[0];
    ask(&mut story);
    let state = story.last_state();
    assert_eq!((state.waiting, state.ready, state.leased, state.done), (1, 2, 2, 0));
    story.report(0, &[(got, DONE, b"")]);
    story.send(OBSERVER, &Message::Query(Query { run: 1, number: 10 }));
    let state = story.last_state();
    assert_eq!((state.number, state.waiting, state.ready, state.leased, state.done), (10, 1, 2, 1, 1));
}

#[test]
fn an_observer_may_run_another_python_but_no_other_headrace() {
    let mut story = Story::new(1);
    let hello = |role, version| Hello {
        protocol: PROTOCOL_VERSION,
        role,
        version,
        python: "3.99.1",
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: 1,
    };
    story.send(OBSERVER, &Message::Hello(hello(Role::Observer, "0.1.0")));
    assert_eq!(story.turn(), []);
    story.send(PeerId(78), &Message::Hello(hello(Role::Observer, "0.2.7")));
    let said = story.turn();
    let [Said::Goodbye { reason, text, .. }, Said::Cut { peer: PeerId(78) }] = &said[..] else { panic!("{said:?}") };
    assert_eq!(*reason, GoodbyeReason::VersionMismatch as u8);
    assert!(text.contains("0.1.0") && text.contains("0.2.7"), "{text}");
}

#[test]
fn an_observer_that_wants_more_than_to_look_is_cut_and_the_client_goes_on() {
    let forbidden =
        [Message::Submit(Submit::default()), Message::Put(Put::default()), Message::Heartbeat(Heartbeat::default())];
    for (number, message) in forbidden.iter().enumerate() {
        let mut story = observed(1);
        story.submit(1, &[&[]], &[0]);
        story.send(OBSERVER, message);
        let refused = story.turn().iter().any(|said| matches!(said, Said::Goodbye { peer: OBSERVER, .. }));
        assert_eq!(refused, number < 2, "{}", message.name());
        ask(&mut story);
        let said = story.turn();
        assert!(!said.iter().any(|said| matches!(said, Said::Goodbye { .. })), "a cut peer is not read: {said:?}");
        story.send(CLIENT, &Message::Query(Query { run: 1, number: 5 }));
        assert_eq!((story.last_state().number, story.last_state().leased), (5, 1));
    }
}

#[test]
fn a_role_that_is_not_known_is_refused_in_words() {
    let mut story = Story::new(1);
    let mut frame = Vec::new();
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Observer,
        version: "0.1.0",
        python: "3.11.9",
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: 1,
    };
    Message::Hello(hello).encode(&mut frame);
    assert_eq!(frame[3], Role::Observer as u8);
    frame[3] = 5;
    story.send_bytes(OBSERVER, frame);
    ask(&mut story);
    let said = story.turn();
    let [Said::Goodbye { peer: OBSERVER, reason, text }, Said::Cut { peer: OBSERVER }] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!(*reason, GoodbyeReason::ProtocolError as u8);
    assert!(text.ends_with("Hello.role is not a known role"), "{text}");
}

#[test]
fn an_observer_hears_no_lines_and_is_no_client() {
    let mut story = observed(1);
    story.broker.handle_output(0, 1, b"hello\n", None);
    assert_eq!(story.turn(), [Said::Log { text: b"hello\n".to_vec() }], "one line, for the client");
    story.broker.handle_disconnect(OBSERVER, 0);
    for _ in 0..2 {
        story.exit(0, Exit::Code(3), None);
        story.pass_ns(SECOND_NS);
        story.turn();
    }
    story.exit(0, Exit::Code(3), None);
    let said = story.turn();
    let told: Vec<&Said> = said.iter().filter(|said| matches!(said, Said::Goodbye { .. } | Said::Cut { .. })).collect();
    assert!(matches!(told[..], [Said::Goodbye { peer: CLIENT, .. }, Said::Cut { peer: CLIENT }]), "{said:?}");
}

#[test]
fn an_observer_that_says_goodbye_is_forgotten_at_once() {
    let mut story = observed(1);
    story.send(OBSERVER, &Message::Goodbye(headrace_wire::Goodbye { reason: 0, text: "" }));
    assert_eq!(story.turn(), [Said::Gone { peer: OBSERVER }]);
    assert_eq!(pass_minute(&mut story, 1), []);
}

#[test]
fn an_observer_that_goes_without_a_word_is_forgotten_after_a_minute() {
    let mut story = observed(1);
    for second in 0..120 {
        story.pass_ns(SECOND_NS);
        story.send(story.peer(0), &Message::Heartbeat(Heartbeat { number: second, finished: 0 }));
        if second % 50 == 49 {
            ask(&mut story);
        }
        assert_eq!(story.turn(), [], "after {second} s");
    }
    assert_eq!(pass_minute(&mut story, 1), [Said::Gone { peer: OBSERVER }]);
}

#[test]
fn a_peer_that_was_cut_is_forgotten_once_it_is_silent() {
    let mut story = Story::new(1);
    story.send_bytes(OBSERVER, b"\xff nonsense".to_vec());
    assert_eq!(story.turn().len(), 2);
    story.pass_ns(30 * SECOND_NS);
    story.send_bytes(OBSERVER, b"\xff nonsense".to_vec());
    assert_eq!(story.turn(), [], "it is still cut");
    assert_eq!(pass_minute(&mut story, 1), [Said::Gone { peer: OBSERVER }]);
}

#[test]
fn a_broker_that_shuts_down_tells_its_observers() {
    let mut story = observed(1);
    story.broker.shut_down();
    let told = |said: &Said| matches!(said, Said::Goodbye { peer: OBSERVER, reason, .. } if *reason == GoodbyeReason::Shutdown as u8);
    assert_eq!(story.turn().iter().filter(|said| told(said)).count(), 1);
}
