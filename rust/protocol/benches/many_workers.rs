//! What does the broker's machine cost a task with very many workers? `cargo bench -p headrace-protocol --bench many_workers`
//!
//! Workers on a virtual clock, one frame of independent tasks after the other; the broker's clock is its own processor time, so
//! that reports which arrive while it works are one turn's. Time spent inside the broker only: no socket, no Python.

mod machines;

use headrace_protocol::broker::{Action, Broker, PeerId};
use headrace_protocol::worker::{Ending, Start, Worker};
use headrace_wire::{Blobs, BlobsBuf, Message, Submit};
use machines::{CLIENT, connected, feed};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// One way over the network.
const WIRE_NS: u64 = 100_000;

fn main() {
    // Numbers of workers may be given.
    let given: Vec<u32> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    for workers in if given.is_empty() { vec![10, 100, 1_000, 10_000] } else { given } {
        for task_ns in [10_000, 1_000_000, 100_000_000] {
            let tasks = if task_ns > 10_000 { (workers * 20).max(10_000) } else { (workers * 100).max(100_000) };
            report(workers, tasks, task_ns);
        }
    }
}

fn report(workers: u32, tasks: u32, task_ns: u64) {
    let mut cluster = Cluster::new(workers, task_ns);
    let (elapsed_ns, inside, turns) = cluster.run(tasks);
    let ideal_ns = u64::from(tasks) * task_ns / u64::from(workers);
    println!(
        "{workers:6} workers {tasks:8} tasks of {:8.2} ms   broker {:8.3} µs/task, {:9.1} µs/turn, {:4.1} tasks/turn   took {:5.2} × the tasks alone",
        task_ns as f64 / 1e6,
        inside.as_secs_f64() * 1e6 / f64::from(tasks),
        inside.as_secs_f64() * 1e6 / turns as f64,
        f64::from(tasks) / turns as f64,
        elapsed_ns as f64 / ideal_ns as f64,
    );
}

struct Stand {
    machine: Worker,
    inbox: VecDeque<Vec<u8>>,
    is_busy: bool,
}

/// What happens, in order of its time: a frame of a worker reaches the broker, one of the broker's a worker, or a worker has
/// done all of its oldest frame.
enum Event {
    Arrives(u32, Vec<u8>),
    Delivered(u32, Vec<u8>),
    Done(u32),
}

struct Cluster {
    broker: Broker,
    workers: Vec<Stand>,
    task_ns: u64,
    chance: u64,
    events: BTreeMap<(u64, u64), Event>,
    events_made: u64,
    /// The client was told that its run is over.
    is_over: bool,
}

impl Cluster {
    fn new(workers: u32, task_ns: u64) -> Self {
        let (broker, machines) = connected(workers);
        let stand = |machine| Stand { machine, inbox: VecDeque::new(), is_busy: false };
        let workers = machines.into_iter().map(stand).collect();
        let mut cluster =
            Cluster { broker, workers, task_ns, chance: 7, events: BTreeMap::new(), events_made: 0, is_over: false };
        cluster.broker.finish_turn(1);
        cluster.send_all(1);
        cluster
    }

    /// The virtual time that it took, the time within the broker, and its turns.
    fn run(&mut self, tasks: u32) -> (u64, Duration, u64) {
        let begin_ns = 10_000_000;
        let (mut now_ns, mut inside, mut turns) = (begin_ns, Duration::ZERO, 0);
        self.settle_until(now_ns);
        let mut arrived = vec![(CLIENT, submit(tasks))];
        loop {
            let start = processor_time();
            for (peer, frame) in arrived {
                feed(&mut self.broker, peer, frame);
            }
            self.broker.handle_timeout(now_ns);
            self.broker.finish_turn(now_ns);
            let turn = processor_time() - start;
            (inside, turns) = (inside + turn, turns + 1);
            now_ns += turn.as_nanos() as u64;
            self.send_all(now_ns);
            if self.is_over {
                return (now_ns - begin_ns, inside, turns);
            }
            // Sleeps until something comes, or until its own clock rings.
            arrived = self.settle_until(now_ns);
            while arrived.is_empty() {
                let event_ns = self.events.first_key_value().map(|((at_ns, _), _)| *at_ns);
                let timeout_ns = self.broker.next_timeout_ns();
                now_ns = now_ns.max(event_ns.into_iter().chain(timeout_ns).min().expect("something is under way"));
                arrived = self.settle_until(now_ns);
                if timeout_ns.is_some_and(|timeout_ns| timeout_ns <= now_ns) {
                    break;
                }
            }
        }
    }

