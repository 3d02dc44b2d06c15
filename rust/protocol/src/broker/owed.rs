//! Results that are to be told to somebody who cannot read them where they lie.
//!
//! A worker that has submitted tasks gets a copy on its machine first. A client of another process shares no memory: for it the
//! bytes are gathered on the broker's machine, and travel in the frame, behind the encoding that cites them.

use super::copies::Nearness;
use super::store::{HOME, NOWHERE};
use super::{Action, Broker, Payload};
use headrace_kernel::{TaskIndex, TaskState};
use headrace_wire::{Outcome, citations, write_carried_head};

/// Bytes of a result that fit into a frame with what else is in it.
const CARRIED_BYTES_MAX: u64 = (1 << 30) - (1 << 20);
/// Pause before another look whether there is room for a copy, and for how long there may be none.
const LOOK_NS: u64 = 20_000_000;
const PATIENCE_NS: u64 = 10_000_000_000;

/// What is owed, and what is gathered for it.
#[derive(Debug, Default)]
pub(super) struct Debts {
    owed: Vec<Owed>,
    gathering: Option<Gathering>,
    last_job: u64,
    due_ns: Option<u64>,
    /// Since when there has been no room for what is owed.
    stuck_ns: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owed {
    run: u32,
    index: u32,
    slot: u32,
}

#[derive(Debug)]
struct Gathering {
    job: u64,
    owed: Owed,
    /// Kept meanwhile.
    payload: Payload,
}

/// A part of a segment to gather: segment, offset, bytes.
pub type GatherPart = (u32, u64, u64);

impl Debts {
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    pub(super) fn due_ns(&self) -> Option<u64> {
        self.due_ns
    }
}

impl Broker {
    /// Whether whoever is to be told of a result of a run cannot read it where it lies.
    pub(super) fn is_out_of_sight(&self, run: u32, value: &[u8]) -> bool {
        self.store.machine_of(value).is_some_and(|machine| machine != self.machine_of_peer(self.run(run).peer))
    }

    /// The result of a task is to be told as soon as it can be.
    pub(super) fn owe(&mut self, slot: u32) {
        let task = *self.ledger.slot(slot);
        let owed = Owed { run: task.run, index: task.index, slot };
        if !self.debts.owed.contains(&owed) {
            self.debts.owed.push(owed);
            self.run_mut(task.run).owed += 1;
        }
    }

    /// A run is gone, and with it what was owed to it.
    pub(super) fn forget_debts(&mut self, run: u32) {
        self.debts.owed.retain(|owed| owed.run != run);
    }

    /// Tells what can be told, and sees to the rest.
    pub(super) fn pay(&mut self, now_ns: u64) {
        self.debts.due_ns = None;
        if self.debts.owed.is_empty() {
            return;
        }
        for owed in std::mem::take(&mut self.debts.owed) {
            if self.keeps_owing(owed, now_ns) {
                self.debts.owed.push(owed);
            } else if let Some(run) = self.runs[owed.run as usize].as_mut() {
                run.owed -= 1;
                self.note_news(owed.run);
            }
        }
    }

