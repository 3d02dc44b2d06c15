//! Where what is ready is to run, if its inputs lie on several machines: which copies are made, and when.
//!
//! A worker takes what it can read. What is left is looked at here. If no machine has all inputs of a task, the one that has
//! most of them gets the rest. If one has, but its workers are busy, a machine with workers that idle gets copies as soon as the
//! wait is likely to be longer than the transfer.

use super::copies::Nearness;
use super::retry::is_parked;
use super::store::{NOWHERE, Store};
use super::workers::FRAME_BUDGET_NS;
use super::{Broker, Payload};
use headrace_kernel::{ClassId, TaskIndex};
use headrace_wire::{WANTED, citations};
use rustc_hash::FxHashMap;

/// Ready tasks of a class that one look takes in.
const LOOK_AHEAD: usize = 64;
/// Pause before another look for room, and how long a task waits for some.
const ROOM_NS: u64 = 50_000_000;
const ROOM_PATIENCE_NS: u64 = 10_000_000_000;
/// What a transfer costs at least.
const TRANSFER_NS: u64 = 1_000_000;

impl Store {
    /// Whether results may lie where not everybody can read them.
    #[inline]
    pub(super) fn is_split(&self) -> bool {
        self.budgets.len() > 1 && !self.blocks.is_empty()
    }
}

/// A machine that may run a task.
struct Candidate {
    machine: u32,
    /// Bytes that it has not got, and those that are not on their way either.
    missing: u64,
    away: u64,
    idle: u32,
    /// When one of its workers is likely to have time, from now on.
    wait_ns: u64,
}

impl Broker {
    /// Orders the copies that what is ready waits for, or had better not wait without.
    pub(super) fn order_copies(&mut self, now_ns: u64) {
        self.store.copies.due_ns = None;
        if !self.store.is_split() {
            return;
        }
        self.stop_needless_copies();
        if now_ns < self.store.copies.rest_ns {
            self.store.copies.due_ns = Some(self.store.copies.rest_ns);
            return;
        }
        let mut promised: FxHashMap<u32, u32> = FxHashMap::default();
        let mut is_stuck = false;
        let classes: Vec<ClassId> = self.kernel.ready_classes().filter(|class| !is_parked(*class)).collect();
        for class in classes {
            let tasks: Vec<TaskIndex> = self.kernel.ready_tasks(class).take(LOOK_AHEAD).collect();
            for task in tasks {
                is_stuck |= !self.order_inputs(task, class, &mut promised, now_ns);
            }
        }
        if !is_stuck {
            self.store.copies.stuck_ns = None;
        }
    }

    /// Orders copies of a task's inputs, if that is due. False if there is no room.
    fn order_inputs(
        &mut self,
        task: TaskIndex,
        class: ClassId,
        promised: &mut FxHashMap<u32, u32>,
        now_ns: u64,
    ) -> bool {
        let inputs: Vec<(u32, u64)> = self.inputs_in_memory(task);
        if inputs.is_empty() {
            return true;
        }
        let mut candidates = self.candidates(class, &inputs, now_ns);
        candidates.sort_by_key(|candidate| (candidate.away, candidate.missing, u32::MAX - candidate.idle));
        for candidate in &mut candidates {
            candidate.idle = candidate.idle.saturating_sub(promised.get(&candidate.machine).copied().unwrap_or(0));
        }
        let near_ns = candidates.iter().filter(|candidate| candidate.missing == 0).map(|near| near.wait_ns).min();
        let on_its_way = candidates.iter().find(|candidate| candidate.missing > 0 && candidate.away == 0);
        if let Some(candidate) = on_its_way {
            *promised.entry(candidate.machine).or_default() += 1;
            return true;
        }
        let mut is_stuck = false;
        for candidate in candidates.iter().filter(|candidate| candidate.missing > 0) {
            if let Some(wait_ns) = near_ns {
                let transfer_ns = TRANSFER_NS
                    + u64::try_from(u128::from(candidate.missing) * 1_000_000_000 / u128::from(self.store.copies.rate))
                        .unwrap_or(u64::MAX);
                if candidate.idle == 0 || wait_ns == 0 {
                    continue;
                }
                if transfer_ns >= wait_ns {
                    self.look_again(now_ns + (transfer_ns - wait_ns).clamp(TRANSFER_NS, ROOM_NS * 4));
                    continue;
                }
            }
            let wanted: Vec<u32> = inputs.iter().map(|(slot, _)| *slot).collect();
            let is_away = |slot: &u32| self.nearness(*slot, candidate.machine) == Nearness::Away;
            let away: Vec<u32> = wanted.into_iter().filter(is_away).collect();
            if away.into_iter().all(|slot| self.order_copy(slot, candidate.machine, now_ns)) {
                *promised.entry(candidate.machine).or_default() += 1;
                return true;
            }
            is_stuck = true;
            self.look_again(now_ns + ROOM_NS);
            self.ask_for_room(candidate.machine);
            if near_ns.is_none() && candidates.iter().all(|other| other.machine == candidate.machine) {
                break;
            }
        }
        if !is_stuck || near_ns.is_some() {
            return true;
        }
        let since_ns = *self.store.copies.stuck_ns.get_or_insert(now_ns);
        let bytes: u64 = inputs.iter().map(|(_, bytes)| *bytes).sum();
        let can_fit = candidates.iter().any(|candidate| {
            self.store.budgets.get(candidate.machine as usize).is_some_and(|budget| candidate.missing <= budget.limit)
        });
        if !can_fit || now_ns >= since_ns + ROOM_PATIENCE_NS {
            let machine = candidates.first().map_or(0, |candidate| candidate.machine);
            let text =
                format!("StoreFull: its inputs lie on other machines, and {}", self.full(machine, bytes, now_ns));
            self.store.copies.stuck_ns = None;
            self.fail_ready(task, &text, now_ns);
        }
        false
    }

