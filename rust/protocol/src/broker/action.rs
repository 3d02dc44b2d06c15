//! What the broker asks of its surroundings.

use super::copies::CopyPart;
use super::owed::GatherPart;
use super::spill::SpillPart;

/// A connected peer, numbered by the runtime. Numbers are never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerId(pub u64);

/// Why a client may want to be woken by a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wake {
    /// The run that the frame speaks of.
    pub run: u32,
    /// Whether the frame ends the run.
    pub finished: bool,
    /// Indices of the tasks that the frame settles.
    pub indices: Vec<u32>,
}

/// What a process is told of shared memory, aside from frames because descriptors go with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SegmentNews {
    /// A new segment is its own; it is to be created.
    Granted {
        /// Number of the segment.
        segment: u32,
        /// Its size.
        bytes: u64,
    },
    /// It may read a segment.
    Shared {
        /// Number of the segment.
        segment: u32,
        /// Its size.
        bytes: u64,
    },
    /// There is no room for what it wanted.
    Refused {
        /// Why, for people.
        text: String,
    },
    /// Nothing in the segment is alive: its map can go.
    Dropped {
        /// Number of the segment.
        segment: u32,
    },
}

/// One thing to do, in the order given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send a frame. `wake` is given for results; a client may sleep through any other results than it waits for.
    Send {
        /// Addressee.
        peer: PeerId,
        /// The encoded frame.
        frame: Vec<u8>,
        /// Whom the frame concerns; `None` for frames that anybody wants at once.
        wake: Option<Wake>,
    },
    /// Send lines to print to a client; a client that does not take them may lose the oldest.
    Log {
        /// Addressee.
        peer: PeerId,
        /// The encoded frame.
        frame: Vec<u8>,
    },
    /// Start a worker process.
    Spawn {
        /// Worker number.
        worker: u32,
        /// Incarnation token, which its HELLO must repeat.
        incarnation: u64,
    },
    /// Raise KeyboardInterrupt in the task that the worker runs, if it is this attempt; once, however often it is asked.
    Interrupt {
        /// Worker number.
        worker: u32,
        /// Slot of the task.
        task: u32,
        /// The attempt.
        attempt: u32,
    },
    /// See whether the worker has received anything since the last look, and say so
    /// ([`Broker::handle_sign_of_life`](super::Broker::handle_sign_of_life)): its answer may stand behind a long frame; and
    /// what its process has computed ([`Broker::handle_cpu_time`](super::Broker::handle_cpu_time)). There is a look with each
    /// question.
    Look {
        /// Worker number.
        worker: u32,
    },
    /// Kill a worker process.
    Kill {
        /// Worker number.
        worker: u32,
    },
    /// Have a worker's process write down its Python stacks, and say what came of it
    /// ([`Broker::handle_stacks`](super::Broker::handle_stacks)), be it nothing.
    DumpStacks {
        /// Worker number.
        worker: u32,
    },
    /// Forget a peer: it has ended or left, and what still comes from it is a stranger's.
    Forget {
        /// The peer.
        peer: PeerId,
    },
    /// Tell a worker, or the client (`None`), of a segment of shared memory, before any frame that follows.
    Segment {
        /// Worker number.
        worker: Option<u32>,
        /// What there is to tell.
        news: SegmentNews,
    },
    /// Close the last descriptor of a segment.
    CloseSegment {
        /// Its number.
        segment: u32,
        /// How many bytes to give back to the system first, whoever has a map of them; 0 where a child of a process that
        /// died may still look.
        discard: u64,
    },
    /// Write results to a file, which gets this size first if it is new, and say how that went
    /// ([`Broker::handle_spilled`](super::Broker::handle_spilled)). It takes its time, so not on the thread that asks.
    Spill {
        /// Number of the job.
        job: u64,
        /// Number of the segment that the file is.
        file: u32,
        /// Its size, if it is to be made.
        create: Option<u64>,
        /// What goes where.
        parts: Vec<SpillPart>,
    },
    /// Make a segment of memory of this machine, for copies.
    MakeSegment {
        /// Its number.
        segment: u32,
        /// Its size.
        bytes: u64,
    },
    /// Copy blocks from the memory of another machine, and say how that went
    /// ([`Broker::handle_copied`](super::Broker::handle_copied)). The same job once more: go on with what is missing, from there.
    /// Without parts: give it up, and say so.
    Copy {
        /// Number of the job.
        job: u64,
        /// Where the other machine serves its memory.
        endpoint: String,
        /// Its public key.
        key: String,
        /// The blocks.
        parts: Vec<CopyPart>,
    },
    /// Another machine may fetch blocks here, or may not any more.
    Neighbour {
        /// The public key that it shows.
        key: String,
        /// Whether it has left.
        left: bool,
    },
    /// Put these bytes and those of blocks together, and hand them over
    /// ([`Broker::handle_gathered`](super::Broker::handle_gathered)). It takes its time, so not on the thread that asks.
    Gather {
        /// Number of the job.
        job: u64,
        /// What stands before the blocks.
        head: Vec<u8>,
        /// The blocks.
        parts: Vec<GatherPart>,
    },
    /// Close the connection; later frames of this peer are not to be delivered.
    Cut {
        /// The peer.
        peer: PeerId,
    },
}
