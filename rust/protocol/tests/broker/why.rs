//! Stories of questions: where a task is, and what it waits for.

use crate::limits::{Ask, submit, tagged, taking};
use crate::story::{CLIENT, Got, Said, Story};
use headrace_protocol::broker::{Exit, PeerId};
use headrace_protocol::limits::Offer;
use headrace_wire::{Message, Role, TaskPlace, Verdict, Why};

const OBSERVER: PeerId = PeerId(2_000);

/// What the client is told of a task; the rest of what is said is thrown away.
fn why(story: &mut Story, run: u32, index: u32) -> (TaskPlace, String) {
    ask(story, CLIENT, Why { number: 7, run, index, ..Why::default() })
}

fn ask(story: &mut Story, peer: PeerId, why: Why<'_>) -> (TaskPlace, String) {
    story.send(peer, &Message::Why(why));
    let answer = story.turn().into_iter().find_map(|said| match said {
        Said::Because { number: 7, place, text, .. } => Some((place, text)),
        _ => None,
    });
    let (place, text) = answer.expect("every question is answered");
    let known = [
        TaskPlace::Unknown,
        TaskPlace::Waiting,
        TaskPlace::Ready,
        TaskPlace::Pausing,
        TaskPlace::Queued,
        TaskPlace::Running,
        TaskPlace::Done,
        TaskPlace::Failed,
        TaskPlace::Skipped,
        TaskPlace::Cancelled,
    ];
    (known[place as usize], text)
}

fn leases(story: &mut Story) -> Vec<(u32, Got)> {
    story.leases().into_iter().flat_map(|(worker, got)| got.into_iter().map(move |got| (worker, got))).collect()
}

fn says(story: &mut Story, run: u32, index: u32, place: TaskPlace, text: &str) {
    assert_eq!(why(story, run, index), (place, text.to_owned()));
}

#[test]
fn a_running_task_names_its_worker_and_a_queued_one_what_stands_before_it() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[], &[]], &[0, 1, 2]);
    leases(&mut story);
    story.pass_ns(3_250_000_000);
    says(&mut story, 1, 0, TaskPlace::Running, "'work-0' runs in worker 0 (pid 4000), attempt 1, for 3.2 s");
    says(
        &mut story,
        1,
        1,
        TaskPlace::Queued,
        "'work-1' is with worker 0 (pid 4000), behind 'work-0', which has been running for 3.2 s",
    );
    says(
        &mut story,
        1,
        2,
        TaskPlace::Ready,
        "'work-2' is ready and waits for a worker; it is the next of its kind, and busy are worker 0 ('work-0' for 3.2 s)",
    );
}

#[test]
fn a_waiting_task_names_what_it_needs() {
    let mut story = Story::new(1);
    let deps: [&[u32]; 10] = [&[], &[], &[], &[], &[], &[], &[], &[0], &[7], &[0, 1, 2, 3, 4, 5, 6, 8]];
    story.submit(1, &deps, &[9]);
    let leases = leases(&mut story);
    story.report(0, &[(leases[0].1, Verdict::Done, b"")]);
    let (place, text) = why(&mut story, 1, 9);
    assert_eq!(place, TaskPlace::Waiting);
    assert!(
        text.starts_with("'work-9' waits for 7 of 8 tasks that it needs: 'work-1' (ready), 'work-2' (ready), "),
        "{text}"
    );
    assert!(text.ends_with(" and 2 more"), "{text}");
}

#[test]
fn who_holds_a_tag_is_named() {
    let mut story = Story::with_offer(3, Offer::new([("license".into(), 3)], [("db".into(), 2)], []));
    submit(&mut story, CLIENT, 1, 0, &vec![tagged(&["db"]); 6]);
    leases(&mut story);
    says(
        &mut story,
        1,
        5,
        TaskPlace::Ready,
        "'work-5' is ready and waits for tag 'db' (limit 2), held by 'work-0' in worker 0, 'work-1' in worker 1",
    );
    submit(&mut story, CLIENT, 2, 0, &[taking(&[("license", 2)]), taking(&[("license", 2)])]);
    let holders = leases(&mut story);
    assert_eq!(holders.iter().map(|lease| lease.0).collect::<Vec<_>>(), [2, 2]);
    submit(&mut story, CLIENT, 3, 0, &[Ask { pin: Some(0), ..taking(&[("license", 2)]) }]);
    says(
        &mut story,
        3,
        0,
        TaskPlace::Ready,
        "'work-0' is ready and waits for license=2 (1 of 3 free), held by 'work-0' in worker 2",
    );
}