    fn look_again(&mut self, at_ns: u64) {
        let due_ns = &mut self.store.copies.due_ns;
        *due_ns = Some(due_ns.map_or(at_ns, |known_ns| known_ns.min(at_ns)));
    }

    /// The inputs of a task that lie in shared memory, with their sizes.
    fn inputs_in_memory(&self, task: TaskIndex) -> Vec<(u32, u64)> {
        let bytes = |payload: &Payload| citations(payload.bytes()).map(|cited| cited.bytes).sum::<u64>();
        let in_memory = |input: &TaskIndex| {
            let payload = self.ledger.value(input.0)?.payload.as_ref().filter(|payload| payload.cites())?;
            Some((input.0, bytes(payload)))
        };
        let mut inputs: Vec<(u32, u64)> = self.kernel.predecessors(task).iter().filter_map(in_memory).collect();
        inputs.sort_unstable();
        inputs.dedup();
        inputs
    }

    /// The machines whose workers may run tasks of a class, with what they have of the inputs.
    fn candidates(&self, class: ClassId, inputs: &[(u32, u64)], now_ns: u64) -> Vec<Candidate> {
        let mut found: Vec<Candidate> = Vec::new();
        for worker in self.workers.iter().filter(|worker| worker.peer().is_some() && worker.machine != NOWHERE) {
            if !self.limits.suits_class(worker.number, class) {
                continue;
            }
            let machine = worker.machine;
            let place = match found.iter().position(|candidate| candidate.machine == machine) {
                Some(place) => place,
                None => {
                    let (mut missing, mut away) = (0, 0);
                    for (slot, bytes) in inputs {
                        let nearness = self.nearness(*slot, machine);
                        missing += if nearness == Nearness::There { 0 } else { *bytes };
                        away += if nearness == Nearness::Away { *bytes } else { 0 };
                    }
                    found.push(Candidate { machine, missing, away, idle: 0, wait_ns: u64::MAX });
                    found.len() - 1
                }
            };
            let candidate = &mut found[place];
            candidate.idle += u32::from(worker.is_idle());
            let wait_ns = match worker.frames_open() {
                0 => 0,
                // Whoever is later than its estimate is likely to go on for as long as it has.
                _ => {
                    let elapsed_ns = now_ns.saturating_sub(worker.progress_ns);
                    let left_ns = worker.estimated_end_ns().saturating_sub(now_ns);
                    left_ns.max(elapsed_ns).max(FRAME_BUDGET_NS)
                }
            };
            candidate.wait_ns = candidate.wait_ns.min(wait_ns);
        }
        found
    }

    fn ask_for_room(&mut self, machine: u32) {
        if self.store.budgets[machine as usize].asked.is_empty() {
            self.ask_for_segments(machine, WANTED);
        }
    }
}
