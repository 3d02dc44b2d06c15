//! Tasks that submit tasks, wait for them, or become graphs.

use headrace_protocol::broker::Exit;
use headrace_wire::{
    Blobs, BlobsBuf, CancelReason, Heartbeat, LEASE_NESTED, Message, Outcome, SUBMIT_REPLACES, Submit, Verdict,
    WHOLE_RUN, Waiting,
};

use crate::DONE;
use crate::story::{Got, Said, Story};

const SECOND_NS: u64 = 1_000_000_000;

fn story(workers: u32, spares: u32) -> Story {
    Story::with(workers, |config| config.spares = spares)
}

/// The only lease that was given, and who got it.
fn only(leases: &[(u32, Vec<Got>)]) -> (u32, Got) {
    match leases {
        [(worker, leases)] if leases.len() == 1 => (*worker, leases[0]),
        _ => panic!("one lease, not {leases:?}"),
    }
}

/// A task of `worker` submits a row of tasks, each of which needs the one before if they are `chained`.
fn submit(story: &mut Story, worker: u32, parent: Got, run: u32, tasks: u32, chained: bool, flags: u32) {
    let counts: Vec<u32> = (0..tasks).map(|index| u32::from(chained && index > 0)).collect();
    let deps: Vec<u32> = (1..tasks).filter(|_| chained).map(|index| index - 1).collect();
    let (zeros, keep) = (vec![0; tasks as usize], [tasks - 1]);
    let (mut names, number) = (BlobsBuf::default(), [run]);
    names.push(b"inner");
    let submit = Submit {
        run,
        flags,
        function_ids: number[..].into(),
        function_names: names.as_blobs(),
        functions: names.as_blobs(),
        function_map: number[..].into(),
        task_function: (&zeros).into(),
        dep_counts: (&counts).into(),
        deps: (&deps).into(),
        args: Blobs { lens: (&zeros).into(), bytes: &[] },
        keep: keep[..].into(),
        parent: parent.task,
        parent_attempt: parent.attempt,
        ..Submit::default()
    };
    story.send(story.peer(worker), &Message::Submit(submit));
}

fn wait(story: &mut Story, worker: u32, got: Got, waits: bool) {
    let Got { task, attempt, .. } = got;
    let waiting = Waiting { task, attempt, waits, run: 1, index: WHOLE_RUN, helps: true };
    story.send(story.peer(worker), &Message::Waiting(waiting));
}

/// One worker runs a task that has submitted this many others.
fn parent_of(story: &mut Story, tasks: u32) -> Got {
    story.submit(1, &[&[]], &[0]);
    let (worker, parent) = only(&story.leases());
    assert_eq!(worker, 0);
    submit(story, 0, parent, 1, tasks, false, 0);
    parent
}

fn endings(said: &[Said]) -> Vec<(u32, u32, Outcome, Vec<u8>)> {
    let ended = said.iter().filter_map(|said| match said {
        Said::Ended { run, endings, .. } => Some((*run, endings.clone())),
        _ => None,
    });
    ended.flat_map(|(run, rows)| rows.into_iter().map(move |(index, how, blob)| (run, index, how, blob))).collect()
}

fn seconds(story: &mut Story, count: u32, places: u32) -> Vec<Said> {
    let mut all = Vec::new();
    for number in 0..count {
        story.pass_ns(SECOND_NS);
        for worker in 0..places {
            let heartbeat = Heartbeat { number: number.into(), finished: 0 };
            story.send(story.peer(worker), &Message::Heartbeat(heartbeat));
        }
        all.extend(story.turn());
    }
    all
}

#[test]
fn a_spare_worker_comes_for_one_that_waits_and_leaves_when_it_is_not_needed() {
    let mut story = story(1, 2);
    let parent = parent_of(&mut story, 3);
    let [(0, queued)] = &story.leases()[..] else { panic!("one waits behind the first") };
    let queued: Vec<u32> = queued.iter().map(|got| got.task).collect();
    wait(&mut story, 0, parent, true);
    let said = story.turn();
    assert!(said.contains(&Said::Recall { worker: 0, tasks: queued.clone(), fetch: vec![] }), "{said:?}");
    let [Said::Spawn { worker: 1, .. }] = said[1..] else { panic!("one spare worker: {said:?}") };
    story.connect_worker(1);
    let mut ran = 0;
    while ran < 2 {
        for (worker, leases) in story.leases() {
            assert_eq!(worker, 1, "whoever waits gets nothing");
            for got in leases {
                assert_eq!(got.flags & LEASE_NESTED, 0);
                story.report(1, &[(got, DONE, b"x")]);
                ran += 1;
            }
        }
    }
    wait(&mut story, 0, parent, false);
    story.report(0, &[(parent, DONE, b"sum")]);
    assert!(endings(&story.turn()).contains(&(1, 0, Outcome::Done, b"sum".to_vec())));
    story.submit(2, &[&[], &[], &[]], &[0]);
    assert!(story.leases().iter().all(|(worker, _)| *worker == 0), "nobody waits, so nobody stands in");
    let said = seconds(&mut story, 4, 2);
    assert!(
        said.iter().any(|said| matches!(said, Said::Goodbye { text, .. } if text.contains("stood in"))),
        "{said:?}"
    );
    story.exit(1, Exit::Code(0), None);
    assert_eq!(seconds(&mut story, 3, 1).iter().filter(|said| matches!(said, Said::Spawn { .. })).count(), 0);
    let statistics = story.broker.statistics();
    assert_eq!((statistics.worker_deaths, statistics.workers_retired), (0, 0));
}

