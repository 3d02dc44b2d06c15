//! Bytes that the broker holds: a few in place, more as a slice of the frame that brought them.

use std::sync::Arc;

/// A frame as it arrived, owned by whoever still needs a part of it.
pub type Frame = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A part of a frame, looked at.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    frame: &'a Frame,
    bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// `bytes` lie within `frame`.
    #[inline]
    pub(crate) fn of(frame: &'a Frame, bytes: &'a [u8]) -> Self {
        Part { frame, bytes }
    }

    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is a value that cites blocks of shared memory.
    #[inline]
    pub(crate) fn cites(self) -> bool {
        headrace_wire::cites(self.bytes)
    }
}

/// A part of a frame, held. Cloning shares the frame.
#[derive(Clone)]
pub struct Payload(Place);

/// The longest part that is held in place. A number's encoding is shorter. Two whole vector registers: a copy of 30 bytes is
/// made of parts that overlap, and the next one would wait for both.
const HERE_BYTES_MAX: usize = 32;
/// What a payload may keep alive beyond four times its own bytes: the fields of a frame with nothing else in it.
const SPARE_BYTES_MAX: usize = 256;

#[derive(Clone)]
enum Place {
    Here { len: u8, bytes: [u8; HERE_BYTES_MAX] },
    Shared { frame: Frame, start: usize, len: usize },
}

impl Payload {
    /// The part of `frame` that `part` borrows. It keeps the whole frame alive.
    ///
    /// # Panics
    /// If `part` does not lie within `frame`.
    pub fn within(frame: &Frame, part: &[u8]) -> Self {
        let start = if part.is_empty() { 0 } else { start_in((**frame).as_ref(), part) };
        Payload(Place::Shared { frame: frame.clone(), start, len: part.len() })
    }

    /// A part to be held for long: in place if it is short, and in a frame of its own if it would keep much more alive than it
    /// needs. Else one small result would keep large ones of the same report in memory that have moved to disk.
    #[inline]
    pub(crate) fn keeping(part: Part<'_>) -> Self {
        let Part { frame, bytes } = part;
        let whole: &[u8] = (**frame).as_ref();
        if bytes.len() <= HERE_BYTES_MAX {
            return Payload(Place::Here { len: bytes.len() as u8, bytes: first_bytes(whole, bytes) });
        }
        match whole.len() > 4 * bytes.len() + SPARE_BYTES_MAX {
            true => Payload::owned(bytes.to_vec()),
            false => Payload::within(frame, bytes),
        }
    }

    /// Bytes of its own.
    pub(crate) fn owned(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        Payload(Place::Shared { frame: Arc::new(bytes), start: 0, len })
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match &self.0 {
            Place::Here { len, bytes } => &bytes[..usize::from(*len)],
            Place::Shared { frame, start, len } => &(**frame).as_ref()[*start..start + len],
        }
    }

    /// The number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self.0 {
            Place::Here { len, .. } => len.into(),
            Place::Shared { len, .. } => len,
        }
    }

    /// Whether it is a value that cites blocks of shared memory.
    #[inline]
    pub(crate) fn cites(&self) -> bool {
        headrace_wire::cites(self.bytes())
    }

    /// Whether it is the very same part of the same frame; never of one that is held in place.
    pub(crate) fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.bytes(), other.bytes())
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// Where `part`, a slice of `whole`, begins in it.
fn start_in(whole: &[u8], part: &[u8]) -> usize {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    assert!(start <= whole.len() && part.len() <= whole.len() - start, "a payload lies within its frame");
    start
}

/// A short part of `whole`, and whatever follows. So many bytes at once are copied faster than just the few.
#[inline]
fn first_bytes(whole: &[u8], part: &[u8]) -> [u8; HERE_BYTES_MAX] {
    let start = part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr());
    match whole.get(start..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => *bytes,
        None => {
            let mut bytes = [0; HERE_BYTES_MAX];
            bytes[..part.len()].copy_from_slice(part);
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a part of so many bytes, to be held, keeps its frame alive.
    fn part_keeps(frame_bytes: usize, len: usize) -> bool {
        let bytes: Vec<u8> = (0..frame_bytes).map(|at| at as u8).collect();
        let frame: Frame = Arc::new(bytes.clone());
        for start in [0, (frame_bytes - len) / 2, frame_bytes - len] {
            let part = Payload::keeping(Part::of(&frame, &(*frame).as_ref()[start..start + len]));
            assert_eq!((part.bytes(), part.len()), (&bytes[start..start + len], len));
        }
        let part = Payload::keeping(Part::of(&frame, &(*frame).as_ref()[..len]));
        let keeps = Arc::strong_count(&frame) > 1;
        drop(part);
        keeps
    }

    #[test]
    fn a_part_keeps_a_frame_that_it_mostly_fills_and_no_other() {
        assert!(part_keeps(1_000, 1_000) && part_keeps(1_000, 200) && part_keeps(300, 33));
        assert!(!part_keeps(1_000, 100) && !part_keeps(1 << 20, 60_000));
        assert!(!part_keeps(32, 32) && !part_keeps(1_000, 1) && !part_keeps(1_000, 0), "a few bytes are held in place");
    }

    #[test]
    fn what_is_held_in_place_takes_little_room() {
        assert_eq!(size_of::<Option<Payload>>(), 40);
    }
}
