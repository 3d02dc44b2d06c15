//! Stories of limits: who may hold what, who goes first, and that nobody waits for ever.

use crate::story::{CLIENT, Got, Said, Story};
use headrace_protocol::broker::{Exit, PeerId};
use headrace_protocol::limits::Offer;
use headrace_wire::{ANY_WORKER, BlobsBuf, Message, Outcome, Policy, Role, Submit, Verdict};

const DONE: Verdict = Verdict::Done;
const OTHER: PeerId = PeerId(1_000);

/// A task that asks for something: predecessors, priority, pin, resources and tags.
#[derive(Clone, Default)]
pub(crate) struct Ask {
    pub(crate) deps: &'static [u32],
    pub(crate) priority: i32,
    pub(crate) pin: Option<u32>,
    pub(crate) resources: &'static [(&'static str, u64)],
    pub(crate) tags: &'static [&'static str],
}

pub(crate) fn tagged(tag: &'static [&'static str]) -> Ask {
    Ask { tags: tag, ..Ask::default() }
}

pub(crate) fn taking(resources: &'static [(&'static str, u64)]) -> Ask {
    Ask { resources, ..Ask::default() }
}

fn policy(ask: &Ask) -> Vec<u8> {
    if ask.resources.is_empty() && ask.tags.is_empty() {
        return Vec::new();
    }
    let (mut names, mut tags, mut amounts) = (BlobsBuf::default(), BlobsBuf::default(), Vec::new());
    for (name, amount) in ask.resources {
        names.push(name.as_bytes());
        amounts.extend_from_slice(&amount.to_le_bytes());
    }
    ask.tags.iter().for_each(|tag| tags.push(tag.as_bytes()));
    let policy = Policy { resources: names.as_blobs(), amounts: &amounts, tags: tags.as_blobs(), ..Policy::default() };
    let mut blob = Vec::new();
    Message::Policy(policy).encode(&mut blob);
    blob
}

/// Submits tasks of one function as run `run` of a client, with its number for that function.
pub(crate) fn submit(story: &mut Story, peer: PeerId, run: u32, run_priority: i32, asks: &[Ask]) {
    let counts: Vec<u32> = asks.iter().map(|ask| ask.deps.len() as u32).collect();
    let deps: Vec<u32> = asks.iter().flat_map(|ask| ask.deps.iter().copied()).collect();
    let zeros = vec![0; asks.len()];
    let rows: Vec<u32> = (0..asks.len() as u32).collect();
    let priority: Vec<u32> = asks.iter().map(|ask| ask.priority as u32).collect();
    let pins: Vec<u32> = asks.iter().map(|ask| ask.pin.unwrap_or(ANY_WORKER)).collect();
    let (mut policies, mut name, mut args) = (BlobsBuf::default(), BlobsBuf::default(), BlobsBuf::default());
    asks.iter().for_each(|ask| policies.push(&policy(ask)));
    asks.iter().for_each(|_| args.push(b""));
    name.push(b"work");
    let number = [run];
    let submit = Submit {
        run,
        function_ids: number[..].into(),
        function_names: name.as_blobs(),
        functions: name.as_blobs(),
        function_map: number[..].into(),
        task_function: (&zeros).into(),
        dep_counts: (&counts).into(),
        deps: (&deps).into(),
        args: args.as_blobs(),
        task_options: (&rows).into(),
        priority: (&priority).into(),
        worker: (&pins).into(),
        policies: policies.as_blobs(),
        keep: (&rows).into(),
        run_priority,
        ..Submit::default()
    };
    story.send(peer, &Message::Submit(submit));
}

fn db(limit: u64) -> Offer {
    Offer::new([], [("db".into(), limit)], [])
}

fn licenses(amount: u64) -> Offer {
    Offer::new([("license".into(), amount)], [], [])
}

/// The workers of the leases, one entry a task.
fn takers(leases: &[(u32, Vec<Got>)]) -> Vec<u32> {
    leases.iter().flat_map(|(worker, got)| got.iter().map(|_| *worker)).collect()
}

fn all(leases: Vec<(u32, Vec<Got>)>) -> Vec<(u32, Got)> {
    leases.into_iter().flat_map(|(worker, got)| got.into_iter().map(move |got| (worker, got))).collect()
}