    /// Whether something is still owed after this look.
    fn keeps_owing(&mut self, owed: Owed, now_ns: u64) -> bool {
        let Some(run) = self.runs[owed.run as usize].as_ref() else { return false };
        let (peer, seat) = (run.peer, run.seat);
        let slot = *self.ledger.slot(owed.slot);
        if run.slots.get(owed.index) != Some(owed.slot)
            || (slot.run, slot.index) != (owed.run, owed.index)
            || !slot.kept
        {
            return false;
        }
        match self.kernel.state(TaskIndex(owed.slot)) {
            TaskState::Failed | TaskState::Skipped | TaskState::Cancelled | TaskState::Free => return false,
            _ => {}
        }
        // What was lost is made again.
        let Some(value) = self.ledger.value(owed.slot).filter(|value| value.payload.is_some()) else { return true };
        let machine = self.machine_of_peer(peer);
        if machine == NOWHERE && seat.is_some() {
            return false; // the worker is gone
        }
        let place = if machine == NOWHERE { HOME } else { machine };
        let Some(payload) = value.on(place, &self.store).cloned() else {
            if now_ns >= self.store.copies.rest_ns && self.nearness(owed.slot, place) == Nearness::Away {
                let bytes: u64 = self.bytes_in_memory(owed.slot);
                if bytes > self.store.budgets[place as usize].limit {
                    return self.refuse_too_large(owed, bytes);
                }
                if self.order_copy(owed.slot, place, now_ns) {
                    self.debts.stuck_ns = None;
                } else if now_ns >= *self.debts.stuck_ns.get_or_insert(now_ns) + PATIENCE_NS {
                    self.debts.stuck_ns = None;
                    let text = format!("StoreFull: {}", self.full(place, bytes, now_ns));
                    return self.refuse_owed(owed, &text);
                }
            }
            self.debts.due_ns = Some(now_ns + LOOK_NS);
            return true;
        };
        if machine != NOWHERE {
            self.store.hand_over(peer, seat, payload.bytes(), &mut self.actions);
            self.tell_owed(owed, payload.bytes());
            return false;
        }
        if self.debts.gathering.is_some() {
            return true;
        }
        let bytes = self.bytes_in_memory(owed.slot);
        if bytes + payload.len() as u64 > CARRIED_BYTES_MAX {
            return self.refuse_too_large(owed, bytes);
        }
        let mut head = Vec::new();
        write_carried_head(payload.bytes(), &mut head);
        let parts = citations(payload.bytes()).map(|cited| (cited.segment, cited.offset, cited.bytes)).collect();
        self.debts.last_job += 1;
        let job = self.debts.last_job;
        self.store.cite(payload.bytes());
        self.debts.gathering = Some(Gathering { job, owed, payload });
        self.actions.push_back(Action::Gather { job, head, parts });
        true
    }

    fn bytes_in_memory(&self, slot: u32) -> u64 {
        let payload = self.ledger.value(slot).and_then(|value| value.payload.as_ref());
        payload.map_or(0, |payload| citations(payload.bytes()).map(|cited| cited.bytes).sum())
    }

    fn tell_owed(&mut self, owed: Owed, value: &[u8]) {
        self.ledger.slot_mut(owed.slot).told = true;
        self.run_mut(owed.run).outbox.push(owed.index, Outcome::Done, value);
    }

    fn refuse_too_large(&mut self, owed: Owed, bytes: u64) -> bool {
        let text = format!(
            "ResultTooLarge: a result of {bytes} bytes cannot be sent to a client of another process: keep it where it is and \
             send what you need of it, or write it to a file"
        );
        self.refuse_owed(owed, &text)
    }

    /// Somebody hears that a result cannot be told. Nothing is owed then.
    fn refuse_owed(&mut self, owed: Owed, text: &str) -> bool {
        self.ledger.slot_mut(owed.slot).told = true;
        self.run_mut(owed.run).outbox.push(owed.index, Outcome::Refused, text.as_bytes());
        false
    }

    /// Bytes were gathered: the whole value, to be sent as it is.
    pub fn handle_gathered(&mut self, job: u64, outcome: Result<Vec<u8>, String>, now_ns: u64) {
        let Some(done) = self.debts.gathering.take_if(|gathering| gathering.job == job) else { return };
        self.store.uncite(done.payload.bytes());
        let is_owed = self.debts.owed.contains(&done.owed);
        let owed = done.owed;
        if is_owed {
            self.debts.owed.retain(|other| *other != owed);
            let is_there =
                self.runs[owed.run as usize].as_ref().is_some_and(|run| run.slots.get(owed.index) == Some(owed.slot));
            if is_there {
                // It may fill a frame by itself.
                self.tell_run(owed.run);
                match outcome {
                    Ok(value) => self.tell_owed(owed, &value),
                    Err(text) => drop(self.refuse_owed(owed, &format!("ResultLost: it could not be read: {text}"))),
                }
                self.run_mut(owed.run).owed -= 1;
                self.note_news(owed.run);
                self.tell_run(owed.run);
                // It was brought here for this alone.
                self.ledger.drop_copy(owed.slot, HOME);
            }
        }
        self.settle_store(now_ns);
    }
}
