//! The client's side of a session: what was submitted, how each task ended, what is held.
//!
//! [`Client`] has three kinds of method, as every session machine: events in (`handle_…`), commands (`submit`, `cancel`,
//! `hold`, …), and actions out (`poll_…`). There is one action, [`Client::poll_frame`]: whatever is to be sent leaves
//! through it, in the order of the commands, so a run is never released before a ref to its results has been counted.
//! Waiting is not its business: the caller looks with [`Client::has_ended`] or [`Client::progress`], and waits for
//! frames if it must.
//!
//! # Where values live
//!
//! A frame of results is kept as it arrived, and the tables point into it; an [`Ending`] shares the frame, so reading a
//! value copies nothing. The tasks of a run stand in dense columns, whose untouched pages cost nothing. Single calls
//! (run 0) stand in a table that shrinks again: a call that was forgotten leaves nothing behind.

mod calls;
mod ending;
mod error;
mod holds;
mod log;
mod questions;
mod run;
mod session;
mod task_logs;
#[cfg(test)]
mod tests;

pub use ending::{Detail, Ending};
pub use error::ProtocolError;
pub use log::LogLines;
pub use questions::Reply;
pub use run::Progress;
pub use session::{Farewell, Session, Side};
pub use task_logs::TaskLog;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use headrace_wire::{
    Cancel, DecodeError, Goodbye, GoodbyeReason, Hello, Lack, Message, Outcome, Put, Results, Submit, U32s, Want,
    Withdraw, citations,
};
use rustc_hash::FxHashMap;

use crate::store::{Blocks, return_of};
use calls::Calls;
use holds::Holds;
use log::LogQueue;
use questions::Questions;
use run::Run;
use task_logs::TaskLogs;

/// The run of single calls; it is always open.
pub const CALLS: u32 = 0;

/// The size of a result that has not arrived: it may be large, so nothing waits for its sake.
const UNKNOWN_BYTES: usize = usize::MAX;

/// A frame as it arrived, shared by all that point into it.
type SharedFrame = Arc<Vec<u8>>;

/// A client's session with a broker.
#[derive(Debug)]
pub struct Client {
    session: Session,
    /// Our version, for the text of a mismatch.
    version: String,
    runs: FxHashMap<u32, Run>,
    calls: Calls,
    holds: Holds,
    /// Not looked at by a guest.
    blocks: Blocks,
    /// Whether it speaks over the connection of a worker, which sees to shared memory.
    is_guest: bool,
    questions: Questions,
    log: LogQueue,
    task_logs: TaskLogs,
    out: VecDeque<Vec<u8>>,
    statistics: Statistics,
}

/// What a client has seen and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Frames received.
    pub frames_in: u64,
    /// Frames given out to be sent.
    pub frames_out: u64,
    /// Frames of a type that this version does not know; they were ignored.
    pub frames_unknown: u64,
    /// Endings that nobody wanted any more: their run was released, their call forgotten, or they came twice.
    pub endings_late: u64,
    /// Bytes of log lines that were dropped because nobody fetched them.
    pub log_bytes_dropped: u64,
    /// Runs open now.
    pub runs_open: usize,
    /// Calls not forgotten yet.
    pub calls_open: usize,
    /// Changes of holds that wait for company before they are sent.
    pub holds_waiting: usize,
}

impl Client {
    /// A session that begins with this HELLO.
    pub fn new(hello: &Hello<'_>) -> Self {
        let mut client = Self::in_session(Session::Greeting, hello.version, false);
        client.send(&Message::Hello(hello.clone()));
        client
    }

    /// The session of the tasks of a worker, over whose connection it speaks. The caller sees to the blocks that values cite.
    pub fn guest(version: &str) -> Self {
        Self::in_session(Session::guest(version), version, true)
    }

    fn in_session(session: Session, version: &str, is_guest: bool) -> Self {
        Self {
            session,
            version: version.to_owned(),
            runs: FxHashMap::default(),
            calls: Calls::default(),
            holds: Holds::default(),
            blocks: Blocks::default(),
            is_guest,
            questions: Questions::default(),
            log: LogQueue::default(),
            task_logs: TaskLogs::default(),
            out: VecDeque::new(),
            statistics: Statistics::default(),
        }
    }

    // Events

