//! WHY: where a task is and what it waits for; asked by clients of their own tasks, by observers of any by its key.

use super::nested::BECAME_CLASS;
use super::peers::Peer;
use super::retry::PARKED_CLASS;
use super::runs::Run;
use super::workers::Life;
use super::{Action, Broker, PeerId, worker_id};
use crate::why::{Facts, Listed, Place, Span, View};
use headrace_kernel::{ClassId, TaskIndex};
use headrace_wire::{ANY_WORKER, Because, Message, NO_WORKER, TaskPlace, Why};

/// Answers that may wait for stacks.
const PENDING_MAX: usize = 256;
/// Tasks of one key that are told of, where there are several.
const MATCHES_MAX: usize = 5;

/// An answer that waits for the stacks of a process.
#[derive(Debug)]
pub(super) struct Pending {
    peer: PeerId,
    number: u64,
    worker: u32,
    found: Place,
}

impl Broker {
    pub(super) fn handle_why(&mut self, peer: PeerId, why: &Why<'_>, now_ns: u64) {
        let slots = match why.key {
            "" => self.find_run(peer, why.run).and_then(|run| self.run(run).slots.get(why.index)).into_iter().collect(),
            key => self.find_key(peer, key),
        };
        let mut found: Vec<Place> = slots.into_iter().map(|slot| self.explain(slot, now_ns)).collect();
        // One that has not ended is what is asked for.
        found.sort_by_key(|found| found.state as u8 >= TaskPlace::Done as u8);
        let more = found.len().saturating_sub(MATCHES_MAX);
        found.truncate(MATCHES_MAX);
        let mut texts: Vec<String> = found.iter().map(|found| found.text.clone()).collect();
        if more > 0 {
            texts.push(format!("and {more} more of that key"));
        }
        let mut first = found.into_iter().next().unwrap_or_else(|| Place {
            state: TaskPlace::Unknown,
            worker: None,
            attempt: 0,
            since_ms: 0,
            text: String::new(),
        });
        first.text = texts.join("\n");
        let worker = first.worker.filter(|worker| why.stacks && self.workers[*worker as usize].peer().is_some());
        let Some(worker) = worker else {
            let none = if why.stacks { "it is in no process, so there are no stacks of it" } else { "" };
            return self.answer_why(peer, why.number, &first, none);
        };
        if self.pending.len() >= PENDING_MAX {
            return self.answer_why(peer, why.number, &first, "too many ask for stacks at once");
        }
        // Who asks while others wait gets what they get.
        if !self.pending.iter().any(|pending| pending.worker == worker) {
            self.actions.push_back(Action::DumpStacks { worker });
        }
        self.pending.push(Pending { peer, number: why.number, worker, found: first });
    }

    /// The Python stacks of a worker's process, or why there are none.
    pub fn handle_stacks(&mut self, worker: u32, text: &str) {
        let answered = |pending: &Pending| pending.worker == worker;
        let (answered, left) = std::mem::take(&mut self.pending).into_iter().partition(answered);
        self.pending = left;
        for Pending { peer, number, found, .. } in answered {
            self.answer_why(peer, number, &found, text);
        }
    }

    /// A peer is told nothing more.
    pub(super) fn drop_questions(&mut self, peer: PeerId) {
        self.pending.retain(|pending| pending.peer != peer);
    }

    fn answer_why(&mut self, peer: PeerId, number: u64, found: &Place, stacks: &str) {
        let because = Because {
            number,
            state: found.state as u8,
            worker: found.worker.unwrap_or(NO_WORKER),
            pid: found.worker.map_or(0, |worker| self.workers[worker as usize].pid),
            attempt: found.attempt,
            since_ms: found.since_ms,
            text: &found.text,
            stacks,
        };
        let mut frame = Vec::new();
        Message::Because(because).encode(&mut frame);
        self.actions.push_back(Action::Send { peer, frame, wake: None });
    }

    /// The tasks of a key that the peer may ask of, those of later runs first.
    fn find_key(&self, peer: PeerId, key: &str) -> Vec<u32> {
        let asks_of_all = matches!(self.peers.get(&peer), Some(Peer::Observer { .. }));
        let mut runs: Vec<&Run> = self.runs.iter().flatten().filter(|run| asks_of_all || run.peer == peer).collect();
        runs.sort_by_key(|run| std::cmp::Reverse((run.submitted_ns, run.number)));
        let index = key.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        let mut slots = Vec::new();
        for run in runs {
            let named = run.keys.iter().find(|(_, own)| ***own == *key.as_bytes()).map(|(index, _)| *index);
            let by_default = index.filter(|index| !run.keys.contains_key(index));
            let found = named.or(by_default).and_then(|index| run.slots.get(index));
            slots.extend(found.filter(|slot| self.name_of(*slot) == key));
        }
        slots
    }

    /// Where a task is, and what it waits for.
    pub(super) fn explain(&self, slot: u32, now_ns: u64) -> Place {
        self.view(now_ns).explain(TaskIndex(slot))
    }

