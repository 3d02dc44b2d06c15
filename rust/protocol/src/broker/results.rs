//! What clients are told and what they hold: RESULTS, HOLD, CANCEL, QUERY.

use super::ledger::NONE;
use super::peers::Peer;
use super::retry::is_parked;
use super::runs::{CALLS, Slots};
use super::workers::{Life, Worker};
use super::{Action, Broker, PeerId, Wake};
use headrace_kernel::{TaskIndex, TaskState};
use headrace_wire::{BlobsBuf, GoodbyeReason, Hold, Message, Query, Results, State};

impl Broker {
    /// Remembers that a run has something to tell.
    pub(super) fn note_news(&mut self, position: u32) {
        let run = self.run_mut(position);
        if !std::mem::replace(&mut run.has_news, true) {
            self.news.push(position);
        }
    }

    pub(super) fn tell_news(&mut self, _now_ns: u64) {
        for position in std::mem::take(&mut self.news) {
            if self.runs[position as usize].as_ref().is_some_and(|run| run.has_news) {
                self.tell_run(position);
            }
            if let Some(run) = self.runs[position as usize].as_mut() {
                run.has_news = false;
            }
            self.drop_run_if_over(position);
        }
    }

    /// Sends what a run's client has not been told yet.
    pub(super) fn tell_run(&mut self, position: u32) {
        let run = self.run_mut(position);
        let finished = run.finished() && run.number != CALLS && run.owed == 0;
        let outbox = std::mem::take(&mut run.outbox);
        if run.finish_told || (outbox.index.is_empty() && !finished) {
            return;
        }
        run.finish_told = finished;
        let results = Results {
            run: run.number,
            finished,
            index: (&outbox.index).into(),
            outcome: &outbox.outcome,
            values: outbox.values.as_blobs(),
            ended: run.counts.ended(),
        };
        let mut frame = Vec::new();
        Message::Results(results).encode(&mut frame);
        let wake = Some(Wake { run: run.number, finished, indices: outbox.index });
        let peer = run.peer;
        self.actions.push_back(Action::Send { peer, frame, wake });
    }

    pub(super) fn handle_hold(&mut self, peer: PeerId, hold: &Hold<'_>, now_ns: u64) {
        self.admit_rest(now_ns);
        let Some(position) = self.find_run(peer, hold.run) else { return };
        for index in hold.add.iter() {
            if let Some(slot) = self.run(position).slots.get(index) {
                self.ledger.slot_mut(slot).refs += 1;
                self.kernel.hold(TaskIndex(slot));
                self.want_result(TaskIndex(slot));
            }
        }
        for index in hold.remove.iter() {
            let Some(slot) = self.run(position).slots.get(index) else { continue };
            let task = self.ledger.slot_mut(slot);
            if task.refs > 0 {
                task.refs -= 1;
            } else if !std::mem::take(&mut task.kept) {
                continue; // neither a ref nor the run itself holds it any more
            }
            self.kernel.unhold(TaskIndex(slot));
        }
        if hold.release_run {
            for index in std::mem::take(&mut self.run_mut(position).keep) {
                let Some(slot) = self.run(position).slots.get(index) else { continue };
                if std::mem::take(&mut self.ledger.slot_mut(slot).kept) {
                    self.kernel.unhold(TaskIndex(slot));
                }
            }
            self.run_mut(position).released = true;
            self.drop_run_if_over(position);
        }
    }