    /// Takes a frame from the broker. Once the session is over, frames are ignored.
    ///
    /// # Errors
    /// The broker broke the protocol or speaks another version. The session is over then, and a GOODBYE that says why
    /// waits to be sent. Nothing of the frame was applied.
    pub fn handle_frame(&mut self, frame: Vec<u8>) -> Result<(), ProtocolError> {
        if self.session.is_over() {
            return Ok(());
        }
        self.statistics.frames_in += 1;
        match self.apply(Arc::new(frame)) {
            Err(ProtocolError::Frame(DecodeError::UnknownType(_))) => {
                self.statistics.frames_unknown += 1;
                Ok(())
            }
            Err(error) => {
                let reason = match error {
                    ProtocolError::VersionMismatch { .. } => GoodbyeReason::VersionMismatch,
                    _ => GoodbyeReason::ProtocolError,
                };
                self.part(reason, &error.to_string());
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Takes note that the connection is gone. No effect if a GOODBYE has ended the session before.
    pub fn handle_disconnect(&mut self) {
        if !self.session.is_over() {
            self.session = Session::Over(Farewell::lost());
        }
    }

    // Commands

    /// Opens the table of a run, before its first SUBMIT.
    ///
    /// # Panics
    /// If the number is that of the calls or of an open run: the caller numbers runs from 1 on, each once.
    pub fn open_run(&mut self, run: u32, tasks: u32) {
        assert_ne!(run, CALLS, "run 0 is the run of calls");
        let before = self.runs.insert(run, Run::new(tasks));
        assert!(before.is_none(), "run {run} is open already");
    }

    /// Opens a row for the next single call and returns its index in run 0. The call's SUBMIT names it in `keep`, and
    /// [`Client::forget_call`] lets go of that. `None` after 2³¹ calls.
    #[must_use]
    pub fn open_call(&mut self) -> Option<u32> {
        self.calls.open()
    }

    /// Queues a SUBMIT. Its run or call is open, and refs cited in it are held until this returns.
    pub fn submit(&mut self, submit: &Submit<'_>) {
        self.send(&Message::Submit(submit.clone()));
    }

    /// Enters a value as the result of a call that was opened for it. The value has a reference of its own to each block that
    /// it cites.
    pub fn put(&mut self, index: u32, value: &[u8]) {
        if !self.is_guest {
            self.blocks.publish_cited(value);
        }
        self.send(&Message::Put(Put { index, value }));
        if !self.is_guest {
            self.blocks.unhold_cited(value);
        }
        self.calls.put(index, value);
    }

    /// Bytes of values that were put, are held, and lie in frames instead of shared memory.
    #[must_use]
    pub fn put_bytes(&self) -> usize {
        self.calls.put_bytes()
    }

    /// Blocks of shared memory as this process sees them.
    pub fn with_blocks<T>(&mut self, look: impl FnOnce(&mut Blocks) -> T) -> T {
        let answer = look(&mut self.blocks);
        self.tell_released();
        answer
    }

    /// How urgent it is to look for garbage that keeps shared memory: see [`Blocks::garbage_due`].
    #[must_use]
    pub fn garbage_due(&self) -> u8 {
        self.blocks.garbage_due()
    }

    /// Garbage was looked for with this urgency, after [`Client::garbage_due`].
    pub fn note_collected(&mut self, urgency: u8) {
        let out = &mut self.out;
        self.blocks.note_collected(urgency, |message| out.push_back(encoded(message)));
    }

    /// Gives back a segment that was granted and could not be used.
    pub fn return_segment(&mut self, segment: u32) {
        self.send(&return_of(&[segment]));
    }

    /// Asks for a segment with room for a block of so many bytes.
    pub fn want(&mut self, bytes: u64) {
        self.send(&Message::Want(Want { bytes }));
    }

    /// Says that a segment of others has not come.
    pub fn lack(&mut self, segment: u32) {
        self.send(&Message::Lack(Lack { segment }));
    }

    /// Takes back the last wish, for so many bytes. The answer comes all the same.
    pub fn withdraw(&mut self, bytes: u64) {
        self.send(&Message::Withdraw(Withdraw { bytes }));
    }

    /// Cancels tasks of a run, with all that depend on them; perhaps only those that no worker has got. The endings arrive as
    /// results.
    pub fn cancel(&mut self, run: u32, indices: &[u32], spare_leased: bool) {
        self.send(&Message::Cancel(Cancel { run, whole: false, index: U32s::Words(indices), spare_leased }));
    }

    /// The same of all tasks of a run.
    pub fn cancel_run(&mut self, run: u32, spare_leased: bool) {
        self.send(&Message::Cancel(Cancel { run, whole: true, index: U32s::default(), spare_leased }));
    }

    /// Adds one holder to a result: a ref, beyond what its run or its call keeps.
    pub fn hold(&mut self, run: u32, index: u32) {
        self.holds.add(run, index);
        self.flush_holds_if_due(0);
    }

    /// Removes one holder that [`Client::hold`] added.
    pub fn unhold(&mut self, run: u32, index: u32) {
        self.holds.remove(run, index);
        let bytes = self.peek(run, index).map_or(UNKNOWN_BYTES, |ending| weight(ending.bytes()));
        self.flush_holds_if_due(bytes);
    }

    /// Forgets a call, ended or not, and lets go of its result. It goes on if it has not ended.
    pub fn forget_call(&mut self, index: u32) {
        if let Some(bytes) = self.calls.forget(index) {
            self.holds.remove(CALLS, index);
            self.task_logs.forget(CALLS, index);
            self.flush_holds_if_due(bytes.unwrap_or(UNKNOWN_BYTES));
        }
    }

    /// Closes the table of a run and lets go of all that it keeps. Refs to its results stay good.
    pub fn release(&mut self, run: u32) {
        if self.runs.remove(&run).is_some() {
            self.holds.release(run);
            self.task_logs.release(run);
            self.flush_holds();
        }
    }

    /// Queues all changes of holds at once. The others wait for company; not many, and only for small results.
    pub fn flush_holds(&mut self) {
        let out = &mut self.out;
        self.holds.flush(|hold| out.push_back(encoded(&Message::Hold(hold))));
    }

    /// Ends the session from this side; the broker cancels and forgets what is left of it.
    pub fn close(&mut self) {
        if !self.session.is_over() {
            self.part(GoodbyeReason::Closed, "the client was closed");
        }
    }

    /// Tells a broker of this process to end once nothing is left to run. It says goodbye then.
    pub fn drain(&mut self) {
        if !self.session.is_over() {
            let text = "end once nothing is left to run";
            self.send(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Shutdown as u8, text }));
        }
    }

    // Actions

    /// The next frame to send.
    #[must_use]
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        let frame = self.out.pop_front();
        self.statistics.frames_out += u64::from(frame.is_some());
        frame
    }

