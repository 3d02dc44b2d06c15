//! What broke while what was going on: a generator that never makes a situation proves nothing about it.

use crate::scenario::Moment;

macro_rules! listed {
    ($(#[$doc:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum $name { $($(#[$inner])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub(crate) const ALL: &[$name] = &[$($name::$variant),+];
        }
    };
}

listed! {
    /// A kind of fault.
    FaultKind {
        /// A worker's process died.
        KillWorker,
        /// A worker's process was killed for want of memory.
        ExhaustWorker,
        /// A worker's process was stopped.
        HangWorker,
        /// A worker's connection was cut.
        CutWorker,
        /// A client's process died.
        KillClient,
        /// A client's process was stopped.
        HangClient,
        /// A client's connection was cut.
        CutClient,
        /// The broker was stopped.
        Pause,
        /// A process could not be started.
        FailSpawn,
        /// Writes to disk began to fail.
        FailDisk,
    }
}

listed! {
    /// What was going on. Of a worker's process alone if the fault was its own, else of any.
    State {
        /// Some task waited for others.
        Waiting,
        /// Some task could start.
        Ready,
        /// The worker had leases that had not begun.
        Queued,
        /// The worker ran a body.
        Running,
        /// The worker ran a body that was to stop.
        Stopping,
        /// The worker waited for memory.
        Wanting,
        /// A frame of the worker was on its way.
        FrameUp,
        /// A frame to the worker was on its way.
        FrameDown,
        /// Some task was done.
        Done,
        /// Some task had failed.
        Failed,
        /// Some task was skipped.
        Skipped,
        /// Some task was cancelled.
        Cancelled,
        /// Results were on their way to disk.
        Spilling,
    }
}

listed! {
    /// What a network does to packets.
    NetFault {
        /// It did not arrive.
        Lost,
        /// It arrived twice.
        Doubled,
        /// It was late.
        Late,
    }
}

/// Numbers of message types stay below this; 0 stands for packets without a message.
const TYPES: usize = 48;

/// How often each pair was met.
#[derive(Clone, Debug)]
pub struct Coverage {
    met: [[u64; State::ALL.len()]; FaultKind::ALL.len()],
    net: [[u64; TYPES]; NetFault::ALL.len()],
    moments: [u64; Moment::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        let net = [[0; TYPES]; NetFault::ALL.len()];
        Coverage { met: Default::default(), net, moments: Default::default() }
    }
}

impl Coverage {
    pub(crate) fn meet(&mut self, kind: FaultKind, state: State) {
        self.met[kind as usize][state as usize] += 1;
    }

    pub(crate) fn note_moments(&mut self, counts: &[u32; Moment::ALL.len()]) {
        self.moments.iter_mut().zip(counts).for_each(|(sum, count)| *sum += u64::from(*count));
    }

    pub(crate) fn meet_net(&mut self, fault: NetFault, message: u8) {
        self.net[fault as usize][usize::from(message).min(TYPES - 1)] += 1;
    }

    /// Adds what another run met.
    pub fn add(&mut self, other: &Coverage) {
        self.moments.iter_mut().zip(other.moments).for_each(|(sum, count)| *sum += count);
        let pairs = self.net.as_flattened_mut().iter_mut().zip(other.net.as_flattened());
        pairs.for_each(|(sum, count)| *sum += count);
        let pairs = self.met.as_flattened_mut().iter_mut().zip(other.met.as_flattened());
        pairs.for_each(|(sum, count)| *sum += count);
    }

    /// What was never met, in words.
    pub fn missed(&self) -> Vec<String> {
        let pairs = FaultKind::ALL.iter().flat_map(|&kind| State::ALL.iter().map(move |&state| (kind, state)));
        let unmet = pairs.filter(|(kind, state)| self.met(*kind, *state) == 0);
        let unmet = unmet.map(|(kind, state)| format!("{kind:?} while {state:?}"));
        let moments = Moment::ALL.iter().zip(self.moments).filter(|(_, count)| *count == 0);
        unmet.chain(moments.map(|(moment, _)| format!("{moment:?}"))).collect()
    }

    /// How often a pair was met.
    pub(crate) fn met(&self, kind: FaultKind, state: State) -> u64 {
        self.met[kind as usize][state as usize]
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>9}", "")?;
        State::ALL.iter().try_for_each(|state| write!(f, " {:>9}", format!("{state:?}")))?;
        for &kind in FaultKind::ALL {
            write!(f, "\n{:>9}", format!("{kind:?}"))?;
            State::ALL.iter().try_for_each(|&state| write!(f, " {:>9}", self.met(kind, state)))?;
        }
        write!(f, "\nnever: {:?}", self.missed())?;
        let used: Vec<usize> = (0..TYPES).filter(|&kind| self.net.iter().any(|fault| fault[kind] > 0)).collect();
        write!(f, "\n{:>9}", "message")?;
        used.iter().try_for_each(|kind| write!(f, " {kind:>7}"))?;
        for &fault in NetFault::ALL {
            write!(f, "\n{:>9}", format!("{fault:?}"))?;
            used.iter().try_for_each(|&kind| write!(f, " {:>7}", self.net[fault as usize][kind]))?;
        }
        writeln!(f)?;
        let moments = Moment::ALL.iter().zip(self.moments);
        moments.into_iter().try_for_each(|(moment, count)| write!(f, "{moment:?} {count}  "))?;
        Ok(())
    }
}