    pub(super) fn handle_query(&mut self, peer: PeerId, query: &Query, now_ns: u64) {
        let statistics = self.statistics();
        // Of those that may stand in for others, the ones that did.
        let workers: Vec<&Worker> =
            self.workers.iter().filter(|worker| !worker.is_away() || worker.busy_ns > 0).collect();
        let number: Vec<u32> = workers.iter().map(|worker| worker.number).collect();
        let pid: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
        let busy_ms: Vec<u32> = workers.iter().map(|worker| (worker.busy_ns / 1_000_000) as u32).collect();
        let mut finished_by = vec![0; number.len()];
        let store = self.store_statistics();
        let inline = self.ledger.results_bytes();
        // A look at every result, so only where there is something to tell.
        let is_used = store.blocks > 0 || inline > store.limit / 8;
        let largest = if is_used { self.largest_results() } else { Vec::new() };
        let mut names = BlobsBuf::default();
        largest.iter().for_each(|(name, _)| names.push(name.as_bytes()));
        let largest_bytes: Vec<u8> = largest.iter().flat_map(|(_, bytes)| bytes.to_le_bytes()).collect();
        let (mut things, mut thing_tags, mut thing_amounts) = (BlobsBuf::default(), Vec::new(), Vec::new());
        for (name, is_tag, used, total) in self.limits.shared() {
            things.push(name.as_bytes());
            thing_tags.push(u8::from(is_tag));
            thing_amounts.extend([used, total].iter().flat_map(|amount| amount.to_le_bytes()));
        }
        let mut state = State {
            run: query.run,
            number: query.number,
            worker: (&number).into(),
            worker_pid: (&pid).into(),
            worker_busy_ms: (&busy_ms).into(),
            lease_frames: statistics.lease_frames,
            report_frames: statistics.report_frames,
            stale_reports: statistics.stale_reports,
            recalls: statistics.recalls,
            worker_deaths: statistics.worker_deaths,
            bytes_held: statistics.bytes_held,
            tasks_held: statistics.tasks_held,
            store_limit: store.limit,
            store_owned: store.granted,
            store_peak: store.peak,
            store_mapped: store.mapped,
            store_inline: inline,
            store_spilled: store.spilled,
            largest: names.as_blobs(),
            largest_bytes: &largest_bytes,
            oom_deaths: statistics.oom_deaths,
            blamed_deaths: statistics.blamed_deaths,
            workers_retired: statistics.workers_retired,
            things: things.as_blobs(),
            thing_tags: &thing_tags,
            thing_amounts: &thing_amounts,
            ..State::default()
        };
        // A run of which nothing is left has ended; the client has its own counts.
        let position = self.find_run(peer, query.run);
        let counted = match self.peers.get(&peer) {
            Some(Peer::Observer { .. }) => {
                finished_by = number.iter().map(|number| self.workers[*number as usize].finished).collect();
                Some((self.count_all(), self.count_all_ready()))
            }
            _ => position.map(|position| (self.run(position).counts, self.count_ready(position))),
        };
        if let Some((counts, ready)) = counted {
            let open = counts.total - counts.ended() - counts.leased;
            state.waiting = open.saturating_sub(ready);
            state.ready = ready.min(open);
            state.leased = counts.leased;
            state.done = counts.done;
            state.failed = counts.failed;
            state.skipped = counts.skipped;
            state.cancelled = counts.cancelled;
            state.retries = counts.retries;
            state.timeouts = counts.timeouts;
        }
        if let Some(run) = position.map(|position| self.run(position)) {
            finished_by = number.iter().map(|number| run.finished_by[*number as usize]).collect();
            state.first_lease_ns = run.first_lease_ns.map_or(0, |first_ns| (first_ns - run.submitted_ns).max(1));
            state.elapsed_ns = run.ended_ns.unwrap_or(now_ns) - run.submitted_ns;
        }
        state.worker_finished = (&finished_by).into();
        self.send(peer, &Message::State(state));
    }

    /// Ready tasks of all runs. Those in a pause wait.
    fn count_all_ready(&self) -> u64 {
        self.kernel.statistics().ready - self.count_parked()
    }

    /// Ready tasks of a run. With one unfinished run, which is the rule, the kernel's own count serves; with several the
    /// run's tasks are looked at one by one.
    fn count_ready(&self, position: u32) -> u64 {
        let unfinished = self.runs.iter().flatten().filter(|run| run.counts.ended() < run.counts.total).count();
        if unfinished <= 1 {
            return self.count_all_ready();
        }
        let is_ready = |slot: &&u32| {
            let task = TaskIndex(**slot);
            **slot != NONE && self.kernel.state(task) == TaskState::Ready && !is_parked(self.kernel.class_of(task))
        };
        match &self.run(position).slots {
            Slots::Dense(slots) => slots.iter().filter(is_ready).count() as u64,
            Slots::Sparse(slots) => slots.values().filter(is_ready).count() as u64,
        }
    }

    /// Tells every client that no work can be done any more.
    pub(super) fn give_up(&mut self, text: &str, now_ns: u64) {
        if std::mem::replace(&mut self.given_up, true) {
            return;
        }
        let clients: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| matches!(peer, super::peers::Peer::Client(_)))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in clients {
            self.cut(peer, GoodbyeReason::WorkersFailed, text, now_ns);
        }
        for worker in self.workers.all_mut() {
            if matches!(worker.life, Life::Down { .. }) {
                worker.life = Life::Retired;
            }
        }
    }
}
