//! What a seed stands for, as plain data: what is asked for, how fast things go, and what breaks when. The same scenario
//! always runs the same way, and so does one from which something was taken away.

use crate::workload::{Dep, STRAGGLES, Task, Workload};

/// So much memory is never scarce.
pub(crate) const PLENTY_BYTES: u64 = 1 << 30;

/// Everything about one run of the simulator.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed: what chance is left after the drawing comes from it.
    pub(crate) seed: u64,
    /// How the broker is set up.
    pub(crate) setup: Setup,
    /// How fast things go.
    pub(crate) pace: Pace,
    /// What networks do to packets until the faults stop.
    pub(crate) net: Net,
    /// The clients.
    pub(crate) clients: Vec<ClientPlan>,
    /// What breaks.
    pub(crate) faults: Vec<Fault>,
    /// When the faults stop.
    pub(crate) heal_ns: u64,
    /// Whether it is one of those for which the load counts, and which have no bound of events.
    pub(crate) is_large: bool,
}

/// How the broker is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Worker processes.
    pub(crate) workers: u32,
    /// Executing deaths that fail a task.
    pub(crate) crash_limit: u8,
    /// The same by the kernel's OOM killer.
    pub(crate) oom_limit: u8,
    /// Leases of a worker's process before another one takes its place.
    pub(crate) tasks_max: u64,
    /// Bytes of results in memory.
    pub(crate) store_limit: u64,
    /// Bytes of results on disk.
    pub(crate) spill_limit: u64,
    /// From an interrupt to a kill.
    pub(crate) grace_ns: u64,
    /// For how long an attempt runs before another worker may try the same task.
    pub(crate) straggler_ns: u64,
}

/// Longest times that things take.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// A frame from one process to another.
    pub(crate) frame_ns: u64,
    /// A process that has input, until it looks at it.
    pub(crate) turn_ns: u64,
    /// The start of a process.
    pub(crate) spawn_ns: u64,
    /// The broker's notice of an end.
    pub(crate) notice_ns: u64,
    /// A write to disk.
    pub(crate) disk_ns: u64,
}

/// What networks do to packets. Only those of lossy connections; the others keep frames in order and lose none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Net {
    /// One worker in so many has a lossy connection; 0 for none.
    pub(crate) lossy_odds: u64,
    /// Packets in a million that are lost.
    pub(crate) lost_ppm: u64,
    /// That come twice.
    pub(crate) doubled_ppm: u64,
    /// That are late, by at most `late_ns`.
    pub(crate) late_ppm: u64,
    /// How late.
    pub(crate) late_ns: u64,
    /// Bytes that a link has under way at most.
    pub(crate) window_bytes: usize,
    /// When a link sends a frame again.
    pub(crate) resend_ns: u64,
}

/// One client: what it asks for, and when it does what.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientPlan {
    /// Whether its connection is lossy.
    pub(crate) lossy: bool,
    /// Whether it lets go of everything as soon as it has read it.
    pub(crate) eager: bool,
    /// Its runs, from run 1 on.
    pub(crate) runs: Vec<Workload>,
    /// Its single calls and puts.
    pub(crate) calls: Workload,
    /// What it does, in order of time.
    pub(crate) ops: Vec<(u64, Op)>,
}

/// One thing that a client does. It leaves out what makes no sense any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    /// It submits a run.
    Submit(u8),
    /// It makes a call, or puts a value.
    Call(u16),
    /// It cancels tasks of a run.
    Cancel(u8, Vec<u16>),
    /// It cancels a whole run.
    CancelRun(u8),
    /// It takes a ref to a result, and lets go of it.
    Hold(Dep),
    /// It lets go of a ref.
    Unhold(Dep),
    /// It forgets a call.
    Forget(u16),
    /// It is not interested in a run any more, ended or not.
    Release(u8),
    /// It asks how a run stands.
    Query(u8),
    /// It says goodbye.
    Close,
}

/// Something that breaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    /// When.
    pub(crate) when: When,
    /// What.
    pub(crate) act: Act,
}

/// When something breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum When {
    /// At this time.
    At(u64),
    /// When this happens for the n-th time, counted from 1.
    On(Moment, u32),
}