#[test]
fn without_spares_a_waiting_task_is_leased_what_it_waits_for_and_nothing_else() {
    let mut story = story(1, 0);
    let parent = parent_of(&mut story, 1);
    story.submit(7, &[&[], &[]], &[0, 1]);
    let (_, queued) = only(&story.leases());
    wait(&mut story, 0, parent, true);
    assert_eq!(story.turn(), [Said::Recall { worker: 0, tasks: vec![queued.task], fetch: vec![] }]);
    // What was queued comes back; only what the task has submitted is leased to it, although the others came earlier.
    story.report(0, &[(queued, Verdict::Returned, b"")]);
    let (worker, child) = only(&story.leases());
    assert_eq!((worker, child.flags & LEASE_NESTED), (0, LEASE_NESTED));
    // The child submits, too, and waits: then only its own come on top.
    submit(&mut story, 0, child, 2, 1, false, 0);
    wait(&mut story, 0, child, true);
    let (_, grandchild) = only(&story.leases());
    story.report(0, &[(grandchild, DONE, b"1")]);
    assert_eq!(story.leases(), [], "the child waits for nothing else that could run");
    wait(&mut story, 0, child, false);
    story.report(0, &[(child, DONE, b"2")]);
    wait(&mut story, 0, parent, false);
    story.report(0, &[(parent, DONE, b"3")]);
    let rest: usize = story.leases().iter().map(|(_, leases)| leases.len()).sum();
    assert!(rest > 0, "now the others have their turn");
}

#[test]
fn what_an_attempt_has_submitted_ends_with_it() {
    let mut story = story(2, 0);
    let parent = parent_of(&mut story, 3);
    let leases = story.leases();
    assert!(leases.iter().any(|(worker, _)| *worker == 1));
    story.report(0, &[(parent, DONE, b"left")]);
    let said = story.turn();
    let cancelled = [CancelReason::SubmitterEnded as u8];
    let of_nest = endings(&said).into_iter().filter(|ending| ending.2 == Outcome::Cancelled).collect::<Vec<_>>();
    assert_eq!(of_nest.len(), 3, "{said:?}");
    assert!(of_nest.iter().all(|ending| ending.3 == cancelled));
    assert!(said.iter().any(|said| matches!(said, Said::Interrupt { worker: 1, .. })));
    // What it says now comes too late.
    submit(&mut story, 0, parent, 5, 1, false, 0);
    let said = story.turn();
    assert!(endings(&said).iter().any(|(run, _, how, text)| {
        *run == 5 && *how == Outcome::Refused && text == b"the task that submitted it has ended"
    }));
}

#[test]
fn a_dead_worker_takes_along_what_its_tasks_have_submitted() {
    let mut story = story(2, 0);
    let parent = parent_of(&mut story, 2);
    wait(&mut story, 0, parent, true);
    story.turn();
    story.exit(0, Exit::Signal(9), Some((parent.task, parent.attempt)));
    let said = story.turn();
    assert!(said.iter().any(|said| matches!(said, Said::Interrupt { worker: 1, .. })), "{said:?}");
    story.connect_worker(0);
    let again: Vec<Got> = story.leases().into_iter().flat_map(|(_, leases)| leases).collect();
    assert_eq!(again.iter().map(|got| got.index).collect::<Vec<_>>(), [0], "the task runs again, and submits anew");
}

