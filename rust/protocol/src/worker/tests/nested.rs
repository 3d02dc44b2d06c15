//! Attempts that wait with others on top of them, and frames that only pass through.

use headrace_wire::{LEASE_NESTED, LEASE_REPORT, Message, Overdue, Results, Standstill, WHOLE_RUN, Waiting};

use super::super::*;
use super::story::{Batch, F, G, Story, encoded};

/// Task 1 runs and waits; task 2, which it waits for, and task 3, which it does not, are queued.
fn waiting() -> Story {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F, G]).lease(1, F, LEASE_REPORT, &[]).limited(10).frame());
    assert_eq!(story.starts(), Some(1));
    story.worker.wait(5, WHOLE_RUN, true, 0);
    let waits = Waiting { task: 1, attempt: 101, waits: true, run: 5, index: WHOLE_RUN, helps: true };
    assert_eq!(story.worker.poll_frame(), Some(encoded(&Message::Waiting(waits))));
    assert!(!story.worker.has_nested_news());
    story.hear(&Batch::default().lease(3, F, LEASE_REPORT, &[]).frame());
    assert!(!story.worker.has_nested_news(), "it does not wait for this one");
    story.hear(&Batch::default().lease(2, G, LEASE_REPORT | LEASE_NESTED, &[]).frame());
    assert!(story.worker.has_nested_news());
    story
}

/// Whether a task starts within the wait of the one that runs.
fn starts_nested(story: &mut Story) -> Option<u32> {
    let now_ns = story.now_ns.get();
    story.worker.start_nested(&mut story.start, || now_ns).then_some(story.start.task)
}

#[test]
fn a_task_runs_on_top_of_one_that_waits() {
    let mut story = waiting();
    assert_eq!(starts_nested(&mut story), Some(2));
    assert_eq!(story.worker.running_attempt(), Some((2, 102)));
    assert!(story.worker.has_attempt((1, 101)) && story.worker.has_attempt((2, 102)));
    story.recall(&[1, 2, 3], &[]);
    let returned = (Verdict::Returned, 3, 103, vec![]);
    assert_eq!(story.flush().says().entries, [returned], "neither of those that have started");
    story.worker.finish_nested(Ending::Value(b"two"), || 7);
    assert!(story.worker.flush_due(), "somebody waits for it");
    assert_eq!(story.flush().says().entries, [(Verdict::Done, 2, 102, b"two".to_vec())]);
    assert_eq!(story.worker.running_attempt(), Some((1, 101)));
    assert_eq!(starts_nested(&mut story), None);
    story.worker.go_on();
    let goes_on = Waiting { task: 1, attempt: 101, ..Waiting::default() };
    assert_eq!(story.worker.poll_frame(), Some(encoded(&Message::Waiting(goes_on))));
    assert_eq!(story.returns(b"one", 1).flush().says().entries, [(Verdict::Done, 1, 101, b"one".to_vec())]);
    story.says_nothing_else();
}

#[test]
fn an_attempt_that_becomes_overdue_below_another_one_is_interrupted_when_it_goes_on() {
    let mut story = waiting();
    assert_eq!(starts_nested(&mut story), Some(2));
    assert_eq!(story.worker.next_timeout_ns(), Some(10_000_000));
    assert_eq!(story.worker.handle_timeout(Some((2, 102)), 11_000_000), None);
    let overdue = encoded(&Message::Overdue(Overdue { task: 1, attempt: 101 }));
    assert_eq!(story.worker.poll_frame().as_ref(), Some(&overdue), "the broker ends what is on top");
    story.worker.finish_nested(Ending::Interrupted, || 12_000_000);
    assert_eq!(story.worker.handle_timeout(Some((1, 101)), 12_000_000), Some((1, 101)));
    story.worker.finish(Ending::Value(b"late"));
    story.flush();
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| story.worker.poll_frame()).collect();
    let Ok(Message::Report(report)) = Message::decode(frames.last().unwrap()) else { panic!("a report comes last") };
    assert_eq!(report.verdict, [Verdict::Cancelled as u8, Verdict::TimedOut as u8]);
}

#[test]
fn a_standstill_is_for_the_attempt_that_waits() {
    let mut story = waiting();
    let tell = |story: &mut Story, attempt| {
        story.hear(&encoded(&Message::Standstill(Standstill { task: 1, attempt, text: "why" })));
    };
    tell(&mut story, 99);
    assert_eq!(story.worker.take_standstill(), None, "another attempt");
    tell(&mut story, 101);
    assert_eq!(story.worker.take_standstill().as_deref(), Some("why"));
    assert_eq!(story.worker.take_standstill(), None, "once");
}

#[test]
fn frames_for_those_who_submit_pass_through_if_there_are_any() {
    let results = encoded(&Message::Results(Results { run: 1, ..Results::default() }));
    let mut story = Story::new();
    story.worker.open_nested();
    story.hear(&results);
    story.worker.post_nested(b"submit".to_vec());
    assert_eq!(story.worker.poll_nested().as_ref(), Some(&results));
    assert_eq!(story.worker.poll_frame().as_deref(), Some(&b"submit"[..]));
    story.says_nothing_else();
    let mut story = Story::new();
    story.hear(&results);
    assert!(story.worker.closed().is_some(), "nobody has asked for that");
}

#[test]
fn a_graph_in_the_place_of_a_result_is_reported_as_such() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).frame());
    story.starts();
    story.worker.finish(Ending::Became);
    assert_eq!(story.flush().says().entries, [(Verdict::Became, 1, 101, vec![])]);
}
