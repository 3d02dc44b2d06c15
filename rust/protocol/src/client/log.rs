//! Lines that tasks wrote, until somebody prints them.

use std::collections::VecDeque;

use headrace_wire::Log;

/// Bytes that wait at most; then the oldest lines go. A terminal's scrollback is smaller.
const BYTES_MAX: usize = 4 << 20;

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

#[derive(Debug, Default)]
pub(super) struct LogQueue {
    lines: VecDeque<LogLines>,
    bytes: usize,
    bytes_dropped: u64,
}

impl LogQueue {
    pub(super) fn push(&mut self, log: &Log<'_>) {
        self.bytes += log.text.len();
        self.lines.push_back(LogLines { worker: log.worker, stream: log.stream, text: log.text.to_vec() });
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.pop() else { break };
            self.bytes_dropped += oldest.text.len() as u64;
        }
    }

    pub(super) fn pop(&mut self) -> Option<LogLines> {
        let oldest = self.lines.pop_front()?;
        self.bytes -= oldest.text.len();
        Some(oldest)
    }

    pub(super) fn bytes_dropped(&self) -> u64 {
        self.bytes_dropped
    }
}
