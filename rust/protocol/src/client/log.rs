//! Lines that tasks wrote, until somebody prints them.

use std::collections::VecDeque;

use headrace_wire::{Log, NO_WORKER};

use super::task_logs::TaskLog;
use super::{CALLS, Client};

/// Bytes that wait at most; then the oldest lines go. A terminal's scrollback is smaller.
const BYTES_MAX: usize = 4 << 20;

/// Longest line that is kept together.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Whole lines that tasks of one worker wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLines {
    /// The worker.
    pub worker: u32,
    /// 1 for standard output, 2 for standard error.
    pub stream: u8,
    /// The lines, each with its end of line.
    pub text: Vec<u8>,
}

impl Client {
    /// The next lines that a task wrote.
    #[must_use]
    pub fn poll_log(&mut self) -> Option<LogLines> {
        self.log.pop()
    }

    /// Nothing more will come: the lines that have no end get one.
    pub fn finish_log(&mut self) {
        self.log.finish();
    }

    /// What a task has written so far; `None` if nothing.
    #[must_use]
    pub fn task_log(&self, run: u32, index: u32) -> Option<&TaskLog> {
        self.task_logs.get(run, index)
    }

    pub(super) fn hear(&mut self, log: &Log<'_>) {
        // What a guest's tasks write is shown where the host's is.
        if !self.is_guest {
            self.log.push(log);
        }
        // A task is remembered while somebody may ask for it.
        let is_open = match log.run {
            CALLS => self.calls.is_open(log.index),
            run => self.runs.get(&run).is_some_and(|run| u64::from(log.index) < run.progress().tasks),
        };
        if log.attempt > 0 && is_open {
            self.task_logs.push(log);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct LogQueue {
    lines: VecDeque<LogLines>,
    bytes: usize,
    bytes_dropped: u64,
    /// One a stream of a worker that has written anything.
    open: Vec<OpenLine>,
}

/// A line without its end, and the task that wrote it.
#[derive(Debug)]
struct OpenLine {
    of: LogLines,
    author: (u32, u32, u32),
}

impl LogQueue {
    pub(super) fn push(&mut self, log: &Log<'_>) {
        let Log { worker, stream, text, .. } = *log;
        if worker == NO_WORKER {
            return self.add(LogLines { worker, stream, text: text.to_vec() });
        }
        let author = (log.run, log.index, log.attempt);
        let is_its = |open: &OpenLine| (open.of.worker, open.of.stream) == (worker, stream);
        let position = self.open.iter().position(is_its).unwrap_or_else(|| {
            self.open.push(OpenLine { of: LogLines { worker, stream, text: Vec::new() }, author });
            self.open.len() - 1
        });
        let open = &mut self.open[position];
        let unfinished = if open.author == author && !text.is_empty() { None } else { open.finish() };
        open.author = author;
        let whole = open.push(text);
        unfinished.into_iter().chain(whole).for_each(|lines| self.add(lines));
    }

    pub(super) fn pop(&mut self) -> Option<LogLines> {
        let oldest = self.lines.pop_front()?;
        self.bytes -= oldest.text.len();
        Some(oldest)
    }

    pub(super) fn finish(&mut self) {
        let last: Vec<LogLines> = self.open.iter_mut().filter_map(OpenLine::finish).collect();
        last.into_iter().for_each(|lines| self.add(lines));
    }

    pub(super) fn bytes_dropped(&self) -> u64 {
        self.bytes_dropped
    }

    fn add(&mut self, lines: LogLines) {
        self.bytes += lines.text.len();
        let joins = |last: &&mut LogLines| {
            (last.worker, last.stream) == (lines.worker, lines.stream)
                && last.text.len() + lines.text.len() <= LINE_BYTES_MAX
        };
        // Whoever prints them is spared a write for each task.
        match self.lines.back_mut().filter(joins) {
            Some(last) => last.text.extend_from_slice(&lines.text),
            None => self.lines.push_back(lines),
        }
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.pop() else { break };
            self.bytes_dropped += oldest.text.len() as u64;
        }
    }
}

impl OpenLine {
    /// Adds a piece and gives the lines that are whole now.
    fn push(&mut self, piece: &[u8]) -> Option<LogLines> {
        let text = &mut self.of.text;
        text.extend_from_slice(piece);
        let end = match piece.iter().rposition(|byte| *byte == b'\n') {
            Some(position) => text.len() - piece.len() + position + 1,
            None if text.len() > LINE_BYTES_MAX => return self.finish(),
            None => return None,
        };
        let rest = text.split_off(end);
        Some(LogLines { text: std::mem::replace(text, rest), ..self.of })
    }

    /// The line with the end that it lacks.
    fn finish(&mut self) -> Option<LogLines> {
        if self.of.text.is_empty() {
            return None;
        }
        self.of.text.push(b'\n');
        Some(LogLines { text: std::mem::take(&mut self.of.text), ..self.of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(queue: &mut LogQueue, worker: u32, index: u32, text: &[u8]) {
        queue.push(&Log { worker, stream: 1, text, run: 1, index, attempt: 1, before: 0 });
    }

    fn printed(queue: &mut LogQueue) -> Vec<(u32, Vec<u8>)> {
        std::iter::from_fn(|| queue.pop()).map(|lines| (lines.worker, lines.text)).collect()
    }

    #[test]
    fn lines_are_printed_whole() {
        let mut queue = LogQueue::default();
        say(&mut queue, 0, 0, b"one\ntw");
        say(&mut queue, 1, 9, b"other\n");
        assert_eq!(printed(&mut queue), [(0, b"one\n".to_vec()), (1, b"other\n".to_vec())]);
        say(&mut queue, 0, 0, b"o\nthree\n");
        assert_eq!(printed(&mut queue), [(0, b"two\nthree\n".to_vec())]);
    }

    #[test]
    fn the_line_of_a_task_ends_where_another_task_writes() {
        let mut queue = LogQueue::default();
        say(&mut queue, 0, 0, b"no end");
        say(&mut queue, 0, 1, b"next\n");
        assert_eq!(printed(&mut queue), [(0, b"no end\nnext\n".to_vec())]);
    }

    #[test]
    fn the_line_of_a_process_ends_with_it() {
        let mut queue = LogQueue::default();
        say(&mut queue, 0, 0, b"last words");
        say(&mut queue, 0, 0, b"");
        assert_eq!(printed(&mut queue), [(0, b"last words\n".to_vec())]);
        say(&mut queue, 0, 0, b"");
        assert_eq!(printed(&mut queue), []);
        say(&mut queue, 1, 1, b"end of all");
        queue.finish();
        assert_eq!(printed(&mut queue), [(1, b"end of all\n".to_vec())]);
    }

    #[test]
    fn a_line_without_end_does_not_grow_for_ever() {
        let mut queue = LogQueue::default();
        say(&mut queue, 0, 0, &vec![b'a'; LINE_BYTES_MAX]);
        assert_eq!(printed(&mut queue), []);
        say(&mut queue, 0, 0, b"b");
        assert_eq!(printed(&mut queue)[0].1.len(), LINE_BYTES_MAX + 2);
    }
}