/// A task of a millisecond ends.
fn done(story: &mut Story, worker: u32, got: Got) {
    story.report_timed(worker, &[(got, DONE, b"")], &[(got.function, 1, 1_000_000)]);
}

/// Lets workers finish their oldest lease, in turns, until there is none; the (worker, function, index) in the order of their
/// ends. At each turn `check` sees who holds which leases.
fn run_all(
    story: &mut Story,
    mut queue: Vec<(u32, Got)>,
    mut check: impl FnMut(&[(u32, Got)]),
) -> Vec<(u32, u32, u32)> {
    let mut ended = Vec::new();
    queue.extend(all(story.leases()));
    while !queue.is_empty() {
        check(&queue);
        let workers: Vec<u32> = (0..8).filter(|worker| queue.iter().any(|lease| lease.0 == *worker)).collect();
        for worker in workers {
            let at = queue.iter().position(|lease| lease.0 == worker).expect("it has a lease");
            let (_, got) = queue.remove(at);
            done(story, worker, got);
            ended.push((worker, got.function, got.index));
        }
        story.pass_ns(1_000_000);
        queue.extend(all(story.leases()));
    }
    ended
}

/// Teaches the broker that a call of the function of `run` takes a microsecond.
fn teach(story: &mut Story, run: u32) {
    story.submit(run, &[&[]], &[0]);
    let leases = all(story.leases());
    done(story, leases[0].0, leases[0].1);
    story.turn();
}

#[test]
fn as_many_workers_as_the_limit_says_hold_tasks_of_a_tag() {
    let mut story = Story::with_offer(4, db(2));
    submit(&mut story, CLIENT, 1, 0, &vec![tagged(&["db"]); 12]);
    let ended = run_all(&mut story, Vec::new(), |queue| {
        let mut holders: Vec<u32> = queue.iter().map(|lease| lease.0).collect();
        holders.sort_unstable();
        holders.dedup();
        assert!(holders.len() <= 2, "{queue:?}");
    });
    assert_eq!(ended.len(), 12);
}

#[test]
fn a_tag_without_a_limit_costs_nothing() {
    let mut story = Story::with_offer(3, db(1));
    submit(&mut story, CLIENT, 1, 0, &vec![tagged(&["mail"]); 6]);
    assert_eq!(takers(&story.leases()), [0, 1, 2, 0, 1, 2]);
}

#[test]
fn a_worker_holds_what_a_class_takes_once_whatever_its_queue() {
    let mut story = Story::with_offer(2, licenses(5));
    submit(&mut story, CLIENT, 1, 0, &vec![taking(&[("license", 3)]); 6]);
    assert_eq!(takers(&story.leases()), [0, 0], "two of five are left, and three are needed");
}

#[test]
fn a_waiter_goes_out_in_the_turn_in_which_the_last_lease_ends() {
    let mut story = Story::with_offer(2, licenses(2));
    submit(&mut story, CLIENT, 1, 0, &[taking(&[("license", 2)])]);
    submit(&mut story, CLIENT, 2, 0, &[Ask { pin: Some(1), ..taking(&[("license", 1)]) }]);
    let first = all(story.leases());
    assert_eq!(first.len(), 1);
    done(&mut story, first[0].0, first[0].1);
    assert_eq!(takers(&story.leases()), [1]);
}

#[test]
fn a_failure_a_cancel_and_a_death_end_a_grant() {
    let mut story = Story::with_offer(2, db(1));
    submit(&mut story, CLIENT, 1, 0, &vec![tagged(&["db"]); 12]);
    let warm_up = all(story.leases());
    warm_up.iter().for_each(|(worker, got)| done(&mut story, *worker, *got));
    let leases = all(story.leases());
    let [(holder, first), (_, second)] = leases[..] else { panic!("{leases:?}") };
    story.report_timed(holder, &[(first, Verdict::Failed, b"boom")], &[(first.function, 1, 1_000_000)]);
    let more = all(story.leases());
    assert!(more.iter().all(|lease| lease.0 == holder), "it still has one: {more:?}");
    // A cancelled attempt may still run, so what it holds comes back when its worker says that it is over.
    story.cancel(1, &[second.index]);
    story.cancel(1, &[more[0].1.index]);
    assert_eq!(story.leases(), []);
    story.report(holder, &[(second, Verdict::Cancelled, b""), (more[0].1, Verdict::Cancelled, b"")]);
    let next = all(story.leases());
    assert!(!next.is_empty());
    let (holder, executing) = next[0];
    story.exit(holder, Exit::Signal(9), Some((executing.task, executing.attempt)));
    let after = all(story.leases());
    assert!(!after.is_empty() && after.iter().all(|lease| lease.0 == 1 - holder), "its death frees what it held");
}

