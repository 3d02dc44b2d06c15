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
