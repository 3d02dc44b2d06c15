//! Recall on idle (B4): a worker that has nothing to do takes over what another has not started.
//!
//! A recall costs the donor an interruption and everybody a round trip, so it is not worth it for work that will be done
//! before the answer is there: it is sent when the donor's estimated remaining work is more than [`WORTH_NS`], or when
//! the donor is later than its estimate by as much, for then the estimate says nothing.

use super::classes::HandOver;
use super::workers::{FRAME_BUDGET_NS, Worker};
use super::{Broker, worker_id};
use headrace_kernel::{TaskIndex, TaskState, seeded};
use headrace_wire::{ANY_WORKER, Message, Recall};
use rustc_hash::FxHashSet;
use std::cmp::Reverse;

/// Remaining work for which a recall is worth its round trip; about three hops through the broker.
const WORTH_NS: u64 = 300_000;
/// Pause after a look at all who have something to give or nothing to do, for each: so it takes about a tenth of the time.
const REST_NS: u64 = 200;

impl Broker {
    pub(super) fn recall_for_idle_workers(&mut self, now_ns: u64) {
        self.recall_due_ns = None;
        if !self.workers.is_uneven() {
            return;
        }
        if now_ns < self.recall_rest_ns {
            self.recall_due_ns = Some(self.recall_rest_ns);
            return;
        }
        let (takers, served): (Vec<u32>, Vec<u32>) =
            self.workers.idle().into_iter().partition(|taker| self.workers[*taker as usize].served_until_ns <= now_ns);
        let later = served.iter().map(|taker| self.workers[*taker as usize].served_until_ns).min();
        let next_ns = match takers.is_empty() {
            true => None,
            false => self.recall_for(&takers, now_ns),
        };
        self.recall_due_ns = later.into_iter().chain(next_ns).min();
    }

    /// Asks the workers with most to do for a frame of work for each of the `takers`. When to look again.
    fn recall_for(&mut self, takers: &[u32], now_ns: u64) -> Option<u64> {
        // One that waits has nothing that it has not started, or is giving it back.
        let mut donors = self.workers.donors();
        self.recall_rest_ns = now_ns + (donors.len() + takers.len()) as u64 * REST_NS;
        donors.sort_by_key(|donor| Reverse(self.workers[*donor as usize].estimated_end_ns()));
        let mut look_ns: Option<u64> = None;
        let mut asked_ns = 0;
        for donor in donors {
            let due_ns = recall_due_ns(&self.workers[donor as usize], now_ns);
            if due_ns > now_ns {
                look_ns = Some(look_ns.map_or(due_ns, |known_ns| known_ns.min(due_ns)));
            } else if asked_ns < takers.len() as u64 * FRAME_BUDGET_NS {
                asked_ns += self.recall(donor, takers, now_ns);
            }
        }
        // They are to get it before others are asked: where all were, each end of a task had all queues given out anew.
        for taker in takers.iter().take(asked_ns.div_ceil(FRAME_BUDGET_NS) as usize) {
            self.workers[*taker as usize].served_until_ns = now_ns + WORTH_NS;
            look_ns = Some(look_ns.map_or(now_ns + WORTH_NS, |known_ns| known_ns.min(now_ns + WORTH_NS)));
        }
        look_ns
    }

    /// Asks `donor` for a share of what it has not started and one of the `takers` could run. About how much work that is, where
    /// no task counts for more than a frame.
    fn recall(&mut self, donor: u32, takers: &[u32], now_ns: u64) -> u64 {
        // If the donor only has one task that runs long, there is nothing to ask for until it reports.
        self.workers[donor as usize].recall_pause_ns = now_ns + WORTH_NS;
        let hand_overs = self.hand_overs(donor, takers);
        let mut open: Vec<(u32, u32, HandOver)> = Vec::new();
        for (task, attempt) in self.kernel.leases_of(worker_id(donor)).skip(1) {
            let slot = self.ledger.slot(task.0);
            let policy = self.policies.get(slot.policy);
            let hand_over = match &hand_overs {
                Some(hand_overs) => hand_overs[&policy.class],
                None if policy.pin == ANY_WORKER => HandOver::Some,
                None => HandOver::None,
            };
            let is_near = !self.store.is_split() || takers.iter().any(|taker| !self.lacks_inputs(*taker, task));
            if hand_over != HandOver::None && !slot.recalled && self.kernel.missing(task) == 0 && is_near {
                open.push((task.0, attempt.0, hand_over));
            }
        }
        let shared = open.iter().filter(|lease| lease.2 == HandOver::Some).count();
        let share = (shared * takers.len()).div_ceil(takers.len() + 1);
        let mut kept = shared - share;
        let is_wanted = |(.., hand_over): &(u32, u32, HandOver)| {
            let is_kept = *hand_over == HandOver::Some && kept > 0;
            kept -= usize::from(is_kept);
            !is_kept
        };
        open.retain(is_wanted);
        let wanted: Vec<(u32, u32)> = open.into_iter().map(|(task, attempt, _)| (task, attempt)).collect();
        if !wanted.is_empty() {
            self.send_recall(donor, &wanted);
        }
        let work_ns = |(task, _): &(u32, u32)| {
            let known_ns = self.functions.estimate_ns(self.ledger.slot(*task).function);
            known_ns.map_or(FRAME_BUDGET_NS, |ns| ns.clamp(1, FRAME_BUDGET_NS))
        };
        wanted.iter().map(work_ns).sum()
    }

