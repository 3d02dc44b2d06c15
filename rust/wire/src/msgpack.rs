//! The part of msgpack that frames use: integers, booleans, strings, binaries and one array; everything else can only be
//! skipped. Integers and lengths are written in their shortest form and read in any.

use rmp::Marker;

use crate::error::DecodeError;

/// Arrays and maps within each other in a field that is skipped. Frames are flat; the limit leaves room for a later
/// version to nest a little, and bounds the skipping reader's memory.
const NESTING_MAX: usize = 16;

/// Why a value could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The bytes end inside it.
    Truncated,
    /// It is something else than this.
    Expected(&'static str),
}

/// Reads values one after the other and never past the end.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn array_len(&mut self) -> Result<u32, Fault> {
        match self.marker()? {
            Marker::FixArray(len) => Ok(len.into()),
            Marker::Array16 => Ok(u16::from_be_bytes(self.word()?).into()),
            Marker::Array32 => Ok(u32::from_be_bytes(self.word()?)),
            _ => Err(Fault::Expected("an array")),
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u64, Fault> {
        const EXPECTED: Fault = Fault::Expected("an integer of at least 0");
        u64::try_from(self.integer(EXPECTED)?).map_err(|_| EXPECTED)
    }

    pub(crate) fn sint(&mut self) -> Result<i64, Fault> {
        const EXPECTED: Fault = Fault::Expected("an integer");
        i64::try_from(self.integer(EXPECTED)?).map_err(|_| EXPECTED)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.marker()? {
            Marker::True => Ok(true),
            Marker::False => Ok(false),
            _ => Err(Fault::Expected("a boolean")),
        }
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, Fault> {
        let len = match self.marker()? {
            Marker::FixStr(len) => len.into(),
            Marker::Str8 => u8::from_be_bytes(self.word()?).into(),
            Marker::Str16 => u16::from_be_bytes(self.word()?).into(),
            Marker::Str32 => u32::from_be_bytes(self.word()?),
            _ => return Err(Fault::Expected("a string")),
        };
        std::str::from_utf8(self.take(u64::from(len))?).map_err(|_| Fault::Expected("UTF-8"))
    }

    pub(crate) fn bin(&mut self) -> Result<&'a [u8], Fault> {
        let len = match self.marker()? {
            Marker::Bin8 => u8::from_be_bytes(self.word()?).into(),
            Marker::Bin16 => u16::from_be_bytes(self.word()?).into(),
            Marker::Bin32 => u32::from_be_bytes(self.word()?),
            _ => return Err(Fault::Expected("a binary")),
        };
        self.take(u64::from(len))
    }

    /// Passes over `count` values of any kind, in time linear in their bytes and with a fixed amount of memory.
    pub(crate) fn skip(&mut self, count: u32) -> Result<(), DecodeError> {
        // Values left to skip on each open level, outermost first.
        let mut left = [0u64; NESTING_MAX + 1];
        left[0] = count.into();
        let mut level = 0;
        loop {
            if left[level] == 0 {
                if level == 0 {
                    return Ok(());
                }
                level -= 1;
                continue;
            }
            left[level] -= 1;
            let inside = self.skip_head()?;
            if inside > 0 {
                level += 1;
                *left.get_mut(level).ok_or(DecodeError::Unskippable("it is nested too deeply"))? = inside;
            }
        }
    }

    /// Passes over one value without what it contains, and returns how many values that is.
    fn skip_head(&mut self) -> Result<u64, DecodeError> {
        let bytes = match self.marker()? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::FixStr(len) => len.into(),
            Marker::Str8 | Marker::Bin8 => u8::from_be_bytes(self.word()?).into(),
            Marker::Str16 | Marker::Bin16 => u16::from_be_bytes(self.word()?).into(),
            Marker::Str32 | Marker::Bin32 => u32::from_be_bytes(self.word()?).into(),
            Marker::Ext8 => u64::from(u8::from_be_bytes(self.word()?)) + 1,
            Marker::Ext16 => u64::from(u16::from_be_bytes(self.word()?)) + 1,
            Marker::Ext32 => u64::from(u32::from_be_bytes(self.word()?)) + 1,
            Marker::FixArray(len) => return Ok(len.into()),
            Marker::Array16 => return Ok(u16::from_be_bytes(self.word()?).into()),
            Marker::Array32 => return Ok(u32::from_be_bytes(self.word()?).into()),
            Marker::FixMap(len) => return Ok(2 * u64::from(len)),
            Marker::Map16 => return Ok(2 * u64::from(u16::from_be_bytes(self.word()?))),
            Marker::Map32 => return Ok(2 * u64::from(u32::from_be_bytes(self.word()?))),
            Marker::Reserved => return Err(DecodeError::Unskippable("it holds a byte that msgpack reserves")),
        };
        self.take(bytes)?;
        Ok(0)
    }

    fn integer(&mut self, expected: Fault) -> Result<i128, Fault> {
        Ok(match self.marker()? {
            Marker::FixPos(value) => value.into(),
            Marker::FixNeg(value) => value.into(),
            Marker::U8 => u8::from_be_bytes(self.word()?).into(),
            Marker::U16 => u16::from_be_bytes(self.word()?).into(),
            Marker::U32 => u32::from_be_bytes(self.word()?).into(),
            Marker::U64 => u64::from_be_bytes(self.word()?).into(),
            Marker::I8 => i8::from_be_bytes(self.word()?).into(),
            Marker::I16 => i16::from_be_bytes(self.word()?).into(),
            Marker::I32 => i32::from_be_bytes(self.word()?).into(),
            Marker::I64 => i64::from_be_bytes(self.word()?).into(),
            _ => return Err(expected),
        })
    }

    fn marker(&mut self) -> Result<Marker, Fault> {
        self.word::<1>().map(|[byte]| Marker::from_u8(byte))
    }

    fn word<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (word, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(*word)
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        let len = usize::try_from(len).map_err(|_| Fault::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl From<Fault> for DecodeError {
    /// For places where nothing in particular is expected.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Truncated => DecodeError::Truncated,
            Fault::Expected(_) => DecodeError::NotAMessage,
        }
    }
}