#[test]
fn a_worker_goes_on_with_what_nobody_else_can_have() {
    // One worker runs what is tagged, the other the rest: nothing is held idle.
    let mut story = Story::with_offer(2, db(1));
    let mut asks = vec![tagged(&["db"]); 10];
    asks.extend(vec![Ask::default(); 10]);
    submit(&mut story, CLIENT, 1, 0, &asks);
    let ended = run_all(&mut story, Vec::new(), |_| {});
    let of_tagged: Vec<u32> = ended.iter().filter(|end| end.2 < 10).map(|end| end.0).collect();
    assert_eq!(of_tagged, vec![of_tagged[0]; 10]);
    let last_tagged = ended.iter().position(|end| end.2 == 9).expect("it ended");
    assert!(last_tagged >= 18, "both are through at the same time: {ended:?}");
}

#[test]
fn two_scarce_tags_do_not_starve_the_rest() {
    let mut story = Story::with_offer(2, Offer::new([], [("a".into(), 1), ("b".into(), 1)], []));
    let mut asks = vec![tagged(&["a"]); 60];
    asks.extend(vec![tagged(&["b"]); 60]);
    asks.push(Ask::default());
    submit(&mut story, CLIENT, 1, 0, &asks);
    let ended = run_all(&mut story, Vec::new(), |_| {});
    let place = ended.iter().position(|end| end.2 == 120).expect("it ended");
    assert!(place < 30, "at {place} of {}", ended.len());
}

#[test]
fn a_large_demand_is_not_starved_by_small_ones() {
    let mut story = Story::with_offer(4, licenses(4));
    submit(&mut story, CLIENT, 1, 0, &vec![taking(&[("license", 1)]); 100]);
    let queue = all(story.leases());
    submit(&mut story, CLIENT, 2, 0, &[taking(&[("license", 4)])]);
    let ended = run_all(&mut story, queue, |_| {});
    let large_at = ended.iter().position(|end| end.1 == 1).expect("it ended");
    assert!(large_at < 30, "at {large_at} of {}: {ended:?}", ended.len());
}

#[test]
fn a_small_demand_of_higher_priority_may_overtake_a_large_one_for_as_long_as_it_likes() {
    let mut story = Story::with_offer(2, licenses(2));
    submit(&mut story, CLIENT, 1, 0, &vec![Ask { priority: 5, ..taking(&[("license", 1)]) }; 100]);
    let queue = all(story.leases());
    submit(&mut story, CLIENT, 2, 0, &[taking(&[("license", 2)])]);
    let ended = run_all(&mut story, queue, |_| {});
    assert_eq!(ended.last(), Some(&(0, 1, 0)));
}

#[test]
fn what_belongs_to_single_workers_decides_who_runs_a_task() {
    let offer = Offer::new([], [], [("gpu".into(), vec![1, 0, 2])]);
    let mut story = Story::with_offer(3, offer);
    submit(&mut story, CLIENT, 1, 0, &vec![taking(&[("gpu", 1)]); 4]);
    submit(&mut story, CLIENT, 2, 0, &vec![taking(&[("gpu", 2)]); 2]);
    let mut workers = takers(&story.leases());
    workers.sort_unstable();
    assert_eq!(workers, [0, 0, 2, 2]);
}

