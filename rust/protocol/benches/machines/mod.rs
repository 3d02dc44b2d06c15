//! A broker's machine whose client and workers have said HELLO.

use headrace_protocol::broker::{Broker, Config, Frame, PeerId, STRAGGLER_NS};
use headrace_protocol::limits::Offer;
use headrace_protocol::worker::{Identity, Worker};
use headrace_wire::{Hello, Message, PROTOCOL_VERSION, Role};
use std::sync::Arc;

/// The client. Worker n is peer n + 1.
pub(crate) const CLIENT: PeerId = PeerId(0);
const VERSION: &str = "0.1.0";
const PYTHON: &str = "3.11.7";

/// The broker, and its workers by number.
pub(crate) fn connected(workers: u32) -> (Broker, Vec<Worker>) {
    let config = Config {
        offer: Offer::default(),
        workers,
        places: 0,
        spares: 0,
        crash_limit: 3,
        oom_limit: 1,
        tasks_max: u64::MAX,
        result_bytes_max: 1 << 20,
        store_limit: 1 << 40,
        spill_limit: 0,
        version: VERSION.into(),
        python: PYTHON.into(),
        grace_ns: 1_000_000_000,
        straggler_ns: STRAGGLER_NS,
        seed: 7,
    };
    let mut broker = Broker::new(config, 0);
    let hello = Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        version: VERSION,
        python: PYTHON,
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: 1,
    };
    let mut bytes = Vec::new();
    Message::Hello(hello).encode(&mut bytes);
    feed(&mut broker, CLIENT, bytes);
    let workers = (0..workers).map(|worker| {
        let (version, python) = (VERSION.into(), PYTHON.into());
        let mut machine = Worker::new(&Identity { version, python, worker, incarnation: 1, pid: 2 });
        let hello = machine.poll_frame().expect("HELLO comes first");
        feed(&mut broker, PeerId(u64::from(worker) + 1), hello);
        machine
    });
    let workers = workers.collect();
    (broker, workers)
}

/// Has a frame arrive.
pub(crate) fn feed(broker: &mut Broker, peer: PeerId, bytes: Vec<u8>) {
    let frame: Frame = Arc::new(bytes);
    broker.handle_frame(peer, &frame, 1);
}
