//! Functions by number: their pickles, and how long a call of each takes.

use super::payload::Payload;

/// A function as the broker knows it.
#[derive(Debug)]
pub(crate) struct Function {
    /// Name, for people.
    pub(crate) name: Payload,
    /// Pickle, opaque here.
    pub(crate) pickle: Payload,
    /// Whose tasks call it.
    owner: u32,
    estimate_ns: Option<u64>,
}

/// All functions of all sessions; a number is never reused.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    known: Vec<Function>,
    /// Bytes of all pickles.
    bytes: u64,
}

impl Functions {
    /// Adds a function and returns its broker-wide number.
    pub(crate) fn add(&mut self, owner: u32, name: Payload, pickle: Payload) -> u32 {
        self.bytes += pickle.bytes().len() as u64;
        self.known.push(Function { name, pickle, owner, estimate_ns: None });
        (self.known.len() - 1) as u32
    }

    /// Lets go of the pickle of a function that will not be sent any more: its client is gone, and all its tasks have ended.
    /// The name stays for those that still run.
    pub(crate) fn retire(&mut self, number: u32) {
        let function = &mut self.known[number as usize];
        let pickle = std::mem::replace(&mut function.pickle, Payload::owned(Vec::new()));
        self.bytes -= pickle.bytes().len() as u64;
    }

    /// Bytes of all pickles.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The function with this number.
    pub(crate) fn get(&self, number: u32) -> &Function {
        &self.known[number as usize]
    }

    /// Whose tasks call it, if there is such a function: a worker may name any.
    pub(crate) fn owner(&self, number: u32) -> Option<u32> {
        self.known.get(number as usize).map(|function| function.owner)
    }

    /// Estimated duration of a call in ns; `None` until the first one has been measured.
    pub(crate) fn estimate_ns(&self, number: u32) -> Option<u64> {
        self.known[number as usize].estimate_ns
    }

    /// Learns from `calls` calls that took `total_ns` together.
    ///
    /// The geometric mean with what was known before: one report frame weighs a half, whatever its number of calls. A frame
    /// is about a millisecond of work, so the estimate follows a change of regime within a few milliseconds, also down:
    /// by arithmetic means one call a thousand times too long is followed by a dozen frames with a call or two in each.
    /// Too low an estimate costs at most a recall.
    pub(crate) fn learn(&mut self, number: u32, calls: u32, total_ns: u64) {
        let Some(function) = self.known.get_mut(number as usize) else { return };
        let sample_ns = (total_ns / u64::from(calls.max(1))).max(1);
        function.estimate_ns = Some(match function.estimate_ns {
            None => sample_ns,
            Some(estimate_ns) => (u128::from(estimate_ns) * u128::from(sample_ns)).isqrt() as u64,
        });
    }
}
