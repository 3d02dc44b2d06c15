//! What the broker knows of a task besides its readiness: who asked for it, what to call, who holds its result.
//!
//! Everything is found by the slot that the kernel gave the task. A slot costs 52 bytes, a held result 88 more.

use super::payload::{Part, Payload};
use super::policy::DEFAULT_POLICY;
use super::store::Store;
use headrace_kernel::seeded;
use smallvec::SmallVec;

/// Marks an absent position.
pub(crate) const NONE: u32 = u32::MAX;

/// The broker's part of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// Position of the run in the broker's table of runs.
    pub(crate) run: u32,
    /// Index of the task within its run.
    pub(crate) index: u32,
    /// Broker-wide number of the function.
    pub(crate) function: u32,
    /// Chunk that holds the arguments.
    pub(crate) chunk: u32,
    /// Where the arguments start within the chunk.
    pub(crate) args_start: u32,
    /// How long they are.
    pub(crate) args_len: u32,
    /// Position of the held result, or [`NONE`].
    pub(crate) value: u32,
    /// Lease frame in which the task travels now.
    pub(crate) frame: u32,
    /// Refs to the result that clients hold.
    pub(crate) refs: u32,
    /// The client wants the result.
    pub(crate) kept: bool,
    /// It was told of the result, which may have to be made again for others.
    pub(crate) told: bool,
    /// Number of its policy.
    pub(crate) policy: u32,
    /// It is counted as done.
    pub(crate) done: bool,
    /// The lease asked the worker to report the result.
    pub(crate) reported: bool,
    /// The lease asked the worker to hold the result.
    pub(crate) held_by_worker: bool,
    /// A consumer went elsewhere after the lease said that none would: the value must be fetched.
    pub(crate) wanted: bool,
    /// The lease has been asked back.
    pub(crate) recalled: bool,
    /// It was leased with inputs: its end may let some of them die.
    pub(crate) consumes: bool,
}

impl Default for Slot {
    fn default() -> Self {
        Slot {
            run: NONE,
            index: 0,
            function: 0,
            chunk: NONE,
            args_start: 0,
            args_len: 0,
            value: NONE,
            frame: 0,
            refs: 0,
            policy: DEFAULT_POLICY,
            done: false,
            kept: false,
            told: false,
            reported: false,
            held_by_worker: false,
            wanted: false,
            recalled: false,
            consumes: false,
        }
    }
}

/// A live result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    /// Its encoding, if it was reported.
    pub(crate) payload: Option<Payload>,
    /// What it is on other machines, if it lies in memory that only one can read.
    pub(crate) copies: Box<[(u32, Payload)]>,
    /// Workers that have it.
    pub(crate) holders: SmallVec<[u32; 4]>,
    /// Its only holder was asked for it and has not answered.
    asked: bool,
}

impl Value {
    /// The encoding that can be read on a machine.
    #[inline]
    pub(crate) fn on(&self, machine: u32, store: &Store) -> Option<&Payload> {
        let payload = self.payload.as_ref()?;
        match store.machine_of(payload.bytes()) {
            Some(other) if other != machine => {
                self.copies.iter().find(|(there, _)| *there == machine).map(|(_, copy)| copy)
            }
            _ => Some(payload),
        }
    }

    /// Whether its only holder was asked for it and has not answered.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.asked
    }
}

#[derive(Debug)]
struct Chunk {
    args: Payload,
    tasks: u32,
}

/// Slots, results and arguments.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: Vec<Slot>,
    values: Vec<Value>,
    free_values: Vec<u32>,
    chunks: Vec<Option<Chunk>>,
    free_chunks: Vec<u32>,
    /// Bytes of arguments and of results.
    args_bytes: u64,
    results_bytes: u64,
    /// Results that their only holders were asked for.
    asked: usize,
    /// Payloads that went and cite blocks of shared memory.
    dropped: Vec<Payload>,
}