pub(crate) fn write_array_len(len: u32, out: &mut Vec<u8>) {
    match len {
        0..16 => out.push(Marker::FixArray(len as u8).to_u8()),
        16..0x1_0000 => tagged(Marker::Array16, (len as u16).to_be_bytes(), out),
        _ => tagged(Marker::Array32, len.to_be_bytes(), out),
    }
}

pub(crate) fn write_uint(value: u64, out: &mut Vec<u8>) {
    match value {
        0..0x80 => out.push(value as u8),
        0x80..0x100 => tagged(Marker::U8, [value as u8], out),
        0x100..0x1_0000 => tagged(Marker::U16, (value as u16).to_be_bytes(), out),
        0x1_0000..0x1_0000_0000 => tagged(Marker::U32, (value as u32).to_be_bytes(), out),
        _ => tagged(Marker::U64, value.to_be_bytes(), out),
    }
}

pub(crate) fn write_sint(value: i64, out: &mut Vec<u8>) {
    match value {
        0.. => write_uint(value as u64, out),
        -32..0 => out.push(value as u8),
        -0x80..-32 => tagged(Marker::I8, (value as i8).to_be_bytes(), out),
        -0x8000..-0x80 => tagged(Marker::I16, (value as i16).to_be_bytes(), out),
        -0x8000_0000..-0x8000 => tagged(Marker::I32, (value as i32).to_be_bytes(), out),
        _ => tagged(Marker::I64, value.to_be_bytes(), out),
    }
}

pub(crate) fn write_boolean(value: bool, out: &mut Vec<u8>) {
    out.push(if value { Marker::True } else { Marker::False }.to_u8());
}

