//! How long does a frame take from a ROUTER to a DEALER in another process and back, over `ipc://`? And a process to start?
//!
//! `cargo run --release -p headrace-sys --example router_round_trip`; it finds libzmq as the tests do.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use headrace_sys::poll::{self, PollFd};
use headrace_sys::spawn::Spawn;
use headrace_sys::zmq::{Context, Dealer, Frame, Library, Router, RoutingId, find_candidates};

const WARM_UP: usize = 2_000;
const ROUNDS: usize = 20_000;
const STARTS: usize = 100;

fn main() {
    let context = Context::new(&Library::open(&find_candidates()).unwrap_or_else(|error| panic!("{error}"))).unwrap();
    match std::env::args().nth(1) {
        Some(endpoint) => echo(&mut Dealer::connect(&context, &endpoint, b"peer").unwrap()),
        None => measure(&context),
    }
}

fn measure(context: &Context) {
    let path = std::env::temp_dir().join(format!("headrace-round-trip-{}", std::process::id()));
    let endpoint = format!("ipc://{}", path.display());
    let mut router = Router::bind(context, &endpoint).unwrap();
    let env: Vec<_> = std::env::vars_os().collect();
    let program = std::env::current_exe().unwrap();
    let spawn = Spawn { program: &program, args: &[OsString::from(&endpoint)], env: &env, inherit: &[] };
    let _peer = spawn.start().unwrap();

    let (peer, _) = router_recv(&mut router);
    for bytes in [64, 4096, 65_536] {
        let mut times: Vec<Duration> = (0..WARM_UP + ROUNDS).map(|_| round_trip(&mut router, &peer, bytes)).collect();
        times.drain(..WARM_UP);
        report(&format!("round trip of {bytes} bytes"), times);
    }
    router.send(&peer, &mut Vec::new()).unwrap();

    let _ = std::fs::remove_file(&path);

    let spawn = Spawn { program: "/bin/true".as_ref(), args: &[], env: &[], inherit: &[] };
    let mut children = Vec::new();
    let times = (0..STARTS).map(|_| {
        let started = Instant::now();
        children.push(spawn.start().unwrap());
        started.elapsed()
    });
    report("start of a process", times.collect());
}

fn round_trip(router: &mut Router, peer: &RoutingId, bytes: usize) -> Duration {
    let mut frame = vec![7; bytes];
    let started = Instant::now();
    router.send(peer, &mut frame).unwrap();
    let (_, answer) = router_recv(router);
    let time = started.elapsed();
    assert_eq!(answer.len(), bytes);
    time
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[times.len() * percent / 100].as_nanos() as f64 / 1000.0;
    println!("{what}: p50 {:.1} us, p10 {:.1}, p90 {:.1}, p99 {:.1}", at(50), at(10), at(90), at(99));
}

fn echo(dealer: &mut Dealer) {
    assert!(dealer.wait_connected(Duration::from_secs(10)).unwrap());
    dealer.send(&mut b"hello".to_vec()).unwrap();
    let mut answer = Vec::new();
    loop {
        let frame = dealer_recv(dealer);
        if frame.is_empty() {
            return;
        }
        answer.extend_from_slice(&frame);
        dealer.send(&mut answer).unwrap();
    }
}

fn router_recv(router: &mut Router) -> (RoutingId, Frame) {
    loop {
        if let Some(received) = router.try_recv().unwrap() {
            return received;
        }
        if !router.has_input().unwrap() {
            poll::wait(&mut [PollFd::input(router.fd())], None).unwrap();
        }
    }
}

fn dealer_recv(dealer: &mut Dealer) -> Frame {
    loop {
        if let Some(received) = dealer.try_recv().unwrap() {
            return received;
        }
        if !dealer.has_input().unwrap() {
            poll::wait(&mut [PollFd::input(dealer.fd())], None).unwrap();
        }
    }
}