    /// The next pages of an own segment to punch, before the frames that follow are sent.
    pub fn poll_punch(&mut self) -> Option<(u32, Range<u64>)> {
        self.blocks.poll_punch()
    }

    /// The next call that has ended and is not forgotten, in order of arrival; each is named once.
    #[must_use]
    pub fn poll_ended_call(&mut self) -> Option<u32> {
        self.calls.pop_arrival()
    }

    // Tables

    /// Where the session stands.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How far a run is; `None` if it is not open.
    pub fn progress(&self, run: u32) -> Option<Progress> {
        match run {
            CALLS => Some(self.calls.progress()),
            _ => self.runs.get(&run).map(Run::progress),
        }
    }

    /// Whether a task is known to have ended. A task that is not kept and ended well is known to have ended only with
    /// its run.
    pub fn has_ended(&self, run: u32, index: u32) -> bool {
        match run {
            CALLS => self.calls.has_ended(index),
            _ => self.runs.get(&run).is_some_and(|run| run.has_ended(index)),
        }
    }

    /// How a task ended, if that is known, the task has left something, and it was not taken.
    pub fn peek(&self, run: u32, index: u32) -> Option<Ending> {
        match run {
            CALLS => self.calls.peek(index),
            _ => self.runs.get(&run)?.peek(index),
        }
    }

    /// As [`Client::peek`], and the table lets go of the value; the task counts as ended still. The broker's copy stays
    /// until the run is released or the call forgotten.
    pub fn take_value(&mut self, run: u32, index: u32) -> Option<Ending> {
        match run {
            CALLS => self.calls.take(index),
            _ => self.runs.get_mut(&run)?.take(index),
        }
    }

    /// Indices of a run's tasks in the order in which their endings arrived, from position `from` on. A reader keeps its
    /// own position, so there may be many. Empty for calls, which have [`Client::poll_ended_call`].
    pub fn arrivals(&self, run: u32, from: usize) -> &[u32] {
        self.runs.get(&run).and_then(|run| run.arrivals().get(from..)).unwrap_or(&[])
    }

