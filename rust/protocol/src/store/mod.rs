//! Which blocks of shared memory this process owns or sees, and when their bytes may be used again.
//!
//! A *segment* is shared memory that one process owns; a *block* is an extent of it. Values cite blocks, and the broker
//! knows the citations that live results consist of. **S1**: no byte of a block is used again while any process can see
//! the block or a citation of it is alive.
//!
//! What keeps S1, given that all frames between a process and the broker arrive in the order in which they were sent:
//!
//! - A process counts its *references* to a block: values that it holds and views that it handed out. It takes one for each
//!   citation in a frame before it handles the next frame, and keeps one until the frame with its own citation has its
//!   place among the frames that leave.
//! - A **foreign** block: the process answers each RELEASE with one RELEASED, as soon as it has no reference. Its citations
//!   left before that answer, so that the broker knows them by then. The broker asks a holder once and waits for the
//!   answer; if it has sent another citation since it asked, the answer does not speak of that one, and it must ask again.
//! - An **own** block: the process counts the citations that leave. When no result cites the block and all holders have
//!   answered, the broker sends RELEASE with the number of citations that it has received from the owner since its last
//!   one, whatever became of them, and forgets the block. The owner takes that number off its count. Nothing left means
//!   that no citation is on its way, and without references the bytes are free; otherwise the broker is about to learn of
//!   the block anew.
//! - A **fork** gives references to a process that answers for none: what had one then is never answered nor freed.

mod arena;
mod blocks;
mod cited;
#[cfg(test)]
mod tests;

pub(crate) use self::arena::Arena;
pub use self::blocks::{Allocated, BlockId, Blocks, BlocksStatistics, Unused};
pub(crate) use self::cited::return_of;
