//! Deaths: whom they are counted against, and what becomes of workers that cannot live.

use headrace_protocol::broker::{Exit, Shortage};
use headrace_wire::{Death, DeathCause, Heartbeat, Message, Outcome};

use crate::story::{Got, Said, Story};

const KILLED: Exit = Exit::Signal(9);
const SECOND_NS: u64 = 1_000_000_000;

/// Everything that is leased now, and to whom.
fn leased(story: &mut Story) -> Vec<(u32, Got)> {
    let leases = story.leases();
    leases.into_iter().flat_map(|(worker, got)| got.into_iter().map(move |got| (worker, got))).collect()
}

/// The worker dies while it executes that task, and starts again. The blob of the task's end, if that is one.
fn die(story: &mut Story, worker: u32, got: Got, exit: Exit) -> Option<Vec<u8>> {
    story.exit(worker, exit, Some((got.task, got.attempt)));
    story.pass_ns(SECOND_NS);
    let died = |said: Said| match said {
        Said::Ended { endings, .. } => endings.into_iter().find(|end| end.1 == Outcome::Died).map(|end| end.2),
        _ => None,
    };
    let said = story.turn();
    assert!(said.iter().any(|said| matches!(said, Said::Spawn { .. })), "{said:?}");
    story.connect_worker(worker);
    said.into_iter().find_map(died)
}

fn read(blob: &[u8]) -> Death<'_> {
    let Ok(Message::Death(death)) = Message::decode(blob) else { panic!("not a death: {blob:?}") };
    death
}

#[test]
fn b5_a_poison_task_s_end_lists_each_of_its_deaths() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    let exits = [Exit::Signal(11), Exit::Code(3), KILLED];
    let ends: Vec<Option<Vec<u8>>> = exits
        .into_iter()
        .map(|exit| {
            let (worker, got) = leased(&mut story)[0];
            die(&mut story, worker, got, exit)
        })
        .collect();
    let [None, None, Some(blob)] = &ends[..] else { panic!("it ends with the third: {ends:?}") };
    let death = read(blob);
    assert_eq!((death.attempts, death.limit, death.cause), (3, 3, DeathCause::Crashed as u8));
    assert_eq!((death.signals.to_vec(), death.exit_codes.to_vec()), (vec![11, 0, 9], vec![0, 3, 0]));
    assert_eq!((death.workers.to_vec(), death.pids.to_vec()), (vec![0; 3], vec![4_000; 3]));
    assert_eq!((story.broker.statistics().worker_deaths, story.broker.statistics().blamed_deaths), (3, 3));
}

#[test]
fn b5_whoever_stood_beside_a_poison_task_is_not_blamed() {
    let mut story = Story::new(1);
    story.submit(1, &[&[], &[]], &[0, 1]);
    for _ in 0..3 {
        let leases = leased(&mut story);
        assert_eq!(leases.len(), 2, "both are leased to the worker that dies");
        let poison = leases.iter().find(|(_, got)| got.index == 0).expect("it is tried again");
        die(&mut story, 0, poison.1, KILLED);
    }
    // The neighbour has all of its own deaths left.
    for death in 1..=3 {
        let (_, got) = leased(&mut story)[0];
        assert_eq!(got.index, 1);
        assert_eq!(die(&mut story, 0, got, KILLED).is_some(), death == 3);
    }
}

#[test]
fn a_death_without_an_executing_task_is_counted_against_nobody() {
    let mut story = Story::new(1);
    story.submit(1, &[&[]], &[0]);
    for _ in 0..10 {
        assert_eq!(leased(&mut story).len(), 1);
        story.exit(0, KILLED, None);
        story.turn();
        story.connect_worker(0);
    }
    assert_eq!((story.broker.statistics().worker_deaths, story.broker.statistics().blamed_deaths), (10, 0));
}

#[test]
fn an_attempt_that_was_cancelled_is_not_blamed() {
    let mut story = Story::with(1, |config| config.crash_limit = 1);
    story.submit(1, &[&[]], &[0]);
    let (_, got) = leased(&mut story)[0];
    story.cancel(1, &[]);
    story.turn();
    story.exit(0, KILLED, Some((got.task, got.attempt)));
    assert!(!story.turn().iter().any(|said| matches!(said, Said::Ended { .. })), "it was told as cancelled before");
    assert_eq!(story.broker.statistics().blamed_deaths, 0);
}

#[test]
fn deaths_for_want_of_memory_have_a_limit_of_their_own() {
    let mut story = Story::with(1, |config| config.oom_limit = 2);
    story.submit(1, &[&[]], &[0]);
    let shortage = Shortage { limit: 4 << 30, peak: 3 << 30, others: 2 };
    for (exit, ends) in [(KILLED, false), (Exit::OutOfMemory(shortage), false), (KILLED, false)] {
        let (worker, got) = leased(&mut story)[0];
        assert_eq!(die(&mut story, worker, got, exit).is_some(), ends);
    }
    let (worker, got) = leased(&mut story)[0];
    let blob = die(&mut story, worker, got, Exit::OutOfMemory(shortage)).expect("the second of its kind");
    let death = read(&blob);
    assert_eq!((death.attempts, death.limit, death.cause), (2, 2, DeathCause::OutOfMemory as u8));
    assert_eq!((death.memory_limit, death.memory_peak, death.group_others), (4 << 30, 3 << 30, 2));
    assert_eq!(death.causes, [0, 1, 0, 1]);
    assert_eq!(story.broker.statistics().oom_deaths, 2);
}

