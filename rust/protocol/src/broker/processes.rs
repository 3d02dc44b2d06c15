//! Worker processes: started, heard, lost, started again.

use super::workers::{INTERRUPT_RETRY_NS, Life, START_FAILURES_MAX};
use super::{Action, Broker, HEARTBEAT_NS, PeerId, worker_id};
use headrace_kernel::{Attempt, TaskIndex};
use headrace_wire::{Death, Heartbeat, Log, Message, Outcome};

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By this signal.
    Signal(u32),
    /// With this code.
    Code(i32),
    /// Not known: something else in the broker's process waited for it first.
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Unknown => write!(f, "ended"),
        }
    }
}

impl Broker {
    /// A worker's process ended. `executing` is the (slot, attempt) on its status page: what user code it was in.
    pub fn handle_exit(
        &mut self,
        worker: u32,
        incarnation: u64,
        exit: Exit,
        executing: Option<(u32, u32)>,
        now_ns: u64,
    ) {
        let Some(process) = self.workers.get_mut(worker as usize).filter(|w| w.incarnation == incarnation) else {
            return;
        };
        let (life, pid) = (process.life, process.pid);
        if life == Life::Starting {
            process.start_failures += 1;
        }
        let overdue = process.overdue;
        let deferred = std::mem::take(&mut process.deferred);
        let stderr = process.end_process(now_ns);
        self.statistics.worker_deaths += 1;
        for entry in deferred.iter().filter(|entry| entry.carries_value()) {
            self.store.uncite(entry.value.bytes());
        }
        let peer = match life {
            Life::Ready(peer) | Life::Condemned(peer) => Some(peer),
            Life::Starting | Life::Down { .. } | Life::Retired => None,
        };
        if let Some(peer) = peer {
            self.forget_peer(peer);
        }
        if self.shutting_down {
            self.workers[worker as usize].life = Life::Retired;
            return;
        }
        if let Some(peer) = peer {
            let was_overdue = self.end_overdue(worker, overdue, now_ns);
            if let Some((task, attempt)) = executing.filter(|_| !was_overdue) {
                self.blame(worker, task, attempt, pid, exit, &stderr, now_ns);
            }
            self.take_back(worker);
            self.limits.lose_worker(worker);
            self.handle_stacks(worker, "its process has ended");
            self.lose_store_peer(peer, now_ns);
        }
        if self.workers[worker as usize].start_failures >= START_FAILURES_MAX {
            let words = match String::from_utf8_lossy(&stderr).trim_end() {
                "" => "it wrote nothing to standard error".to_owned(),
                words => format!("its last words:\n{words}"),
            };
            let text = format!(
                "worker {worker} {exit} before it could take work, {START_FAILURES_MAX} times in a row; {words}"
            );
            self.give_up(&text, now_ns);
        }
        self.settle_cascades(now_ns);
    }

    /// A worker's process could not be started at all.
    pub fn handle_spawn_failure(&mut self, worker: u32, text: &str, now_ns: u64) {
        let Some(process) = self.workers.get_mut(worker as usize) else { return };
        process.start_failures += 1;
        process.end_process(now_ns);
        if process.start_failures >= START_FAILURES_MAX {
            let text = format!("worker {worker} could not be started, {START_FAILURES_MAX} times in a row: {text}");
            self.give_up(&text, now_ns);
        }
    }

