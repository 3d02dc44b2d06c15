//! Deaths: how processes end, whom that is counted against (B5), and when a task is not tried again.
//!
//! Of all that a dead worker held, the attempt on its status page is blamed, and if that ran within the wait of another one,
//! the one at the bottom of the stack: all others of it are submitted anew by those below. Everything else goes back to
//! its queue as if it had never been leased. A blamed task is tried again too, until it has had as many deaths of one kind
//! as its limit says; each kind has a count of its own.
//!
//! | kind | what happened | limit |
//! | --- | --- | --- |
//! | crashed | the process ended by itself, or somebody killed it | [`Config::crash_limit`](super::Config::crash_limit) |
//! | out of memory | the kernel killed it for want of memory | [`Config::oom_limit`](super::Config::oom_limit) |
//! | silent | it was stopped or out of reach, and the broker killed it | [`SILENT_MAX`] |

use super::{Broker, worker_id};
use headrace_kernel::{Attempt, TaskIndex, seeded};
use headrace_wire::{Death, DeathCause, Message, Outcome};
use rustc_hash::FxHashMap;

/// Silent workers after which their task fails. Silence says little of the task: processes are stopped and machines stand
/// still for many reasons.
const SILENT_MAX: u32 = 10;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// By this signal.
    Signal(u32),
    /// With this code.
    Code(i32),
    /// By SIGKILL from the kernel, for want of memory.
    OutOfMemory(Shortage),
    /// Not known: something else in the broker's process waited for it first.
    Unknown,
}

/// What is known of the memory that a process was killed for; 0 stands for what is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shortage {
    /// Bytes that its control group may take.
    pub limit: u64,
    /// The most bytes that it had itself.
    pub peak: u64,
    /// Other processes in the group now.
    pub others: u32,
}

impl Exit {
    fn signal(self) -> u32 {
        match self {
            Exit::Signal(signal) => signal,
            Exit::OutOfMemory(_) => SIGKILL,
            Exit::Code(_) | Exit::Unknown => 0,
        }
    }

    fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Unknown => -1,
            Exit::Signal(_) | Exit::OutOfMemory(_) => 0,
        }
    }
}

const SIGKILL: u32 = 9;

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |signal: u32| match signal {
            4 => "SIGILL",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            11 => "SIGSEGV",
            15 => "SIGTERM",
            _ => "",
        };
        match self {
            Exit::Signal(signal) if name(*signal).is_empty() => write!(f, "was killed by signal {signal}"),
            Exit::Signal(signal) => write!(f, "was killed by {}", name(*signal)),
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::OutOfMemory(_) => write!(f, "was killed by the kernel's OOM killer"),
            Exit::Unknown => write!(f, "ended"),
        }
    }
}

/// A process that ended.
pub(super) struct Ended<'a> {
    pub(super) worker: u32,
    pub(super) pid: u32,
    pub(super) exit: Exit,
    pub(super) cause: DeathCause,
    /// The end of its standard error.
    pub(super) stderr: &'a [u8],
}

#[derive(Debug)]
struct Blamed {
    worker: u32,
    pid: u32,
    exit: Exit,
    cause: DeathCause,
}

/// The deaths of each live task that was executing when its worker died, oldest first.
#[derive(Debug, Default)]
pub(super) struct Deaths(FxHashMap<u32, Vec<Blamed>>);

impl Deaths {
    /// The slot is free.
    #[inline]
    pub(super) fn forget(&mut self, task: u32) {
        if !self.0.is_empty() {
            self.0.remove(&task);
        }
    }
}

impl Broker {
    /// Counts a death against the attempt that was executing, if it was leased still, which is told; at its limit the task
    /// fails instead of being tried again (B5).
    pub(super) fn blame(&mut self, (task, attempt): (u32, u32), ended: &Ended<'_>, now_ns: u64) -> bool {
        let (worker, mut wanted) = (worker_id(ended.worker), (TaskIndex(task), Attempt(attempt)));
        if seeded!("blamed neighbour")
            && let Some(neighbour) = self.kernel.leases_of(worker).nth(1)
        {
            wanted = neighbour;
        }
        let task = wanted.0.0;
        // Where another attempt of the task goes on, this one counts for nothing.
        if self.rivals.second_worker(task).is_some() || !self.kernel.leases_of(worker).any(|lease| lease == wanted) {
            return false;
        }
        self.waits.forget(task);
        let &Ended { worker: number, pid, exit, cause, .. } = ended;
        let deaths = self.deaths.0.entry(task).or_default();
        deaths.push(Blamed { worker: number, pid, exit, cause });
        let count = deaths.iter().filter(|death| death.cause == cause).count() as u32;
        let limit = match cause {
            DeathCause::Crashed => u32::from(self.config.crash_limit),
            DeathCause::OutOfMemory => u32::from(self.config.oom_limit),
            DeathCause::Silent => SILENT_MAX,
        };
        if count < limit || seeded!("deaths not counted") {
            return true;
        }
        let key = self.inner_key(task);
        let blob = record(&self.deaths.0[&task], ended, &key, count, limit);
        if self.kernel.fail(worker, wanted.0, wanted.1).is_ok() {
            self.uncount_lease(task);
            if self.nests.used {
                self.end_attempt(number, task);
            }
            self.note_failed(task, Outcome::Died, &blob, now_ns);
        }
        true
    }
}

/// What the client is told of a task that fails for it.
fn record(deaths: &[Blamed], last: &Ended<'_>, key: &str, attempts: u32, limit: u32) -> Vec<u8> {
    let column = |field: fn(&Blamed) -> u32| deaths.iter().map(field).collect::<Vec<u32>>();
    let (workers, pids) = (column(|death| death.worker), column(|death| death.pid));
    let (signals, exit_codes) = (column(|death| death.exit.signal()), column(|death| death.exit.code() as u32));
    let causes: Vec<u8> = deaths.iter().map(|death| death.cause as u8).collect();
    let shortage = match last.exit {
        Exit::OutOfMemory(shortage) => shortage,
        _ => Shortage::default(),
    };
    let mut blob = Vec::new();
    let death = Death {
        worker: last.worker,
        pid: last.pid,
        signal: last.exit.signal(),
        exit_code: last.exit.code(),
        attempts,
        limit,
        stderr: last.stderr,
        cause: last.cause as u8,
        memory_limit: shortage.limit,
        memory_peak: shortage.peak,
        group_others: shortage.others,
        workers: (&workers).into(),
        pids: (&pids).into(),
        signals: (&signals).into(),
        exit_codes: (&exit_codes).into(),
        causes: &causes,
        key,
    };
    Message::Death(death).encode(&mut blob);
    blob
}
