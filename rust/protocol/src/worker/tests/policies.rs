//! What the options of tasks ask of a worker.

use super::story::{Batch, F, Story};
use super::*;

#[test]
fn a_task_is_told_how_often_it_failed_before() {
    let mut story = Story::new();
    let batch = Batch::knowing(&[F]).lease(1, F, 0, &[]).lease(2, F, 0, &[]).failed(3).lease(3, F, 0, &[]);
    story.hear(&batch.frame());
    let mut failures = Vec::new();
    while story.starts().is_some() {
        failures.push(story.worker.running().unwrap().failures);
        story.returns(b"", 1);
    }
    assert_eq!(failures, [0, 3, 0]);
}

#[test]
fn a_failure_says_whether_it_is_worth_a_retry() {
    let mut story = Story::new();
    story.hear(&Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).lease(2, F, LEASE_REPORT, &[]).frame());
    story.starts();
    story.worker.finish(Ending::Raised(b"mild"));
    story.starts();
    story.worker.finish(Ending::RaisedForGood(b"grave"));
    let said = story.flush().says().entries;
    assert_eq!(said[0], (Verdict::Failed, 1, 101, b"mild".to_vec()));
    assert_eq!(said[1], (Verdict::FailedForGood, 2, 102, b"grave".to_vec()));
}

/// A story in which attempt 101 of task 1, which may run for 5 ms, started at 7 ms.
fn limited() -> Story {
    let mut story = Story::new();
    let batch = Batch::knowing(&[F]).lease(1, F, LEASE_REPORT, &[]).limited(5).lease(2, F, LEASE_REPORT, &[]);
    story.hear(&batch.frame());
    story.now_ns.set(7_000_000);
    assert_eq!(story.starts(), Some(1));
    assert_eq!(story.worker.next_timeout_ns(), Some(12_000_000));
    story
}

const RUNNING: Option<(u32, u32)> = Some((1, 101));

fn says_overdue(story: &mut Story) {
    let frame = story.worker.poll_frame().expect("it is said at once");
    assert_eq!(Message::decode(&frame), Ok(Message::Overdue(Overdue { task: 1, attempt: 101 })));
}

#[test]
fn an_attempt_is_overdue_once_its_time_is_over() {
    let mut story = limited();
    assert_eq!(story.worker.handle_timeout(RUNNING, 11_999_999), None);
    assert_eq!(story.worker.handle_timeout(None, 12_000_000), None, "user code has not begun: nothing to interrupt");
    assert_eq!(story.worker.handle_timeout(RUNNING, 12_000_000), RUNNING);
    says_overdue(&mut story);
    assert_eq!(
        (story.worker.next_timeout_ns(), story.worker.handle_timeout(RUNNING, 99_000_000)),
        (None, None),
        "once"
    );
    story.worker.finish(Ending::Interrupted);
    assert_eq!(story.starts(), Some(2));
    assert_eq!(story.worker.next_timeout_ns(), None, "the next task has no limit");
    let said = story.returns(b"two", 1).flush().says().entries;
    assert_eq!(said[0], (Verdict::TimedOut, 1, 101, vec![]));
    assert_eq!(said[1], (Verdict::Done, 2, 102, b"two".to_vec()));
    story.says_nothing_else();
}

#[test]
fn an_overdue_attempt_has_timed_out_however_it_ends() {
    for ending in [Ending::Value(b"late"), Ending::Raised(b"late"), Ending::RaisedForGood(b"late"), Ending::Interrupted]
    {
        let mut story = limited();
        assert_eq!(story.worker.handle_timeout(RUNNING, 20_000_000), RUNNING);
        says_overdue(&mut story);
        story.worker.finish(ending);
        assert_eq!(story.flush().says().entries, [(Verdict::TimedOut, 1, 101, vec![])]);
        assert_eq!(story.worker.statistics().values, 0);
    }
}

#[test]
fn an_attempt_that_ends_in_time_is_not_overdue() {
    let mut story = limited();
    story.returns(b"one", 1);
    assert_eq!(story.worker.next_timeout_ns(), None);
    assert_eq!(story.worker.handle_timeout(RUNNING, 99_000_000), None);
    assert_eq!(story.flush().says().entries, [(Verdict::Done, 1, 101, b"one".to_vec())]);
    story.says_nothing_else();
}

#[test]
fn the_clock_is_read_for_limits_only() {
    let mut story = Story::new();
    let batch = Batch::knowing(&[F]).lease(1, F, 0, &[]).lease(2, F, 0, &[]).lease(3, F, 0, &[]).limited(5);
    story.hear(&batch.frame());
    let reads: Vec<u32> = std::iter::from_fn(|| {
        story.starts()?;
        story.worker.finish(Ending::Value(b""));
        Some(story.clock_reads.get())
    })
    .collect();
    assert_eq!(reads, [1, 1, 2], "once for the row of calls, once for the limit");
}
