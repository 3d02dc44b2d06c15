//! Workers of other machines: their agents join, obey, tell, leave, and are lost.

use crate::limits::{submit, taking};
use crate::story::{CLIENT, Got, Said, Story};
use crate::{DONE, run_all};
use headrace_protocol::broker::{Exit, PeerId};
use headrace_protocol::limits::Offer;
use headrace_wire::{Event, EventKind, GoodbyeReason, Heartbeat, Message, Order, OrderKind, Role, Verdict};

const AGENT: PeerId = PeerId(700);
const OTHER: PeerId = PeerId(701);
const SECOND_NS: u64 = 1_000_000_000;

/// A broker with one worker of its own and four places for others.
fn with_places() -> Story {
    Story::with(1, |config| (config.places, config.spares) = (4, 1))
}

fn join(story: &mut Story, agent: PeerId, slots: u32) -> Vec<Order> {
    story.hello(agent, Role::Agent, slots, 0);
    story.turn();
    story.take_orders()
}

/// An agent joins, and its workers say HELLO.
fn join_with_workers(story: &mut Story, agent: PeerId, slots: u32) -> Vec<u32> {
    let orders = join(story, agent, slots);
    assert!(orders.iter().all(|order| order.kind == OrderKind::Start as u8), "{orders:?}");
    for order in &orders {
        story.note_incarnation(order.worker, order.incarnation);
        story.connect_worker(order.worker);
    }
    story.turn();
    orders.iter().map(|order| order.worker).collect()
}

fn tell(story: &mut Story, agent: PeerId, kind: EventKind, event: Event<'_>) {
    story.send(agent, &Message::Event(Event { kind: kind as u8, ..event }));
}

fn leases_of(said: &[Said]) -> Vec<(u32, Got)> {
    let leases = said.iter().flat_map(|said| match said {
        Said::Lease { worker, leases, .. } => leases.iter().map(|got| (*worker, *got)).collect(),
        _ => Vec::new(),
    });
    leases.collect()
}

#[test]
fn an_agent_is_given_places_and_its_workers_take_work() {
    let mut story = with_places();
    assert_eq!(join_with_workers(&mut story, AGENT, 2), [1, 2]);
    assert_eq!(join_with_workers(&mut story, OTHER, 2), [3, 4], "a spare worker's place is none for machines");
    story.submit(1, &[&[][..]; 40], &(0..40).collect::<Vec<u32>>());
    let said = story.turn();
    let mut workers: Vec<u32> = leases_of(&said).into_iter().map(|(worker, _)| worker).collect();
    workers.sort_unstable();
    workers.dedup();
    assert_eq!(workers, [0, 1, 2, 3, 4]);
}

#[test]
fn who_has_more_slots_than_there_are_places_is_refused() {
    let mut story = with_places();
    join(&mut story, AGENT, 3);
    for (slots, places) in [(2, 1), (0, 0)] {
        story.hello(OTHER, Role::Agent, slots, 0);
        let said = story.turn();
        let Some(Said::Goodbye { peer: OTHER, text, .. }) = said.first() else { panic!("{said:?}") };
        assert!(text.starts_with(&format!("it has {slots} slots, and there are {places} free places")), "{text}");
        story.broker.handle_unreachable(OTHER, story.now_ns);
        story.turn();
    }
}

#[test]
fn a_process_that_ends_is_started_anew_where_it_was() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    let event = Event { worker: 1, incarnation: 1, number: 9, ..Event::default() };
    tell(&mut story, AGENT, EventKind::Killed, event);
    story.pass_ns(SECOND_NS / 2);
    story.turn();
    let orders = story.take_orders();
    assert_eq!(orders, [Order { kind: OrderKind::Start as u8, worker: 1, incarnation: 2, task: 0, attempt: 0 }]);
}

