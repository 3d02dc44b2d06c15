//! The machine against frames of the real codec, on a clock that the test turns.

mod nested;
mod policies;
mod story;

use headrace_wire::{Forget, GoodbyeReason, Heartbeat, LEASE_HOLD, LEASE_REPORT, Message, Revoke};

use super::*;
use story::{Batch, F, G, Said, Story, encoded, identity};

#[test]
fn hello_names_the_worker() {
    let frame = Worker::new(&identity()).poll_frame().unwrap();
    let Ok(Message::Hello(hello)) = Message::decode(&frame) else { panic!("not a HELLO") };
    assert_eq!((hello.role, hello.worker, hello.incarnation, hello.pid), (Role::Worker, 3, 9, 77));
    assert_eq!((hello.version, hello.python, hello.protocol), ("0.1.0", "3.11.7", PROTOCOL_VERSION));
}

#[test]
fn a_batch_leaves_as_one_report_once_its_last_lease_is_done() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).lease(2, F, LEASE_REPORT, &[]).frame());
    story.hear(&Batch::default().lease(3, F, LEASE_REPORT, &[]).frame());
    assert_eq!(story.starts(), Some(1));
    assert_eq!(story.start.args(), b"args of 1");
    assert!(!story.returns(b"one", 50).worker.flush_due());
    assert_eq!(story.starts(), Some(2));
    assert!(story.returns(b"two", 50).worker.flush_due(), "although the next frame waits");
    let said = story.flush().says();
    let done = |task, value: &[u8]| (Verdict::Done, task, task + 100, value.to_vec());
    assert_eq!(said.entries, [done(1, b"one"), done(2, b"two")]);
    assert_eq!(said.timed, [(F, 2, 100)]);
    assert_eq!(story.starts(), Some(3));
    story.says_nothing_else();
}

#[test]
fn results_pass_from_task_to_task_and_stay_until_they_are_dead() {
    let mut story = Story::new();
    let long = vec![7; 1000];
    story.hear(
        &Batch::knowing(&[F]).value(9, b"far").lease(1, F, LEASE_HOLD, &[9]).lease(2, F, LEASE_REPORT, &[1, 9]).frame(),
    );
    assert_eq!(story.starts(), Some(1));
    assert_eq!(story.start.inputs[0].bytes(), b"far");
    story.returns(&long, 1);
    assert_eq!(story.starts(), Some(2));
    assert_eq!((story.start.inputs[0].bytes(), story.start.inputs[1].bytes()), (&long[..], &b"far"[..]));
    let said = story.returns(b"end", 1).flush().says();
    assert_eq!(said.entries[0], (Verdict::DoneHeld, 1, 101, vec![]));
    assert_eq!(said.entries[1], (Verdict::Done, 2, 102, b"end".to_vec()));
    assert_eq!(story.worker.statistics().values, 2, "a result that is only reported is not held");
    story.hear(&encoded(&Message::Forget(Forget { dead: (&[1][..]).into() })));
    story.hear(&Batch::default().dead(9).frame());
    assert_eq!(story.worker.statistics().values, 0);
}

#[test]
fn a_result_that_nobody_wants_is_done_and_empty() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, 0, &[]).frame());
    story.starts();
    assert_eq!(story.returns(b"unwanted", 1).flush().says().entries, [(Verdict::Done, 1, 101, vec![])]);
    assert_eq!(story.worker.statistics().values, 0);
}

#[test]
fn w2_a_recall_takes_what_has_not_started_and_what_hangs_on_it() {
    let mut story = Story::new();
    story.hear(
        &Batch::knowing(&[F])
            .lease(1, F, LEASE_HOLD, &[])
            .lease(2, F, LEASE_HOLD, &[1])
            .lease(3, F, LEASE_HOLD, &[])
            .lease(4, F, LEASE_REPORT, &[3])
            .frame(),
    );
    story.hear(&Batch::default().lease(5, F, LEASE_REPORT, &[4]).lease(6, F, LEASE_REPORT, &[2]).frame());
    assert_eq!(story.starts(), Some(1));
    story.recall(&[1, 3], &[]);
    let returned = |task| (Verdict::Returned, task, task + 100, vec![]);
    assert!(story.worker.flush_due());
    assert_eq!(story.flush().says().entries, [returned(3), returned(4), returned(5)]);
    story.returns(b"one", 1);
    assert_eq!(story.starts(), Some(2));
    story.returns(b"two", 1);
    assert_eq!(story.starts(), Some(6));
    story.returns(b"six", 1);
    assert_eq!(story.starts(), None);
    assert_eq!(story.flush().says().entries.len(), 3);
    story.says_nothing_else();
}

