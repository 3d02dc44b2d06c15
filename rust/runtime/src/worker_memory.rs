//! The worker's loop for shared memory: what any thread of the process may say and ask of it.

use std::sync::Arc;

use headrace_protocol::store::Blocks;

use crate::clock::now_ns;
use crate::segments::Segments;
use crate::transport::Link;
use crate::worker_loop::WorkerLoop;

impl<L: Link + 'static> WorkerLoop<L> {
    /// The segments of shared memory that are mapped here.
    #[must_use]
    pub fn segments(&self) -> &Arc<Segments> {
        &self.shared.segments
    }

    /// Blocks of shared memory as this process sees them.
    pub fn with_blocks<T>(&self, look: impl FnOnce(&mut Blocks) -> T) -> T {
        self.shared.desk().worker.with_blocks(look)
    }

    /// Asks for a segment with room for a block of so many bytes; the answer comes to [`WorkerLoop::segments`].
    pub fn want(&self, bytes: u64) {
        self.post(|worker| worker.want(bytes, now_ns()));
    }

    /// Garbage was looked for with this urgency, after [`Next::Collect`](crate::worker_loop::Next::Collect).
    pub fn note_collected(&self, urgency: u8) {
        self.post(|worker| worker.note_collected(urgency));
    }

    /// Says that a segment of others has not come.
    pub fn lack(&self, segment: u32) {
        self.post(|worker| worker.lack(segment));
    }

    /// Takes back the last wish, for so many bytes. The answer comes all the same.
    pub fn withdraw(&self, bytes: u64) {
        self.post(|worker| worker.withdraw(bytes));
    }

    /// Gives a segment back that is of no use here.
    pub fn return_segment(&self, segment: u32) {
        self.post(|worker| worker.return_segment(segment));
    }
}