    /// Lets everything happen until then. What has reached the broker.
    fn settle_until(&mut self, now_ns: u64) -> Vec<(PeerId, Vec<u8>)> {
        let mut arrived = Vec::new();
        while self.events.first_key_value().is_some_and(|((at_ns, _), _)| *at_ns <= now_ns) {
            let ((at_ns, _), event) = self.events.pop_first().expect("it was just seen");
            match event {
                Event::Arrives(worker, frame) => arrived.push((PeerId(u64::from(worker) + 1), frame)),
                Event::Delivered(worker, frame) => {
                    self.workers[worker as usize].inbox.push_back(frame);
                    self.work(worker, at_ns);
                }
                Event::Done(worker) => {
                    self.workers[worker as usize].is_busy = false;
                    self.report(worker, at_ns);
                    self.work(worker, at_ns);
                }
            }
        }
        arrived
    }

    /// Takes frames until one has tasks, and runs them.
    fn work(&mut self, worker: u32, now_ns: u64) {
        loop {
            let stand = &mut self.workers[worker as usize];
            if stand.is_busy {
                return;
            }
            let Some(frame) = stand.inbox.pop_front() else { return };
            stand.machine.handle_frame(&frame);
            let (mut clock_ns, mut start) = (now_ns, Start::default());
            while stand.machine.start_next(&mut start, || clock_ns) {
                // Half to one and a half times as long: no two workers keep step.
                self.chance =
                    self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                clock_ns += self.task_ns / 2 + (self.chance >> 33) % self.task_ns;
                stand.machine.finish(Ending::Value(&[3, 7]));
            }
            if clock_ns > now_ns {
                stand.machine.flush(clock_ns);
                stand.is_busy = true;
                return self.happen(clock_ns, Event::Done(worker));
            }
            self.report(worker, now_ns);
        }
    }

    fn report(&mut self, worker: u32, now_ns: u64) {
        while let Some(frame) = self.workers[worker as usize].machine.poll_frame() {
            self.happen(now_ns + WIRE_NS, Event::Arrives(worker, frame));
        }
    }

    fn send_all(&mut self, now_ns: u64) {
        while let Some(action) = self.broker.poll_action() {
            let Action::Send { peer, frame, wake } = action else { continue };
            self.is_over |= wake.is_some_and(|wake| wake.finished);
            if peer != CLIENT {
                self.happen(now_ns + WIRE_NS, Event::Delivered(peer.0 as u32 - 1, frame));
            }
        }
    }

    fn happen(&mut self, at_ns: u64, event: Event) {
        self.events_made += 1;
        self.events.insert((at_ns, self.events_made), event);
    }
}

/// What this thread has taken of a processor: neighbours do not count.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Independent tasks of one function, one of them kept.
fn submit(tasks: u32) -> Vec<u8> {
    let zeros = vec![0; tasks as usize];
    let lens = vec![4; tasks as usize];
    let args = vec![7; 4 * tasks as usize];
    let mut name = BlobsBuf::default();
    name.push(b"work");
    let submit = Submit {
        run: 1,
        function_ids: zeros[..1].into(),
        function_names: name.as_blobs(),
        functions: name.as_blobs(),
        function_map: zeros[..1].into(),
        task_function: (&zeros).into(),
        dep_counts: (&zeros).into(),
        deps: zeros[..0].into(),
        args: Blobs { lens: (&lens).into(), bytes: &args },
        keep: zeros[..1].into(),
        ..Submit::default()
    };
    let mut bytes = Vec::new();
    Message::Submit(submit).encode(&mut bytes);
    bytes
}