#[test]
fn w4_values_stand_before_what_is_returned() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_HOLD, &[]).lease(2, F, LEASE_REPORT, &[1]).frame());
    story.starts();
    story.returns(b"one", 1);
    story.recall(&[2], &[1, 77]);
    let said = story.flush().says().entries;
    assert_eq!(said[0], (Verdict::DoneHeld, 1, 101, vec![]));
    assert_eq!(said[1], (Verdict::Value, 1, 101, b"one".to_vec()));
    assert_eq!(said[2], (Verdict::Lost, 77, 0, vec![]));
    assert_eq!(said[3], (Verdict::Returned, 2, 102, vec![]));
    assert_eq!(said.len(), 4);
}

#[test]
fn a_recall_of_nothing_that_is_here_is_answered_too() {
    let mut story = Story::new();
    assert_eq!(story.recall(&[8], &[]).flush().says(), Said::default());
}

#[test]
fn a_lease_behind_a_later_attempt_of_a_returned_task_stays() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_HOLD, &[]).frame());
    let mut again = Batch::default().lease(1, F, LEASE_HOLD, &[]).lease(2, F, LEASE_REPORT, &[1]);
    again.attempt[0] = 500;
    story.hear(&again.frame());
    story.recall(&[1], &[]);
    assert_eq!(story.flush().says().entries, [(Verdict::Returned, 1, 101, vec![])]);
    assert_eq!(story.starts(), Some(1));
    story.returns(b"one", 1);
    assert_eq!(story.starts(), Some(2));
}

#[test]
fn w3_a_lease_whose_input_failed_here_is_returned() {
    let mut story = Story::new();
    story.hear(
        &Batch::knowing(&[F])
            .value(1, b"of an earlier attempt")
            .lease(1, F, LEASE_HOLD, &[])
            .lease(2, F, LEASE_HOLD, &[1])
            .lease(3, F, LEASE_HOLD, &[2])
            .lease(4, F, LEASE_REPORT, &[])
            .frame(),
    );
    story.starts();
    story.worker.finish(Ending::Raised(b"record"));
    assert_eq!(story.starts(), Some(4));
    let said = story.returns(b"four", 1).flush().says().entries;
    assert_eq!(said[0], (Verdict::Failed, 1, 101, b"record".to_vec()));
    assert_eq!(said[1], (Verdict::Returned, 2, 102, vec![]));
    assert_eq!(said[2], (Verdict::Returned, 3, 103, vec![]));
    assert_eq!(said[3].0, Verdict::Done);
}

#[test]
fn w1_a_revoked_lease_is_cancelled_and_the_running_one_goes_on() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).lease(2, F, LEASE_REPORT, &[]).frame());
    story.starts();
    story.hear(&encoded(&Message::Revoke(Revoke {
        task: (&[1, 2, 2][..]).into(),
        attempt: (&[101, 102, 7][..]).into(),
    })));
    assert_eq!(story.flush().says().entries, [(Verdict::Cancelled, 2, 102, vec![])]);
    story.worker.finish(Ending::Interrupted);
    assert!(story.worker.flush_due(), "nothing of its frame is left");
    assert_eq!(story.starts(), None);
    assert_eq!(story.flush().says().entries, [(Verdict::Cancelled, 1, 101, vec![])]);
    story.says_nothing_else();
}

#[test]
fn a_heartbeat_is_echoed_with_what_was_finished() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).lease(2, F, LEASE_REPORT, &[]).frame());
    story.starts();
    story.returns(b"", 1);
    story.starts();
    story.hear(&encoded(&Message::Heartbeat(Heartbeat { number: 12, finished: 0 })));
    let frame = story.worker.poll_frame().unwrap();
    assert_eq!(Message::decode(&frame), Ok(Message::Heartbeat(Heartbeat { number: 12, finished: 1 })));
    story.says_nothing_else();
}

#[test]
fn the_clock_is_read_at_the_ends_of_a_row() {
    let mut story = Story::new();
    let mut batch = Batch::knowing(&[F, G]);
    for task in 0..100 {
        batch = batch.lease(task, if task < 60 { F } else { G }, LEASE_REPORT, &[]);
    }
    story.hear(&batch.frame());
    while story.starts().is_some() {
        story.returns(b"", 10);
    }
    assert_eq!(story.flush().says().timed, [(F, 60, 600), (G, 40, 400)]);
    assert_eq!(story.clock_reads.get(), 2);
}

