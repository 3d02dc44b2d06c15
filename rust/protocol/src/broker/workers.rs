//! Worker processes as the broker sees them: alive or not, what they hold, what they cost.

use super::action::PeerId;
use super::nested::Wait;
use super::output::Author;
use super::payload::Part;
use super::peers::Session;
use super::store::HOME;
use headrace_wire::Verdict;
use std::collections::VecDeque;

/// Lease frames that a worker may hold: one that runs and one that waits.
pub(crate) const FRAMES_MAX: usize = 2;
/// Estimated work in one lease frame.
pub(crate) const FRAME_BUDGET_NS: u64 = 1_000_000;
/// Tasks in one lease frame, whatever they cost.
pub(crate) const FRAME_TASKS_MAX: u32 = 4_096;
/// Tasks in a worker's first lease frame; each further one may hold twice as many.
pub(crate) const FRAME_TASKS_START: u32 = 8;
/// Pause before the first respawn of a worker that died before it took work; doubles each time.
const RESPAWN_PAUSE_NS: u64 = 100_000_000;
/// Starts in a row that fail before the broker gives up, if no other worker does better.
pub(crate) const START_FAILURES_MAX: u32 = 3;
/// Questions whether a worker lives, a second or more apart, that stay without an answer before it counts as lost: it has
/// been silent for four to five seconds then. They are counted instead of time, so that a broker that was stopped or busy
/// itself does not blame its workers. A worker answers without an interpreter lock, so a long call of native code is no
/// silence.
pub(crate) const UNANSWERED_MAX: u32 = 4;
/// Bytes of a frame for which a worker gets one more question's time: it hears nothing else while the frame arrives, and
/// the machine may be slow.
const PATIENCE_BYTES: usize = 4 << 20;
/// Pause before an interrupt is tried again.
pub(crate) const INTERRUPT_RETRY_NS: u64 = 10_000_000;
/// Bytes of a worker's standard error that are kept for post-mortems.
const STDERR_TAIL_BYTES: usize = 4_096;

/// Where a worker is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Its process was started and has not said HELLO.
    Starting,
    /// It is connected.
    Ready(PeerId),
    /// It broke the protocol: it is told nothing more, and its process is being killed.
    Condemned(PeerId),
    /// Its process is gone; it starts again at this time.
    Down {
        /// Time of the next start.
        respawn_ns: u64,
    },
    /// It is not started again.
    Retired,
    /// It has no process, and needs none for now: it may stand in for others.
    Spare,
    /// It has no process: the place is for a worker of another machine, and no machine has taken it.
    Vacant,
}

/// The process that takes a worker's place once that has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Successor {
    /// There is none.
    None,
    /// It was started, as this incarnation.
    Starting(u64),
    /// It has said HELLO, and waits.
    Waiting {
        /// Its incarnation.
        incarnation: u64,
        /// Its connection.
        peer: PeerId,
        /// Its process id.
        pid: u32,
    },
    /// It has died. There is no other before the place is free.
    Lost,
}

impl Successor {
    pub(crate) fn incarnation(self) -> Option<u64> {
        match self {
            Successor::Starting(incarnation) | Successor::Waiting { incarnation, .. } => Some(incarnation),
            Successor::None | Successor::Lost => None,
        }
    }
}

/// An attempt that was asked to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interrupted {
    pub(crate) task: u32,
    pub(crate) attempt: u32,
    pub(crate) author: Author,
    /// When the interrupt is tried again: the attempt may have been about to start when the first one came.
    pub(crate) retry_ns: u64,
    /// When the process is killed if the attempt has not stopped.
    pub(crate) kill_ns: u64,
}

/// One entry of a report.
pub(crate) struct Entry<'a> {
    pub(crate) task: u32,
    pub(crate) attempt: u32,
    pub(crate) verdict: Verdict,
    pub(crate) value: Part<'a>,
}

impl Entry<'_> {
    /// Whether `value` is a result, rather than the record of a failure.
    pub(crate) fn carries_value(&self) -> bool {
        matches!(self.verdict, Verdict::Done | Verdict::Value)
    }
}

