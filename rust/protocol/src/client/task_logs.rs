//! What each task has written lately, for as long as somebody may ask.

use std::collections::VecDeque;

use headrace_wire::Log;
use rustc_hash::FxHashMap;

/// Bytes kept of what one task writes: the last ones.
const TASK_BYTES_MAX: usize = 64 << 10;

/// Bytes kept of all tasks together. Beyond that whole logs go, the oldest first.
const ALL_BYTES_MAX: usize = 64 << 20;

/// What a log costs beside its bytes, about.
const OVERHEAD_BYTES: usize = 160;

/// How far behind the place of a cut a line may begin at which it is better made.
const LINE_BYTES_MAX: usize = 4 << 10;

/// The end of what a task has written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TaskLog {
    /// Bytes that came before these and are not kept.
    pub bytes_dropped: u64,
    /// The last bytes, of both streams, as they came.
    pub tail: VecDeque<u8>,
    attempt: u32,
    /// Bytes that this attempt is known to have written.
    attempt_bytes: u64,
    /// Whether it stands in the queue of those that may go.
    is_queued: bool,
}

/// The logs of a session.
#[derive(Debug, Default)]
pub(super) struct TaskLogs {
    runs: FxHashMap<u32, FxHashMap<u32, TaskLog>>,
    /// The logs with a tail, oldest first; some may be forgotten by now.
    queue: VecDeque<(u32, u32)>,
    queued: usize,
    bytes: usize,
}

impl TaskLogs {
    pub(super) fn push(&mut self, log: &Log<'_>) {
        let held = self.runs.entry(log.run).or_default().entry(log.index).or_default();
        if !held.is_queued {
            held.is_queued = true;
            self.queue.push_back((log.run, log.index));
            self.queued += 1;
            self.bytes += OVERHEAD_BYTES;
        }
        let before = held.tail.len();
        held.push(log);
        self.bytes = self.bytes + held.tail.len() - before;
        while self.bytes > ALL_BYTES_MAX {
            let Some((run, index)) = self.queue.pop_front() else { break };
            let Some(oldest) = self.runs.get_mut(&run).and_then(|run| run.get_mut(&index)) else { continue };
            (self.queued, self.bytes) = (self.queued - 1, self.bytes - oldest.cost());
            oldest.is_queued = false;
            oldest.drop_tail();
        }
    }

    pub(super) fn get(&self, run: u32, index: u32) -> Option<&TaskLog> {
        self.runs.get(&run)?.get(&index)
    }

    pub(super) fn forget(&mut self, run: u32, index: u32) {
        if let Some(log) = self.runs.get_mut(&run).and_then(|run| run.remove(&index)) {
            self.settle([log]);
        }
    }

    pub(super) fn release(&mut self, run: u32) {
        if let Some(logs) = self.runs.remove(&run) {
            self.settle(logs.into_values());
        }
    }

    /// These logs have gone.
    fn settle(&mut self, logs: impl IntoIterator<Item = TaskLog>) {
        /// Below this the queue is not worth a look.
        const LEN_MIN: usize = 64;
        for log in logs.into_iter().filter(|log| log.is_queued) {
            (self.queued, self.bytes) = (self.queued - 1, self.bytes - log.cost());
        }
        if self.queue.len() > LEN_MIN.max(2 * self.queued) {
            let runs = &self.runs;
            self.queue.retain(|(run, index)| runs.get(run).is_some_and(|run| run.contains_key(index)));
        }
    }
}

impl TaskLog {
    fn push(&mut self, log: &Log<'_>) {
        if log.attempt > self.attempt {
            (self.attempt, self.attempt_bytes) = (log.attempt, 0);
        }
        // What an attempt before the latest one still writes is not counted.
        if log.attempt == self.attempt {
            let missing = log.before.saturating_sub(self.attempt_bytes);
            self.attempt_bytes = log.before.saturating_add(log.text.len() as u64);
            if missing > 0 {
                // Lost on the way. What came before would not join on.
                self.drop_tail();
                self.bytes_dropped = self.bytes_dropped.saturating_add(missing);
            }
        }
        self.tail.extend(log.text);
        if self.tail.len() > TASK_BYTES_MAX {
            let excess = self.tail.len() - TASK_BYTES_MAX;
            let line = self.tail.range(excess..).take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
            let cut = line.map_or(excess, |position| excess + position + 1);
            self.tail.drain(..cut);
            self.bytes_dropped = self.bytes_dropped.saturating_add(cut as u64);
        }
    }

    fn drop_tail(&mut self) {
        self.bytes_dropped = self.bytes_dropped.saturating_add(std::mem::take(&mut self.tail).len() as u64);
    }

