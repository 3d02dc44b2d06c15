//! The in-process channel: every frame arrives once and in order, and nobody sleeps through one.

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headrace_runtime::inproc::{BrokerEnd, ClientEnd, Closed, Interest, Waited, Wake, pair};
use headrace_sys::poll::{self, PollFd};
use headrace_sys::threads::spawn_native;
use headrace_wire::{Log, Message, NO_WORKER};

/// Far longer than anything here takes: a sleep that lasts as long has missed its wake-up.
const LONG: Duration = Duration::from_secs(30);

/// The next frame, sleeping for it as a broker does.
fn broker_recv(broker: &mut BrokerEnd) -> Vec<u8> {
    loop {
        if let Some(frame) = broker.try_recv() {
            return frame;
        }
        if broker.prepare_to_sleep() {
            assert_ne!(poll::wait(&mut [PollFd::input(broker.fd())], Some(LONG)).unwrap(), 0, "a wake-up was lost");
            broker.wake_up();
        }
    }
}

/// The next frame, sleeping for it as the only thread of a client does.
fn client_recv(client: &ClientEnd) -> Vec<u8> {
    loop {
        let received = client.received();
        if let Some(frame) = client.try_recv() {
            return frame;
        }
        assert_eq!(client.wait(Interest::Any, received, Some(LONG)), Waited::Ready, "a wake-up was lost");
    }
}

fn word(frame: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(frame[4 * at..4 * at + 4].try_into().unwrap())
}

fn is_readable(fd: RawFd) -> bool {
    poll::wait(&mut [PollFd::input(fd)], Some(Duration::ZERO)).unwrap() == 1
}

fn endings(run: u32, indices: &[u32]) -> Wake<'_> {
    Wake::Results { run, finished: false, indices }
}