/// One worker slot: a number, and the process that fills it now.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) number: u32,
    /// Leases that one of its processes may be given.
    tasks_max: u64,
    pub(crate) incarnation: u64,
    /// The latest incarnation, which may be its successor's.
    last_incarnation: u64,
    pub(crate) life: Life,
    /// The agent of the other machine that its process is on.
    pub(crate) host: Option<PeerId>,
    /// The machine whose memory it shares.
    pub(crate) machine: u32,
    /// That machine is about to leave: it is given nothing more.
    pub(crate) leaves: bool,
    pub(crate) pid: u32,
    /// Unsettled leases of each frame from `first_frame` on.
    frames: VecDeque<u32>,
    first_frame: u32,
    /// Largest number of tasks in the next frame.
    pub(crate) frame_tasks_max: u32,
    /// Estimated ns of all unsettled leases.
    pub(crate) outstanding_ns: u64,
    /// When it last reported or was given work while idle.
    pub(crate) progress_ns: u64,
    /// Before this time no further recall is sent.
    pub(crate) recall_pause_ns: u64,
    /// Until then others were asked for work for it.
    pub(crate) served_until_ns: u64,
    /// Functions that it knows, by number.
    functions: Vec<bool>,
    /// Dead results that it still holds.
    pub(crate) dead: Vec<u32>,
    /// Cancelled attempts that it has not confirmed to be over; no new work before that.
    pub(crate) interrupted: Vec<Interrupted>,
    /// An attempt that runs for longer than it may.
    pub(crate) overdue: Option<(u32, u32)>,
    /// Its processes in a row that died before they were given a task.
    pub(crate) start_failures: u32,
    /// Leases that its process may still be given.
    pub(crate) tasks_left: u64,
    /// When its process is killed that was told to leave because it has run its share.
    pub(crate) leave_ns: Option<u64>,
    pub(crate) successor: Successor,
    /// Its process has said that it cannot become a worker.
    pub(crate) refused: bool,
    /// The broker has killed its process, for a reason that is not its task's.
    pub(crate) given_up: bool,
    /// Questions since it last said anything.
    pub(crate) unanswered: u32,
    /// Questions that stay unanswered before it counts as lost.
    pub(crate) patience: u32,
    /// Who wrote what it wrote last.
    pub(crate) author: Option<Author>,
    /// Who has ended of late, if it is on another machine: what they wrote comes over another connection than their reports.
    pub(crate) recent: VecDeque<Author>,
    /// Last bytes of its standard error.
    stderr: VecDeque<u8>,
    /// What it said as it left; mostly it has written the same to standard error.
    pub(crate) farewell: String,
    /// Its attempts that wait for nested work; each was started within the wait of the one before.
    pub(crate) waits: Vec<Wait>,
    /// Processor time that its process had used at the last look, and whether it had computed since the look before.
    pub(crate) cpu_ns: u64,
    pub(crate) computes: bool,
    /// It executes one of two attempts of a task: nothing is to queue behind.
    pub(crate) is_racing: bool,
    /// It stands in for others, and nobody waits for whom it could.
    pub(crate) barred: bool,
    /// Looks in a row that found it idle, if it stands in for others.
    pub(crate) idle_looks: u32,
    /// What its tasks have submitted.
    pub(crate) session: Session,
    pub(crate) busy_ns: u64,
    /// Tasks of all runs that it finished.
    pub(crate) finished: u32,
}

impl Worker {
    pub(crate) fn new(number: u32, tasks_max: u64) -> Self {
        Worker {
            number,
            tasks_max,
            incarnation: 0,
            last_incarnation: 0,
            life: Life::Down { respawn_ns: 0 },
            host: None,
            machine: HOME,
            leaves: false,
            pid: 0,
            frames: VecDeque::new(),
            first_frame: 0,
            frame_tasks_max: FRAME_TASKS_START,
            outstanding_ns: 0,
            progress_ns: 0,
            recall_pause_ns: 0,
            served_until_ns: 0,
            functions: Vec::new(),
            dead: Vec::new(),
            interrupted: Vec::new(),
            overdue: None,
            start_failures: 0,
            tasks_left: 0,
            leave_ns: None,
            successor: Successor::None,
            refused: false,
            given_up: false,
            unanswered: 0,
            patience: UNANSWERED_MAX,
            author: None,
            recent: VecDeque::new(),
            stderr: VecDeque::new(),
            farewell: String::new(),
            waits: Vec::new(),
            cpu_ns: 0,
            computes: false,
            is_racing: false,
            barred: false,
            idle_looks: 0,
            session: Session::default(),
            busy_ns: 0,
            finished: 0,
        }
    }

    /// Its peer, if it is connected.
    pub(crate) fn peer(&self) -> Option<PeerId> {
        match self.life {
            Life::Ready(peer) => Some(peer),
            _ => None,
        }
    }

