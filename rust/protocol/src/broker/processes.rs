//! Worker processes: started, heard, lost, started again.

use super::deaths::{Ended, Exit};
use super::workers::{INTERRUPT_RETRY_NS, Life, START_FAILURES_MAX, Worker};
use super::{Action, Broker, HEARTBEAT_NS, PeerId, worker_id};
use headrace_kernel::seeded;
use headrace_wire::{DeathCause, Heartbeat, Message};

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
            return self.lose_successor(worker, incarnation, exit);
        };
        let (life, pid) = (process.life, process.pid);
        let overdue = process.overdue;
        let is_retired = process.leave_ns.is_some();
        let never_began = life == Life::Starting || process.refused;
        process.start_failures = match never_began || !process.was_given_work() {
            true => process.start_failures + 1,
            false => 0,
        };
        let cause = match exit {
            _ if process.given_up || matches!(life, Life::Condemned(_)) => DeathCause::Silent,
            Exit::OutOfMemory(_) => DeathCause::OutOfMemory,
            _ => DeathCause::Crashed,
        };
        let bottom = process.waits.first().map(|wait| (wait.task, wait.attempt));
        let stderr = process.end_process(now_ns);
        let is_spare = worker >= self.config.workers;
        match is_retired {
            true => self.statistics.workers_retired += u64::from(!is_spare),
            false => self.count_death(exit),
        }
        let peer = match life {
            Life::Ready(peer) | Life::Condemned(peer) => Some(peer),
            Life::Starting | Life::Down { .. } | Life::Retired | Life::Spare | Life::Vacant => None,
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
            let ended = Ended { worker, pid, exit, cause, stderr: &stderr };
            // The word of how an overdue attempt ended may be lost, and another one be the cause.
            let on_top = executing.filter(|executing| {
                let is_other = overdue != Some(*executing) && !seeded!("no blame behind an overdue one");
                !was_overdue || is_other
            });
            // What ran within a wait is submitted anew by the attempts below it, which know of no death. Only the one at the
            // bottom lives on, so it counts them.
            let below = bottom.filter(|bottom| executing.is_some_and(|executing| executing != *bottom));
            let blamed = on_top.into_iter().chain(below).filter(|blamed| self.blame(*blamed, &ended, now_ns)).count();
            self.statistics.blamed_deaths += u64::from(blamed > 0 && cause != DeathCause::Silent);
            self.leave_races(worker);
            self.take_back(worker);
            self.end_worker_session(worker, peer, now_ns);
            self.limits.lose_worker(worker);
            self.handle_stacks(worker, "its process has ended");
            self.lose_store_peer(peer, now_ns);
        }
        if !self.hand_over_place(worker, now_ns) && never_began {
            let words = match String::from_utf8_lossy(&stderr).trim_end() {
                "" => "; it wrote nothing to standard error".to_owned(),
                words => format!("; its last words:\n{words}"),
            };
            self.complain_of_start(worker, &format!("{exit} before it could take work"), &words, now_ns);
        }
        let process = &mut self.workers[worker as usize];
        if is_spare && process.start_failures == 0 && matches!(process.life, Life::Down { .. }) {
            process.life = Life::Spare;
        }
        self.settle_cascades(now_ns);
    }

    /// What tasks of a worker have submitted ends with its process, but graphs that have taken their place.
    pub(super) fn end_worker_session(&mut self, worker: u32, peer: PeerId, now_ns: u64) {
        let session = std::mem::take(&mut self.workers[worker as usize].session);
        if !session.runs.is_empty() {
            self.end_session(peer, session, now_ns);
        }
    }

    /// A worker's process could not be started at all.
    pub fn handle_spawn_failure(&mut self, worker: u32, text: &str, now_ns: u64) {
        if worker as usize >= self.workers.len() || self.never_had_successor(worker) {
            return;
        }
        let process = &mut self.workers[worker as usize];
        process.start_failures += 1;
        process.end_process(now_ns);
        self.complain_of_start(worker, "could not be started", &format!(": {text}"), now_ns);
    }

    pub(super) fn count_death(&mut self, exit: Exit) {
        self.statistics.worker_deaths += 1;
        self.statistics.oom_deaths += u64::from(matches!(exit, Exit::OutOfMemory(_)));
    }

    /// A process has failed to become a worker. After a few in a row nothing will come of it, and everybody is told; while
    /// another worker has no such trouble the work goes on there, and this one is tried again now and then.
    fn complain_of_start(&mut self, number: u32, what: &str, why: &str, now_ns: u64) {
        let failures = self.workers[number as usize].start_failures;
        if failures < START_FAILURES_MAX {
            return;
        }
        let text = format!("worker {number} {what}, {failures} times in a row{why}");
        if self.is_place(number) {
            let host = self.workers[number as usize].host;
            return host.map_or((), |host| self.give_up_machine(host, &text, now_ns));
        }
        let does_better = |other: &Worker| other.start_failures == 0 && !other.is_away();
        if !self.workers.iter().any(does_better) {
            self.give_up(&text, now_ns);
        } else if failures == START_FAILURES_MAX {
            let text = format!("headrace: the other workers go on, but {text}\n");
            self.handle_output(number, 2, text.as_bytes(), None);
        }
    }

    /// Takes everything back that a dead worker held: its leases, and the results that nobody else has.
    fn take_back(&mut self, worker: u32) {
        let mut lost = Vec::new();
        self.kernel.lose_worker(worker_id(worker), &mut lost);
        for (task, _) in &lost {
            self.uncount_lease(task.0);
            if self.nests.used {
                self.end_attempt(worker, task.0);
            }
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
        for number in self.workers.timed() {
            let worker = &mut self.workers[number as usize];
            if matches!(worker.life, Life::Down { respawn_ns } if respawn_ns <= now_ns) && !worker.leaves {
                worker.begin_start();
                self.actions.push_back(Action::Spawn { worker: worker.number, incarnation: worker.incarnation });
            }
        }
    }

    /// Interrupts cancelled attempts once more, and kills the workers that ignored it for too long, or that do not leave.
    pub(super) fn press_interrupts(&mut self, now_ns: u64) {
        for number in self.workers.timed() {
            let worker = &mut self.workers[number as usize];
            if worker.leave_ns.is_some_and(|leave_ns| leave_ns <= now_ns) {
                worker.leave_ns = Some(u64::MAX);
                self.actions.push_back(Action::Kill { worker: number });
            }
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
        self.dismiss_spares(now_ns);
        self.ask_clients(now_ns);
        self.ask_machines(now_ns);
        for worker in 0..self.workers.len() {
            if let (Some(peer), None) = (self.workers[worker].peer(), self.workers[worker].leave_ns) {
                let process = &self.workers[worker];
                if process.unanswered >= process.patience {
                    self.end_silent_worker(worker as u32);
                    continue;
                }
                self.actions.push_back(Action::Look { worker: worker as u32 });
                self.workers[worker].unanswered += 1;
                self.forget_dead(worker as u32);
                self.send(peer, &Message::Heartbeat(Heartbeat { number: self.heartbeat_number, finished: 0 }));
            }
        }
    }

    /// A worker has received something between the last two questions, whether or not its answer is through. The latest
    /// question is open still.
    pub fn handle_sign_of_life(&mut self, worker: u32) {
        if let Some(worker) = self.workers.get_mut(worker as usize) {
            worker.unanswered = worker.unanswered.min(1);
        }
    }

    fn end_silent_worker(&mut self, number: u32) {
        let worker = &mut self.workers[number as usize];
        worker.given_up = true;
        let (pid, questions) = (worker.pid, std::mem::take(&mut worker.unanswered));
        let text = format!(
            "headrace: worker {number} (process {pid}) is stopped or has lost its connection: it has not answered \
             {questions} questions in a row, so it is killed\n"
        );
        self.handle_output(number, 2, text.as_bytes(), None);
        self.actions.push_back(Action::Kill { worker: number });
    }
}