#[test]
fn a_million_frames_reach_the_broker_in_order() {
    const EACH: u32 = 500_000;
    let (client, mut broker) = pair().unwrap();
    let client = Arc::new(client);
    let senders: Vec<_> = (0..2u32)
        .map(|sender| {
            let client = Arc::clone(&client);
            spawn_native("sender", move || {
                for number in 0..EACH {
                    client.send([sender.to_le_bytes(), number.to_le_bytes()].concat()).unwrap();
                    if number % 61 == 0 {
                        std::thread::yield_now(); // lets the broker run dry and sleep
                    }
                }
            })
            .unwrap()
        })
        .collect();
    let mut next = [0; 2];
    for _ in 0..2 * EACH {
        let frame = broker_recv(&mut broker);
        let sender = word(&frame, 0) as usize;
        assert_eq!(word(&frame, 1), next[sender]);
        next[sender] += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert!(broker.try_recv().is_none() && broker.prepare_to_sleep());
}

#[test]
fn a_million_frames_reach_the_client_in_order() {
    const FRAMES: u32 = 1_000_000;
    let (client, mut broker) = pair().unwrap();
    let sender = spawn_native("broker", move || {
        for number in 0..FRAMES {
            broker.send(number.to_le_bytes().to_vec(), Wake::All).unwrap();
            if number % 61 == 0 {
                std::thread::yield_now();
            }
        }
        broker
    })
    .unwrap();
    for number in 0..FRAMES {
        assert_eq!(word(&client_recv(&client), 0), number);
    }
    drop(sender.join().unwrap());
    assert_eq!(client.received(), u64::from(FRAMES));
}

#[test]
fn questions_and_answers_in_turn_wake_both_sides() {
    const ROUNDS: u32 = 30_000;
    let (client, mut broker) = pair().unwrap();
    let answers = spawn_native("broker", move || {
        for _ in 0..ROUNDS {
            let question = broker_recv(&mut broker);
            broker.send(question, Wake::All).unwrap();
        }
    })
    .unwrap();
    for number in 0..ROUNDS {
        client.send(number.to_le_bytes().to_vec()).unwrap();
        assert_eq!(word(&client_recv(&client), 0), number);
    }
    answers.join().unwrap();
}

#[test]
fn threads_that_wait_for_different_tasks_drain_for_each_other() {
    const WAITERS: u32 = 4;
    const EACH: u32 = 5_000;
    let (client, mut broker) = pair().unwrap();
    let client = Arc::new(client);
    let ended = Arc::new(Mutex::new(HashSet::new()));
    let waiters: Vec<_> = (0..WAITERS)
        .map(|waiter| {
            let (client, ended) = (Arc::clone(&client), Arc::clone(&ended));
            spawn_native("waiter", move || {
                for index in (waiter..WAITERS * EACH).step_by(WAITERS as usize) {
                    client.send(index.to_le_bytes().to_vec()).unwrap();
                    loop {
                        let received = {
                            let mut ended = ended.lock().unwrap();
                            while let Some(frame) = client.try_recv() {
                                assert!(ended.insert(word(&frame, 0)), "a frame came twice");
                            }
                            if ended.contains(&index) {
                                break;
                            }
                            client.received()
                        };
                        let waited = client.wait(Interest::Task { run: 0, index }, received, Some(LONG));
                        assert_eq!(waited, Waited::Ready, "a wake-up was lost");
                    }
                }
            })
            .unwrap()
        })
        .collect();
    for _ in 0..WAITERS * EACH {
        let frame = broker_recv(&mut broker);
        let index = word(&frame, 0);
        broker.send(frame, endings(0, &[index])).unwrap();
    }
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    assert_eq!(ended.lock().unwrap().len(), (WAITERS * EACH) as usize);
}

#[test]
fn only_what_is_of_interest_wakes() {
    let finished = |run| Wake::Results { run, finished: true, indices: &[] };
    let cases: [(Interest, &[Wake], &[Wake]); 4] = [
        (Interest::Any, &[], &[Wake::All, endings(1, &[2])]),
        (Interest::Run { run: 1 }, &[endings(2, &[1]), finished(2)], &[endings(1, &[7]), finished(1), Wake::All]),
        (Interest::RunEnd { run: 1 }, &[endings(1, &[1, 2]), finished(2)], &[finished(1), Wake::All]),
        (
            Interest::Task { run: 1, index: 2 },
            &[endings(1, &[1, 3]), endings(2, &[2]), finished(2)],
            &[endings(1, &[1, 2, 3]), finished(1), Wake::All],
        ),
    ];
    let (client, mut broker) = pair().unwrap();
    for (interest, quiet, loud) in cases {
        for wake in loud {
            while client.try_recv().is_some() {}
            assert!(client.watch(interest, client.received()));
            for quiet in quiet {
                broker.send(Vec::new(), *quiet).unwrap();
                assert!(!is_readable(client.fd()), "{quiet:?} woke {interest:?}");
            }
            broker.send(Vec::new(), *wake).unwrap();
            assert!(is_readable(client.fd()), "{wake:?} did not wake {interest:?}");
            assert!(!client.watch(interest, client.received()), "there is something to look at");
            assert!(!is_readable(client.fd()));
        }
    }
}

#[test]
fn a_frame_that_another_thread_took_is_not_slept_through() {
    let (client, mut broker) = pair().unwrap();
    let before = client.received();
    broker.send(Vec::new(), endings(1, &[1])).unwrap();
    client.try_recv().unwrap();
    assert_eq!(client.wait(Interest::Task { run: 1, index: 1 }, before, Some(LONG)), Waited::Ready);
    assert!(!client.watch(Interest::Any, before));
}

#[test]
fn a_wait_ends_in_time() {
    let (client, _broker) = pair().unwrap();
    assert_eq!(client.wait(Interest::Any, 0, Some(Duration::from_millis(5))), Waited::TimedOut);
}

#[test]
fn nobody_who_is_awake_is_signalled() {
    let (client, mut broker) = pair().unwrap();
    client.send(b"one".to_vec()).unwrap();
    broker.send(b"two".to_vec(), Wake::All).unwrap();
    assert!(!is_readable(broker.fd()) && !is_readable(client.fd()));
    assert!(!broker.prepare_to_sleep());

    broker.try_recv().unwrap();
    assert!(broker.prepare_to_sleep());
    client.send(b"three".to_vec()).unwrap();
    client.send(b"four".to_vec()).unwrap();
    assert!(is_readable(broker.fd()));
    broker.wake_up();
    assert!(!is_readable(broker.fd()), "no stale signal spoils the next sleep");
    client.send(b"five".to_vec()).unwrap();
    assert!(!is_readable(broker.fd()));
}

#[test]
fn the_end_of_the_broker_wakes_those_who_wait_after_its_last_frames() {
    let (client, mut broker) = pair().unwrap();
    let client = Arc::new(client);
    let waiter = {
        let client = Arc::clone(&client);
        spawn_native("waiter", move || client.wait(Interest::RunEnd { run: 9 }, 0, Some(LONG))).unwrap()
    };
    broker.send(b"last".to_vec(), endings(1, &[])).unwrap();
    drop(broker);
    assert_eq!(waiter.join().unwrap(), Waited::Ready);
    assert!(client.is_closed());
    assert_eq!(client.send(Vec::new()), Err(Closed));
    assert_eq!(client.try_recv().unwrap(), b"last");
    assert_eq!(client.wait(Interest::Any, client.received(), Some(LONG)), Waited::Closed);
    assert!(!client.watch(Interest::Any, client.received()));
}

#[test]
fn the_end_of_the_broker_alone_wakes_those_who_wait() {
    let (client, broker) = pair().unwrap();
    let waiter = spawn_native("waiter", move || client.wait(Interest::Any, 0, Some(LONG))).unwrap();
    drop(broker);
    assert_eq!(waiter.join().unwrap(), Waited::Closed);
}

#[test]
fn the_end_of_the_client_wakes_the_broker_once() {
    let (client, mut broker) = pair().unwrap();
    assert!(broker.prepare_to_sleep());
    client.send(b"last".to_vec()).unwrap();
    drop(client);
    assert!(is_readable(broker.fd()));
    broker.wake_up();
    assert_eq!(broker.try_recv().unwrap(), b"last");
    assert!(!broker.prepare_to_sleep(), "the broker has not looked yet");
    assert!(broker.is_closed());
    assert_eq!(broker.send(Vec::new(), Wake::All), Err(Closed));
    assert!(broker.prepare_to_sleep(), "it may sleep for its other peers");
    broker.wake_up();
}

#[test]
fn lines_that_nobody_takes_are_dropped_and_the_loss_is_told_in_one_line() {
    let (client, mut broker) = pair().unwrap();
    let mut line = Vec::new();
    let text = [b'x'; 64 << 10];
    Message::Log(Log { worker: 1, stream: 1, text: &text, ..Log::default() }).encode(&mut line);
    broker.send(b"a result".to_vec(), Wake::All).unwrap();
    for _ in 0..100 {
        broker.send_log(line.clone()).unwrap();
    }
    broker.send(b"another".to_vec(), Wake::All).unwrap();
    assert_eq!(client.try_recv().unwrap(), b"a result", "lines do not overtake");
    let notice = client.try_recv().unwrap();
    let Ok(Message::Log(log)) = Message::decode(&notice) else { panic!("lines, not {notice:?}") };
    assert_eq!((log.worker, log.stream), (NO_WORKER, 2));
    let rest: Vec<Vec<u8>> = std::iter::from_fn(|| client.try_recv()).collect();
    let kept = rest.iter().filter(|frame| **frame == line).count();
    assert_eq!(rest[kept..], [b"another".to_vec()]);
    let dropped = (100 - kept) * line.len();
    assert!(kept * line.len() <= 2 << 20, "{kept} frames were kept");
    assert!(String::from_utf8_lossy(log.text).contains(&format!("{dropped} bytes of output were dropped")));
    assert_eq!(client.received(), 102, "every frame counts, dropped or not");
    assert_eq!(client.try_recv(), None);
    assert_eq!(client.wait(Interest::Any, 102, Some(Duration::ZERO)), Waited::TimedOut);
}

#[test]
fn frames_that_are_sent_together_arrive_together() {
    let (client, mut broker) = pair().unwrap();
    client.send_all(vec![b"one".to_vec(), b"two".to_vec()]).unwrap();
    assert_eq!((broker.try_recv(), broker.try_recv()), (Some(b"one".to_vec()), Some(b"two".to_vec())));
    drop(broker);
    assert_eq!(client.send_all(vec![]), Err(Closed));
}
