//! Shared memory: who is granted what, who is told of which segment, and when bytes may be used again.

use crate::story::{CLIENT, Got, Said, Story};
use headrace_protocol::broker::{Exit, PeerId, SegmentNews};
use headrace_wire::{
    Citation, GiveBack, Goodbye, GoodbyeReason, Lack, Message, Put, Released, Verdict, Want, Withdraw, write_citations,
};

fn want(story: &mut Story, peer: PeerId, bytes: u64) -> Vec<Said> {
    story.send(peer, &Message::Want(Want { bytes }));
    story.turn()
}

/// The segment that a worker (or the client) is granted for a block of so many bytes, and its size.
fn granted(story: &mut Story, worker: Option<u32>, bytes: u64) -> (u32, u64) {
    let peer = worker.map_or(CLIENT, |worker| story.peer(worker));
    match &want(story, peer, bytes)[..] {
        &[Said::Segment { worker: to, news: SegmentNews::Granted { segment, bytes } }] if to == worker => {
            (segment, bytes)
        }
        other => panic!("no grant: {other:?}"),
    }
}

fn citing(blocks: &[(u32, u64)]) -> Vec<u8> {
    let cited: Vec<Citation> =
        blocks.iter().map(|&(segment, offset)| Citation { segment, offset, bytes: 4_096 }).collect();
    let mut value = Vec::new();
    write_citations(&cited, &mut value);
    value
}

fn released(story: &mut Story, worker: u32, blocks: &[(u32, u32)]) {
    let (segment, offset): (Vec<u32>, Vec<u32>) = blocks.iter().copied().unzip();
    let released = Released { segment: (&segment).into(), offset: (&offset).into() };
    story.send(story.peer(worker), &Message::Released(released));
}

/// Task 0, pinned to worker 0, returns a block; task 1, pinned to worker 1, takes it. Gives the lease of task 1.
fn hand_over(story: &mut Story, segment: u32) -> Got {
    story.submit_with(1, &[&[], &[0]], &[1], &[], &[0, 1]);
    let [(0, ref first)] = story.leases()[..] else { panic!("task 0 is leased to worker 0") };
    story.report(0, &[(first[0], Verdict::Done, &citing(&[(segment, 64)]))]);
    let said = story.turn();
    let [
        Said::Segment { worker: Some(1), news: SegmentNews::Shared { segment: shared, .. } },
        Said::Lease { worker: 1, leases, values, .. },
    ] = &said[..]
    else {
        panic!("the segment goes before the lease that needs it: {said:?}")
    };
    assert_eq!((*shared, values), (segment, &vec![citing(&[(segment, 64)])]));
    leases[0]
}

