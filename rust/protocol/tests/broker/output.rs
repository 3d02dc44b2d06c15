//! Whose is what a worker writes.

use headrace_protocol::broker::{Exit, PeerId};
use headrace_wire::{Role, Verdict};

use crate::story::{CLIENT, Got, Said, Story};

/// The worker writes a text under the name of an attempt.
fn write(story: &mut Story, worker: u32, by: Got, text: &str) {
    story.broker.handle_output(worker, 1, text.as_bytes(), Some((by.task, by.attempt)));
}

fn of_task(got: Got, run: u32, before: u64, text: &str) -> Said {
    let Got { index, attempt, .. } = got;
    Said::TaskLog { peer: CLIENT, run, index, attempt, before, text: text.into() }
}

fn of_nobody(text: &str) -> Said {
    Said::Log { text: text.into() }
}

/// A worker with the leases of two tasks.
fn two_leases() -> (Story, [Got; 2]) {
    let mut story = Story::new(1);
    story.submit(7, &[&[], &[]], &[0, 1]);
    let leases: Vec<Got> = story.leases().into_iter().flat_map(|(_, got)| got).collect();
    let [first, second] = leases[..] else { panic!("{leases:?}") };
    (story, [first, second])
}

#[test]
fn an_attempt_is_named_with_all_that_it_wrote_before() {
    let (mut story, [first, second]) = two_leases();
    write(&mut story, 0, first, "one\n");
    write(&mut story, 0, first, "three\n");
    write(&mut story, 0, second, "other\n");
    let expected = [of_task(first, 7, 0, "one\n"), of_task(first, 7, 4, "three\n"), of_task(second, 7, 0, "other\n")];
    assert_eq!(story.turn(), expected);
}

#[test]
fn who_holds_no_such_lease_wrote_nothing() {
    let (mut story, [first, second]) = two_leases();
    write(&mut story, 0, Got { attempt: first.attempt + 1, ..first }, "of a later attempt\n");
    write(&mut story, 0, Got { task: 9_999, ..first }, "of no task\n");
    story.report(0, &[(first, Verdict::Done, b"")]);
    story.turn();
    write(&mut story, 0, first, "too late\n");
    write(&mut story, 0, second, "in time\n");
    assert_eq!(story.turn(), [of_nobody("too late\n"), of_task(second, 7, 0, "in time\n")]);
}

#[test]
fn one_client_is_told_nothing_of_anothers_tasks() {
    const OTHER: PeerId = PeerId(77);
    let (mut story, [first, _]) = two_leases();
    story.hello(OTHER, Role::Client, 0, 0);
    story.turn();
    write(&mut story, 0, first, "mine\n");
    assert_eq!(story.turn(), [of_task(first, 7, 0, "mine\n"), of_nobody("mine\n")]);
}

#[test]
fn a_cancelled_attempt_has_last_words_until_it_is_over() {
    let (mut story, [first, second]) = two_leases();
    write(&mut story, 0, first, "working\n");
    story.turn();
    story.cancel(7, &[]);
    story.turn();
    // Nobody knows which of the two is executing.
    write(&mut story, 0, second, "stopping\n");
    write(&mut story, 0, first, "stopping too\n");
    assert_eq!(story.turn(), [of_task(second, 7, 0, "stopping\n"), of_task(first, 7, 0, "stopping too\n")]);
    story.report(0, &[(first, Verdict::Cancelled, b""), (second, Verdict::Cancelled, b"")]);
    write(&mut story, 0, second, "too late\n");
    assert!(story.turn().contains(&of_nobody("too late\n")));
}

#[test]
fn what_a_process_wrote_last_is_its_tasks_and_the_next_attempt_begins_anew() {
    let (mut story, [first, _]) = two_leases();
    write(&mut story, 0, first, "last words\n");
    story.exit(0, Exit::Signal(9), Some((first.task, first.attempt)));
    assert_eq!(story.turn()[0], of_task(first, 7, 0, "last words\n"));
    write(&mut story, 0, first, "too late\n");
    assert_eq!(story.turn(), [of_nobody("too late\n")]);
    story.pass_ns(1_000_000_000);
    story.turn();
    story.connect_worker(0);
    let again = story.leases().into_iter().flat_map(|(_, got)| got).find(|got| got.task == first.task).unwrap();
    write(&mut story, 0, again, "once more\n");
    assert_eq!(story.turn(), [of_task(again, 7, 0, "once more\n")]);
}
