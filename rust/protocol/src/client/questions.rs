//! Questions to the broker, and their answers.

use super::{Client, SharedFrame};
use headrace_wire::{Because, Message, Query, State, Why};
use rustc_hash::FxHashMap;

/// Questions that were asked and whose answers were not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// The frame of each answer, once it is there.
    asked: FxHashMap<u64, Option<SharedFrame>>,
    last: u64,
}

/// The answer to a question.
#[derive(Clone, Debug)]
pub struct Reply(SharedFrame);

impl Reply {
    /// The state of a run, if that was asked for.
    pub fn state(&self) -> Option<State<'_>> {
        match Message::decode(&self.0) {
            Ok(Message::State(state)) => Some(state),
            _ => None,
        }
    }

    /// Where a task is, if that was asked for.
    pub fn because(&self) -> Option<Because<'_>> {
        match Message::decode(&self.0) {
            Ok(Message::Because(because)) => Some(because),
            _ => None,
        }
    }
}

impl Questions {
    fn open(&mut self) -> u64 {
        self.last += 1;
        self.asked.insert(self.last, None);
        self.last
    }

    /// An answer came; nobody may want it any more.
    pub(super) fn answer(&mut self, number: u64, frame: &SharedFrame) {
        if let Some(answer) = self.asked.get_mut(&number) {
            *answer = Some(SharedFrame::clone(frame));
        }
    }
}

impl Client {
    /// Asks for the state of a run and returns the number under which [`Client::take_reply`] will have the answer.
    pub fn query(&mut self, run: u32) -> u64 {
        let number = self.questions.open();
        self.send(&Message::Query(Query { run, number }));
        number
    }

    /// Asks where a task is and what it waits for; the same.
    pub fn why(&mut self, run: u32, index: u32, stacks: bool) -> u64 {
        let number = self.questions.open();
        self.send(&Message::Why(Why { number, run, index, key: "", stacks }));
        number
    }

    /// Forgets a question: its answer will be ignored.
    pub fn forget_question(&mut self, number: u64) {
        self.questions.asked.remove(&number);
    }

    /// The answer to a question, once it is there; the question is forgotten then.
    pub fn take_reply(&mut self, number: u64) -> Option<Reply> {
        self.questions.asked.get(&number)?.as_ref()?;
        self.questions.asked.remove(&number).flatten().map(Reply)
    }
}