#[test]
fn a_death_blames_the_attempt_that_the_agent_names() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    story.exit(0, Exit::Code(1), None); // the broker's own is away for a moment
    story.submit(1, &[&[]], &[0]);
    let (worker, got) = leases_of(&story.turn())[0];
    assert_eq!(worker, 1);
    let Got { task, attempt, .. } = got;
    let event = Event { worker, incarnation: 1, number: 11, task, attempt, ..Event::default() };
    tell(&mut story, AGENT, EventKind::Killed, event);
    assert_eq!(story.broker.statistics().blamed_deaths, 1);
}

#[test]
fn what_a_lost_machine_had_is_leased_to_others() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 2);
    story.submit(1, &[&[][..]; 30], &(0..30).collect::<Vec<u32>>());
    let mut given = leases_of(&story.turn());
    assert!(given.iter().any(|(worker, _)| *worker == 2));
    story.broker.handle_unreachable(AGENT, story.now_ns);
    let late = given.iter().find(|(worker, _)| *worker == 1).copied().unwrap();
    let peer = story.peer(1);
    given.retain(|(worker, _)| *worker == 0);
    given.extend(leases_of(&story.turn()));
    for (worker, got) in given {
        story.report(worker, &[(got, DONE, b"0")]);
    }
    assert_eq!(run_all(&mut story).len(), 30);
    story.become_peer(1, peer);
    story.report(1, &[(late.1, DONE, b"late")]);
    let said = story.turn();
    assert!(matches!(&said[0], Said::Goodbye { peer: cut, .. } if *cut == peer), "it is a stranger now: {said:?}");
    assert_eq!(story.broker.statistics().blamed_deaths, 0);
}

#[test]
fn a_machine_that_comes_back_gets_places_again() {
    let mut story = with_places();
    for _ in 0..3 {
        assert_eq!(join_with_workers(&mut story, AGENT, 4), [1, 2, 3, 4]);
        story.broker.handle_unreachable(AGENT, story.now_ns);
        assert!(story.turn().contains(&Said::Gone { peer: AGENT }));
        assert_eq!(story.take_orders(), [], "nobody is there to obey");
    }
}

#[test]
fn an_agent_that_gives_no_sign_of_life_is_cut_after_five_questions() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    let mut cut = None;
    for second in 1..10 {
        story.pass_ns(SECOND_NS);
        let beat = Message::Heartbeat(Heartbeat { number: second, finished: 0 });
        story.send(story.peer(0), &beat);
        if cut.is_none() {
            story.send(story.peer(1), &beat);
        }
        if story.turn().contains(&Said::Cut { peer: AGENT }) {
            cut = Some(second);
        }
    }
    assert_eq!(cut, Some(5));
}

#[test]
fn orders_go_to_the_agent_and_what_concerns_the_brokers_own_stays_here() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    story.submit(1, &[&[][..]; 2], &[0, 1]);
    let given = leases_of(&story.turn());
    assert_eq!(given.iter().map(|(worker, _)| *worker).collect::<Vec<u32>>(), [0, 1]);
    story.cancel(1, &[]);
    let said = story.turn();
    assert!(said.iter().any(|said| matches!(said, Said::Interrupt { worker: 0, .. })), "{said:?}");
    let Got { task, attempt, .. } = given[1].1;
    let interrupt = Order { kind: OrderKind::Interrupt as u8, worker: 1, incarnation: 0, task, attempt };
    assert!(story.take_orders().contains(&interrupt));
    story.pass_ns(2 * SECOND_NS);
    story.turn();
    let kill = Order { kind: OrderKind::Kill as u8, worker: 1, ..Order::default() };
    assert!(story.take_orders().contains(&kill), "it ignored that");
}

#[test]
fn what_a_task_wrote_may_come_after_its_report() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    story.submit(7, &[&[][..]; 2], &[0, 1]);
    let given = leases_of(&story.turn());
    let (worker, got) = given[1];
    story.report(worker, &[(got, DONE, b"")]);
    story.turn();
    let Got { task, attempt, index, .. } = got;
    let event = Event { worker, number: 1, task, attempt, text: b"late\n", ..Event::default() };
    tell(&mut story, AGENT, EventKind::Wrote, event);
    let late = Said::TaskLog { peer: CLIENT, run: 7, index, attempt, before: 0, text: b"late\n".to_vec() };
    assert!(story.turn().contains(&late));
}