#[test]
fn a_wish_is_granted_within_the_budget_and_refused_beyond_it() {
    let mut story = Story::with_store(1, 1 << 20);
    let (first, bytes) = granted(&mut story, Some(0), 10);
    assert_eq!((first, bytes), (1, 1 << 16), "a sixteenth of the budget");
    let (second, bytes) = granted(&mut story, Some(0), 700_000);
    assert_eq!((second, bytes), (2, 700_416), "whole pages");
    // What the owner does not use could help.
    let peer = story.peer(0);
    assert_eq!(want(&mut story, peer, 500_000), [Said::GiveBack { peer }]);
    story.send(
        peer,
        &Message::GiveBack(GiveBack { segment: [1, 2][..].into(), pages: [0, 1][..].into(), ..GiveBack::default() }),
    );
    let said = story.turn();
    let [
        Said::Segment { worker: Some(0), news: SegmentNews::Dropped { segment: 1 } },
        Said::CloseSegment { segment: 1, discard: 65_536 },
        Said::Segment { worker: Some(0), news: SegmentNews::Refused { text } },
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    assert!(text.contains("500000 bytes") && text.contains("696320 of 1048576"), "{text}");
    let (third, bytes) = granted(&mut story, Some(0), 1);
    assert_eq!((third, bytes), (3, 1 << 17), "the second segment of an owner is twice as large");
}

#[test]
fn a_wish_that_is_taken_back_is_answered_at_once_and_lets_others_pass() {
    let mut story = Story::with_store(2, 1 << 20);
    granted(&mut story, None, 900_000);
    let [first, second] = [story.peer(0), story.peer(1)];
    assert_eq!(want(&mut story, first, 500_000), [Said::GiveBack { peer: CLIENT }]);
    assert_eq!(want(&mut story, second, 40_000), [], "first come, first served");
    story.send(first, &Message::Withdraw(Withdraw { bytes: 500_000 }));
    let said = story.turn();
    let [
        Said::Segment { worker: Some(0), news: SegmentNews::Refused { .. } },
        Said::Segment { worker: Some(1), news: SegmentNews::Granted { .. } },
    ] = &said[..]
    else {
        panic!("{said:?}")
    };
    story.send(second, &Message::Withdraw(Withdraw { bytes: 40_000 }));
    assert_eq!(story.turn(), [], "it has been answered");
}

#[test]
fn a_client_that_does_not_listen_keeps_nobody_waiting_for_long() {
    let mut story = Story::with_store(1, 1 << 20);
    granted(&mut story, None, 1_000_000);
    let peer = story.peer(0);
    assert_eq!(want(&mut story, peer, 500_000), [Said::GiveBack { peer: CLIENT }]);
    story.pass_ns(500_000_000);
    assert_eq!(story.turn(), []);
    story.pass_ns(500_000_000);
    let said = story.turn();
    assert!(matches!(said[0], Said::Segment { worker: Some(0), news: SegmentNews::Refused { .. } }), "{said:?}");
}

#[test]
fn an_answer_to_an_earlier_question_does_not_say_that_nothing_is_left() {
    let mut story = Story::with_store(1, 1 << 20);
    let (segment, _) = granted(&mut story, None, 900_000);
    story.send(CLIENT, &Message::Put(Put { index: 0, value: &citing(&[(segment, 0)]) }));
    story.submit_with(1, &[&[headrace_wire::EXTERNAL]], &[], &[(0, 0)], &[]);
    let said = story.turn();
    let Some(Said::Lease { leases, .. }) = said.last() else { panic!("{said:?}") };
    story.hold(0, &[], &[0], false);
    story.report(0, &[(leases[0], Verdict::Done, b"")]);
    story.turn();
    let said = want(&mut story, CLIENT, 900_000);
    let holder = Said::GiveBack { peer: story.peer(0) };
    assert!(said.ends_with(&[Said::GiveBack { peer: CLIENT }, holder]), "the worker sees the block still: {said:?}");
    story.send(story.peer(0), &Message::GiveBack(GiveBack::default()));
    released(&mut story, 0, &[(segment, 0)]);
    let blocks = vec![(segment, 0, 1)];
    assert_eq!(story.turn(), [Said::Release { peer: CLIENT, blocks }, Said::GiveBack { peer: CLIENT }]);
    story.send(CLIENT, &Message::GiveBack(GiveBack::default()));
    assert_eq!(story.turn(), [], "it was asked again, now that the block is free");
    story.send(
        CLIENT,
        &Message::GiveBack(GiveBack { segment: [segment][..].into(), pages: [0][..].into(), ..GiveBack::default() }),
    );
    let said = story.turn();
    assert!(matches!(said.last(), Some(Said::Segment { worker: None, news: SegmentNews::Granted { .. } })), "{said:?}");
}

#[test]
fn a_segment_that_did_not_come_is_sent_again_to_whom_it_was_sent() {
    let mut story = Story::new(2);
    let (segment, bytes) = granted(&mut story, Some(0), 4_096);
    let [owner, holder] = [story.peer(0), story.peer(1)];
    story.send(holder, &Message::Lack(Lack { segment }));
    assert_eq!(story.turn(), [], "it was not told of it");
    hand_over(&mut story, segment);
    for (peer, segment) in [(holder, segment), (owner, segment), (holder, segment + 1)] {
        story.send(peer, &Message::Lack(Lack { segment }));
    }
    let news = SegmentNews::Shared { segment, bytes };
    assert_eq!(story.turn(), [Said::Segment { worker: Some(1), news }]);
}

#[test]
fn a_block_is_free_once_its_result_is_dead_and_its_holders_have_answered() {
    let mut story = Story::new(2);
    let (segment, _) = granted(&mut story, Some(0), 4_096);
    let got = hand_over(&mut story, segment);
    story.report(1, &[(got, Verdict::Done, b"end")]);
    let (owner, holder) = (story.peer(0), story.peer(1));
    let said = story.turn();
    assert!(said.contains(&Said::Release { peer: holder, blocks: vec![(segment, 1, 0)] }), "{said:?}");
    assert!(!said.iter().any(|said| matches!(said, Said::Release { peer, .. } if *peer == owner)), "{said:?}");
    released(&mut story, 1, &[(segment, 1)]);
    assert_eq!(story.turn(), [Said::Release { peer: owner, blocks: vec![(segment, 1, 1)] }]);
    assert_eq!(story.broker.store_statistics().blocks, 0);
}

#[test]
fn a_task_that_returns_its_input_keeps_the_block_alive() {
    let mut story = Story::new(2);
    let (segment, _) = granted(&mut story, Some(0), 4_096);
    let got = hand_over(&mut story, segment);
    story.report(1, &[(got, Verdict::Done, &citing(&[(segment, 64)]))]);
    let said = story.turn();
    assert!(!said.iter().any(|said| matches!(said, Said::Release { .. })), "the kept result cites it: {said:?}");
    assert!(said.contains(&Said::Segment {
        worker: None,
        news: SegmentNews::Shared { segment, bytes: story.broker.store_statistics().granted }
    }));
    story.hold(1, &[], &[], true);
    let holders: Vec<PeerId> = story
        .turn()
        .into_iter()
        .filter_map(|said| match said {
            Said::Release { peer, .. } => Some(peer),
            _ => None,
        })
        .collect();
    assert_eq!(holders, [CLIENT, story.peer(1)]);
}

#[test]
fn a_block_outlives_its_owner_and_its_segment_goes_with_it() {
    let mut story = Story::new(2);
    let (segment, _) = granted(&mut story, Some(0), 4_096);
    let got = hand_over(&mut story, segment);
    story.exit(0, Exit::Signal(9), None);
    let said = story.turn();
    assert!(!said.contains(&Said::CloseSegment { segment, discard: 0 }), "{said:?}");
    story.report(1, &[(got, Verdict::Done, b"end")]);
    story.turn();
    released(&mut story, 1, &[(segment, 1)]);
    let said = story.turn();
    assert!(said.contains(&Said::CloseSegment { segment, discard: 0 }), "{said:?}");
    assert_eq!(story.broker.store_statistics().granted, 0);
}

#[test]
fn a_dead_holder_sees_nothing() {
    let mut story = Story::new(2);
    let (segment, _) = granted(&mut story, Some(0), 4_096);
    let got = hand_over(&mut story, segment);
    story.report(1, &[(got, Verdict::Done, b"end")]);
    story.turn();
    story.exit(1, Exit::Signal(9), None);
    let owner = story.peer(0);
    let said = story.turn();
    assert!(said.contains(&Said::Release { peer: owner, blocks: vec![(segment, 1, 1)] }), "{said:?}");
}

#[test]
fn what_a_client_saw_is_not_used_again_after_it_has_left() {
    let closed = Goodbye { reason: GoodbyeReason::Closed as u8, text: "" };
    type Leave<'a> = &'a dyn Fn(&mut Story);
    let leave: [(&str, Leave<'_>); 3] = [
        ("by a word", &|story| story.send(CLIENT, &Message::Goodbye(closed.clone()))),
        ("without a word", &|story| story.broker.handle_disconnect(CLIENT, 0)),
        ("thrown out", &|story| story.send_bytes(CLIENT, vec![0xc1])),
    ];
    for (how, leave) in leave {
        let mut story = Story::new(2);
        let (segment, _) = granted(&mut story, Some(0), 4_096);
        story.submit_with(1, &[&[]], &[0], &[], &[0]);
        let [(0, ref leases)] = story.leases()[..] else { panic!("one lease") };
        story.report(0, &[(leases[0], Verdict::Done, &citing(&[(segment, 64)]))]);
        story.turn();
        leave(&mut story);
        let mut said = story.turn();
        // Not even with its owner do its pages go.
        story.exit(0, Exit::Signal(9), None);
        said.extend(story.turn());
        let gives_away = |said: &&Said| match said {
            Said::Release { peer, .. } => *peer != CLIENT,
            Said::CloseSegment { .. } => true,
            _ => false,
        };
        assert_eq!(said.iter().find(gives_away), None, "{how}");
        assert_eq!(story.broker.store_statistics().blocks, 1, "{how}");
    }
}

#[test]
fn what_a_client_puts_lives_as_long_as_it_is_held() {
    let mut story = Story::new(1);
    let (segment, _) = granted(&mut story, None, 4_096);
    story.send(CLIENT, &Message::Put(Put { index: 0, value: &citing(&[(segment, 0)]) }));
    story.submit_with(1, &[&[headrace_wire::EXTERNAL]], &[], &[(0, 0)], &[]);
    let said = story.turn();
    let [Said::Segment { worker: Some(0), .. }, Said::Lease { leases, .. }] = &said[..] else { panic!("{said:?}") };
    let lease = leases[0];
    story.hold(0, &[], &[0], false);
    assert_eq!(story.turn(), [], "a task needs it");
    story.report(0, &[(lease, Verdict::Done, b"")]);
    let holder = story.peer(0);
    let said = story.turn();
    assert!(said.contains(&Said::Release { peer: holder, blocks: vec![(segment, 0, 0)] }), "{said:?}");
    released(&mut story, 0, &[(segment, 0)]);
    assert_eq!(story.turn(), [Said::Release { peer: CLIENT, blocks: vec![(segment, 0, 1)] }]);
}

#[test]
fn a_stale_report_leaves_no_block() {
    let mut story = Story::new(1);
    let (segment, _) = granted(&mut story, Some(0), 4_096);
    story.submit(1, &[&[]], &[0]);
    let [(0, ref leases)] = story.leases()[..] else { panic!("one lease") };
    let mut stale = leases[0];
    stale.attempt += 1;
    story.report(0, &[(stale, Verdict::Done, &citing(&[(segment, 0)]))]);
    let peer = story.peer(0);
    assert_eq!(story.turn(), [Said::Release { peer, blocks: vec![(segment, 0, 1)] }]);
}

#[test]
fn only_who_waits_for_memory_makes_others_look_for_garbage() {
    let mut story = Story::with_store(2, 1 << 20);
    let (segment, _) = granted(&mut story, Some(0), 900_000);
    hand_over(&mut story, segment);
    story.cancel(1, &[]);
    story.turn();
    // Worker 1 owns nothing, and it sees a block that is dead.
    let (owner, holder) = (story.peer(0), story.peer(1));
    let said = want(&mut story, owner, 500_000);
    assert!(said.ends_with(&[Said::GiveBack { peer: owner }, Said::GiveBack { peer: holder }]), "{said:?}");
    story.send(owner, &Message::GiveBack(GiveBack::default()));
    assert_eq!(story.turn(), [], "the other one looks for garbage");
    story.send(holder, &Message::GiveBack(GiveBack::default()));
    let mut told = Vec::new();
    for _ in 0..14 {
        story.pass_ns(1_000_000_000);
        for said in story.turn() {
            let is_question = matches!(said, Said::GiveBack { .. } | Said::Press { .. } | Said::Cool { .. });
            if is_question {
                [owner, holder].into_iter().for_each(|peer| story.send(peer, &Message::GiveBack(GiveBack::default())));
            }
            if is_question || matches!(said, Said::Segment { news: SegmentNews::Refused { .. }, .. }) {
                told.push(said);
            }
        }
        [owner, holder]
            .into_iter()
            .for_each(|peer| story.send(peer, &Message::Heartbeat(headrace_wire::Heartbeat::default())));
    }
    let [Said::Press { peer: first }, Said::Press { peer: second }, Said::Segment { .. }, ref rest @ ..] = told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((first, second), (owner, holder));
    assert!(!rest.is_empty() && rest.iter().all(|said| *said == Said::Cool { peer: owner }), "{rest:?}");
}

#[test]
fn unused_segments_go_back_after_a_rest() {
    let mut story = Story::new(1);
    granted(&mut story, Some(0), 4_096);
    let peer = story.peer(0);
    let mut asked = 0;
    for _ in 0..20 {
        story.pass_ns(1_000_000_000);
        asked += story.turn().iter().filter(|said| **said == Said::Cool { peer }).count();
        story.send(peer, &Message::Heartbeat(headrace_wire::Heartbeat::default()));
    }
    assert_eq!(asked, 1, "it does not answer");
}

/// Passes so many seconds, in each of which a worker answers what it is asked, after `each`. When it was asked to cool.
fn seconds_of_cooling(story: &mut Story, seconds: u64, mut each: impl FnMut(&mut Story)) -> Vec<u64> {
    let peer = story.peer(0);
    let mut asked = Vec::new();
    for second in 0..seconds {
        each(story);
        story.pass_ns(1_000_000_000);
        if story.turn().contains(&Said::Cool { peer }) {
            asked.push(second);
            story.send(peer, &Message::GiveBack(GiveBack::default()));
        }
        story.send(peer, &Message::Heartbeat(headrace_wire::Heartbeat::default()));
    }
    asked
}

#[test]
fn what_is_freed_after_a_rest_goes_back_too() {
    let mut story = Story::new(1);
    granted(&mut story, Some(0), 4_096);
    assert_eq!(seconds_of_cooling(&mut story, 20, |_| {}), [5, 10, 15]);
}

/// A worker has a segment of 300 MB in a budget of 1 GiB; each second a result comes that cites so much, and goes.
fn seconds_of_use(bytes: u64) -> Vec<u64> {
    let mut story = Story::with_store(1, 1 << 30);
    let (segment, _) = granted(&mut story, Some(0), 300_000_000);
    let mut run = 0;
    seconds_of_cooling(&mut story, 20, |story| {
        run += 1;
        story.submit(run, &[&[]], &[0]);
        let [(0, ref leases)] = story.leases()[..] else { panic!("one lease") };
        let mut value = Vec::new();
        write_citations(&[Citation { segment, offset: 0, bytes }], &mut value);
        story.report(0, &[(leases[0], Verdict::Done, &value)]);
        story.turn();
        story.hold(run, &[], &[], true);
        story.turn();
        let (segment, offset) = ([segment], [0]);
        let released = Released { segment: segment[..].into(), offset: offset[..].into() };
        story.send(CLIENT, &Message::Released(released));
    })
}

#[test]
fn memory_beyond_a_limit_goes_back_if_it_is_not_needed_for_a_while() {
    assert_eq!(seconds_of_use(4_096), [5, 10, 15]);
    assert_eq!(seconds_of_use(250_000_000), [0; 0], "each time that it was looked at it was free, and yet it is used");
}
