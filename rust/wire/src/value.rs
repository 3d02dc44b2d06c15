//! The head of an encoded value that cites blocks of shared memory: what everybody reads, whatever the value is.
//!
//! Such a value begins with [`CITING`], a `u32` with the number of citations, and for each the segment (`u32`), the offset of
//! the block within it and the block's length in bytes (two `u64`); all little-endian. What follows is the codec's business,
//! with one exception: the byte [`WRAPPED`] and a `u64` say that the first so many bytes of the only block are an encoded value
//! that cites nothing. The broker writes that when it moves a value out of its own memory.

/// First byte of a value that cites blocks; no other value begins with it.
pub const CITING: u8 = 17;

/// What stands behind the citation of a block that has a whole encoded value in it.
pub const WRAPPED: u8 = 3;

/// First byte of a value that brings the blocks which it cites: the length of its head (`u32`), the head, which is a value that
/// cites, and the bytes of each block. Readers get it that share no memory.
pub const CARRIED: u8 = 20;

/// Bytes of one citation.
const CITATION_BYTES: usize = 20;

/// A block as a value cites it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Citation {
    /// Segment.
    pub segment: u32,
    /// Offset within the segment; a multiple of [`crate::BLOCK_ALIGN`].
    pub offset: u64,
    /// Length of the whole block.
    pub bytes: u64,
}

/// Whether a value cites blocks.
#[inline]
pub fn cites(value: &[u8]) -> bool {
    value.first() == Some(&CITING)
}

/// The blocks that a value cites; none if it is of another kind, or damaged.
#[inline]
pub fn citations(value: &[u8]) -> impl ExactSizeIterator<Item = Citation> + '_ {
    let rows = if cites(value) { rows(value).unwrap_or_default() } else { &[] };
    rows.iter().map(|row| Citation {
        segment: u32::from_le_bytes([row[0], row[1], row[2], row[3]]),
        offset: word(&row[4..12]),
        bytes: word(&row[12..20]),
    })
}

/// What stands behind the citations of a value; the whole value if it has none.
pub fn behind_citations(value: &[u8]) -> &[u8] {
    match rows(value) {
        Some(rows) if cites(value) => &value[5 + rows.as_flattened().len()..],
        _ => value,
    }
}

/// Appends the head of a value that cites these blocks.
pub fn write_citations(citations: &[Citation], out: &mut Vec<u8>) {
    out.push(CITING);
    out.extend_from_slice(&(citations.len() as u32).to_le_bytes());
    for citation in citations {
        out.extend_from_slice(&citation.segment.to_le_bytes());
        out.extend_from_slice(&citation.offset.to_le_bytes());
        out.extend_from_slice(&citation.bytes.to_le_bytes());
    }
}

/// Appends what stands before the blocks of a value that brings them.
pub fn write_carried_head(value: &[u8], out: &mut Vec<u8>) {
    out.push(CARRIED);
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

/// The value that cites, and the bytes of its blocks, if that is what a value is.
pub fn carried(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = value.strip_prefix(&[CARRIED])?.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

/// Appends a value whose own encoding, of `len` bytes, lies in a block.
pub fn write_wrapped(block: Citation, len: u64, out: &mut Vec<u8>) {
    write_citations(&[block], out);
    out.push(WRAPPED);
    out.extend_from_slice(&len.to_le_bytes());
}

/// The value with other blocks in the place of those that it cites, one for one; `None` where `find` has none for any of them.
pub fn cite_elsewhere(value: &[u8], mut find: impl FnMut(Citation) -> Option<Citation>) -> Option<Vec<u8>> {
    let mut moved = false;
    let cited: Vec<Citation> = citations(value)
        .map(|cited| {
            let found = find(cited);
            moved |= found.is_some();
            found.unwrap_or(cited)
        })
        .collect();
    moved.then(|| {
        let mut out = Vec::with_capacity(value.len());
        write_citations(&cited, &mut out);
        out.extend_from_slice(behind_citations(value));
        out
    })
}

fn rows(value: &[u8]) -> Option<&[[u8; CITATION_BYTES]]> {
    let count = u32::from_le_bytes(value.get(1..5)?.try_into().ok()?) as usize;
    value[5..].as_chunks().0.get(..count)
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let cited =
            [Citation { segment: 3, offset: 64, bytes: 1 << 40 }, Citation { segment: 4, offset: 0, bytes: 100 }];
        let mut value = Vec::new();
        write_citations(&cited, &mut value);
        value.extend_from_slice(b"rest");
        assert!(citations(&value).eq(cited));
        assert_eq!(behind_citations(&value), b"rest");
    }

    #[test]
    fn a_value_is_wrapped_and_moved() {
        let memory = Citation { segment: 3, offset: 64, bytes: 128 };
        let file = Citation { segment: 1 << 31, offset: 0, bytes: 128 };
        let mut value = Vec::new();
        write_wrapped(memory, 100, &mut value);
        assert_eq!(behind_citations(&value), [&[WRAPPED][..], &100_u64.to_le_bytes()].concat());
        let moved = cite_elsewhere(&value, |cited| (cited == memory).then_some(file)).unwrap();
        assert!(citations(&moved).eq([file]));
        assert_eq!(behind_citations(&moved), behind_citations(&value));
        assert_eq!(cite_elsewhere(&value, |_| None), None);
        assert_eq!(cite_elsewhere(b"\x03", |_| Some(file)), None);
    }

    #[test]
    fn other_values_and_damaged_ones_cite_nothing() {
        for value in [&b""[..], &[0], &[CITING], &[CITING, 1, 0, 0, 0, 7], &[CITING, 255, 255, 255, 255, 0, 0]] {
            assert_eq!(citations(value).len(), 0);
            assert_eq!(behind_citations(value), value);
        }
    }
}
