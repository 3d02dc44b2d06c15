//! Spare workers: processes that stand in for workers whose attempts wait for nested work.
//!
//! There are as many slots for them as the configuration allows, without a process as long as nobody waits. No more of them
//! take work than workers wait, so that as many attempts run as there are workers; for a moment more, where a wait has ended.
//! They leave when they have been idle for a while. Where all of them are up and nobody takes what a waiting attempt waits
//! for, its worker is leased that itself, a task at a time.

use super::nested::{BECAME_CLASS, Wait};
use super::retry::PARKED_CLASS;
use super::workers::{FRAME_BUDGET_NS, Life, Worker};
use super::{Broker, PeerId, worker_id};
use crate::why::Listed;
use headrace_kernel::{ClassId, LeaseRequest, TaskIndex, TaskState};
use headrace_wire::{Message, Outcome, Standstill, WHOLE_RUN};

/// Looks, one a heartbeat, after which a spare worker without work leaves.
const IDLE_LOOKS: u32 = 3;

impl Broker {
    /// Decides which spare workers may be given work.
    pub(super) fn bar_spares(&mut self) {
        if !self.nests.used {
            return;
        }
        let (workers, spares) = self.workers.all_mut().split_at_mut(self.config.workers as usize);
        let mut places = workers.iter().filter(|worker| worker.waits()).count();
        for spare in spares.iter_mut().filter(|spare| spare.peer().is_some() && !spare.waits()) {
            spare.barred = places == 0;
            places = places.saturating_sub(1);
        }
    }

    /// Sees to it that somebody runs what waiting attempts wait for: spare workers, or the waiting workers themselves.
    pub(super) fn serve_waiting(&mut self, now_ns: u64) {
        if !self.nests.used || self.shutting_down || !self.workers.iter().any(Worker::waits) || self.calls_spare(now_ns)
        {
            return;
        }
        for number in 0..self.workers.len() as u32 {
            let worker = &self.workers[number as usize];
            let is_up = worker.peer().is_some() && worker.interrupted.is_empty();
            if is_up
                && worker.waits.last().is_some_and(|wait| wait.helps)
                && self.kernel.leases_of(worker_id(number)).count() == worker.waits.len()
            {
                self.lease_nested(number, now_ns);
            }
        }
    }

    /// Whether a spare worker is about to come; starts one if there is use for it.
    fn calls_spare(&mut self, now_ns: u64) -> bool {
        let comes = |spare: &&Worker| matches!(spare.life, Life::Starting | Life::Down { .. });
        if self.spares().any(|spare| comes(&spare) && spare.start_failures == 0) {
            return true;
        }
        // Whoever is idle has just been offered all that there is.
        let has_unstarted =
            |worker: &Worker| !worker.waits() && self.kernel.leases_of(worker_id(worker.number)).nth(1).is_some();
        let is_needed = self.kernel.ready() > self.count_parked() || self.workers.iter().any(has_unstarted);
        let waiting = self.workers.iter().filter(|worker| worker.waits()).count();
        let up = self.spares().filter(|spare| spare.life != Life::Spare).count();
        if !is_needed || up >= waiting || self.workers.iter().any(Worker::is_idle) {
            return false;
        }
        let first = self.config.workers as usize;
        match self.workers.all_mut()[first..].iter_mut().find(|spare| spare.life == Life::Spare) {
            Some(spare) => {
                spare.life = Life::Down { respawn_ns: now_ns };
                true
            }
            None => false,
        }
    }

    /// Leases a waiting worker a task that its attempt waits for, if one is ready that it may have.
    fn lease_nested(&mut self, number: u32, now_ns: u64) {
        let Some(wait) = self.workers[number as usize].waits.last() else { return };
        let nest = self.nests.number_of(wait.task);
        let is_its = |class: &ClassId| {
            let nested = self.limits.class(*class).is_some_and(|class| self.nests.is_within(class.nest, nest));
            nested && self.limits.may_take(number, *class)
        };
        let classes = self.kernel.ready_priorities().filter(|(class, _)| is_its(class));
        let Some((class, _)) = classes.reduce(|best, other| if other.1 > best.1 { other } else { best }) else {
            return;
        };
        let request = LeaseRequest {
            classes: &[class],
            tasks_max: 1,
            seeds_max: 1,
            budget: FRAME_BUDGET_NS,
            only_preferred: false,
            roots: true,
        };
        self.lease_one(number, &request);
        if !self.leased.is_empty() {
            self.limits.note_lease(number, class);
            self.send_leases(number, now_ns);
        }
    }