    fn cost(&self) -> usize {
        OVERHEAD_BYTES + self.tail.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::CALLS;
    use crate::client::tests::{hear, open_client};

    fn log(index: u32, attempt: u32, before: u64, text: &[u8]) -> Log<'_> {
        Log { worker: 0, stream: 1, text, run: 1, index, attempt, before }
    }

    fn read(logs: &TaskLogs, index: u32) -> (u64, Vec<u8>) {
        logs.get(1, index).map_or((0, Vec::new()), |log| (log.bytes_dropped, log.tail.iter().copied().collect()))
    }

    #[test]
    fn all_attempts_of_a_task_write_to_one_log() {
        let mut logs = TaskLogs::default();
        logs.push(&log(0, 1, 0, b"one\n"));
        logs.push(&log(1, 2, 0, b"other\n"));
        logs.push(&log(0, 1, 4, b"two\n"));
        logs.push(&log(0, 5, 0, b"again\n"));
        assert_eq!(read(&logs, 0), (0, b"one\ntwo\nagain\n".to_vec()));
        assert_eq!(read(&logs, 1), (0, b"other\n".to_vec()));
    }

    #[test]
    fn the_last_lines_are_kept_and_the_rest_is_counted() {
        let mut logs = TaskLogs::default();
        let lines = b"0123456\n".repeat(20_000);
        for (position, piece) in lines.chunks(1_001).enumerate() {
            logs.push(&log(0, 1, position as u64 * 1_001, piece));
        }
        let (dropped, tail) = read(&logs, 0);
        assert_eq!(dropped as usize + tail.len(), lines.len());
        assert!((TASK_BYTES_MAX - 8..=TASK_BYTES_MAX).contains(&tail.len()), "{} bytes", tail.len());
        assert_eq!(tail, lines[dropped as usize..]);
        assert!(tail.starts_with(b"0123456\n"));
    }

    #[test]
    fn a_piece_that_was_lost_takes_what_came_before_with_it() {
        let mut logs = TaskLogs::default();
        logs.push(&log(0, 1, 0, b"one\n"));
        logs.push(&log(0, 1, 104, b"end\n"));
        assert_eq!(read(&logs, 0), (104, b"end\n".to_vec()));
    }

    #[test]
    fn the_oldest_logs_go_first_and_their_bytes_are_counted() {
        let mut logs = TaskLogs::default();
        let text = vec![b'x'; TASK_BYTES_MAX];
        let tasks = (ALL_BYTES_MAX / TASK_BYTES_MAX) as u32;
        (0..tasks + 10).for_each(|index| logs.push(&log(index, 1, 0, &text)));
        assert!(logs.bytes <= ALL_BYTES_MAX);
        assert_eq!(read(&logs, 0), (TASK_BYTES_MAX as u64, Vec::new()));
        assert_eq!(read(&logs, tasks + 9), (0, text));
        logs.push(&log(0, 1, TASK_BYTES_MAX as u64, b"once more\n"));
        assert_eq!(read(&logs, 0), (TASK_BYTES_MAX as u64, b"once more\n".to_vec()));
    }

    #[test]
    fn what_was_forgotten_leaves_nothing_behind() {
        let mut logs = TaskLogs::default();
        for index in 0..1_000 {
            logs.push(&log(index, 1, 0, b"text\n"));
            logs.forget(1, index);
        }
        assert_eq!((logs.bytes, logs.queued), (0, 0));
        assert!(logs.queue.len() <= 64);
        logs.push(&log(7, 1, 0, b"text\n"));
        logs.release(1);
        assert_eq!((logs.bytes, logs.queued, logs.get(1, 7)), (0, 0, None));
    }

    #[test]
    fn logs_live_as_long_as_their_run_or_call() {
        let mut client = open_client();
        client.open_run(1, 2);
        let call = client.open_call().unwrap();
        let text = &b"a line\n"[..];
        let written = Log { worker: 1, stream: 1, text, attempt: 1, ..Log::default() };
        hear(&mut client, Log { run: CALLS, index: call, ..written.clone() });
        hear(&mut client, Log { run: 1, index: 1, ..written.clone() });
        for (run, index) in [(CALLS, call + 1), (1, 2), (2, 0)] {
            hear(&mut client, Log { run, index, ..written.clone() });
            assert_eq!(client.task_log(run, index), None, "there is no such task");
        }
        hear(&mut client, Log { attempt: 0, ..written });
        for (run, index) in [(CALLS, call), (1, 1)] {
            assert_eq!(client.task_log(run, index).unwrap().tail, text);
        }
        client.forget_call(call);
        client.release(1);
        assert_eq!((client.task_log(CALLS, call), client.task_log(1, 1)), (None, None));
        let printed: Vec<u8> = std::iter::from_fn(|| client.poll_log()).flat_map(|lines| lines.text).collect();
        assert_eq!(printed, text.repeat(6), "all are printed");
    }
}
