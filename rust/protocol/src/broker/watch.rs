//! The watchdog: nothing hangs in silence.
//!
//! Where no worker has a lease, all are up and tasks have not ended, somebody waits for something that need not come: clients
//! are told what, first after [`PATIENCE_NS`]. It is a look once a heartbeat, and says nothing about workers that start or
//! tasks that pause, which go on by themselves.

use super::peers::Peer;
use super::retry::{PARKED_CLASS, is_parked};
use super::workers::{Life, START_FAILURES_MAX, Worker};
use super::{Action, Broker, PeerId, worker_id};
use crate::why::Listed;
use headrace_wire::{Log, Message, NO_WORKER};

/// How long nothing may run before clients are told; each further time takes twice as long.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Processor time from one look to the next, of a second, with which a process counts as computing. Threads that wait take a
/// hundredth of that.
const COMPUTES_NS: u64 = 50_000_000;

/// Since when nothing runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    still_ns: Option<u64>,
    /// How often clients were told.
    told: u32,
}

impl Broker {
    /// Looks whether something runs.
    pub(super) fn watch(&mut self, now_ns: u64) {
        if !self.is_still() {
            self.watch = Watch::default();
            return;
        }
        let still_ns = *self.watch.still_ns.get_or_insert(now_ns);
        if now_ns > still_ns && self.workers.iter().any(Worker::waits) {
            return self.break_standstill(now_ns);
        }
        if now_ns >= still_ns + (PATIENCE_NS << self.watch.told.min(16)) {
            self.watch.told += 1;
            let text = format!("headrace: Stalled: nothing runs, and {}\n", self.stall_words(now_ns));
            self.tell_clients(&text);
        }
    }

    /// The processor time that a worker's process has used so far.
    pub fn handle_cpu_time(&mut self, worker: u32, cpu_ns: u64) {
        if let Some(worker) = self.workers.get_mut(worker as usize) {
            worker.computes = cpu_ns.saturating_sub(worker.cpu_ns) > COMPUTES_NS;
            worker.cpu_ns = cpu_ns;
        }
    }

    /// Whether nothing runs, nothing is about to, and not all has ended.
    fn is_still(&self) -> bool {
        // A process that comes up changes that, unless it never does.
        let comes_up = |worker: &Worker| match worker.life {
            Life::Ready(_) | Life::Retired | Life::Spare | Life::Vacant => false,
            _ => worker.start_failures < START_FAILURES_MAX,
        };
        // While another thread waits, the task itself may compute, and end by itself.
        let only_waits = |worker: &Worker| {
            worker.waits.last().is_some_and(|wait| wait.helps || !worker.computes)
                && self.kernel.leases_of(worker_id(worker.number)).count() == worker.waits.len()
        };
        let is_idle =
            |worker: &Worker| (worker.frames_open() == 0 || only_waits(worker)) && worker.interrupted.is_empty();
        let pausing = self.kernel.ready_len(PARKED_CLASS) as u64;
        self.workers.iter().all(|worker| is_idle(worker) && !comes_up(worker)) && {
            let tasks = self.kernel.statistics();
            tasks.ready > self.count_parked() || (pausing == 0 && (tasks.waiting > 0 || tasks.leased > 0))
        }
    }

    /// How many tasks wait for what.
    pub(super) fn stall_words(&self, now_ns: u64) -> String {
        let view = self.view(now_ns);
        let mut words: Vec<String> = Vec::new();
        for class in self.kernel.ready_classes().filter(|class| !is_parked(*class)) {
            let Some(first) = self.kernel.ready_tasks(class).next() else { continue };
            let count = match self.kernel.ready_len(class) {
                1 => format!("'{}' waits", self.name_of(first.0)),
                tasks => format!("{tasks} tasks wait"),
            };
            words.push(format!("{count} for {}", view.wanted(first)));
        }
        if words.is_empty() {
            let tasks = self.kernel.statistics();
            return format!("{} tasks wait for others", tasks.waiting + tasks.ready);
        }
        Listed(words).to_string()
    }

    fn tell_clients(&mut self, text: &str) {
        let clients = self.peers.iter().filter(|(_, peer)| matches!(peer, Peer::Client(_)));
        let clients: Vec<PeerId> = clients.map(|(peer, _)| *peer).collect();
        for peer in clients {
            let mut frame = Vec::new();
            Message::Log(Log { worker: NO_WORKER, stream: 2, text: text.as_bytes(), ..Log::default() })
                .encode(&mut frame);
            self.actions.push_back(Action::Log { peer, frame });
        }
    }
}
