//! Real sockets: nothing is lost in silence, nothing blocks, nothing hangs.

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headrace_sys::pidfd::{ExitStatus, PidFd};
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::{
    Context, Dealer, LARGE_FRAME_BYTES, Library, LoadError, Router, RoutingId, SendError, Version,
};
use support::*;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + len) as u8).collect()
}

#[test]
fn the_first_usable_candidate_is_taken() {
    let found = library();
    assert!(found.version() >= Version { major: 4, minor: 3, patch: 0 });
    let candidates = [PathBuf::from("/nowhere/libzmq.so.5"), PathBuf::from("libc.so.6"), found.path().to_owned()];
    assert_eq!(Library::open(&candidates).unwrap().path(), found.path());
}

#[test]
fn a_missing_library_is_explained() {
    let tried = vec![("/a/libzmq.so.5".into(), "no such file".into()), ("libzmq.so.5".into(), "too old".into())];
    let text = LoadError { tried }.to_string();
    for part in ["/a/libzmq.so.5: no such file", "libzmq.so.5: too old", "4.3.0", "pip install pyzmq", "libzmq5"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn frames_of_all_sizes_arrive_whole_both_ways() {
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut dealer = connected(&context, &endpoint, b"w1");
    for len in [0, 1, 28, 29, 32, 33, 34, 255, 256, 8191, 65_535, LARGE_FRAME_BYTES, LARGE_FRAME_BYTES + 1, 3_000_000] {
        let mut there = pattern(len);
        dealer.send(&mut there).unwrap();
        assert!(there.is_empty());
        let (peer, frame) = router_recv(&mut router);
        assert_eq!(&*peer, b"w1");
        assert!(*frame == *pattern(len), "{len} bytes changed on their way");
        let mut back = frame.to_vec();
        router.send(&peer, &mut back).unwrap();
        assert!(back.is_empty());
        // A frame outlives the next one, and may end in another thread.
        let frame = dealer_recv(&mut dealer);
        assert!(*frame == *pattern(len));
        spawn_native("drops", move || drop(frame)).unwrap().join().unwrap();
    }
    assert_eq!(router.try_recv().unwrap().map(|(peer, _)| peer), None);
}

#[test]
fn whoever_comes_with_a_name_that_is_taken_gets_it_and_is_read() {
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut first = connected(&context, &endpoint, b"w1");
    first.send(&mut b"first".to_vec()).unwrap();
    assert_eq!(*router_recv(&mut router).1, *b"first");
    let mut second = connected(&context, &endpoint, b"w1");
    second.send(&mut b"second".to_vec()).unwrap();
    let (peer, frame) = router_recv(&mut router);
    assert_eq!((&*peer, &*frame), (&b"w1"[..], &b"second"[..]));
    router.send(&peer, &mut b"answer".to_vec()).unwrap();
    assert_eq!(*dealer_recv(&mut second), *b"answer");
}

#[test]
fn a_small_frame_leaves_its_memory() {
    let (context, endpoint) = (context(), endpoint());
    let _router = Router::bind(&context, &endpoint).unwrap();
    let mut dealer = connected(&context, &endpoint, b"");
    let mut frame = Vec::with_capacity(1000);
    frame.extend_from_slice(b"small");
    dealer.send(&mut frame).unwrap();
    assert_eq!((frame.len(), frame.capacity()), (0, 1000));
}

#[test]
fn an_unknown_peer_is_an_error_and_the_frame_stays() {
    let context = context();
    let mut router = Router::bind(&context, &endpoint()).unwrap();
    for len in [5, LARGE_FRAME_BYTES * 2] {
        let mut frame = pattern(len);
        assert_eq!(router.send(b"nobody", &mut frame), Err(SendError::Unreachable));
        assert_eq!(frame, pattern(len));
    }
}

#[test]
fn a_peer_that_left_becomes_unreachable() {
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut dealer = connected(&context, &endpoint, b"w1");
    dealer.send(&mut b"hello".to_vec()).unwrap();
    let (peer, _) = router_recv(&mut router);
    router.send(&peer, &mut b"still there".to_vec()).unwrap();
    drop(dealer);
    until("the router to notice", || match router.send(&peer, &mut b"gone?".to_vec()) {
        Err(SendError::Unreachable) => Some(()),
        other => other.map(|()| None).unwrap(),
    });
}

#[test]
fn a_full_queue_refuses_and_loses_nothing() {
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut dealer = connected(&context, &endpoint, b"slow");
    dealer.send(&mut b"hello".to_vec()).unwrap();
    let (peer, _) = router_recv(&mut router);

    // Nobody receives, so the queues of both sides and the buffers of the connection fill up.
    let mut sent: u64 = 0;
    let mut frame = Vec::new();
    loop {
        frame.extend_from_slice(&sent.to_le_bytes());
        match router.send(&peer, &mut frame) {
            Ok(()) => sent += 1,
            Err(error) => break assert_eq!(error, SendError::WouldBlock),
        }
        assert!(sent < 1_000_000, "the queue has no end");
    }
    assert_eq!(frame, sent.to_le_bytes());

    for expected in 0..sent {
        assert_eq!(*dealer_recv(&mut dealer), expected.to_le_bytes());
    }
    until("room", || router.send(&peer, &mut frame).ok());
    assert_eq!(*dealer_recv(&mut dealer), sent.to_le_bytes());
}

#[test]
fn a_dealer_keeps_nothing_for_a_broker_that_is_not_there() {
    let (context, endpoint) = (context(), endpoint());
    let mut dealer = Dealer::connect(&context, &endpoint, b"early").unwrap();
    for len in [5, LARGE_FRAME_BYTES] {
        let mut frame = pattern(len);
        assert_eq!(dealer.send(&mut frame), Err(SendError::WouldBlock));
        assert_eq!(frame, pattern(len));
    }
    assert!(!dealer.wait_connected(Duration::from_millis(1)).unwrap());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    assert!(dealer.wait_connected(LONG).unwrap());
    dealer.send(&mut b"now".to_vec()).unwrap();
    assert_eq!(*router_recv(&mut router).1, *b"now");
}

#[test]
fn a_bad_endpoint_is_named() {
    let context = context();
    for endpoint in ["ipc:///nowhere/at/all", "nonsense", "ipc://with\0zero"] {
        let Err(error) = Router::bind(&context, endpoint) else { panic!("bound to {endpoint:?}") };
        assert!(error.to_string().contains(endpoint.trim_end_matches("with\0zero")) || error.errno != 0, "{error}");
    }
}

#[test]
fn a_peer_with_a_name_that_is_too_long_is_not_heard() {
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut odd = connected(&context, &endpoint, &[b'x'; RoutingId::BYTES_MAX + 1]);
    odd.send(&mut b"odd".to_vec()).unwrap();
    odd.set_linger_ms(60_000).unwrap();
    let mut good = connected(&context, &endpoint, &[b'y'; RoutingId::BYTES_MAX]);
    good.send(&mut b"good".to_vec()).unwrap();
    let (peer, frame) = router_recv(&mut router);
    assert_eq!((&*peer, &*frame), (&[b'y'; RoutingId::BYTES_MAX][..], &b"good"[..]));
}

#[test]
fn the_last_frames_leave_within_the_linger_time() {
    let endpoint = endpoint();
    let there = context();
    let mut router = Router::bind(&there, &endpoint).unwrap();
    let here = context();
    let mut dealer = connected(&here, &endpoint, b"w1");
    dealer.set_linger_ms(30_000).unwrap();
    for _ in 0..20 {
        dealer.send(&mut vec![1; 1_000_000]).unwrap();
    }
    let leaving = spawn_native("leaves", move || drop((dealer, here))).unwrap();
    for _ in 0..20 {
        assert_eq!(router_recv(&mut router).1.len(), 1_000_000);
    }
    leaving.join().unwrap();
}

#[test]
fn dropping_with_unsent_frames_does_not_hang() {
    let (here, endpoint) = (context(), endpoint());
    let there = context();
    let mut router = Router::bind(&there, &endpoint).unwrap();
    let mut dealer = connected(&here, &endpoint, b"w1");
    for _ in 0..50 {
        dealer.send(&mut vec![1; 1_000_000]).unwrap();
    }
    let (peer, _) = router_recv(&mut router);
    for _ in 0..50 {
        router.send(&peer, &mut vec![2; 1_000_000]).unwrap();
    }
    let started = Instant::now();
    drop((here, dealer, router, there));
    assert!(started.elapsed() < LONG);
}

#[test]
fn threads_of_a_context_take_no_signals() {
    let (context, endpoint) = (context(), endpoint());
    let _router = Router::bind(&context, &endpoint).unwrap();
    let _dealer = connected(&context, &endpoint, b"w1");
    let mut seen = 0;
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        // Threads of other tests come and go meanwhile.
        let Ok(status) = std::fs::read_to_string(thread.unwrap().path().join("status")) else { continue };
        if status.starts_with("Name:\tZMQbg") {
            seen += 1;
            assert_eq!(status_mask(&status, "SigBlk:") & ALL_SIGNALS, ALL_SIGNALS, "{status}");
        }
    }
    assert!(seen >= 2, "a reaper and an I/O thread");
    let own = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(status_mask(&own, "SigBlk:") & ALL_SIGNALS, 0, "the caller's own mask is as it was");
}

#[test]
fn a_socket_may_change_hands_behind_a_mutex() {
    const FRAMES: u32 = 20_000;
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let dealer = Arc::new(Mutex::new(connected(&context, &endpoint, b"w1")));
    let senders: Vec<_> = (0..2u32)
        .map(|sender| {
            let dealer = Arc::clone(&dealer);
            spawn_native("sender", move || {
                for number in 0..FRAMES {
                    let mut frame = [sender.to_le_bytes(), number.to_le_bytes()].concat();
                    until("room", || dealer.lock().unwrap().send(&mut frame).ok());
                }
            })
            .unwrap()
        })
        .collect();
    let mut next = [0; 2];
    for _ in 0..2 * FRAMES {
        let (_, frame) = router_recv(&mut router);
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        let sender = word(0) as usize;
        assert_eq!(word(4), next[sender]);
        next[sender] += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn a_forked_child_may_drop_what_it_copied() {
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut dealer = connected(&context, &endpoint, b"w1");
    // SAFETY: the child drops its copies, which takes no lock but malloc's (whole after a fork), and exits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        drop((router, dealer, context));
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(5) };
    }
    let mut child = PidFd::open(pid.unsigned_abs()).unwrap();
    assert_eq!(end_of(&mut child), ExitStatus::Exited { code: 5 });
    dealer.send(&mut b"still here".to_vec()).unwrap();
    assert_eq!(*router_recv(&mut router).1, *b"still here");
}

#[test]
fn a_context_ends_with_its_last_socket() {
    let endpoint = endpoint();
    let context = Context::new(&library()).unwrap();
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut dealer = Dealer::connect(&context, &endpoint, b"w1").unwrap();
    drop(context);
    assert!(dealer.wait_connected(LONG).unwrap());
    dealer.send(&mut b"hello".to_vec()).unwrap();
    assert_eq!(*router_recv(&mut router).1, *b"hello");
}