#[test]
fn a_task_that_has_become_a_graph_ends_as_that_ends() {
    let mut story = story(1, 0);
    story.submit(1, &[&[], &[0]], &[0, 1]);
    let (_, parent) = only(&[story.leases().remove(0)].map(|(worker, leases)| (worker, leases[..1].to_vec())));
    submit(&mut story, 0, parent, 1, 2, true, SUBMIT_REPLACES);
    story.report(0, &[(parent, Verdict::Became, b"")]);
    let mut heard = Vec::new();
    for _ in 0..20 {
        for said in story.turn() {
            match said {
                Said::Lease { leases, .. } => {
                    for got in leases {
                        story.report(0, &[(got, DONE, format!("{}", got.index).as_bytes())]);
                    }
                }
                other => heard.push(other),
            }
        }
    }
    let done = |index, value: &[u8]| (1, index, Outcome::Done, value.to_vec());
    assert_eq!(endings(&heard), [done(0, b"1"), done(1, b"1")], "nobody is told of the graph's own tasks");
    story.hold(1, &[], &[], true);
    story.turn();
    assert_eq!(story.broker.statistics().tasks_held, 0);
}

#[test]
fn a_graph_goes_on_when_the_worker_dies_whose_task_became_it() {
    let mut story = story(2, 0);
    story.submit(1, &[&[]], &[0]);
    let (_, parent) = only(&story.leases());
    submit(&mut story, 0, parent, 1, 1, false, SUBMIT_REPLACES);
    story.report(0, &[(parent, Verdict::Became, b"")]);
    let (worker, inner) = only(&story.leases());
    story.exit(1 - worker, Exit::Signal(9), None);
    story.turn();
    story.report(worker, &[(inner, DONE, b"inner")]);
    assert_eq!(endings(&story.turn()), [(1, 0, Outcome::Done, b"inner".to_vec())]);
}

#[test]
fn a_failure_in_a_graph_is_its_tasks_and_a_cancel_reaches_in() {
    let mut story = story(1, 0);
    story.submit(1, &[&[]], &[0]);
    let (_, parent) = only(&story.leases());
    submit(&mut story, 0, parent, 1, 2, true, SUBMIT_REPLACES);
    story.report(0, &[(parent, Verdict::Became, b"")]);
    let inner = story.leases().remove(0).1[0];
    story.report(0, &[(inner, Verdict::Failed, b"why")]);
    assert_eq!(endings(&story.turn()), [(1, 0, Outcome::Failed, b"why".to_vec())]);

    story.submit(2, &[&[]], &[0]);
    let (_, parent) = only(&story.leases());
    submit(&mut story, 0, parent, 2, 2, true, SUBMIT_REPLACES);
    story.report(0, &[(parent, Verdict::Became, b"")]);
    let inner = story.leases().remove(0).1[0];
    story.cancel(2, &[]);
    let said = story.turn();
    assert_eq!(endings(&said), [(2, 0, Outcome::Cancelled, vec![CancelReason::User as u8])]);
    assert!(said.contains(&Said::Interrupt { worker: 0, task: inner.task, attempt: inner.attempt }), "{said:?}");
}

#[test]
fn a_death_in_a_graph_names_the_task_that_died() {
    let mut story = Story::with(1, |config| config.crash_limit = 1);
    story.submit(1, &[&[]], &[0]);
    let (_, outer) = only(&story.leases());
    submit(&mut story, 0, outer, 1, 1, false, SUBMIT_REPLACES);
    story.report(0, &[(outer, Verdict::Became, b"")]);
    // The graph's task becomes a graph itself.
    let (_, parent) = only(&story.leases());
    submit(&mut story, 0, parent, 2, 2, true, SUBMIT_REPLACES);
    story.report(0, &[(parent, Verdict::Became, b"")]);
    let inner = story.leases().remove(0).1[0];
    story.exit(0, Exit::Code(3), Some((inner.task, inner.attempt)));
    let told = endings(&story.turn());
    assert_eq!((told.len(), told[0].0, told[0].1, told[0].2), (1, 1, 0, Outcome::Died));
    let Ok(Message::Death(death)) = Message::decode(&told[0].3) else { panic!("{told:?}") };
    assert_eq!(death.key, "inner-0");
    story.connect_worker(0);
    story.submit(2, &[&[]], &[0]);
    let (_, plain) = only(&story.leases());
    story.exit(0, Exit::Code(3), Some((plain.task, plain.attempt)));
    let told = endings(&story.turn());
    let Ok(Message::Death(death)) = Message::decode(&told[0].3) else { panic!("{told:?}") };
    assert_eq!(death.key, "", "the client knows it");
}

#[test]
fn a_graph_that_was_not_submitted_is_none() {
    let mut story = story(1, 0);
    story.submit(1, &[&[]], &[0]);
    let (_, parent) = only(&story.leases());
    story.report(0, &[(parent, Verdict::Became, b"")]);
    assert!(
        story.turn().iter().any(|said| matches!(said, Said::Goodbye { text, .. } if text.contains("became a graph")))
    );
}