impl Ledger {
    /// The broker's part of the task in `slot`.
    pub(crate) fn slot(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    /// The same, to change.
    pub(crate) fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// Whether the kernel ever gave out `slot`; a peer may name any number.
    pub(crate) fn knows(&self, slot: u32) -> bool {
        (slot as usize) < self.slots.len()
    }

    /// Takes over the arguments of `tasks` tasks.
    pub(crate) fn add_chunk(&mut self, args: Payload, tasks: u32) -> u32 {
        self.args_bytes += args.len() as u64;
        let chunk = Some(Chunk { args, tasks });
        match self.free_chunks.pop() {
            Some(position) => {
                self.chunks[position as usize] = chunk;
                position
            }
            None => {
                self.chunks.push(chunk);
                (self.chunks.len() - 1) as u32
            }
        }
    }

    /// Opens `slot` for a new task.
    pub(crate) fn open(&mut self, slot: u32, task: Slot) {
        let position = slot as usize;
        if position >= self.slots.len() {
            self.slots.resize(position + 1, Slot::default());
        }
        self.slots[position] = task;
    }

    /// Forgets the task in `slot`.
    pub(crate) fn close(&mut self, slot: u32) {
        self.drop_value(slot);
        let position = std::mem::replace(&mut self.slots[slot as usize].chunk, NONE);
        if position == NONE {
            return;
        }
        let held = self.chunks[position as usize].as_mut().expect("a live task's arguments are held");
        held.tasks -= 1;
        if held.tasks == 0 {
            self.args_bytes -= held.args.len() as u64;
            self.chunks[position as usize] = None;
            self.free_chunks.push(position);
        }
    }

    /// The encoded arguments of the task in `slot`.
    pub(crate) fn args(&self, slot: u32) -> &[u8] {
        let task = self.slot(slot);
        let chunk = self.chunks[task.chunk as usize].as_ref().expect("a live task's arguments are held");
        &chunk.args.bytes()[task.args_start as usize..(task.args_start + task.args_len) as usize]
    }

    /// The live result of `slot`, if there is one.
    pub(crate) fn value(&self, slot: u32) -> Option<&Value> {
        let position = self.slot(slot).value;
        (position != NONE).then(|| &self.values[position as usize])
    }

    /// The same, to change its holders.
    pub(crate) fn value_mut(&mut self, slot: u32) -> Option<&mut Value> {
        let position = self.slot(slot).value;
        (position != NONE).then(|| &mut self.values[position as usize])
    }

    /// Records a live result.
    #[inline]
    pub(crate) fn set_value(&mut self, slot: u32, value: Option<Part<'_>>, holder: Option<u32>) {
        if self.slots[slot as usize].value != NONE {
            self.drop_value(slot);
        }
        self.results_bytes += value.map_or(0, |value| value.bytes().len() as u64);
        let payload = value.map(Payload::keeping);
        let value = Value { payload, holders: holder.into_iter().collect(), ..Value::default() };
        let position = match self.free_values.pop() {
            Some(position) => {
                self.values[position as usize] = value;
                position
            }
            None => {
                self.values.push(value);
                (self.values.len() - 1) as u32
            }
        };
        self.slots[slot as usize].value = position;
    }

    /// Adds the bytes of a result that only a worker had.
    pub(crate) fn set_payload(&mut self, slot: u32, part: Part<'_>) {
        let bytes = part.bytes().len() as u64;
        if let Some(value) = self.value_mut(slot)
            && value.payload.is_none()
        {
            value.payload = Some(Payload::keeping(part));
            let was_asked = std::mem::take(&mut value.asked);
            self.results_bytes += bytes;
            self.asked -= usize::from(was_asked);
        }
    }

    /// The worker that has to be asked for the result of `slot`, because nobody else has it; once.
    pub(crate) fn ask_for(&mut self, slot: u32) -> Option<u32> {
        let value = self.value_mut(slot).filter(|value| value.payload.is_none() && !value.asked)?;
        let holder = *value.holders.first()?;
        value.asked = true;
        self.asked += 1;
        Some(holder)
    }

    /// Whether there are results that somebody was asked for.
    #[inline]
    pub(crate) fn awaits_values(&self) -> bool {
        self.asked > 0
    }

    /// Whether a result lies with other workers than this one, and nowhere else.
    pub(crate) fn is_out_of_reach(&self, slot: u32, worker: u32) -> bool {
        self.value(slot).is_some_and(|value| value.payload.is_none() && !value.holders.contains(&worker))
    }

    /// Forgets the result of `slot` and tells who else has it.
    pub(crate) fn drop_value(&mut self, slot: u32) -> SmallVec<[u32; 4]> {
        let position = std::mem::replace(&mut self.slots[slot as usize].value, NONE);
        if position == NONE {
            return SmallVec::new();
        }
        let value = std::mem::take(&mut self.values[position as usize]);
        self.free_values.push(position);
        self.asked -= usize::from(value.asked);
        self.dropped.extend(value.copies.into_iter().map(|(_, copy)| copy));
        if let Some(payload) = value.payload {
            self.results_bytes -= payload.len() as u64;
            if payload.cites() {
                self.dropped.push(payload);
            }
        }
        value.holders
    }

    /// Payloads that went since the last call and cite blocks of shared memory.
    pub(crate) fn take_dropped(&mut self) -> Vec<Payload> {
        std::mem::take(&mut self.dropped)
    }

    /// Takes a dead worker off every list of holders and names the slots whose only copy it had.
    ///
    /// Walks all slots: a worker's death is rare, and no index of holders has to be kept for it.
    pub(crate) fn lose_holder(&mut self, worker: u32) -> Vec<u32> {
        let mut lost = Vec::new();
        for (position, task) in self.slots.iter().enumerate() {
            if task.value == NONE {
                continue;
            }
            let value = &mut self.values[task.value as usize];
            let before = value.holders.len();
            value.holders.retain(|holder| *holder != worker);
            if value.holders.len() < before
                && value.holders.is_empty()
                && (value.payload.is_none() || seeded!("retry of a done task"))
            {
                lost.push(position as u32);
            }
        }
        lost
    }

    /// The slots with a live result that only this worker has.
    ///
    /// Walks all slots, as [`Ledger::lose_holder`] does.
    pub(crate) fn only_with(&self, worker: u32) -> Vec<u32> {
        let held = self.slots.iter().enumerate().filter(|(_, task)| task.value != NONE);
        let is_its = |value: &Value| value.payload.is_none() && value.holders.contains(&worker);
        held.filter(|(_, task)| is_its(&self.values[task.value as usize])).map(|(slot, _)| slot as u32).collect()
    }

    /// The slots with a live result whose encoding is here.
    pub(crate) fn values(&self) -> impl Iterator<Item = (u32, &Payload)> + '_ {
        let held = self.slots.iter().enumerate().filter(|(_, task)| task.value != NONE);
        held.filter_map(|(slot, task)| Some((slot as u32, self.values[task.value as usize].payload.as_ref()?)))
    }

