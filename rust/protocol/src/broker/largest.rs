//! What takes most of the memory, by name.

use super::Broker;
use super::budget::Budget;
use super::ledger::NONE;
use super::runs::Run;
use super::store::HOME;
use headrace_wire::{FILE_SEGMENTS, citations};

/// How many results an error and the statistics name.
const LARGEST_NAMED: usize = 3;

impl Broker {
    /// Why there is no room.
    pub(super) fn full(&self, machine: u32, bytes: u64, now_ns: u64) -> String {
        let Budget { granted, limit, .. } = self.store.budgets[machine as usize];
        let named: Vec<String> =
            self.largest_results().into_iter().map(|(name, bytes)| format!("{name}: {bytes} bytes")).collect();
        let viewed = match self.store.dead_bytes(machine) {
            0 => String::new(),
            bytes => format!("; views keep {bytes} bytes of results that have gone or moved"),
        };
        format!(
            "a result needs {bytes} bytes of memory; {} of {limit} are taken, {granted} of them shared (largest results: \
             {}{viewed}), and {}",
            granted + if machine == HOME { self.ledger.results_bytes() } else { 0 },
            if named.is_empty() { "none".to_owned() } else { named.join(", ") },
            match machine {
                HOME => self.why_not_spilled(now_ns),
                _ => "none can move to disk on this machine".to_owned(),
            }
        )
    }

    /// The results that take most memory, largest first, by name.
    pub(super) fn largest_results(&self) -> Vec<(String, u64)> {
        let mut largest: Vec<(u64, u32)> = Vec::with_capacity(LARGEST_NAMED + 1);
        for (slot, value) in self.ledger.values() {
            let shared = citations(value.bytes()).filter(|cited| cited.segment < FILE_SEGMENTS);
            let bytes = shared.map(|cited| cited.bytes).sum::<u64>() + value.len() as u64;
            let place = largest.partition_point(|other| other.0 >= bytes);
            if place < LARGEST_NAMED {
                largest.insert(place, (bytes, slot));
                largest.truncate(LARGEST_NAMED);
            }
        }
        largest.into_iter().map(|(bytes, slot)| (self.name_of(slot), bytes)).collect()
    }

    /// The key of a task, as far as the broker knows it.
    pub(super) fn name_of(&self, slot: u32) -> String {
        let slot = self.ledger.slot(slot);
        let run: &Run = self.run(slot.run);
        match (run.keys.get(&slot.index), slot.function) {
            (Some(key), _) => String::from_utf8_lossy(key).into_owned(),
            (None, NONE) => format!("put-{}", slot.index),
            (None, function) => {
                format!("{}-{}", String::from_utf8_lossy(self.functions.get(function).name.bytes()), slot.index)
            }
        }
    }
}
