//! Clients of other processes: they come and go, each with what is its own.

use crate::story::{CLIENT, Got, Said, Story};
use crate::{DONE, run_all};
use headrace_protocol::broker::PeerId;
use headrace_wire::{Blobs, BlobsBuf, Heartbeat, Message, Role, Submit, Want};

const HOME: PeerId = PeerId(500);
const OTHER: PeerId = PeerId(501);
const SECOND_NS: u64 = 1_000_000_000;

/// A broker with two clients beside the one at home.
fn open(workers: u32) -> Story {
    let mut story = Story::new(workers);
    story.broker.live_with(HOME, true);
    story.hello(HOME, Role::Client, 0, 0);
    story.hello(OTHER, Role::Client, 0, 0);
    assert_eq!(story.turn(), []);
    story
}

/// A graph of independent tasks of a client, all of which it keeps.
fn submit(story: &mut Story, peer: PeerId, run: u32, tasks: u32) {
    let (zeros, keep): (Vec<u32>, Vec<u32>) = (vec![0; tasks as usize], (0..tasks).collect());
    let (one, mut pickles) = ([run], BlobsBuf::default());
    pickles.push(b"work");
    let submit = Submit {
        run,
        function_ids: one[..].into(),
        function_names: pickles.as_blobs(),
        functions: pickles.as_blobs(),
        function_map: one[..].into(),
        task_function: (&zeros).into(),
        dep_counts: (&zeros).into(),
        args: Blobs { lens: (&zeros).into(), bytes: &[] },
        keep: (&keep).into(),
        ..Submit::default()
    };
    story.send(peer, &Message::Submit(submit));
}

fn leases_of(story: &mut Story) -> Vec<(u32, Got)> {
    story.leases().into_iter().flat_map(|(worker, leases)| leases.into_iter().map(move |got| (worker, got))).collect()
}

/// Ends what was leased so far, and everything else; how many endings clients heard of.
fn run_rest(story: &mut Story, said: &[Said]) -> usize {
    for said in said {
        if let Said::Lease { worker, leases, .. } = said {
            leases.iter().for_each(|got| story.report(*worker, &[(*got, DONE, b"")]));
        }
    }
    run_all(story).len()
}

fn goodbyes(said: &[Said]) -> Vec<(PeerId, &str)> {
    let told = said.iter().filter_map(|said| match said {
        Said::Goodbye { peer, text, .. } => Some((*peer, text.as_str())),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_client_that_cannot_be_reached_is_gone_and_the_others_go_on() {
    let mut story = open(1);
    submit(&mut story, CLIENT, 1, 3);
    submit(&mut story, OTHER, 1, 3);
    let mut said = story.turn();
    story.broker.handle_unreachable(CLIENT, story.now_ns);
    said.extend(story.turn());
    assert!(said.contains(&Said::Gone { peer: CLIENT }));
    assert_eq!(run_rest(&mut story, &said), 3, "what the other one keeps");
    story.broker.handle_unreachable(OTHER, story.now_ns);
    story.turn();
    let left = story.broker.statistics();
    assert_eq!((left.tasks_held, left.bytes_held, left.function_bytes), (0, 0, 0));
}

#[test]
fn a_worker_that_cannot_be_reached_is_not_given_up_for_that() {
    let mut story = open(1);
    story.broker.handle_unreachable(story.peer(0), story.now_ns);
    assert_eq!(story.turn(), []);
    submit(&mut story, OTHER, 1, 1);
    assert_eq!(run_all(&mut story).len(), 1);
}

#[test]
fn a_client_that_gives_no_sign_of_life_for_a_minute_is_cut() {
    let mut story = open(1);
    let mut told = Vec::new();
    for second in 1..70 {
        story.pass_ns(SECOND_NS);
        story.send(story.peer(0), &Message::Heartbeat(Heartbeat { number: second, finished: 0 }));
        story.send(OTHER, &Message::Heartbeat(Heartbeat { number: second, finished: 0 }));
        let said = story.turn();
        told.extend(goodbyes(&said).into_iter().map(|(peer, text)| (second, peer, text.to_owned())));
    }
    let text = "it has not answered 60 questions in a row";
    assert_eq!(told, [(61, CLIENT, text.to_owned())], "the one at home is not asked");
}

#[test]
fn two_clients_take_turns() {
    let mut story = open(1);
    submit(&mut story, CLIENT, 1, 400);
    submit(&mut story, OTHER, 2, 400);
    let mut ended = [0, 0];
    for _ in 0..60 {
        let leases = leases_of(&mut story);
        for (worker, got) in leases {
            ended[usize::from(got.function > 0)] += 1;
            story.report(worker, &[(got, DONE, b"")]);
        }
    }
    assert!(ended.iter().all(|count| *count > 100), "{ended:?}");
}

#[test]
fn each_client_hears_its_own_tasks_and_the_one_at_home_what_is_nobodys() {
    let mut story = open(1);
    submit(&mut story, OTHER, 7, 1);
    let (worker, got) = leases_of(&mut story)[0];
    story.broker.handle_output(worker, 1, b"mine\n", Some((got.task, got.attempt)));
    story.broker.handle_output(worker, 2, b"nobody's\n", None);
    let Got { index, attempt, .. } = got;
    let mine = Said::TaskLog { peer: OTHER, run: 7, index, attempt, before: 0, text: b"mine\n".to_vec() };
    assert_eq!(story.turn(), [mine, Said::Log { text: b"nobody's\n".to_vec() }]);
}

#[test]
fn no_memory_is_shared_with_other_processes() {
    let mut story = open(1);
    story.send(OTHER, &Message::Want(Want { bytes: 1 << 20 }));
    assert_eq!(goodbyes(&story.turn()), [(OTHER, "it shares no memory with others")]);
}

#[test]
fn a_broker_that_drains_takes_no_more_clients_and_ends_with_the_last_task() {
    let mut story = open(1);
    submit(&mut story, OTHER, 1, 2);
    let leased = story.turn();
    story.drain(HOME);
    const LATE: PeerId = PeerId(502);
    story.hello(LATE, Role::Client, 0, 0);
    let said = story.turn();
    assert_eq!(goodbyes(&said), [(LATE, "the broker is about to end, and takes no more clients")]);
    assert!(!story.broker.has_given_up());
    assert_eq!(run_rest(&mut story, &leased), 2);
    assert!(story.broker.has_given_up());
}

#[test]
fn nobody_but_the_client_at_home_can_end_the_broker() {
    let mut story = open(1);
    story.drain(OTHER);
    assert!(story.turn().contains(&Said::Gone { peer: OTHER }));
    assert!(!story.broker.has_given_up());
}

#[test]
fn a_peer_is_what_its_key_says_and_nothing_else() {
    let mut story = open(1);
    for (number, roles, role, is_taken) in [
        (600, "observer", Role::Client, false),
        (601, "worker", Role::Observer, false),
        (602, "client,observer", Role::Client, true),
        (603, "client,observer", Role::Observer, true),
        (604, "", Role::Client, false),
    ] {
        story.broker.let_in(PeerId(number), roles);
        story.hello(PeerId(number), role, 0, 0);
        let said = story.turn();
        let told = goodbyes(&said);
        assert_eq!(told.is_empty(), is_taken, "{told:?}");
        assert!(told.iter().all(|(_, text)| text.starts_with("the key of this peer is for ")), "{told:?}");
    }
}