#[test]
fn waits_that_nothing_can_end_are_told_one_by_one() {
    let mut story = story(1, 0);
    story.submit(1, &[&[]], &[0]);
    let (_, parent) = only(&story.leases());
    wait(&mut story, 0, parent, true);
    let told = seconds(&mut story, 3, 1).into_iter().filter(|said| matches!(said, Said::Standstill { worker: 0, .. }));
    assert!(told.count() >= 1);
    wait(&mut story, 0, parent, false);
    let told = seconds(&mut story, 3, 1).into_iter().filter(|said| matches!(said, Said::Standstill { .. }));
    assert_eq!(told.count(), 0, "it runs");
}

fn wait_aside(story: &mut Story, worker: u32, got: Got, run: u32, index: u32) {
    let Got { task, attempt, .. } = got;
    let waiting = Waiting { task, attempt, waits: true, run, index, helps: false };
    story.send(story.peer(worker), &Message::Waiting(waiting));
}

#[test]
fn what_a_thread_beside_waits_for_ends_where_nobody_can_run_it() {
    for index in [0, WHOLE_RUN] {
        let mut story = story(1, 0);
        let parent = parent_of(&mut story, 1);
        wait_aside(&mut story, 0, parent, 1, index);
        assert_eq!(story.leases(), [], "only the main thread would run it");
        let said = seconds(&mut story, 2, 1);
        let told = endings(&said);
        assert_eq!((told.len(), told[0].0, told[0].1, told[0].2), (1, 1, 0, Outcome::Refused), "{said:?}");
        let text = String::from_utf8_lossy(&told[0].3);
        let expected =
            "Stalled: 'inner-0' waits for a worker; it is the next of its kind, and busy are worker 0 ('work-0' for ";
        assert!(text.starts_with(expected), "{text}");
        wait(&mut story, 0, parent, false);
        story.report(0, &[(parent, DONE, b"went on")]);
        assert!(endings(&story.turn()).contains(&(1, 0, Outcome::Done, b"went on".to_vec())));
        story.broker.check().unwrap();
    }
}

#[test]
fn a_task_that_computes_beside_its_wait_is_given_time() {
    let mut story = story(1, 0);
    let parent = parent_of(&mut story, 1);
    wait_aside(&mut story, 0, parent, 1, 0);
    story.turn();
    for second in 1..10 {
        story.broker.handle_cpu_time(0, second * SECOND_NS / 2);
        assert_eq!(endings(&seconds(&mut story, 1, 1)), []);
    }
    story.broker.handle_cpu_time(0, 9 * SECOND_NS / 2);
    let told = endings(&seconds(&mut story, 2, 1));
    assert_eq!(told.iter().map(|told| told.2).collect::<Vec<_>>(), [Outcome::Refused]);
}

#[test]
fn crashes_within_a_wait_count_against_the_attempt_at_the_bottom_too() {
    let mut story = story(1, 0);
    story.submit(1, &[&[]], &[0]);
    for death in 1..=3 {
        let (_, parent) = only(&story.leases());
        assert_eq!((parent.index, parent.flags & LEASE_NESTED), (0, 0));
        submit(&mut story, 0, parent, death, 1, false, 0);
        wait(&mut story, 0, parent, true);
        let (_, child) = only(&story.leases());
        assert_ne!(child.flags & LEASE_NESTED, 0);
        submit(&mut story, 0, child, 10 + death, 1, false, 0);
        wait(&mut story, 0, child, true);
        let (_, top) = only(&story.leases());
        story.exit(0, Exit::Code(3), Some((top.task, top.attempt)));
        let said = story.turn();
        let died = endings(&said).iter().any(|(run, index, how, _)| (*run, *index, *how) == (1, 0, Outcome::Died));
        assert_eq!(died, death == 3, "{said:?}");
        assert_eq!(story.broker.statistics().blamed_deaths, u64::from(death));
        story.connect_worker(0);
    }
    assert_eq!(story.leases(), [], "it does not run again");
}

#[test]
fn whoever_has_submitted_a_task_is_told_what_it_writes() {
    let mut story = story(1, 0);
    let parent = parent_of(&mut story, 1);
    wait(&mut story, 0, parent, true);
    let (_, child) = only(&story.leases());
    story.broker.handle_output(0, 1, b"inner\n", Some((child.task, child.attempt)));
    let said = story.turn();
    let Got { index, attempt, .. } = child;
    let told = Said::TaskLog { peer: story.peer(0), run: 1, index, attempt, before: 0, text: b"inner\n".to_vec() };
    assert!(said.contains(&told) && said.contains(&Said::Log { text: b"inner\n".to_vec() }), "{said:?}");
    story.broker.handle_output(0, 1, b"outer\n", Some((parent.task, parent.attempt)));
    let (said, worker) = (story.turn(), story.peer(0));
    assert!(!said.iter().any(|said| matches!(said, Said::TaskLog { peer, .. } if *peer == worker)), "{said:?}");
}