    /// Looks at tasks as people do.
    pub(super) fn view(&self, now_ns: u64) -> View<'_, Known<'_>> {
        let facts = Known { broker: self, now_ns };
        View { kernel: &self.kernel, limits: &self.limits, workers: self.workers.len() as u32, facts }
    }
}

/// What a broker knows at a time.
pub(super) struct Known<'a> {
    broker: &'a Broker,
    now_ns: u64,
}

impl Facts for Known<'_> {
    fn name(&self, task: TaskIndex) -> String {
        self.broker.name_of(task.0)
    }

    fn class(&self, task: TaskIndex) -> ClassId {
        self.broker.policies.get(self.broker.ledger.slot(task.0).policy).class
    }

    fn running_ms(&self, worker: u32) -> u64 {
        self.now_ns.saturating_sub(self.broker.workers[worker as usize].progress_ns) / 1_000_000
    }

    fn process(&self, worker: u32) -> String {
        format!(" (pid {})", self.broker.workers[worker as usize].pid)
    }

    fn failures(&self, task: TaskIndex) -> u32 {
        self.broker.retries.failures(task.0)
    }

    fn pause_ms(&self, task: TaskIndex) -> Option<u64> {
        let until_ns = self.broker.timers.pause_ends_ns(task, &self.broker.kernel)?;
        Some(until_ns.saturating_sub(self.now_ns) / 1_000_000)
    }

    fn obstacle(&self, task: TaskIndex) -> Option<String> {
        let broker = self.broker;
        if broker.kernel.class_of(task) == BECAME_CLASS {
            return Some("the graph that it has returned in its place".to_owned());
        }
        if broker.kernel.class_of(task) == PARKED_CLASS {
            return Some("an input, which comes back from the worker that tried it last".to_owned());
        }
        let pin = broker.policies.get(broker.ledger.slot(task.0).policy).pin;
        let is_wanted = |worker: &u32| !broker.workers[*worker as usize].is_away();
        let numbers = (0..broker.workers.len() as u32).filter(is_wanted);
        let is_up = |worker: u32| broker.workers[worker as usize].peer().is_some();
        if pin != ANY_WORKER && !is_up(pin) {
            return Some(format!("worker {pin}, to which it is pinned: it {}", self.down(pin)));
        }
        if !numbers.clone().any(is_up) {
            let all = numbers.map(|worker| format!("worker {worker} {}", self.down(worker)));
            return Some(format!("a worker, and none is up: {}", Listed(all.collect())));
        }
        if broker.is_overfull() {
            return Some("results to move to disk, as memory is full".to_owned());
        }
        if broker.kernel.predecessors(task).is_empty() && broker.holds_roots_back(super::store::HOME) {
            let words = "memory: results take more than four fifths of it, and tasks run whose end may free some";
            return Some(words.to_owned());
        }
        None
    }

    fn remark(&self, task: TaskIndex) -> Option<String> {
        let broker = self.broker;
        let tags = |task: TaskIndex| &broker.policies.get(broker.ledger.slot(task.0).policy).tags;
        let is_free = |tag: &str| !broker.limits.offer().has_tag(tag);
        let free = tags(task).iter().filter(|tag| is_free(tag)).map(|tag| {
            let first = |worker| broker.kernel.leases_of(worker_id(worker)).next();
            let running = (0..broker.workers.len() as u32).filter_map(first);
            let count = running.filter(|(task, _)| tags(*task).contains(tag)).count();
            format!("tag '{tag}' has no limit, and {count} of its tasks run")
        });
        let second =
            broker.rivals.second_worker(task.0).map(|worker| format!("and a second attempt in worker {worker}"));
        let words: Vec<String> = second.into_iter().chain(free).collect();
        (!words.is_empty()).then(|| Listed(words).to_string())
    }

    fn second_attempt(&self, worker: u32) -> Option<TaskIndex> {
        self.broker.rivals.task_of(worker).map(TaskIndex)
    }

    fn waiting(&self, worker: u32) -> usize {
        self.broker.workers[worker as usize].waits.len()
    }

    fn worker_wait(&self, worker: u32, position: usize) -> Option<String> {
        if let Some(wait) = self.broker.workers[worker as usize].waits.get(position) {
            return Some(self.broker.awaited_words(worker, wait));
        }
        self.broker.waits_for_room(worker).then(|| "room in memory for what it makes".to_owned())
    }
}

impl Known<'_> {
    fn down(&self, worker: u32) -> String {
        match self.broker.workers[worker as usize].life {
            Life::Starting => "is starting".to_owned(),
            Life::Down { respawn_ns } => {
                format!("is down, and starts in {}", Span(respawn_ns.saturating_sub(self.now_ns) / 1_000_000))
            }
            Life::Retired => "is gone for good".to_owned(),
            Life::Vacant => "is a place that no other machine has taken".to_owned(),
            // Its process is there, and is about to be ended.
            _ => "is being ended".to_owned(),
        }
    }
}