#[test]
fn an_agent_speaks_of_its_own_workers_alone() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    join_with_workers(&mut story, OTHER, 1);
    story.submit(1, &[&[][..]; 3], &[0, 1, 2]);
    assert_eq!(leases_of(&story.turn()).len(), 3);
    for worker in [0, 1, 9, u32::MAX] {
        let event = Event { worker, incarnation: 1, number: 9, ..Event::default() };
        tell(&mut story, OTHER, EventKind::Killed, event);
    }
    assert_eq!(story.turn(), []);
    assert_eq!(story.broker.statistics().worker_deaths, 0);
}

#[test]
fn a_machine_whose_processes_never_come_up_is_told_so() {
    let mut story = with_places();
    let mut orders = join(&mut story, AGENT, 1);
    for _ in 0..3 {
        let order = orders.pop().unwrap();
        tell(
            &mut story,
            AGENT,
            EventKind::Wrote,
            Event { worker: 1, number: 2, text: b"no such module\n", ..Event::default() },
        );
        let event = Event { worker: 1, incarnation: order.incarnation, number: 3, ..Event::default() };
        tell(&mut story, AGENT, EventKind::Exited, event);
        story.pass_ns(SECOND_NS);
        let said = story.turn();
        if let Some(Said::Goodbye { reason, text, .. }) = said.iter().find(|said| matches!(said, Said::Goodbye { .. }))
        {
            assert_eq!(*reason, GoodbyeReason::WorkersFailed as u8);
            assert!(text.contains("worker 1 exited with code 3 before it could take work, 3 times in a row"), "{text}");
            assert!(text.contains("no such module"), "{text}");
            story.submit(1, &[&[]], &[0]);
            assert_eq!(run_all(&mut story).len(), 1, "the broker goes on");
            return;
        }
        orders = story.take_orders();
    }
    panic!("it was not told");
}

#[test]
fn a_broker_without_workers_waits_for_a_machine() {
    let mut story = Story::with(0, |config| config.places = 2);
    story.submit(1, &[&[], &[]], &[0, 1]);
    for _ in 0..10 {
        story.pass_ns(SECOND_NS);
        let said = story.turn();
        assert!(said.iter().all(|said| matches!(said, Said::Log { .. })), "{said:?}");
    }
    let orders = join(&mut story, AGENT, 1);
    story.note_incarnation(0, orders[0].incarnation);
    story.connect_worker(0);
    assert!(!story.broker.has_given_up());
    assert_eq!(run_all(&mut story).len(), 2);
}

// -- machines that leave ----------------------------------------------------------------------------------------------

#[test]
fn a_machine_that_leaves_ends_what_it_runs_and_gives_the_rest_back() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 1);
    story.exit(0, Exit::Code(1), None); // the broker's own is away for a moment
    story.submit(1, &[&[][..]; 20], &(0..20).collect::<Vec<u32>>());
    let given = leases_of(&story.turn());
    assert!(given.len() > 1 && given.iter().all(|(worker, _)| *worker == 1), "{given:?}");
    tell(&mut story, AGENT, EventKind::Leaving, Event::default());
    let said = story.turn();
    let Some(Said::Recall { worker: 1, tasks, .. }) = said.iter().find(|said| matches!(said, Said::Recall { .. }))
    else {
        panic!("{said:?}")
    };
    assert_eq!(tasks.len(), given.len() - 1, "all but the first");
    for (worker, got) in &given[1..] {
        story.report(*worker, &[(*got, Verdict::Returned, b"")]);
    }
    assert!(leases_of(&story.turn()).is_empty(), "it is given nothing more");
    story.report(1, &[(given[0].1, DONE, b"0")]);
    let said = story.turn();
    assert!(is_told_to_leave(&said, story.peer(1)) && !is_told_to_leave(&said, AGENT), "{said:?}");
    tell(&mut story, AGENT, EventKind::Exited, Event { worker: 1, incarnation: 1, ..Event::default() });
    let said = story.turn();
    assert!(is_told_to_leave(&said, AGENT), "{said:?}");
    story.pass_ns(SECOND_NS);
    story.turn();
    assert_eq!(story.take_orders(), [], "nothing is started there");
    assert_eq!(story.broker.statistics().blamed_deaths, 0);
    let orders = join(&mut story, OTHER, 4);
    assert_eq!(orders.iter().map(|order| order.worker).collect::<Vec<u32>>(), [1, 2, 3, 4], "its place is free");
    orders.iter().for_each(|order| story.note_incarnation(order.worker, order.incarnation));
    orders.iter().for_each(|order| story.connect_worker(order.worker));
    assert_eq!(run_all(&mut story).len(), 19);
}

