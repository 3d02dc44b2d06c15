//! Encoded results by slot.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::store::Blocks;

/// The longest value that lies in the table itself. Longer than any number's encoding; with it a [`Value`] is as large
/// as without.
const INLINE_BYTES_MAX: usize = 22;

/// An encoded result, cheap to clone.
#[derive(Clone, Debug)]
pub enum Value {
    /// A few bytes, in place.
    Inline {
        /// How many of `bytes` count.
        len: u8,
        /// The value, then zeros.
        bytes: [u8; INLINE_BYTES_MAX],
    },
    /// More bytes, shared.
    Shared(Arc<[u8]>),
}

impl Value {
    /// The encoded value.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Value::Shared(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Value {
    #[inline]
    fn from(value: &[u8]) -> Self {
        match value.len() {
            len @ 0..=INLINE_BYTES_MAX => {
                let mut bytes = [0; INLINE_BYTES_MAX];
                bytes[..len].copy_from_slice(value);
                Value::Inline { len: len as u8, bytes }
            }
            _ => Value::Shared(value.into()),
        }
    }
}

/// The results that lie here: those of tasks that ran here, and those that came with a lease.
#[derive(Default)]
pub(super) struct Values {
    by_task: FxHashMap<u32, (u32, Value)>,
}

impl Values {
    pub(super) fn insert(&mut self, task: u32, attempt: u32, value: &[u8], blocks: &mut Blocks) {
        blocks.hold_cited(value);
        if let Some((_, old)) = self.by_task.insert(task, (attempt, value.into())) {
            blocks.unhold_cited(old.bytes());
        }
    }

    pub(super) fn remove(&mut self, task: u32, blocks: &mut Blocks) {
        if let Some((_, old)) = self.by_task.remove(&task) {
            blocks.unhold_cited(old.bytes());
        }
    }

    pub(super) fn get(&self, task: u32) -> Option<(u32, &Value)> {
        self.by_task.get(&task).map(|(attempt, value)| (*attempt, value))
    }

    /// Puts the values of `tasks` into `inputs`, in order; false if one is not here.
    pub(super) fn collect(&self, tasks: &[u32], inputs: &mut Vec<Value>) -> bool {
        inputs.clear();
        for task in tasks {
            match self.by_task.get(task) {
                Some((_, value)) => inputs.push(value.clone()),
                None => return false,
            }
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.by_task.len()
    }
}
