//! How a process gets more shared memory: it asks the broker, and waits for the answer.
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use headrace_protocol::store::Allocated;
use headrace_runtime::segments::Answer;
use headrace_sys::segment::Segment;
use headrace_wire::{WANTED, WANTED_BADLY};
use pyo3::prelude::*;

use super::{ARRIVAL, Memory};
use crate::errors::infra_error;
use crate::garbage;

/// How long signals, and questions of the broker, may wait while a thread waits for memory; and at first.
const SLICE: Duration = Duration::from_millis(20);
const FIRST_SLICE: Duration = Duration::from_millis(1);

/// One thread at a time asks for segments, this one: the answers bear no names.
#[derive(Default)]
pub(super) struct Growth {
    /// How many earlier wishes are still to be answered, for whoever asks.
    asking: Mutex<u32>,
    thread: Mutex<Option<ThreadId>>,
}

impl Memory {
    /// A new block of this process, with one reference, and the map that it lies in; its pages are there.
    pub(crate) fn allocate(&self, py: Python<'_>, bytes: u64) -> PyResult<(Allocated, Arc<Segment>)> {
        if self.is_forked() {
            return Err(infra_error(py, "ForkedClientError", "a forked child has no shared memory of its own"));
        }
        if let Some(found) = self.try_allocate(py, bytes)? {
            return Ok(found);
        }
        let mut late = loop {
            match self.growth.asking.try_lock() {
                Ok(guard) => break guard,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if self.growth.thread() == Some(thread::current().id()) => {
                    let text = "this thread waits for shared memory already, and was interrupted by a handler of a signal or \
                                a finalizer that wants some";
                    return Err(infra_error(py, "StoreFull", text));
                }
                Err(TryLockError::WouldBlock) => {
                    // Not a plain lock: signals must get through, and the broker may take a second to answer.
                    py.detach(|| thread::sleep(Duration::from_millis(1)));
                    py.check_signals()?;
                }
            }
        };
        self.growth.set_thread(Some(thread::current().id()));
        let grown = self.grow(py, bytes, &mut late);
        self.growth.set_thread(None);
        drop(late);
        grown
    }

    /// Whether a thread waits for memory.
    pub(crate) fn is_growing(&self) -> bool {
        self.growth.thread().is_some()
    }

    fn grow(&self, py: Python<'_>, bytes: u64, late: &mut u32) -> PyResult<(Allocated, Arc<Segment>)> {
        let mut collected = false;
        loop {
            // Somebody else may have grown or freed meanwhile.
            if let Some(found) = self.try_allocate(py, bytes)? {
                return Ok(found);
            }
            self.seat.want(bytes);
            match self.answer(py, bytes, &mut collected, late)? {
                Answer::Granted { segment, bytes } => {
                    self.with_blocks(|blocks| blocks.own(segment, bytes));
                }
                Answer::Unusable { segment, text } => {
                    self.seat.return_segment(segment);
                    return Err(infra_error(py, "StoreFull", &text));
                }
                Answer::Closed => {
                    let text = "the client was closed, or its broker is gone, while a value waited for shared memory";
                    return Err(infra_error(py, "BrokerLost", text));
                }
                Answer::Refused(_) if !collected => {
                    self.look_for_garbage(py, WANTED_BADLY, &mut collected)?;
                    collected = true;
                }
                Answer::Refused(text) => return Err(infra_error(py, "StoreFull", &text)),
            }
        }
    }

    /// The answer to the last wish, which was for so many bytes.
    fn answer(&self, py: Python<'_>, bytes: u64, collected: &mut bool, late: &mut u32) -> PyResult<Answer> {
        let mut slice = FIRST_SLICE;
        loop {
            // What is asked of this process may be the room that it waits for.
            let answer = py.detach(|| {
                self.seat.listen();
                self.segments.answer(slice)
            });
            match answer {
                Some(answer) if *late > 0 => {
                    *late -= 1;
                    self.take_in(answer);
                    continue;
                }
                Some(answer) => return Ok(answer),
                None => {}
            }
            slice = SLICE.min(2 * slice);
            let urgency = self.seat.garbage_due().max(if slice == SLICE && !*collected { WANTED } else { 0 });
            let heard = match urgency {
                0 => Ok(()),
                urgency => self.look_for_garbage(py, urgency, collected),
            };
            if let Err(interrupt) = heard.and_then(|()| py.check_signals()) {
                // Taken back, it is answered at once; who is interrupted waits for that, so that nothing is left over.
                self.seat.withdraw(bytes);
                *late += 1;
                while *late > 0
                    && let Some(answer) = py.detach(|| self.segments.answer(ARRIVAL))
                {
                    *late -= 1;
                    self.take_in(answer);
                }
                return Err(interrupt);
            }
        }
    }

    /// Takes in the answer to a wish that nobody has any more.
    fn take_in(&self, answer: Answer) {
        match answer {
            Answer::Granted { segment, bytes } => {
                self.with_blocks(|blocks| blocks.own(segment, bytes));
            }
            Answer::Unusable { segment, .. } => self.seat.return_segment(segment),
            Answer::Refused(_) | Answer::Closed => {}
        }
    }

    fn look_for_garbage(&self, py: Python<'_>, urgency: u8, collected: &mut bool) -> PyResult<()> {
        let done = garbage::collect_as_urgent(py, urgency);
        *collected |= matches!(done, Ok(true));
        self.seat.note_collected(urgency);
        done.map(drop)
    }
}

impl Growth {
    fn thread(&self) -> Option<ThreadId> {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_thread(&self, thread: Option<ThreadId>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = thread;
    }
}
