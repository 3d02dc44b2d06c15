//! What the exchanges of two machines say to each other: requests and replies, each one frame.
//!
//! Both begin with the same 28 bytes, little-endian: the job (`u64`) and the number of the chunk (`u32`), which say nothing to
//! the server, segment (`u32`), offset (`u64`) and length (`u32`). A reply goes on with one byte that says how it is; the bytes are
//! its second part. Every part travels with a code (Poly1305, of CURVE) that sees each changed bit, so there is no other checksum.

/// Bytes of a request.
pub(super) const REQUEST_BYTES: usize = 28;

/// The most that a request may ask for.
pub(super) const CHUNK_BYTES: u32 = 1 << 20;

/// Here are the bytes; or there is no such segment, or no more.
pub(super) const HERE: u8 = 0;
pub(super) const GONE: u8 = 1;

/// A few bytes of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Request {
    pub(super) job: u64,
    pub(super) chunk: u32,
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) len: u32,
}

impl Request {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.job.to_le_bytes());
        out.extend_from_slice(&self.chunk.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
    }

    /// The request, and what stands behind it.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (job, rest) = bytes.split_first_chunk()?;
        let (chunk, rest) = rest.split_first_chunk()?;
        let (segment, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let request = Request {
            job: u64::from_le_bytes(*job),
            chunk: u32::from_le_bytes(*chunk),
            segment: u32::from_le_bytes(*segment),
            offset: u64::from_le_bytes(*offset),
            len: u32::from_le_bytes(*len),
        };
        Some((request, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = Request { job: 1 << 40, chunk: 7, segment: 70_000, offset: 1 << 33, len: CHUNK_BYTES };
        let mut frame = Vec::new();
        request.write(&mut frame);
        assert_eq!(frame.len(), REQUEST_BYTES);
        assert_eq!(Request::read(&[&frame[..], b"rest"].concat()), Some((request, &b"rest"[..])));
        assert_eq!(Request::read(&frame[1..]), None);
    }
}
