//! Columns: many values of one kind, laid end to end as little-endian words.
//!
//! A column is written from words that the sender owns and read from the bytes that arrived, without a copy in either
//! direction; the two faces compare equal when they hold the same values.

/// A column of `u32`.
#[derive(Clone, Copy)]
pub enum U32s<'a> {
    /// Words that the sender owns.
    Words(&'a [u32]),
    /// Little-endian bytes as they arrived; the length is a multiple of four.
    Bytes(&'a [u8]),
}

impl<'a> U32s<'a> {
    /// A column over bytes that arrived, if they are whole words.
    pub fn from_le_bytes(bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(4).then_some(U32s::Bytes(bytes))
    }

    /// The column up to a position, and from there on.
    ///
    /// # Panics
    /// If `position` is outside the column.
    pub fn split_at(self, position: usize) -> (Self, Self) {
        match self {
            U32s::Words(words) => {
                let (head, tail) = words.split_at(position);
                (U32s::Words(head), U32s::Words(tail))
            }
            U32s::Bytes(bytes) => {
                let (head, tail) = bytes.split_at(position * 4);
                (U32s::Bytes(head), U32s::Bytes(tail))
            }
        }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        match self {
            U32s::Words(words) => words.len(),
            U32s::Bytes(bytes) => bytes.len() / 4,
        }
    }

    /// Whether the column holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at `position`.
    ///
    /// # Panics
    /// If `position` is outside the column.
    #[inline]
    pub fn at(&self, position: usize) -> u32 {
        match self {
            U32s::Words(words) => words[position],
            U32s::Bytes(bytes) => {
                let word = &bytes[position * 4..position * 4 + 4];
                u32::from_le_bytes([word[0], word[1], word[2], word[3]])
            }
        }
    }

    /// The values in order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u32> + 'a {
        (0..self.len()).map(move |position| self.at(position))
    }

    /// The sum of the values.
    pub fn sum(self) -> u64 {
        self.fold(0, |sum, value| sum + u64::from(value))
    }

    /// Whether `holds` is true of every value. It is asked of all, without an early end: the loop has no branch then.
    pub fn all(self, holds: impl Fn(u32) -> bool) -> bool {
        self.fold(true, |so_far, value| so_far & holds(value))
    }

    /// Folds the values in order; one test of the column's kind for all of them.
    #[inline]
    pub fn fold<T>(self, start: T, mut step: impl FnMut(T, u32) -> T) -> T {
        match self {
            U32s::Words(words) => words.iter().fold(start, |so_far, &word| step(so_far, word)),
            U32s::Bytes(bytes) => {
                bytes.as_chunks().0.iter().fold(start, |so_far, &word| step(so_far, u32::from_le_bytes(word)))
            }
        }
    }

    /// Appends the values to `out` as little-endian words.
    pub fn append_to(self, out: &mut Vec<u8>) {
        match self {
            U32s::Bytes(bytes) => out.extend_from_slice(bytes),
            U32s::Words(words) => {
                // On a little-endian machine both loops together come down to copies of memory.
                let mut block = [[0; 4]; 64];
                for words in words.chunks(block.len()) {
                    for (bytes, word) in block.iter_mut().zip(words) {
                        *bytes = word.to_le_bytes();
                    }
                    out.extend_from_slice(block[..words.len()].as_flattened());
                }
            }
        }
    }

    /// An owned copy.
    pub fn to_vec(self) -> Vec<u32> {
        match self {
            U32s::Words(words) => words.to_vec(),
            U32s::Bytes(bytes) => {
                bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
            }
        }
    }
}

impl Default for U32s<'_> {
    fn default() -> Self {
        U32s::Words(&[])
    }
}

impl<'a> From<&'a [u32]> for U32s<'a> {
    fn from(words: &'a [u32]) -> Self {
        U32s::Words(words)
    }
}

impl<'a> From<&'a Vec<u32>> for U32s<'a> {
    fn from(words: &'a Vec<u32>) -> Self {
        U32s::Words(words)
    }
}

impl PartialEq for U32s<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for U32s<'_> {}

impl std::fmt::Debug for U32s<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().take(16)).finish()
    }
}

/// A column of byte strings: their lengths, and their bytes end to end.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Blobs<'a> {
    /// The length of each string in bytes.
    pub lens: U32s<'a>,
    /// All strings, end to end; as long as the sum of `lens`.
    pub bytes: &'a [u8],
}

impl<'a> Blobs<'a> {
    /// The number of strings.
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether the column holds no string.
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// The strings up to a position, and from there on.
    ///
    /// # Panics
    /// If `position` is outside the column.
    pub fn split_at(self, position: usize) -> (Self, Self) {
        let (head, tail) = self.lens.split_at(position);
        let (head_bytes, tail_bytes) = self.bytes.split_at(head.iter().map(|len| len as usize).sum());
        (Blobs { lens: head, bytes: head_bytes }, Blobs { lens: tail, bytes: tail_bytes })
    }

    /// The strings in order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes;
        self.lens.iter().map(move |len| {
            let (head, tail) = rest.split_at(len as usize);
            rest = tail;
            head
        })
    }
}

/// A column of byte strings under construction.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct BlobsBuf {
    /// The length of each string in bytes.
    pub lens: Vec<u32>,
    /// All strings, end to end.
    pub bytes: Vec<u8>,
}

impl BlobsBuf {
    /// Appends one string.
    ///
    /// # Panics
    /// If the string is 4 GiB or longer; callers bound results and arguments long before that.
    pub fn push(&mut self, blob: &[u8]) {
        self.lens.push(u32::try_from(blob.len()).expect("a blob is shorter than 4 GiB"));
        self.bytes.extend_from_slice(blob);
    }

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    /// Whether no string was pushed.
    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// Forgets the strings and keeps the memory.
    pub fn clear(&mut self) {
        self.lens.clear();
        self.bytes.clear();
    }

    /// The column to encode.
    pub fn as_blobs(&self) -> Blobs<'_> {
        Blobs { lens: U32s::Words(&self.lens), bytes: &self.bytes }
    }
}
