//! What travels between two ends: a head of fixed size, and perhaps a frame.

/// Bytes of the head: kind and flags, then four little-endian `u64`.
pub(super) const HEAD_BYTES: usize = 2 + 4 * 8;

/// One packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packet<'a> {
    /// The dialer wants a session; the token tells its wish from others.
    Open { token: u64 },
    /// The listener gives the session this number.
    Accept { token: u64, session: u64 },
    /// Something within a session.
    Data(Data<'a>),
    /// The sender knows no such session (any more).
    Over { session: u64 },
}

/// A frame or none, and what the sender has got so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Data<'a> {
    pub(super) session: u64,
    /// Number of the frame, from 1 on; 0 where there is none.
    pub(super) sequence: u64,
    /// Every frame up to this one has been handed out.
    pub(super) taken: u64,
    /// Bit i: frame `taken + 1 + i` is here as well.
    pub(super) here: u64,
    /// Whether the sender wants to hear something at once.
    pub(super) asks: bool,
    pub(super) frame: &'a [u8],
}

const OPEN: u8 = 1;
const ACCEPT: u8 = 2;
const DATA: u8 = 3;
const OVER: u8 = 4;

impl<'a> Packet<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, flags, words, frame): (u8, u8, [u64; 4], &[u8]) = match *self {
            Packet::Open { token } => (OPEN, 0, [0, token, 0, 0], &[]),
            Packet::Accept { token, session } => (ACCEPT, 0, [session, token, 0, 0], &[]),
            Packet::Data(Data { session, sequence, taken, here, asks, frame }) => {
                (DATA, asks.into(), [session, sequence, taken, here], frame)
            }
            Packet::Over { session } => (OVER, 0, [session, 0, 0, 0], &[]),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + frame.len());
        bytes.extend_from_slice(&[kind, flags]);
        words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(frame);
        bytes
    }

    /// Reads a packet; `None` if it is none.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (head, frame) = bytes.split_at_checked(HEAD_BYTES)?;
        let (kind, flags) = (head[0], head[1]);
        let word = |at: usize| u64::from_le_bytes(head[2 + 8 * at..10 + 8 * at].try_into().expect("eight bytes"));
        let is_bare = frame.is_empty();
        match kind {
            OPEN if is_bare => Some(Packet::Open { token: word(1) }),
            ACCEPT if is_bare => Some(Packet::Accept { session: word(0), token: word(1) }),
            OVER if is_bare => Some(Packet::Over { session: word(0) }),
            DATA if is_bare || word(1) > 0 => Some(Packet::Data(Data {
                session: word(0),
                sequence: word(1),
                taken: word(2),
                here: word(3),
                asks: flags & 1 == 1,
                frame,
            })),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let data = Data { session: 7, sequence: 1 << 40, taken: 3, here: 5, asks: true, frame: b"frame" };
        let packets = [
            Packet::Open { token: u64::MAX },
            Packet::Accept { token: 1, session: 2 },
            Packet::Data(data),
            Packet::Data(Data { sequence: 0, frame: b"", asks: false, ..data }),
            Packet::Over { session: 9 },
        ];
        for packet in packets {
            assert_eq!(Packet::decode(&packet.encode()), Some(packet));
        }
    }

    #[test]
    fn other_bytes_are_no_packet() {
        let mut bytes =
            Packet::Data(Data { session: 7, sequence: 0, taken: 3, here: 0, asks: false, frame: b"" }).encode();
        assert_eq!(Packet::decode(&bytes[..HEAD_BYTES - 1]), None);
        bytes.push(1);
        assert_eq!(Packet::decode(&bytes), None, "a frame without a number");
        bytes[0] = 9;
        assert_eq!(Packet::decode(&bytes), None);
        assert_eq!(Packet::decode(b""), None);
    }
}