/// Lets the only worker be silent until the broker kills it; the seconds that it takes.
fn fall_silent(story: &mut Story) -> u32 {
    for second in 1..=10 {
        story.pass_ns(SECOND_NS);
        if story.turn().contains(&Said::Kill { worker: 0 }) {
            return second;
        }
    }
    panic!("it is never killed");
}

#[test]
fn silence_is_no_crash_and_ends_a_task_only_after_ten_times() {
    let mut story = Story::with(1, |config| config.crash_limit = 1);
    story.submit(1, &[&[]], &[0]);
    for time in 1..=10 {
        let (_, got) = leased(&mut story)[0];
        assert_eq!(fall_silent(&mut story), 5);
        let end = die(&mut story, 0, got, KILLED);
        assert_eq!(end.is_some(), time == 10);
        if let Some(blob) = end {
            let death = read(&blob);
            assert_eq!((death.attempts, death.limit, death.cause), (10, 10, DeathCause::Silent as u8));
        }
    }
    assert_eq!((story.broker.statistics().worker_deaths, story.broker.statistics().blamed_deaths), (10, 0));
}

#[test]
fn k4_what_a_worker_that_was_given_up_says_late_is_dropped() {
    let mut story = Story::new(2);
    story.submit(1, &[&[]], &[0]);
    let (silent, got) = leased(&mut story)[0];
    let peer = story.peer(silent);
    for number in 1..=5 {
        story.pass_ns(SECOND_NS);
        story.send(story.peer(1 - silent), &Message::Heartbeat(Heartbeat { number, finished: 0 }));
    }
    assert!(story.turn().contains(&Said::Kill { worker: silent }));
    story.exit(silent, KILLED, Some((got.task, got.attempt)));
    let (other, again) = leased(&mut story)[0];
    assert_eq!((other, again.index), (1 - silent, 0));
    // It comes back from wherever it was, and reports what it has.
    let (task, attempt, verdict) = ([got.task], [got.attempt], [0]);
    let report = headrace_wire::Report {
        task: task[..].into(),
        attempt: attempt[..].into(),
        verdict: &verdict,
        values: headrace_wire::Blobs { lens: [4][..].into(), bytes: b"late" },
        ..headrace_wire::Report::default()
    };
    story.send(peer, &Message::Report(report));
    let said = story.turn();
    assert!(matches!(said[0], Said::Goodbye { peer: stranger, .. } if stranger == peer), "{said:?}");
    story.report(other, &[(again, headrace_wire::Verdict::Done, b"right")]);
    let ended = story.turn();
    let endings = vec![(0, Outcome::Done, b"right".to_vec())];
    assert_eq!(ended, [Said::Ended { run: 1, finished: true, endings }]);
}

#[test]
fn a_worker_that_dies_without_work_starts_again_after_a_pause_that_grows() {
    let mut story = Story::new(1);
    let mut pauses_ms = Vec::new();
    for _ in 0..9 {
        story.exit(0, KILLED, None);
        for ms in 0..10_000 {
            if story.turn().iter().any(|said| matches!(said, Said::Spawn { .. })) {
                pauses_ms.push(ms);
                break;
            }
            story.pass_ns(1_000_000);
        }
        story.connect_worker(0);
    }
    assert_eq!(pauses_ms, [100, 200, 400, 800, 1_600, 3_200, 6_400, 6_400, 6_400]);
    assert!(!story.broker.has_given_up(), "it connects each time");
    story.submit(1, &[&[]], &[0]);
    let (_, got) = leased(&mut story)[0];
    story.exit(0, KILLED, Some((got.task, got.attempt)));
    assert!(story.turn().iter().any(|said| matches!(said, Said::Spawn { .. })), "one that had work: at once");
}

#[test]
fn a_worker_that_cannot_start_does_not_end_the_work_of_others() {
    let mut story = Story::new(2);
    let mut complaints = 0;
    for _ in 0..20 {
        story.exit(0, Exit::Code(3), None);
        story.pass_ns(7 * SECOND_NS);
        story.send(story.peer(1), &Message::Heartbeat(Heartbeat { number: 0, finished: 0 }));
        for said in story.turn() {
            match said {
                Said::Log { text } => {
                    let text = String::from_utf8_lossy(&text).into_owned();
                    assert!(text.contains("the other workers go on, but worker 0 exited with code 3"), "{text}");
                    complaints += 1;
                }
                Said::Goodbye { .. } => panic!("the client is sent away"),
                _ => {}
            }
        }
    }
    assert_eq!(complaints, 1);
    story.submit(1, &[&[]], &[0]);
    assert_eq!(leased(&mut story)[0].0, 1);
    // Once the other one cannot start either, there is nothing to wait for.
    for _ in 0..2 {
        story.exit(1, Exit::Code(4), None);
        story.pass_ns(SECOND_NS);
        story.turn();
    }
    story.exit(0, Exit::Code(3), None);
    assert!(story.turn().iter().any(|said| matches!(said, Said::Goodbye { .. })));
    assert!(story.broker.has_given_up());
}

#[test]
fn signals_have_names_in_what_people_read() {
    let texts = [Exit::Signal(11), Exit::Signal(62), Exit::Code(0), Exit::OutOfMemory(Shortage::default())];
    assert_eq!(
        texts.map(|exit| exit.to_string()),
        [
            "was killed by SIGSEGV",
            "was killed by signal 62",
            "exited with code 0",
            "was killed by the kernel's OOM killer"
        ]
    );
}