#[test]
fn a_machine_without_work_leaves_at_once() {
    let mut story = with_places();
    join_with_workers(&mut story, AGENT, 2);
    join(&mut story, OTHER, 1);
    tell(&mut story, AGENT, EventKind::Leaving, Event::default());
    tell(&mut story, AGENT, EventKind::Leaving, Event::default());
    let said = story.turn();
    assert!(is_told_to_leave(&said, story.peer(1)) && is_told_to_leave(&said, story.peer(2)), "{said:?}");
    tell(&mut story, OTHER, EventKind::Leaving, Event::default());
    story.turn();
    let kill = Order { kind: OrderKind::Kill as u8, worker: 3, ..Order::default() };
    assert_eq!(story.take_orders(), [kill], "one that is starting has nothing to end");
    story.broker.handle_unreachable(AGENT, story.now_ns);
    story.broker.handle_unreachable(OTHER, story.now_ns);
    story.turn();
    assert_eq!(join_with_workers(&mut story, AGENT, 4), [1, 2, 3, 4]);
}

fn is_told_to_leave(said: &[Said], whom: PeerId) -> bool {
    said.iter().any(|said| matches!(said, Said::Goodbye { peer, .. } if *peer == whom))
}

// -- what a machine has ------------------------------------------------------------------------------------------------

fn has(story: &mut Story, agent: PeerId, name: &str, amount: u64) {
    let event = Event { text: name.as_bytes(), incarnation: amount, ..Event::default() };
    tell(story, agent, EventKind::Has, event);
}

fn workers_of(said: &[Said]) -> Vec<u32> {
    let mut workers: Vec<u32> = leases_of(said).into_iter().map(|(worker, _)| worker).collect();
    workers.sort_unstable();
    workers.dedup();
    workers
}

#[test]
fn what_a_machine_has_is_its_workers_alone() {
    let mut story = Story::with(1, |config| (config.places, config.offer.grows) = (4, true));
    let asks = vec![taking(&[("fpga", 1)]); 3];
    submit(&mut story, CLIENT, 1, 0, &asks);
    assert!(workers_of(&story.turn()).is_empty(), "nobody has it, and a machine may come");
    join_with_workers(&mut story, OTHER, 2);
    assert!(workers_of(&story.turn()).is_empty(), "not that one");
    join(&mut story, AGENT, 2).iter().for_each(|order| story.note_incarnation(order.worker, order.incarnation));
    has(&mut story, AGENT, "fpga", 1);
    story.connect_worker(3);
    story.connect_worker(4);
    assert_eq!(workers_of(&story.turn()), [3], "the other one there would need another");
    story.broker.handle_unreachable(AGENT, story.now_ns);
    assert!(workers_of(&story.turn()).is_empty(), "it went with its machine");
    has(&mut story, OTHER, "fpga", 2);
    assert_eq!(workers_of(&story.turn()), [1, 2]);
}

#[test]
fn what_the_broker_counts_is_no_machines() {
    let offer = Offer::new([("license".into(), 1)], [], []);
    let mut story = Story::with(1, |config| (config.places, config.offer) = (4, offer.clone()));
    join(&mut story, AGENT, 1);
    has(&mut story, AGENT, "license", 1);
    let said = story.turn();
    let told = said.iter().find_map(|said| match said {
        Said::Goodbye { peer: AGENT, text, .. } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(told, Some("the broker counts the resource 'license' for all machines together"));
}