pub(crate) fn write_str(text: &str, out: &mut Vec<u8>) {
    match len_u32(text.len()) {
        len @ 0..32 => out.push(Marker::FixStr(len as u8).to_u8()),
        len @ 32..0x100 => tagged(Marker::Str8, [len as u8], out),
        len @ 0x100..0x1_0000 => tagged(Marker::Str16, (len as u16).to_be_bytes(), out),
        len => tagged(Marker::Str32, len.to_be_bytes(), out),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Writes the head of a binary; its bytes must follow.
pub(crate) fn write_bin_len(len: usize, out: &mut Vec<u8>) {
    match len_u32(len) {
        len @ 0..0x100 => tagged(Marker::Bin8, [len as u8], out),
        len @ 0x100..0x1_0000 => tagged(Marker::Bin16, (len as u16).to_be_bytes(), out),
        len => tagged(Marker::Bin32, len.to_be_bytes(), out),
    }
}

fn tagged<const N: usize>(marker: Marker, word: [u8; N], out: &mut Vec<u8>) {
    out.push(marker.to_u8());
    out.extend_from_slice(&word);
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("a field is shorter than 4 GiB; senders bound columns long before that")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_written_shortest_and_read_back() {
        let mut edges = vec![0_i64, i64::MIN, i64::MAX];
        for bits in [5, 7, 8, 15, 16, 31, 32, 63] {
            let power = 1_i128 << bits;
            edges.extend([-power - 1, -power, -power + 1, power - 1, power, power + 1].map(|edge| edge as i64));
        }
        for value in edges {
            let mut out = Vec::new();
            write_sint(value, &mut out);
            assert_eq!(Reader::new(&out).sint(), Ok(value));
            let bits = 64 - if value < 0 { !value } else { value }.leading_zeros();
            let shortest = match (value, bits) {
                (0.., ..=7) | (..0, ..=5) => 1,
                (0.., ..=8) | (..0, ..=7) => 2,
                (0.., ..=16) | (..0, ..=15) => 3,
                (0.., ..=32) | (..0, ..=31) => 5,
                _ => 9,
            };
            assert_eq!(out.len(), shortest, "{value}");
        }
        let mut out = Vec::new();
        write_uint(u64::MAX, &mut out);
        assert_eq!(Reader::new(&out).uint(), Ok(u64::MAX));
        assert_eq!(Reader::new(&out).sint(), Err(Fault::Expected("an integer")));
    }

    #[test]
    fn lengths_are_written_shortest_and_read_back() {
        for (len, heads) in [(0, (1, 2)), (31, (1, 2)), (32, (2, 2)), (255, (2, 2)), (256, (3, 3)), (65_536, (5, 5))] {
            let text = "x".repeat(len);
            let mut out = Vec::new();
            write_str(&text, &mut out);
            assert_eq!(out.len() - len, heads.0);
            assert_eq!(Reader::new(&out).str(), Ok(text.as_str()));
            out.clear();
            write_bin_len(len, &mut out);
            assert_eq!(out.len(), heads.1);
            out.extend_from_slice(text.as_bytes());
            assert_eq!(Reader::new(&out).bin(), Ok(text.as_bytes()));
        }
        for len in [0, 15, 16, 65_535, 65_536, u32::MAX] {
            let mut out = Vec::new();
            write_array_len(len, &mut out);
            assert_eq!(Reader::new(&out).array_len(), Ok(len));
        }
    }

    #[test]
    fn every_kind_of_value_is_skipped_to_its_end() {
        let values: [&[u8]; 14] = [
            &[0x00],
            &[0xe0],
            &[0xc0],
            &[0xca, 1, 2, 3, 4],
            &[0xc5, 0, 2, 1, 2],
            &[0xd4, 1, 2],
            &[0xd8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17],
            &[0xc7, 1, 9, 8],
            &[0xc8, 0, 1, 9, 8],
            &[0xdc, 0, 2, 0x90, 0x91, 0xc0],
            &[0xde, 0, 1, 0xa1, b'k', 0x80],
            &[0xda, 0, 1, b'a'],
            &[0x82, 1, 2, 3, 0x81, 4, 5],
            &[0xd2, 1, 2, 3, 4],
        ];
        for value in values {
            let bytes = [value, &[0xa1, b'!']].concat();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.skip(1), Ok(()), "{value:02x?}");
            assert_eq!(reader.str(), Ok("!"), "{value:02x?}");
        }
    }

    #[test]
    fn nesting_is_skipped_up_to_its_limit() {
        let nested = |levels: usize| [&[0x91].repeat(levels)[..], &[0xc0]].concat();
        assert_eq!(Reader::new(&nested(NESTING_MAX)).skip(1), Ok(()));
        assert!(matches!(Reader::new(&nested(NESTING_MAX + 1)).skip(1), Err(DecodeError::Unskippable(_))));
    }
}
