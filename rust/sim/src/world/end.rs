//! How a run ends: first everything that was asked for, then nothing that is left, then no process at all.

use super::World;
use super::worker::Fate;
use crate::encode;
use std::collections::VecDeque;

/// How long everything may take once the faults have stopped, beside the work itself: ten times as long as it takes to
/// notice that a worker is silent.
const LIVENESS_NS: u64 = 100_000_000_000;
/// How long it may take until nothing is left: dead results are told with heartbeats, unused memory is returned after a rest.
const QUIET_NS: u64 = 30_000_000_000;
const LOOK_NS: u64 = 1_000_000_000;
/// More events than any run of this size needs.
const EVENTS_MAX: u64 = 400_000;

impl World<'_> {
    pub(super) fn play(&mut self) {
        let work_ns: u64 = self.scenario.clients.iter().map(|client| client.work_ns()).sum();
        let last_op = self.scenario.clients.iter().filter_map(|client| client.ops.last()).map(|op| op.0).max();
        let begin_ns = self.scenario.heal_ns.max(last_op.unwrap_or(0));
        self.play_until(begin_ns + LIVENESS_NS + 10 * work_ns, |world| {
            world.clients_are_done() || world.broker.has_given_up()
        });
        if self.violation.is_some() {
            return;
        }
        if self.broker.has_given_up() {
            return self.expect_farewells();
        }
        if !self.clients_are_done() {
            return self.fail_stuck();
        }
        self.healed = true;
        (self.load.took_ns, self.load.recalls) = (self.now_ns, self.broker.statistics().recalls);
        if self.scenario.is_large {
            match self.broker.replay(encode::config(&self.scenario.setup)) {
                Some(took) => self.load.broker = took,
                None => self.fail("kernel", || "told the same, the broker says something else (K8)".to_owned()),
            }
        }
        self.expect_nothing_left(10 * work_ns);
        if self.violation.is_none() {
            self.expect_shutdown();
        }
    }

    /// Plays until a condition holds, or this time has come.
    fn play_until(&mut self, until_ns: u64, is_done: impl Fn(&Self) -> bool) {
        while self.violation.is_none() && self.now_ns <= until_ns && !is_done(self) {
            if self.events > EVENTS_MAX && !self.scenario.is_large {
                return self.fail("livelock", || format!("{EVENTS_MAX} events and no end"));
            }
            if !self.step() {
                return;
            }
        }
    }

    fn fail_stuck(&mut self) {
        let waits = |client: &super::ClientProcess| match client.is_over() {
            true => "nothing".to_owned(),
            false => client.waits_for(),
        };
        let clients: Vec<String> = self.clients.iter().map(waits).collect();
        let why = self.broker.dump();
        self.fail("lost", || format!("the run does not end: clients wait for {clients:?}; {why}"));
    }

    fn expect_nothing_left(&mut self, work_ns: u64) {
        // Runs that their clients do not want any more go on.
        let until_ns = self.scenario.heal_ns.max(self.now_ns) + QUIET_NS + work_ns;
        loop {
            // Again and again, because cancelled bodies may go on for a while.
            (0..self.workers.len()).for_each(|process| self.drop_worker_views(process));
            let look_ns = self.now_ns + LOOK_NS;
            self.play_until(look_ns, |_| false);
            let left = self.what_is_left();
            match left {
                None => return,
                Some(_) if self.violation.is_some() => return,
                Some(text) if self.now_ns > until_ns => return self.fail("leak", || text),
                Some(_) => {}
            }
        }
    }

    fn what_is_left(&mut self) -> Option<String> {
        let (tasks, store) = (self.broker.statistics(), self.broker.store_statistics());
        let held = (tasks.tasks_held, tasks.bytes_held, store.blocks, store.granted, store.segments);
        let mut left = Vec::new();
        if held != (0, 0, 0, 0, 0) {
            left.push(format!("at the broker: (tasks, bytes, blocks, granted, segments) {held:?}"));
        }
        for (number, process) in self.workers.iter_mut().enumerate().filter(|(_, process)| process.alive) {
            let held = process.left();
            if held != (0, 0, 0) {
                left.push(format!("in process {number}: (values, own blocks, foreign blocks) {held:?}"));
            }
        }
        for (number, client) in self.clients.iter_mut().enumerate().filter(|(_, client)| !client.is_over()) {
            let blocks = client.blocks_left();
            if blocks > 0 {
                left.push(format!("in client {number}: {blocks} blocks"));
            }
        }
        (!left.is_empty()).then(|| left.join("; "))
    }

    fn expect_shutdown(&mut self) {
        self.broker.shut_down();
        self.host.is_ending = true;
        self.perform_all();
        // They have nothing to finish, and nobody tells them to leave.
        let waiting: Vec<usize> = self.seats.iter().flat_map(|seated| seated.iter().copied().skip(1)).collect();
        waiting.into_iter().for_each(|process| self.end_process(process, Fate::Killed));
        let until_ns = self.now_ns + QUIET_NS;
        self.play_until(until_ns, |world| world.seats.iter().all(VecDeque::is_empty));
        if !self.seats.iter().all(VecDeque::is_empty) {
            self.fail("leak", || "a process outlives the broker".to_owned());
        }
    }

    /// The broker cannot start workers: it must have said so to everybody.
    fn expect_farewells(&mut self) {
        let until_ns = self.now_ns + QUIET_NS;
        self.play_until(until_ns, |world| world.clients.iter().all(super::ClientProcess::is_over));
        if !self.clients.iter().all(super::ClientProcess::is_over) {
            self.fail("lost", || "the broker gave up and a client was not told".to_owned());
        }
    }
}
