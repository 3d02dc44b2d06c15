//! Bytes that the broker holds without having copied them: a slice of the frame that brought them.

use std::sync::Arc;

/// A frame as it arrived, owned by whoever still needs a part of it.
pub type Frame = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of a frame. Cloning shares the frame.
#[derive(Clone)]
pub struct Payload {
    frame: Frame,
    start: usize,
    len: usize,
}

impl Payload {
    /// The part of `frame` that `part` borrows.
    ///
    /// # Panics
    /// If `part` does not lie within `frame`.
    pub fn within(frame: &Frame, part: &[u8]) -> Self {
        let whole: &[u8] = (**frame).as_ref();
        if part.is_empty() {
            return Payload { frame: frame.clone(), start: 0, len: 0 };
        }
        let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        assert!(start <= whole.len() && part.len() <= whole.len() - start, "a payload lies within its frame");
        Payload { frame: frame.clone(), start, len: part.len() }
    }

    /// Bytes of its own.
    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Payload { frame: std::sync::Arc::new(bytes), start: 0, len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &(*self.frame).as_ref()[self.start..self.start + self.len]
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is a value that cites blocks of shared memory.
    #[inline]
    pub(crate) fn cites(&self) -> bool {
        headrace_wire::cites(self.bytes())
    }

    /// Whether it is the very same part of the same frame.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.bytes(), other.bytes())
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Payload {}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payload({} bytes)", self.len)
    }
}
