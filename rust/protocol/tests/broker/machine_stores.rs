//! Memory of several machines: shared within one, copied to others, lost with them; and clients that share none.

use crate::story::{CLIENT, Got, Said, Story};
use headrace_protocol::broker::PeerId;
use headrace_wire::{
    Citation, EstateKind, Event, EventKind, GoodbyeReason, Message, Outcome, Released, Role, Verdict, Want, carried,
    citations, write_citations,
};

const KEY: &str = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
const HOME: PeerId = PeerId(500);
const BYTES: u64 = 1 << 20;
const LIMIT: u64 = 1 << 30;

fn agent(number: u64) -> PeerId {
    PeerId(700 + number)
}

/// A broker with so many workers of its own and machines with as many workers as are given, numbered after them.
fn with_machines(own: u32, slots: &[u32]) -> Story {
    let mut story = Story::with(own, |config| config.places = slots.iter().sum());
    story.broker.set_place("tcp://:5000", KEY);
    for (number, slots) in (0..).zip(slots) {
        join(&mut story, agent(number), *slots, LIMIT);
    }
    story
}

fn join(story: &mut Story, agent: PeerId, slots: u32, limit: u64) -> Vec<u32> {
    story.hello(agent, Role::Agent, slots, 0);
    let place = format!("tcp://10.0.0.{}:4000 {KEY}", agent.0);
    tell(story, agent, EventKind::Stores, Event { incarnation: limit, text: place.as_bytes(), ..Event::default() });
    story.turn();
    let orders = story.take_orders();
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

fn copied(story: &mut Story, agent: PeerId, job: u64, why: &str) {
    tell(story, agent, EventKind::Copied, Event { incarnation: job, text: why.as_bytes(), ..Event::default() });
}

/// The segment that a worker is granted on its machine.
fn granted(story: &mut Story, worker: u32, agent: PeerId) -> u32 {
    story.send(story.peer(worker), &Message::Want(Want { bytes: BYTES }));
    let said = story.turn();
    let granted = said.iter().find_map(|said| match said {
        Said::Estate { agent: told, kind: EstateKind::Granted, worker: to, segment, .. } => {
            ((*told, *to) == (agent, worker)).then_some(*segment)
        }
        _ => None,
    });
    granted.unwrap_or_else(|| panic!("no grant: {said:?}"))
}

fn citing(segment: u32) -> Vec<u8> {
    let mut value = Vec::new();
    write_citations(&[Citation { segment, offset: 0, bytes: BYTES }], &mut value);
    value.extend_from_slice(b"rest");
    value
}

fn leases_of(said: &[Said]) -> Vec<(u32, Got, Vec<Vec<u8>>)> {
    let leases = said.iter().flat_map(|said| match said {
        Said::Lease { worker, leases, values, .. } => {
            leases.iter().map(|got| (*worker, *got, values.clone())).collect()
        }
        _ => Vec::new(),
    });
    leases.collect()
}

/// (agent or `None` for the broker's, job, endpoint) of each copy that was ordered.
fn copies(said: &[Said]) -> Vec<(Option<PeerId>, u64, String)> {
    let copies = said.iter().filter_map(|said| match said {
        Said::Copy { agent, job, endpoint, parts } if !parts.is_empty() => Some((*agent, *job, endpoint.clone())),
        _ => None,
    });
    copies.collect()
}

/// The worker that runs task 0 of run 1, pinned there, reports a block; what is said then.
fn make_on(story: &mut Story, worker: u32, at: PeerId) -> Vec<Said> {
    let (lease_of, got, _) = leases_of(&story.turn())[0].clone();
    assert_eq!(lease_of, worker);
    let segment = granted(story, worker, at);
    story.report(worker, &[(got, Verdict::Done, &citing(segment))]);
    story.turn()
}

fn endpoint(number: u64) -> String {
    format!("tcp://10.0.0.{}:4000", 700 + number)
}

#[test]
fn workers_of_a_machine_share_its_memory() {
    let mut story = with_machines(0, &[2]);
    story.submit_with(1, &[&[], &[0]], &[], &[], &[0, 1]);
    let said = make_on(&mut story, 0, agent(0));
    let [Said::Estate { kind: EstateKind::Shared, worker: 1, segment, .. }, Said::Lease { worker: 1, values, .. }] =
        &said[..]
    else {
        panic!("the segment goes before the lease that needs it: {said:?}")
    };
    assert_eq!(*values, [citing(*segment)]);
}

#[test]
fn an_input_is_copied_to_the_machine_that_needs_it_and_goes_when_it_is_dead() {
    let mut story = with_machines(0, &[1, 2]);
    story.submit_with(1, &[&[], &[0], &[0]], &[], &[], &[0, 1, 2]);
    let said = make_on(&mut story, 0, agent(0));
    let [Said::Make { agent: Some(to), segment, bytes }, Said::Copy { parts, .. }] = &said[..] else {
        panic!("{said:?}")
    };
    assert_eq!((*to, *bytes, parts.len(), parts[0].1), (agent(1), BYTES, 1, (*segment, 0)));
    let (segment, job) = (*segment, copies(&said)[0].1);
    assert_eq!(copies(&said), [(Some(agent(1)), job, endpoint(0))], "one copy for both");
    assert_eq!(
        story.broker.store_statistics().granted,
        (32 << 20) + BYTES,
        "a segment for the owner, and one for the copy"
    );
    copied(&mut story, agent(1), job, "");
    let said = story.turn();
    let leases = leases_of(&said);
    assert_eq!(leases.iter().map(|lease| lease.0).collect::<Vec<u32>>(), [1, 2]);
    assert!(leases.iter().all(|(_, _, values)| *values == [citing(segment)]));
    for (worker, got, _) in leases {
        story.report(worker, &[(got, Verdict::Done, b"end")]);
        let (segments, offsets) = ([segment], [0]);
        let released = Released { segment: segments[..].into(), offset: offsets[..].into() };
        story.turn();
        story.send(story.peer(worker), &Message::Released(released));
    }
    let said = story.turn();
    let closed = Said::Estate { agent: agent(1), kind: EstateKind::Closed, worker: 0, segment, bytes: 0 };
    assert!(said.contains(&closed), "{said:?}");
}

#[test]
fn readers_on_many_machines_form_a_chain() {
    let mut story = with_machines(0, &[1, 1, 1, 1]);
    story.submit_with(1, &[&[], &[0], &[0], &[0]], &[], &[], &[0, 1, 2, 3]);
    let said = make_on(&mut story, 0, agent(0));
    let (readers, sources): (Vec<Option<PeerId>>, Vec<String>) =
        copies(&said).into_iter().map(|(reader, _, source)| (reader, source)).unzip();
    assert_eq!(readers, [1, 2, 3].map(|number| Some(agent(number))));
    assert_eq!(sources, [0, 1, 2].map(endpoint), "each reads from the one before, while that still reads");
}

#[test]
fn a_copy_goes_on_from_elsewhere_when_its_source_fails() {
    let mut story = with_machines(0, &[1, 1, 1]);
    story.submit_with(1, &[&[], &[0], &[0]], &[], &[], &[0, 1, 2]);
    let said = make_on(&mut story, 0, agent(0));
    let [(_, first, _), (_, second, ref source)] = copies(&said)[..] else { panic!("{said:?}") };
    assert_eq!(*source, endpoint(1));
    story.broker.handle_unreachable(agent(1), story.now_ns);
    let said = story.turn();
    assert_eq!(copies(&said), [(Some(agent(2)), second, endpoint(0))], "the same job, from the one that is left");
    copied(&mut story, agent(1), first, "");
    copied(&mut story, agent(2), second, "");
    assert_eq!(leases_of(&story.turn())[0].0, 2);
}

#[test]
fn where_two_machines_cannot_reach_each_other_the_brokers_stands_between() {
    let mut story = with_machines(0, &[1, 1]);
    story.submit_with(1, &[&[], &[0]], &[], &[], &[0, 1]);
    let said = make_on(&mut story, 0, agent(0));
    copied(&mut story, agent(1), copies(&said)[0].1, "there is no connection to its source");
    story.pass_ns(1_000_000_000);
    let said = story.turn();
    let [(None, job, ref source)] = copies(&said)[..] else { panic!("{said:?}") };
    assert_eq!(*source, endpoint(0));
    story.broker.handle_copied(job, Ok(()), story.now_ns);
    let said = story.turn();
    let [(Some(_), job, ref source)] = copies(&said)[..] else { panic!("{said:?}") };
    assert_eq!(source, "tcp://:5000");
    copied(&mut story, agent(1), job, "");
    assert_eq!(leases_of(&story.turn())[0].0, 1);
}

#[test]
fn what_a_lost_machine_had_alone_is_made_again_and_copies_live_on() {
    for was_copied in [false, true] {
        let mut story = with_machines(0, &[1, 1]);
        let pins = [headrace_wire::ANY_WORKER, 1];
        story.submit_with(1, &[&[], &[0]], &[1], &[], &pins);
        let first = leases_of(&story.turn())[0].clone();
        let (maker, at) = (first.0, agent(first.0.into()));
        assert_eq!(maker, 0, "the first that is free");
        let segment = granted(&mut story, maker, at);
        story.report(maker, &[(first.1, Verdict::Done, &citing(segment))]);
        let said = story.turn();
        let job = copies(&said)[0].1;
        if was_copied {
            copied(&mut story, agent(1), job, "");
        }
        story.broker.handle_unreachable(at, story.now_ns);
        let leases = leases_of(&story.turn());
        let indices: Vec<u32> = leases.iter().map(|(_, got, _)| got.index).collect();
        assert_eq!(indices, if was_copied { vec![1] } else { vec![0, 1] });
        let mut reports = Vec::new();
        if !was_copied {
            copied(&mut story, agent(1), job, "it was given up");
            reports.push((leases[0].1, Verdict::DoneHeld, &b""[..]));
        }
        reports.push((leases[leases.len() - 1].1, Verdict::Done, b"end"));
        story.report(1, &reports);
        let said = story.turn();
        let ended = Said::Ended { run: 1, finished: true, endings: vec![(1, Outcome::Done, b"end".to_vec())] };
        assert!(said.contains(&ended), "{said:?}");
        story.broker.check().unwrap();
    }
}

#[test]
fn a_task_goes_where_most_of_its_inputs_are() {
    let mut story = with_machines(0, &[1, 1]);
    let pins = [0, 0, 1, headrace_wire::ANY_WORKER];
    story.submit_with(1, &[&[], &[], &[], &[0, 1, 2]], &[], &[], &pins);
    let mut said = story.turn();
    while copies(&said).is_empty() {
        for (worker, got, _) in leases_of(&said) {
            let segment = granted(&mut story, worker, agent(worker.into()));
            story.report(worker, &[(got, Verdict::Done, &citing(segment))]);
        }
        said = story.turn();
    }
    let [(to, job, ref source)] = copies(&said)[..] else { panic!("{said:?}") };
    assert_eq!((to, source.clone()), (Some(agent(0)), endpoint(1)), "to the one that has two of three");
    copied(&mut story, agent(0), job, "");
    assert_eq!(leases_of(&story.turn())[0].0, 0);
}

#[test]
fn a_copy_waits_for_room_and_is_refused_where_there_can_be_none() {
    let mut story = with_machines(0, &[1]);
    join_small(&mut story);
    story.submit_with(1, &[&[], &[0]], &[1], &[], &[0, 1]);
    let said = make_on(&mut story, 0, agent(0));
    assert_eq!(copies(&said), []);
    let Some(Said::Ended { endings, .. }) = said.iter().find(|said| matches!(said, Said::Ended { .. })) else {
        panic!("{said:?}")
    };
    assert_eq!((endings[0].0, endings[0].1), (1, Outcome::Refused));
    assert!(String::from_utf8_lossy(&endings[0].2).starts_with("StoreFull: "), "{endings:?}");
}

/// A machine with less memory than one block takes.
fn join_small(story: &mut Story) {
    story.broker.handle_unreachable(agent(0), story.now_ns);
    story.turn();
    *story = Story::with(0, |config| config.places = 2);
    story.broker.set_place("tcp://:5000", KEY);
    join(story, agent(0), 1, LIMIT);
    join(story, agent(1), 1, BYTES / 2);
}

/// The same, where the client is a guest: it shares no memory.
fn with_guest(own: u32, slots: &[u32]) -> Story {
    let mut story = with_machines(own, slots);
    story.broker.live_with(HOME, true);
    story
}

#[test]
fn a_guest_gets_the_bytes_themselves_and_once() {
    let mut story = with_guest(0, &[1]);
    story.submit_with(1, &[&[]], &[0], &[], &[]);
    let said = make_on(&mut story, 0, agent(0));
    assert!(!said.iter().any(|said| matches!(said, Said::Ended { .. })), "{said:?}");
    let [Said::Make { agent: None, segment, .. }, Said::Copy { agent: None, job, .. }] = said[..] else {
        panic!("first it comes to the broker's machine: {said:?}")
    };
    story.broker.handle_copied(job, Ok(()), story.now_ns);
    let said = story.turn();
    let [Said::Gather { job, ref head, ref parts }] = said[..] else { panic!("{said:?}") };
    assert_eq!(*parts, [(segment, 0, BYTES)]);
    let value = [&head[..], b"bytes"].concat();
    story.broker.handle_gathered(job, Ok(value.clone()), story.now_ns);
    let said = story.turn();
    let ended = Said::Ended { run: 1, finished: true, endings: vec![(0, Outcome::Done, value.clone())] };
    assert_eq!(said, [ended, Said::CloseSegment { segment, discard: 0 }], "the copy was made for that alone");
    let (cited, bytes) = carried(&value).unwrap();
    assert_eq!((citations(cited).count(), bytes), (1, &b"bytes"[..]));
    // It is lost, and made again for nobody: the client is not told twice.
    story.broker.handle_unreachable(agent(0), story.now_ns);
    story.turn();
    join(&mut story, agent(1), 1, LIMIT);
    for (worker, got, _) in leases_of(&story.turn()) {
        story.report(worker, &[(got, Verdict::Done, b"again")]);
    }
    let said = story.turn();
    assert!(!said.iter().any(|said| matches!(said, Said::Ended { .. })), "{said:?}");
}

#[test]
fn a_guest_that_leaves_is_owed_nothing() {
    let mut story = with_guest(0, &[1]);
    story.submit_with(1, &[&[]], &[0], &[], &[]);
    let said = make_on(&mut story, 0, agent(0));
    let [(None, job, _)] = copies(&said)[..] else { panic!("{said:?}") };
    story.broker.handle_unreachable(CLIENT, story.now_ns);
    let said = story.turn();
    assert!(said.contains(&Said::Copy { agent: None, job, endpoint: String::new(), parts: Vec::new() }), "{said:?}");
    story.broker.handle_copied(job, Err("it was given up".to_owned()), story.now_ns);
    story.turn();
    assert_eq!(story.broker.store_statistics().blocks, 0);
    story.broker.check().unwrap();
}

#[test]
fn memory_of_one_machine_is_none_to_cite_on_another() {
    let mut story = with_machines(0, &[1, 1]);
    let segment = granted(&mut story, 0, agent(0));
    story.submit_with(1, &[&[]], &[0], &[], &[1]);
    let (worker, got, _) = leases_of(&story.turn())[0].clone();
    story.report(worker, &[(got, Verdict::Done, &citing(segment))]);
    let said = story.turn();
    let is_cut =
        |said: &Said| matches!(said, Said::Goodbye { reason, .. } if *reason == GoodbyeReason::ProtocolError as u8);
    assert!(said.iter().any(is_cut), "{said:?}");
}