#[test]
fn a_flush_under_a_running_call_splits_its_row() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).lease(2, F, LEASE_REPORT, &[]).frame());
    story.starts();
    story.returns(b"", 10);
    story.starts();
    story.now_ns.set(12);
    assert_eq!(story.flush().says().timed, [(F, 1, 12)]);
    story.now_ns.set(20);
    story.flush().says_nothing_else();
    assert_eq!(story.returns(b"", 80).flush().says().timed, [(F, 1, 88)]);
}

#[test]
fn a_call_of_minutes_is_counted_whole() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).frame());
    story.starts();
    assert_eq!(
        story.returns(b"", 10_000_000_000).flush().says().timed,
        [(F, 0, u32::MAX), (F, 0, u32::MAX), (F, 1, (10_000_000_000 % u64::from(u32::MAX)) as u32)]
    );
}

#[test]
fn many_bytes_leave_before_the_end_of_the_frame() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).lease(2, F, LEASE_REPORT, &[]).frame());
    story.starts();
    assert!(story.returns(&vec![0; 8 << 20], 1).worker.flush_due());
}

#[test]
fn the_running_task_has_a_name() {
    let mut story = Story::new();
    assert_eq!(story.worker.running(), None);
    let batch = Batch::knowing(&[F]).lease(1, F, 0, &[]).lease(2, F, 0, &[]).keyed("mine").lease(3, F, 0, &[]);
    story.hear(&batch.frame());
    let mut names = Vec::new();
    while story.starts().is_some() {
        let running = story.worker.running().unwrap();
        names.push((running.key, running.attempt));
        story.returns(b"", 1);
    }
    assert_eq!(names, [("f40-1001".into(), 101), ("mine".into(), 102), ("f40-1003".into(), 103)]);
    assert_eq!(story.worker.function(F).map(|(name, pickle)| (name, &pickle[..])), Some(("f40", &b"pickle of 40"[..])));
}

#[test]
fn w5_nothing_starts_after_goodbye() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).frame());
    story.hear(&encoded(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Shutdown as u8, text: "bye" })));
    assert_eq!(story.starts(), None);
    assert!(!story.worker.has_work());
    assert_eq!(story.worker.closed(), Some(&Closed { reason: GoodbyeReason::Shutdown as u8, text: "bye".into() }));
    story.says_nothing_else();
}

#[test]
fn a_broken_frame_ends_the_session_and_an_unknown_type_does_not() {
    let mut story = Story::new();
    story.hear(&[0x91, 0x78]).says_nothing_else();
    assert_eq!(story.worker.statistics().unknown_frames, 1);
    story.hear(&[0xc1]);
    let frame = story.worker.poll_frame().unwrap();
    let Ok(Message::Goodbye(goodbye)) = Message::decode(&frame) else { panic!("not a GOODBYE") };
    assert_eq!(goodbye.reason, GoodbyeReason::ProtocolError as u8);
    story.hear(&encoded(&Message::Heartbeat(Heartbeat::default()))).says_nothing_else();
}

#[test]
fn a_function_that_was_never_sent_breaks_the_protocol() {
    let mut story = Story::new();
    story.hear(&Batch::default().lease(1, F, 0, &[]).frame());
    assert_eq!(story.worker.closed().map(|closed| closed.reason), Some(GoodbyeReason::ProtocolError as u8));
}

#[test]
fn welcome_limits_results() {
    let mut story = Story::new();
    let welcome = Welcome { protocol: PROTOCOL_VERSION, version: "", features: 0, session: 1, result_bytes_max: 99 };
    story.hear(&encoded(&Message::Welcome(welcome.clone())));
    story.hear(&Batch::knowing(&[F]).lease(1, F, 0, &[]).frame());
    story.starts();
    assert_eq!(story.start.result_bytes_max, 99);
    story.hear(&encoded(&Message::Welcome(Welcome { protocol: 2, ..welcome })));
    assert_eq!(story.worker.closed().map(|closed| closed.reason), Some(GoodbyeReason::VersionMismatch as u8));
}

#[test]
fn a_value_that_is_not_here_is_said_to_be_lost() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).value(9, b"here").frame());
    story.recall(&[], &[9, 10]);
    let said = story.flush().says();
    assert_eq!(said.entries, [(Verdict::Value, 9, 0, b"here".to_vec()), (Verdict::Lost, 10, 0, vec![])]);
}

#[test]
fn functions_and_values_may_come_ahead_of_the_lease_that_needs_them() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).value(9, b"far").frame());
    assert_eq!(story.starts(), None);
    story.hear(&Batch::default().lease(1, F, LEASE_REPORT, &[9]).frame());
    assert_eq!(story.starts(), Some(1));
    assert_eq!(story.start.inputs[0].bytes(), b"far");
}