/// What breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    /// A process dies, a worker's or a client's; what it was about to send may still go out in part.
    Kill(Whose),
    /// The same, of a worker, by the kernel's OOM killer.
    Exhaust(Whose),
    /// A process is stopped for so long.
    Hang(Whose, u64),
    /// A connection carries nothing for so long: towards the broker, away from it, or both ways.
    Cut(Whose, Ways, u64),
    /// The broker is stopped for so long.
    Pause(u64),
    /// The next starts of processes fail.
    FailSpawns(u32),
    /// Writes to disk fail for so long.
    FailDisk(u64),
}

/// Whom a fault concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Whose {
    /// The process that the moment is about; else the first worker.
    Concerned,
    /// The process that has this worker's number then.
    Worker(u32),
    /// This client.
    Client(u8),
}

/// Which ways a cut connection carries nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Ways {
    Up,
    Down,
    Both,
}

macro_rules! moments {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Something that happens in every run, at which something else may break.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) enum Moment { $($(#[$doc])* $name),+ }

        impl Moment {
            /// All of them, in order.
            pub(crate) const ALL: &[Moment] = &[$(Moment::$name),+];
        }
    };
}

moments! {
    /// A worker's process was started.
    Spawned,
    /// The broker has applied a HELLO.
    HelloApplied,
    /// A LEASE left the broker.
    LeaseSent,
    /// A LEASE reached its worker.
    LeaseArrived,
    /// A task's body began.
    Began,
    /// A task's body is about to end.
    Ends,
    /// A REPORT left its worker.
    ReportSent,
    /// The broker has applied a REPORT: whatever its sender learns of it.
    ReportApplied,
    /// The same, while its sender runs a body and holds what it made before.
    ReportOvertaken,
    /// A RECALL left the broker.
    RecallSent,
    /// A RECALL reached its worker.
    RecallArrived,
    /// A REVOKE left the broker.
    RevokeSent,
    /// The broker has a body interrupted.
    InterruptSent,
    /// A FORGET left the broker.
    ForgetSent,
    /// A RELEASE left the broker.
    ReleaseSent,
    /// The broker has applied an OVERDUE.
    OverdueApplied,
    /// A process has left, having run its share.
    Left,
    /// A process has looked for garbage.
    Collected,
    /// The broker has applied a RELEASED.
    ReleasedApplied,
    /// A process was granted a segment.
    Granted,
    /// Results begin to move to disk.
    SpillBegun,
    /// The broker has applied a SUBMIT.
    SubmitApplied,
    /// The broker has applied a HOLD.
    HoldApplied,
    /// The broker has applied a CANCEL.
    CancelApplied,
    /// RESULTS left the broker.
    ResultsSent,
    /// RESULTS reached their client.
    ResultsArrived,
}

impl Scenario {
    /// For how long the broker is stopped, over all.
    pub(crate) fn pauses_ns(&self) -> u64 {
        let pauses = self.faults.iter().map(|fault| if let Act::Pause(ns) = fault.act { ns } else { 0 });
        pauses.sum()
    }
}

impl ClientPlan {
    /// Nanoseconds of all its tasks together.
    pub(crate) fn work_ns(&self) -> u64 {
        let slowest_ns = |task: &Task| if task.speculative { STRAGGLES * task.run_ns } else { task.run_ns };
        self.workloads().flat_map(|workload| &workload.tasks).map(slowest_ns).sum()
    }

    /// The number of its tasks.
    pub(crate) fn tasks(&self) -> usize {
        self.workloads().map(|workload| workload.tasks.len()).sum()
    }

    /// All of them, to change.
    pub(crate) fn tasks_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        std::iter::once(&mut self.calls).chain(&mut self.runs).flat_map(|workload| &mut workload.tasks)
    }

    /// Calls, then runs.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = &Workload> {
        std::iter::once(&self.calls).chain(&self.runs)
    }

    /// The tasks of a run; run 0 is the calls.
    pub(crate) fn workload(&self, run: u8) -> &Workload {
        if run == 0 { &self.calls } else { &self.runs[usize::from(run) - 1] }
    }
}