#[test]
fn a_chain_of_tagged_tasks_stays_one_batch() {
    let mut story = Story::with_offer(2, db(1));
    teach(&mut story, 9);
    let deps: [&'static [u32]; 4] = [&[], &[0], &[1], &[2]];
    let asks: Vec<Ask> = deps.into_iter().map(|deps| Ask { deps, ..tagged(&["db"]) }).collect();
    submit(&mut story, CLIENT, 1, 0, &asks);
    let first = story.leases();
    assert_eq!(first[0].1.len() + first.get(1).map_or(0, |frame| frame.1.len()), 2, "not measured yet: {first:?}");
    assert!(first.iter().all(|frame| frame.0 == first[0].0));
}

#[test]
fn a_follower_of_another_class_goes_where_its_input_is_made() {
    let mut story = Story::with_offer(2, db(1));
    submit(&mut story, CLIENT, 1, 0, &[Ask::default(), Ask { deps: &[0], ..tagged(&["db"]) }]);
    let leases = all(story.leases());
    assert_eq!(leases.iter().map(|lease| lease.0).collect::<Vec<_>>(), [0, 0]);
}

#[test]
fn a_demand_that_no_worker_can_meet_is_refused_with_the_best_offer() {
    let offer = Offer::new([("memory".into(), 48 << 30)], [], [("gpu".into(), vec![1, 0])]);
    let refused = |ask: Ask, words: &str| {
        let mut story = Story::with_offer(2, offer.clone());
        submit(&mut story, CLIENT, 1, 0, &[Ask::default(), ask]);
        let said = story.turn();
        let [Said::Ended { finished: true, endings, .. }] = &said[..] else { panic!("{said:?}") };
        for (_, outcome, text) in endings {
            assert_eq!(*outcome, Outcome::Refused);
            assert_eq!(String::from_utf8_lossy(text), words);
        }
    };
    refused(
        taking(&[("gpu", 3)]),
        "NoSuitableWorker: task 'work-1' asks for gpu=3; the most that one worker has is gpu=1 (worker 0)",
    );
    refused(
        Ask { pin: Some(1), ..taking(&[("gpu", 1)]) },
        "NoSuitableWorker: task 'work-1' asks for gpu=1 and is pinned to worker 1, which has gpu=0",
    );
    refused(
        taking(&[("memory", 64 << 30)]),
        "NoSuitableWorker: task 'work-1' asks for memory=64GiB; there is memory=48GiB in all",
    );
    refused(
        taking(&[("license", 1)]),
        "NoSuitableWorker: task 'work-1' asks for license=1; this client has no resource 'license': say how much there is \
         by Client(resources={'license': …})",
    );
}

#[test]
fn b4_an_idle_worker_gets_no_task_whose_tag_it_cannot_have() {
    let mut story = Story::with_offer(2, db(1));
    submit(&mut story, CLIENT, 1, 0, &vec![tagged(&["db"]); 4]);
    assert_eq!(takers(&story.leases()), [0, 0]);
    story.pass_ns(50_000_000);
    assert_eq!(story.turn(), [], "worker 1 is idle, and cannot have the tag");
}

#[test]
fn b4_a_grant_that_stands_behind_a_long_task_moves_to_an_idle_worker() {
    let mut story = Story::with_offer(2, db(1));
    let pinned = |worker| Ask { pin: Some(worker), ..Ask::default() };
    submit(&mut story, CLIENT, 1, 0, &[pinned(0), pinned(1), pinned(1)]);
    let busy = all(story.leases());
    submit(&mut story, CLIENT, 2, 0, &vec![tagged(&["db"]); 3]);
    let behind = all(story.leases());
    assert_eq!(behind.iter().map(|lease| lease.0).collect::<Vec<_>>(), [0], "worker 1 has two frames");
    busy[1..].iter().for_each(|(worker, got)| done(&mut story, *worker, *got));
    // What worker 0 holds, worker 1 cannot have: it is asked for all of that.
    assert_eq!(
        story.turn(),
        [
            Said::Recall { worker: 0, tasks: vec![behind[0].1.task], fetch: vec![] },
            Said::Ended {
                run: 1,
                finished: false,
                endings: vec![(1, Outcome::Done, vec![]), (2, Outcome::Done, vec![])]
            },
        ]
    );
    story.report_timed(0, &[(behind[0].1, Verdict::Returned, b"")], &[]);
    assert_eq!(takers(&story.leases()), [1, 1]);
    assert_eq!(story.turn(), []);
    story.pass_ns(10_000_000);
    assert_eq!(story.turn(), [], "nobody is idle");
}

#[test]
fn a_run_of_higher_priority_goes_first() {
    let mut story = Story::new(1);
    submit(&mut story, CLIENT, 1, 0, &vec![Ask::default(); 6]);
    let queue = all(story.leases());
    submit(&mut story, CLIENT, 2, 5, &vec![Ask { priority: -1, ..Ask::default() }; 3]);
    submit(&mut story, CLIENT, 3, i32::MAX, &[Ask { priority: 3, ..Ask::default() }]);
    let ended = run_all(&mut story, queue, |_| {});
    let order: Vec<u32> = ended.iter().map(|end| end.1).collect();
    assert_eq!(order, [0, 0, 2, 1, 1, 1, 0, 0, 0, 0], "two were with the worker already");
}

#[test]
fn two_clients_share_the_workers_whatever_they_have_submitted() {
    let mut story = Story::new(2);
    story.hello(OTHER, Role::Client, 0, 0);
    submit(&mut story, CLIENT, 1, 100, &vec![Ask { priority: 7, ..Ask::default() }; 200]);
    let queue = all(story.leases());
    submit(&mut story, OTHER, 1, 0, &vec![Ask::default(); 50]);
    let mut mine = 0;
    let mut queue = queue;
    for _ in 0..40 {
        for worker in 0..2 {
            let at = queue.iter().position(|lease| lease.0 == worker).expect("there is work for all");
            let (_, got) = queue.remove(at);
            story.report_timed(worker, &[(got, DONE, b"")], &[(got.function, 1, 1_000_000)]);
            mine += u32::from(got.function == 0);
        }
        story.pass_ns(1_000_000);
        queue.extend(all(story.leases()));
    }
    assert!((36..=44).contains(&mine), "{mine} of 80");
}

#[test]
fn the_share_is_of_time_and_not_of_tasks() {
    let mut story = Story::new(1);
    story.hello(OTHER, Role::Client, 0, 0);
    submit(&mut story, CLIENT, 1, 0, &vec![Ask::default(); 100]);
    submit(&mut story, OTHER, 1, 0, &vec![Ask::default(); 400]);
    let mut queue = all(story.leases());
    let mut ns = [0_u64; 2];
    for _ in 0..120 {
        let (_, got) = queue.remove(0);
        let is_other = got.function == 1;
        let took_ns = if is_other { 1_000_000 } else { 5_000_000 };
        ns[usize::from(is_other)] += took_ns;
        story.pass_ns(took_ns);
        story.report_timed(0, &[(got, DONE, b"")], &[(got.function, 1, took_ns as u32)]);
        queue.extend(all(story.leases()));
    }
    assert!(ns[0].abs_diff(ns[1]) <= 15_000_000, "{ns:?}");
}

#[test]
fn who_was_idle_has_saved_nothing_up() {
    let mut story = Story::new(1);
    story.hello(OTHER, Role::Client, 0, 0);
    // The first client works for a second by itself.
    submit(&mut story, CLIENT, 1, 0, &vec![Ask::default(); 300]);
    let mut queue = all(story.leases());
    let step = |story: &mut Story, queue: &mut Vec<(u32, Got)>| {
        let (_, got) = queue.remove(0);
        story.pass_ns(5_000_000);
        story.report_timed(0, &[(got, DONE, b"")], &[(got.function, 1, 5_000_000)]);
        queue.extend(all(story.leases()));
        got.function
    };
    for _ in 0..200 {
        step(&mut story, &mut queue);
    }
    submit(&mut story, OTHER, 1, 0, &vec![Ask::default(); 300]);
    let other = (0..40).filter(|_| step(&mut story, &mut queue) != 0).count();
    assert!((17..=23).contains(&other), "{other} of 40");
}

#[test]
fn a_client_that_is_gone_leaves_its_number_to_the_next() {
    let mut story = Story::new(1);
    for _ in 0..3 {
        story.hello(OTHER, Role::Client, 0, 0);
        submit(&mut story, OTHER, 1, 0, &[Ask::default()]);
        story.leases();
        story.broker.handle_disconnect(OTHER, story.now_ns);
        story.turn();
    }
    submit(&mut story, CLIENT, 1, 0, &[Ask::default()]);
    let _ = story.turn();
}