    /// Lets spare workers go that have had nothing to do for a while; a look once a heartbeat.
    pub(super) fn dismiss_spares(&mut self, now_ns: u64) {
        if !self.nests.used {
            return;
        }
        for number in self.config.workers..self.workers.len() as u32 {
            let spare = &mut self.workers[number as usize];
            let Some(peer) = spare.peer().filter(|_| spare.leave_ns.is_none()) else { continue };
            let is_idle = spare.frames_open() == 0 && spare.interrupted.is_empty();
            spare.idle_looks = if is_idle { spare.idle_looks + 1 } else { 0 };
            if spare.idle_looks >= IDLE_LOOKS {
                spare.leave_ns = Some(now_ns + self.config.grace_ns);
                self.dismiss(number, peer, "it has stood in for a worker that waited, and is not needed any more");
            }
        }
    }

    fn spares(&self) -> impl Iterator<Item = &Worker> {
        self.workers.iter().skip(self.config.workers as usize)
    }

    /// Nothing runs, and attempts wait: the wait of one of them fails, which lets others go on, perhaps. Where other threads
    /// wait than the ones that run tasks, or event loops, it is the awaited tasks that fail, so whoever waits is told.
    pub(super) fn break_standstill(&mut self, now_ns: u64) {
        let why = self.stall_words(now_ns);
        let up = self.workers.iter().filter_map(|worker| Some((worker.number, worker.peer()?, *worker.waits.last()?)));
        let waits: Vec<(u32, PeerId, Wait)> = up.collect();
        if let Some((number, peer, wait)) = waits.iter().find(|(.., wait)| wait.helps) {
            let awaited = self.awaited_words(*number, wait);
            let text = format!("'{}' waits for {awaited}, and {why}", self.name_of(wait.task));
            let standstill = Standstill { task: wait.task, attempt: wait.attempt, text: &text };
            return self.send(*peer, &Message::Standstill(standstill));
        }
        let awaited = waits.into_iter().map(|(_, peer, wait)| self.awaited(peer, &wait));
        let Some(tasks) = awaited.into_iter().find(|tasks| !tasks.is_empty()) else { return };
        for task in tasks {
            self.nests.end(task.0);
            self.kernel.fail_unleased(task);
            self.note_failed(task.0, Outcome::Refused, format!("Stalled: {why}").as_bytes(), now_ns);
        }
        self.settle_cascades(now_ns);
    }

    /// What an attempt waits for and nobody runs: the task, or all of a run that could start.
    fn awaited(&self, peer: PeerId, wait: &Wait) -> Vec<TaskIndex> {
        let Some(position) = self.find_run(peer, wait.run) else { return Vec::new() };
        let is_all = wait.index == WHOLE_RUN;
        let mut tasks = match is_all {
            true => self.live_slots(position),
            false => self.run(position).slots.get(wait.index).map(TaskIndex).into_iter().collect(),
        };
        let nest = self.nests.number_of(wait.task);
        tasks.retain(|task| {
            let state = self.kernel.state(*task);
            let is_unleased = state == TaskState::Ready || (state == TaskState::Waiting && !is_all);
            is_unleased && self.kernel.class_of(*task) != PARKED_CLASS && self.is_of_nest(*task, nest)
        });
        tasks
    }

    /// Whether the attempt with this nest has submitted the task.
    fn is_of_nest(&self, task: TaskIndex, nest: u32) -> bool {
        let class = self.limits.class(self.policies.get(self.ledger.slot(task.0).policy).class);
        class.is_some_and(|class| class.nest == nest)
    }

    /// What an attempt of a worker waits for.
    pub(super) fn awaited_words(&self, number: u32, wait: &Wait) -> String {
        let Some(peer) = self.workers[number as usize].peer() else { return String::new() };
        let position = self.find_run(peer, wait.run);
        if wait.index != WHOLE_RUN {
            let slot = position.and_then(|position| self.run(position).slots.get(wait.index));
            return slot.map_or_else(|| "a task that has ended".to_owned(), |slot| format!("'{}'", self.name_of(slot)));
        }
        let live = position.map(|position| self.live_slots(position)).unwrap_or_default();
        let nest = self.nests.number_of(wait.task);
        let is_its = |task: &&TaskIndex| self.is_of_nest(**task, nest) && !self.ledger.slot(task.0).done;
        let names: Vec<String> = live.iter().filter(is_its).map(|task| format!("'{}'", self.name_of(task.0))).collect();
        if names.is_empty() { "tasks that have ended".to_owned() } else { Listed(names).to_string() }
    }

    /// Ready tasks that nobody may be given for now.
    pub(super) fn count_parked(&self) -> u64 {
        (self.kernel.ready_len(PARKED_CLASS) + self.kernel.ready_len(BECAME_CLASS)) as u64
    }
}