    /// Whether it has no process, and needs none.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self.life, Life::Spare | Life::Vacant)
    }

    /// Whether it may be given work.
    pub(crate) fn takes_work(&self) -> bool {
        self.peer().is_some()
            && self.interrupted.is_empty()
            && self.tasks_left > 0
            && !self.waits()
            && !self.barred
            && !self.leaves
            && !self.is_racing
    }

    /// Whether it may be given work and has none.
    pub(crate) fn is_idle(&self) -> bool {
        self.takes_work() && self.frames_open() == 0
    }

    /// Whether its attempt waits for nested work.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        !self.waits.is_empty()
    }

    /// Whether its process has been given a task.
    pub(crate) fn was_given_work(&self) -> bool {
        self.frame_tasks_max > FRAME_TASKS_START
    }

    /// Frames with unsettled leases.
    pub(crate) fn frames_open(&self) -> usize {
        self.frames.iter().filter(|unsettled| **unsettled > 0).count()
    }

    /// Leases that are not settled.
    pub(crate) fn unsettled(&self) -> u64 {
        self.frames.iter().map(|unsettled| u64::from(*unsettled)).sum()
    }

    /// When it should have done what it holds.
    pub(crate) fn estimated_end_ns(&self) -> u64 {
        self.progress_ns + self.outstanding_ns
    }

    /// Opens a frame of `leases` leases and returns its number.
    pub(crate) fn open_frame(&mut self, leases: u32) -> u32 {
        self.frames.push_back(leases);
        self.tasks_left = self.tasks_left.saturating_sub(leases.into());
        self.frame_tasks_max = (self.frame_tasks_max * 2).min(FRAME_TASKS_MAX);
        self.first_frame.wrapping_add(self.frames.len() as u32 - 1)
    }

    /// Notes that a frame of this length is on its way. The patience for the longest one stays until the process ends,
    /// since nobody tells which frame arrives now.
    pub(crate) fn expect_transit(&mut self, bytes: usize) {
        self.patience = self.patience.max(UNANSWERED_MAX + (bytes / PATIENCE_BYTES) as u32);
    }

    /// The number that the next frame will have.
    pub(crate) fn next_frame(&self) -> u32 {
        self.first_frame.wrapping_add(self.frames.len() as u32)
    }

    /// Settles one lease of a frame.
    pub(crate) fn settle(&mut self, frame: u32) {
        let position = frame.wrapping_sub(self.first_frame) as usize;
        if let Some(unsettled) = self.frames.get_mut(position) {
            *unsettled = unsettled.saturating_sub(1);
        }
        while self.frames.front() == Some(&0) {
            self.frames.pop_front();
            self.first_frame = self.first_frame.wrapping_add(1);
        }
        if self.frames.is_empty() {
            self.outstanding_ns = 0;
        }
    }

    /// An attempt is over, however it ended.
    #[inline]
    pub(crate) fn note_over(&mut self, task: u32, attempt: u32) {
        if !self.interrupted.is_empty() {
            self.interrupted.retain(|asked| (asked.task, asked.attempt) != (task, attempt));
            self.overdue = self.overdue.filter(|overdue| *overdue != (task, attempt));
        }
    }

    /// Notes that the worker is about to learn a function; false if it knows it.
    pub(crate) fn learn_function(&mut self, number: u32) -> bool {
        let position = number as usize;
        if position >= self.functions.len() {
            self.functions.resize(position + 1, false);
        }
        !std::mem::replace(&mut self.functions[position], true)
    }

    /// Keeps the end of what it writes to standard error.
    pub(crate) fn keep_stderr(&mut self, text: &[u8]) {
        self.stderr.extend(text);
        let excess = self.stderr.len().saturating_sub(STDERR_TAIL_BYTES);
        self.stderr.drain(..excess);
    }

    /// The next process in this slot starts.
    pub(crate) fn begin_start(&mut self) {
        let incarnation = self.next_incarnation();
        self.take_over(incarnation);
    }

    /// A process that has just been started, or some time ago, takes this slot.
    pub(crate) fn take_over(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
        self.life = Life::Starting;
        self.tasks_left = self.tasks_max;
    }

    /// A number that no process of this slot has had.
    pub(crate) fn next_incarnation(&mut self) -> u64 {
        self.last_incarnation += 1;
        self.last_incarnation
    }

    /// Clears what belonged to the process that is gone, and decides when the next one starts. Returns the end of its
    /// standard error.
    pub(crate) fn end_process(&mut self, now_ns: u64) -> Vec<u8> {
        let pause_ns = match self.start_failures {
            0 => 0,
            failures => RESPAWN_PAUSE_NS << (failures - 1).min(6),
        };
        self.life = Life::Down { respawn_ns: now_ns + pause_ns };
        self.pid = 0;
        self.first_frame = self.next_frame();
        self.frames.clear();
        self.frame_tasks_max = FRAME_TASKS_START;
        self.outstanding_ns = 0;
        self.leave_ns = None;
        (self.refused, self.given_up) = (false, false);
        self.unanswered = 0;
        self.patience = UNANSWERED_MAX;
        (self.recall_pause_ns, self.served_until_ns) = (0, 0);
        self.functions.clear();
        self.dead.clear();
        self.interrupted.clear();
        self.overdue = None;
        self.author = None;
        self.recent.clear();
        self.waits.clear();
        (self.is_racing, self.barred, self.idle_looks) = (false, false, 0);
        (self.cpu_ns, self.computes) = (0, false);
        let farewell = std::mem::take(&mut self.farewell);
        let end = &farewell.as_bytes()[farewell.len().saturating_sub(STDERR_TAIL_BYTES)..];
        let is_written = end.is_empty() || self.stderr.make_contiguous().windows(end.len()).any(|part| part == end);
        if !is_written {
            self.keep_stderr(end);
        }
        std::mem::take(&mut self.stderr).into()
    }
}