    /// Gives a live result another encoding.
    pub(crate) fn replace_payload(&mut self, slot: u32, payload: Payload) {
        let bytes = payload.len() as u64;
        let Some(old) = self.value_mut(slot).and_then(|value| value.payload.replace(payload)) else { return };
        self.results_bytes = self.results_bytes + bytes - old.len() as u64;
        if old.cites() {
            self.dropped.push(old);
        }
    }

    /// A live result can be read on another machine as well, by this encoding.
    pub(crate) fn add_copy(&mut self, slot: u32, machine: u32, payload: Payload) {
        let Some(value) = self.value_mut(slot) else { return self.dropped.push(payload) };
        value.copies = std::mem::take(&mut value.copies).into_iter().chain([(machine, payload)]).collect();
    }

    /// It cannot any more, unless a worker may still read it there.
    pub(crate) fn drop_copy(&mut self, slot: u32, machine: u32) {
        let Some(value) = self.value_mut(slot) else { return };
        let (gone, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut value.copies).into_iter().partition(|(there, _)| *there == machine);
        value.copies = kept.into();
        self.dropped.extend(gone.into_iter().map(|(_, payload)| payload));
    }

    /// Forgets what lay on a machine. The slots whose results lay nowhere else.
    pub(crate) fn lose_machine(&mut self, machine: u32, store: &Store) -> Vec<u32> {
        let mut lost = Vec::new();
        for (slot, task) in self.slots.iter().enumerate().filter(|(_, task)| task.value != NONE) {
            let value = &mut self.values[task.value as usize];
            let mut copies = std::mem::take(&mut value.copies).into_vec();
            copies.retain(|(there, _)| *there != machine);
            if let Some(payload) =
                value.payload.as_mut().filter(|payload| store.machine_of(payload.bytes()) == Some(machine))
            {
                if copies.is_empty() {
                    lost.push(slot as u32);
                } else {
                    let (_, copy) = copies.swap_remove(0);
                    self.results_bytes = self.results_bytes + copy.len() as u64 - payload.len() as u64;
                    *payload = copy;
                }
            }
            value.copies = copies.into();
        }
        lost
    }

    /// Bytes of arguments and results held now.
    pub(crate) fn bytes_held(&self) -> u64 {
        self.args_bytes + self.results_bytes
    }

    /// Bytes of results among them.
    pub(crate) fn results_bytes(&self) -> u64 {
        self.results_bytes
    }
}