    /// Whole lines that a worker wrote; `stream` is 1 or 2.
    pub fn handle_output(&mut self, worker: u32, stream: u8, text: &[u8]) {
        if stream == 2 {
            self.workers[worker as usize].keep_stderr(text);
        }
        let clients: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer, super::peers::Peer::Client(_)))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in clients {
            let mut frame = Vec::new();
            Message::Log(Log { worker, stream, text }).encode(&mut frame);
            self.actions.push_back(Action::Log { peer, frame });
        }
    }

    /// Counts an executing death; at the crash limit the task fails instead of being tried again (B5).
    #[expect(clippy::too_many_arguments, reason = "the facts of one post-mortem")]
    fn blame(&mut self, worker: u32, task: u32, attempt: u32, pid: u32, exit: Exit, stderr: &[u8], now_ns: u64) {
        let wanted = (TaskIndex(task), Attempt(attempt));
        if !self.kernel.leases_of(worker_id(worker)).any(|lease| lease == wanted) {
            return;
        }
        self.waits.forget(task);
        let slot = self.ledger.slot_mut(task);
        slot.crashes = slot.crashes.saturating_add(1);
        if slot.crashes < self.config.crash_limit {
            return;
        }
        let (signal, exit_code) = match exit {
            Exit::Signal(signal) => (signal, 0),
            Exit::Code(code) => (0, code),
            Exit::Unknown => (0, -1),
        };
        let attempts = u32::from(slot.crashes);
        let limit = u32::from(self.config.crash_limit);
        let mut blob = Vec::new();
        Message::Death(Death { worker, pid, signal, exit_code, attempts, limit, stderr }).encode(&mut blob);
        if self.kernel.fail(worker_id(worker), wanted.0, wanted.1).is_ok() {
            self.uncount_lease(task);
            self.note_failed(task, Outcome::Died, &blob, now_ns);
        }
    }

    /// Takes everything back that a dead worker held: its leases, and the results that nobody else has.
    fn take_back(&mut self, worker: u32) {
        let mut lost = Vec::new();
        self.kernel.lose_worker(worker_id(worker), &mut lost);
        for (task, _) in &lost {
            self.uncount_lease(task.0);
        }
        let gone = self.ledger.lose_holder(worker);
        for task in &gone {
            self.lose_result(*task);
        }
        for task in lost.into_iter().map(|(task, _)| task.0).chain(gone) {
            self.regain_inputs(task);
        }
    }

    pub(super) fn start_due_workers(&mut self, now_ns: u64) {
        for worker in &mut self.workers {
            if matches!(worker.life, Life::Down { respawn_ns } if respawn_ns <= now_ns) {
                worker.begin_start();
                self.actions.push_back(Action::Spawn { worker: worker.number, incarnation: worker.incarnation });
            }
        }
    }

    /// Interrupts cancelled attempts once more, and kills the workers that ignored it for too long.
    pub(super) fn press_interrupts(&mut self, now_ns: u64) {
        for worker in &mut self.workers {
            let number = worker.number;
            if worker.interrupted.iter().any(|asked| asked.kill_ns <= now_ns) {
                worker.interrupted.clear();
                self.actions.push_back(Action::Kill { worker: number });
            }
            for asked in worker.interrupted.iter_mut().filter(|asked| asked.retry_ns <= now_ns) {
                asked.retry_ns = now_ns + INTERRUPT_RETRY_NS;
                let (task, attempt) = (asked.task, asked.attempt);
                self.actions.push_back(Action::Interrupt { worker: number, task, attempt });
            }
        }
    }

    /// Asks every worker for a sign of life. One that has been silent for long is lost, be it stopped or without a
    /// connection: it is killed, and its death brings its leases back.
    pub(super) fn send_heartbeats(&mut self, now_ns: u64) {
        self.heartbeat_due_ns = now_ns + HEARTBEAT_NS;
        self.heartbeat_number += 1;
        self.cool_store(now_ns);
        self.forget_silent_peers(now_ns);
        self.watch(now_ns);
        for worker in 0..self.workers.len() {
            if let Some(peer) = self.workers[worker].peer() {
                let process = &self.workers[worker];
                if process.unanswered > process.patience {
                    self.end_silent_worker(worker as u32);
                    continue;
                }
                if process.unanswered > 0 {
                    self.actions.push_back(Action::Look { worker: worker as u32 });
                }
                self.workers[worker].unanswered += 1;
                self.forget_dead(worker as u32);
                self.send(peer, &Message::Heartbeat(Heartbeat { number: self.heartbeat_number, finished: 0 }));
            }
        }
    }

    /// A worker has received something since it was last looked at, whether or not its answer is through.
    pub fn handle_sign_of_life(&mut self, worker: u32) {
        if let Some(worker) = self.workers.get_mut(worker as usize) {
            worker.unanswered = 0;
        }
    }

    fn end_silent_worker(&mut self, number: u32) {
        let worker = &mut self.workers[number as usize];
        let (pid, questions) = (worker.pid, std::mem::take(&mut worker.unanswered));
        let text = format!(
            "headrace: worker {number} (process {pid}) is stopped or has lost its connection: it has not answered \
             {questions} questions in a row, so it is killed\n"
        );
        self.handle_output(number, 2, text.as_bytes());
        self.actions.push_back(Action::Kill { worker: number });
    }
}