#[test]
fn a_tag_without_a_limit_is_counted() {
    let mut story = Story::new(2);
    submit(&mut story, CLIENT, 1, 0, &vec![tagged(&["mail"]); 3]);
    leases(&mut story);
    let (place, text) = why(&mut story, 1, 0);
    assert_eq!(place, TaskPlace::Running);
    assert!(text.ends_with("for 0 ms (tag 'mail' has no limit, and 2 of its tasks run)"), "{text}");
}

#[test]
fn a_task_that_is_pinned_to_a_worker_which_is_down_says_so() {
    let mut story = Story::new(2);
    submit(&mut story, CLIENT, 1, 0, &[Ask { pin: Some(1), ..Ask::default() }]);
    leases(&mut story);
    story.exit(1, Exit::Signal(9), None);
    let (place, text) = why(&mut story, 1, 0);
    assert_eq!(place, TaskPlace::Ready);
    assert!(text.starts_with("'work-0' is ready and waits for worker 1, to which it is pinned: it is "), "{text}");
}

#[test]
fn without_a_worker_a_task_says_what_becomes_of_them() {
    let mut story = Story::new(1);
    story.exit(0, Exit::Signal(9), None);
    story.submit(1, &[&[]], &[0]);
    let (_, text) = why(&mut story, 1, 0);
    assert!(text.starts_with("'work-0' is ready and waits for a worker, and none is up: worker 0 is "), "{text}");
}

#[test]
fn an_ended_task_says_how() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[], &[1], &[]], &[0, 1, 2, 3]);
    let got = leases(&mut story);
    story.report(0, &[(got[0].1, Verdict::Done, b""), (got[1].1, Verdict::Failed, b"boom")]);
    story.cancel(1, &[3]);
    says(&mut story, 1, 0, TaskPlace::Done, "'work-0' is done");
    let unknown = why(&mut story, 1, 77);
    assert_eq!(unknown, (TaskPlace::Unknown, String::new()));
}

#[test]
fn an_observer_finds_tasks_of_all_clients_by_their_keys() {
    let mut story = Story::new(1);
    story.hello(OBSERVER, Role::Observer, 0, 0);
    story.submit(1, &[&[], &[]], &[0, 1]);
    leases(&mut story);
    let of = |key| Why { number: 7, key, ..Why::default() };
    let (place, text) = ask(&mut story, OBSERVER, of("work-0"));
    assert_eq!((place, &text[..]), (TaskPlace::Running, "'work-0' runs in worker 0 (pid 4000), attempt 1, for 0 ms"));
    assert_eq!(ask(&mut story, OBSERVER, of("work-2")).0, TaskPlace::Unknown);
    assert_eq!(ask(&mut story, OBSERVER, of("nonsense")).0, TaskPlace::Unknown);
    // Of two, each is told of.
    story.submit(2, &[&[]], &[0]);
    let (_, text) = ask(&mut story, OBSERVER, of("work-0"));
    assert_eq!(text.lines().count(), 2, "{text}");
    // A number names nothing of another client's to it.
    assert_eq!(ask(&mut story, OBSERVER, Why { number: 7, run: 1, ..Why::default() }).0, TaskPlace::Unknown);
}

#[test]
fn stacks_come_with_the_answer_or_the_reason_why_not() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[0]], &[1]);
    leases(&mut story);
    let asks = |index| Message::Why(Why { number: 9, run: 1, index, stacks: true, ..Why::default() });
    story.send(CLIENT, &asks(0));
    story.send(CLIENT, &asks(0));
    assert_eq!(story.turn(), [Said::DumpStacks { worker: 0 }]);
    story.broker.handle_stacks(0, "Current thread");
    let stacks = |story: &mut Story| -> Vec<String> {
        let stacks = |said| if let Said::Because { stacks, .. } = said { Some(stacks) } else { None };
        story.turn().into_iter().filter_map(stacks).collect()
    };
    assert_eq!(stacks(&mut story), ["Current thread", "Current thread"]);
    // One that runs nowhere has none, and is answered at once.
    story.submit(2, &[&[], &[0]], &[1]);
    story.send(CLIENT, &Message::Why(Why { number: 9, run: 2, index: 1, stacks: true, ..Why::default() }));
    assert_eq!(stacks(&mut story), ["it is in no process, so there are no stacks of it"]);
    // The process may end meanwhile.
    story.send(CLIENT, &asks(0));
    story.exit(0, Exit::Signal(9), None);
    assert_eq!(stacks(&mut story), ["its process has ended"]);
}