    /// Counts.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            log_bytes_dropped: self.log.bytes_dropped(),
            runs_open: self.runs.len(),
            calls_open: self.calls.len(),
            holds_waiting: self.holds.len(),
            ..self.statistics
        }
    }

    // Details

    fn apply(&mut self, frame: SharedFrame) -> Result<(), ProtocolError> {
        if u32::try_from(frame.len()).is_err() {
            return Err(ProtocolError::FrameTooLarge(frame.len()));
        }
        let message = Message::decode(&frame)?;
        match (&self.session, message) {
            (_, Message::Goodbye(goodbye)) => self.session = Session::Over(Farewell::received(&goodbye)),
            (Session::Greeting, Message::Welcome(welcome)) => {
                self.session = Session::open(&welcome, &self.version)?;
            }
            (Session::Greeting, message) => return Err(ProtocolError::BeforeWelcome(message.name())),
            (_, Message::Results(results)) => self.apply_results(&frame, &results)?,
            (_, Message::State(state)) => self.questions.answer(state.number, &frame),
            (_, Message::Because(because)) => self.questions.answer(because.number, &frame),
            (_, Message::Log(log)) => self.hear(&log),
            (_, Message::Release(release)) => {
                self.blocks.handle_release_frame(&release);
                self.tell_released();
            }
            (_, Message::Moved(moved)) => match moved.run {
                CALLS => self.calls.handle_moved(&frame, &moved),
                run => {
                    if let Some(run) = self.runs.get_mut(&run) {
                        run.handle_moved(&frame, &moved);
                    }
                }
            },
            (_, Message::GiveBack(wish)) => {
                let out = &mut self.out;
                self.blocks.handle_give_back(&wish, true, |message| out.push_back(encoded(message)));
            }
            (_, message) => return Err(ProtocolError::NotForClients(message.name())),
        }
        Ok(())
    }

    fn apply_results(&mut self, frame: &SharedFrame, results: &Results<'_>) -> Result<(), ProtocolError> {
        check_details(results)?;
        let late = match results.run {
            CALLS => self.calls.handle_results(frame, results),
            number => match self.runs.get_mut(&number) {
                Some(run) => run.handle_results(frame, results)?,
                None => results.index.len(),
            },
        };
        self.statistics.endings_late += late as u64;
        Ok(())
    }

    fn tell_released(&mut self) {
        let out = &mut self.out;
        self.blocks.tell_released(|message| out.push_back(encoded(message)));
    }

    fn flush_holds_if_due(&mut self, bytes: usize) {
        if self.holds.is_due(bytes) {
            self.flush_holds();
        }
    }

    fn part(&mut self, reason: GoodbyeReason, text: &str) {
        self.send(&Message::Goodbye(Goodbye { reason: reason as u8, text }));
        self.session = Session::Over(Farewell::sent(reason, text));
    }

    fn send(&mut self, message: &Message<'_>) {
        self.out.push_back(encoded(message));
    }
}

/// Refuses endings whose details could not be read later. They are rare, so this costs a look at the outcomes.
fn check_details(results: &Results<'_>) -> Result<(), ProtocolError> {
    const DIED: u8 = Outcome::Died as u8;
    const REFUSED: u8 = Outcome::Refused as u8;
    const TIMED_OUT: u8 = Outcome::TimedOut as u8;
    if !results.outcome.iter().any(|&outcome| matches!(outcome, DIED | REFUSED | TIMED_OUT)) {
        return Ok(());
    }
    for ((index, blob), &outcome) in results.index.iter().zip(results.values.iter()).zip(results.outcome) {
        let is_readable = match outcome {
            DIED => matches!(Message::decode(blob), Ok(Message::Death(_))),
            TIMED_OUT => matches!(Message::decode(blob), Ok(Message::Overrun(_))),
            REFUSED => std::str::from_utf8(blob).is_ok(),
            _ => true,
        };
        if !is_readable {
            return Err(ProtocolError::UnreadableEnding { run: results.run, index });
        }
    }
    Ok(())
}

/// The bytes that a value keeps from others, in its frame or in shared memory.
fn weight(value: &[u8]) -> usize {
    citations(value).fold(value.len(), |bytes, cited| bytes.saturating_add(cited.bytes as usize))
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}