    /// Asks workers that wait for memory for all that they have not started: what it takes may move to disk then. Whether
    /// there is any.
    pub(super) fn recall_from_waiting(&mut self) -> bool {
        let mut is_any = false;
        for donor in 0..self.workers.len() as u32 {
            let open: Vec<(u32, u32)> = self.behind_a_wait(donor).collect();
            let is_new = |(task, _): &(u32, u32)| !self.ledger.slot(*task).recalled;
            let wanted: Vec<(u32, u32)> = open.into_iter().filter(is_new).collect();
            if !wanted.is_empty() {
                self.send_recall(donor, &wanted);
                is_any = true;
            }
        }
        is_any
    }

    /// Whether some of that has not come back.
    pub(super) fn awaits_leases(&self) -> bool {
        (0..self.workers.len() as u32).any(|donor| self.behind_a_wait(donor).next().is_some())
    }

    /// What a worker that waits for memory has not started: all but the first of its leases.
    fn behind_a_wait(&self, worker: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let leases = self.waits_for_room(worker).then(|| self.kernel.leases_of(worker_id(worker)).skip(1));
        leases.into_iter().flatten().map(|(task, attempt)| (task.0, attempt.0))
    }

    pub(super) fn send_recall(&mut self, donor: u32, wanted: &[(u32, u32)]) {
        // One that was cut is about to die, which brings back all that it holds.
        let Some(peer) = self.workers[donor as usize].peer() else { return };
        for (task, _) in wanted {
            self.ledger.slot_mut(*task).recalled = true;
        }
        let fetch = self.held_inputs(donor, wanted);
        for input in &fetch {
            self.ledger.ask_for(*input);
        }
        let (tasks, attempts): (Vec<u32>, Vec<u32>) = wanted.iter().copied().unzip();
        self.statistics.recalls += 1;
        let recall = Recall { task: (&tasks).into(), attempt: (&attempts).into(), fetch: (&fetch).into() };
        self.send(peer, &Message::Recall(recall));
    }
}

impl Broker {
    /// Results that only workers have and that `tasks` need, or leases of the same worker that come back with them.
    pub(super) fn held_inputs(&self, donor: u32, tasks: &[(u32, u32)]) -> Vec<u32> {
        let mut closure: Vec<TaskIndex> = tasks.iter().map(|(task, _)| TaskIndex(*task)).collect();
        let mut seen: FxHashSet<TaskIndex> = closure.iter().copied().collect();
        let mut fetch = Vec::new();
        while let Some(task) = closure.pop() {
            let held = |input: &&TaskIndex| self.ledger.value(input.0).is_some_and(|value| value.payload.is_none());
            fetch.extend(self.kernel.predecessors(task).iter().filter(held).map(|input| input.0));
            let behind =
                |next: &TaskIndex| self.kernel.worker_of(*next) == Some(worker_id(donor)) && seen.insert(*next);
            closure.extend(self.kernel.successors(task).filter(behind));
        }
        fetch.sort_unstable();
        fetch.dedup();
        fetch
    }

    /// Asks the only holders of results for them. Who needs one waits meanwhile, unless the holder itself runs it.
    pub(super) fn fetch(&mut self, tasks: &[u32]) {
        let mut wanted: Vec<(u32, u32)> = Vec::new();
        for &task in tasks {
            wanted.extend(self.ledger.ask_for(task).map(|holder| (holder, task)));
        }
        wanted.sort_by_key(|(holder, _)| *holder);
        for of_one in wanted.chunk_by(|a, b| a.0 == b.0) {
            if let Some(peer) = self.workers[of_one[0].0 as usize].peer() {
                let fetch: Vec<u32> = of_one.iter().map(|(_, task)| *task).collect();
                self.send(peer, &Message::Recall(Recall { fetch: (&fetch).into(), ..Recall::default() }));
            }
        }
    }

    /// Somebody wants a result who was not there when its task was leased: the lease may not have asked for it.
    pub(super) fn want_result(&mut self, task: TaskIndex) {
        if self.kernel.state(task) == TaskState::Leased {
            self.ledger.slot_mut(task.0).wanted = true;
        }
    }

    /// A task may go to any worker next, because its lease came back or it has to run again. An input that is still being
    /// made must be reported after all, and one that only a worker has is fetched from there.
    pub(super) fn regain_inputs(&mut self, task: u32) {
        let mut again = vec![TaskIndex(task)];
        let mut seen: FxHashSet<TaskIndex> = again.iter().copied().collect();
        while let Some(task) = again.pop() {
            let inputs: Vec<TaskIndex> = self.kernel.predecessors(task).to_vec();
            for input in inputs {
                match self.kernel.state(input) {
                    TaskState::Leased => self.ledger.slot_mut(input.0).wanted = true,
                    TaskState::Done
                        if seeded!("input out of reach made again")
                            && self.ledger.value(input.0).is_some_and(|value| value.payload.is_none()) =>
                    {
                        self.lose_result(input.0);
                    }
                    TaskState::Done => self.fetch(&[input.0]),
                    // A predecessor of a task that once ran was done: it runs again, too.
                    TaskState::Waiting | TaskState::Ready if self.ledger.slot(input.0).done && seen.insert(input) => {
                        again.push(input);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A result is nowhere any more, or where it cannot be used.
    pub(super) fn lose_result(&mut self, task: u32) {
        for holder in self.ledger.drop_value(task) {
            self.workers[holder as usize].dead.push(task);
        }
        // The kernel does not list a dead result any more that it needs again.
        self.settle_dead();
        self.kernel.lose_result(TaskIndex(task));
    }
}

/// When a recall from this worker is worth it.
fn recall_due_ns(worker: &Worker, now_ns: u64) -> u64 {
    let end_ns = worker.estimated_end_ns();
    let due_ns = if end_ns > now_ns + WORTH_NS { now_ns } else { end_ns + WORTH_NS };
    due_ns.max(worker.recall_pause_ns)
}
