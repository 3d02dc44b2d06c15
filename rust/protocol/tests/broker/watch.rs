//! Stories of the watchdog: clients hear of it when nothing runs.

use crate::limits::{Ask, submit};
use crate::story::{CLIENT, Got, Said, Story};
use headrace_protocol::broker::Exit;
use headrace_wire::{Heartbeat, Message, Verdict};

const SECOND_NS: u64 = 1_000_000_000;

/// A second passes, in which workers answer; what clients are told in it.
fn second(story: &mut Story, workers: u32) -> Vec<String> {
    story.pass_ns(SECOND_NS);
    for worker in 0..workers {
        story.send(story.peer(worker), &Message::Heartbeat(Heartbeat { number: 1, finished: 0 }));
    }
    let text = |said| if let Said::Log { text } = said { Some(String::from_utf8(text).unwrap()) } else { None };
    story.turn().into_iter().filter_map(text).collect()
}

fn leases(story: &mut Story) -> Vec<Got> {
    story.leases().into_iter().flat_map(|(_, got)| got).collect()
}

/// A broker whose results fill memory while none of them gets to disk: tasks stand ready, and none is given out.
fn stuck() -> Story {
    let mut story = Story::with_disk(1, 1 << 20, 1 << 30);
    let deps: Vec<&[u32]> = vec![&[]; 10];
    let keep: Vec<u32> = (0..10).collect();
    story.submit(1, &deps, &keep);
    loop {
        let got = leases(&mut story);
        if got.is_empty() {
            return story;
        }
        for got in got {
            story.report_timed(0, &[(got, Verdict::Done, &vec![7; 600_000])], &[(got.function, 1, 5_000_000)]);
        }
    }
}

#[test]
fn a_standstill_is_told_after_five_seconds_and_then_ever_more_rarely() {
    let mut story = stuck();
    let told: Vec<(u32, String)> =
        (1..=25).flat_map(|at| second(&mut story, 1).into_iter().map(move |text| (at, text))).collect();
    let times: Vec<u32> = told.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [6, 11, 21]);
    let text = &told[0].1;
    assert!(text.starts_with("headrace: Stalled: nothing runs, and "), "{text}");
    assert!(text.ends_with(" tasks wait for results to move to disk, as memory is full\n"), "{text}");
}

#[test]
fn where_something_runs_or_nothing_is_wanted_the_watchdog_is_silent() {
    let mut story = Story::new(2);
    for _ in 0..10 {
        assert!(second(&mut story, 2).is_empty());
    }
    story.submit(1, &[&[], &[0]], &[1]);
    assert_eq!(leases(&mut story).len(), 2);
    for _ in 0..20 {
        assert!(second(&mut story, 2).is_empty(), "a task runs, however long");
    }
}

#[test]
fn a_worker_that_starts_is_waited_for() {
    let mut story = Story::new(1);
    story.exit(0, Exit::Signal(9), None);
    story.submit(1, &[&[]], &[0]);
    for _ in 0..20 {
        assert!(second(&mut story, 0).is_empty());
    }
    story.connect_worker(0);
    assert_eq!(leases(&mut story).len(), 1);
}

#[test]
fn a_standstill_that_ended_begins_anew() {
    let mut story = stuck();
    for _ in 0..5 {
        second(&mut story, 1);
    }
    story.cancel(1, &[]);
    assert!(second(&mut story, 1).is_empty());
    story.submit_as(2, 1, &[&[]], &[0]);
    for at in 1..=6 {
        assert_eq!(second(&mut story, 1).len(), usize::from(at == 6), "after {at} s");
    }
}

#[test]
fn a_task_for_a_worker_that_never_comes_up_is_told_of() {
    let mut story = Story::new(2);
    for _ in 0..4 {
        story.exit(1, Exit::Signal(9), None);
        second(&mut story, 1);
    }
    submit(&mut story, CLIENT, 1, 0, &[Ask { pin: Some(1), ..Ask::default() }]);
    let told: Vec<String> = (0..7).flat_map(|_| second(&mut story, 1)).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let text = "headrace: Stalled: nothing runs, and 'work-0' waits for worker 1, to which it is pinned: it is ";
    assert!(told[0].starts_with(text), "{told:?}");
}
