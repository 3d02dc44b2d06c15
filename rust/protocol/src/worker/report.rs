//! The report under construction, and the clock of rows.

use headrace_kernel::seeded;
use headrace_wire::{BlobsBuf, Message, Report, U32s, Verdict};

/// A report whose values reach this size leaves at once: it bounds what both sides buffer, and beyond it a larger frame
/// saves nothing.
const REPORT_BYTES_MAX: usize = 8 << 20;

/// Calls of one function without another's in between.
struct Row {
    function: u32,
    /// Calls that have ended.
    calls: u32,
    since_ns: u64,
    /// Whether a call has begun and not ended.
    calling: bool,
}

/// Columns of a [`Report`].
#[derive(Default)]
pub(super) struct Reporting {
    task: Vec<u32>,
    attempt: Vec<u32>,
    verdict: Vec<u8>,
    values: BlobsBuf,
    timed_function: Vec<u32>,
    timed_calls: Vec<u32>,
    timed_ns: Vec<u32>,
    row: Option<Row>,
}

impl Reporting {
    pub(super) fn push(&mut self, task: u32, attempt: u32, verdict: Verdict, blob: &[u8]) {
        self.task.push(task);
        self.attempt.push(attempt);
        self.verdict.push(verdict as u8);
        self.values.push(blob);
    }

    /// A call starts. The clock is read if it does not continue the row.
    #[inline]
    pub(super) fn begin_call(&mut self, function: u32, mut clock: impl FnMut() -> u64) {
        if let Some(row) = self.row.as_mut().filter(|row| row.function == function) {
            row.calling = true;
            return;
        }
        let now_ns = clock();
        self.end_row(now_ns);
        self.row = Some(Row { function, calls: 0, since_ns: now_ns, calling: true });
    }

    /// The call that began last has ended.
    #[inline]
    pub(super) fn end_call(&mut self) {
        if let Some(row) = &mut self.row {
            row.calls += 1;
            row.calling = false;
        }
    }

    /// Ends the row. A call that still runs goes on in a row of its own: what it has used so far is counted with its
    /// forerunners, which is no more than the moment after which the warden looks.
    pub(super) fn end_row(&mut self, now_ns: u64) {
        let Some(row) = &mut self.row else { return };
        if row.calls > 0 {
            let (function, mut spent_ns) = (row.function, now_ns.saturating_sub(row.since_ns));
            let mut push = |calls, ns| {
                self.timed_function.push(function);
                self.timed_calls.push(calls);
                self.timed_ns.push(ns);
            };
            // What has no place in a row goes ahead in rows without calls.
            while spent_ns > u64::from(u32::MAX) {
                push(0, u32::MAX);
                spent_ns -= u64::from(u32::MAX);
            }
            push(row.calls, spent_ns as u32);
            (row.calls, row.since_ns) = (0, now_ns);
        }
        if !row.calling {
            self.row = None;
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.values.bytes.len() >= REPORT_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.task.is_empty()
    }

    /// The report as a frame; an empty one takes its place.
    pub(super) fn take_frame(&mut self) -> Vec<u8> {
        if seeded!("report cut short") && self.task.len() > 3 {
            self.task.pop();
            self.attempt.pop();
            self.verdict.pop();
            let last = self.values.lens.pop().unwrap_or(0);
            self.values.bytes.truncate(self.values.bytes.len() - last as usize);
        }
        let mut frame = Vec::new();
        Message::Report(Report {
            task: U32s::Words(&self.task),
            attempt: U32s::Words(&self.attempt),
            verdict: &self.verdict,
            values: self.values.as_blobs(),
            timed_function: U32s::Words(&self.timed_function),
            timed_calls: U32s::Words(&self.timed_calls),
            timed_ns: U32s::Words(&self.timed_ns),
        })
        .encode(&mut frame);
        let many_bytes = self.is_full();
        self.task.clear();
        self.attempt.clear();
        self.verdict.clear();
        self.values.clear();
        self.timed_function.clear();
        self.timed_calls.clear();
        self.timed_ns.clear();
        if many_bytes {
            self.values.bytes = Vec::new();
        }
        frame
    }
}
