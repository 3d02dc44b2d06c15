//! What can be wrong with a frame.

/// Why bytes are not a message. Nothing of a refused frame may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A well-formed message of a type that this version does not know: count it and go on.
    #[error("message type {0} is not known here")]
    UnknownType(u64),
    /// The frame ends inside a value.
    #[error("the frame ends inside a value")]
    Truncated,
    /// Bytes follow the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// The frame is not an array that begins with a message type.
    #[error("the frame is not an array that begins with a message type")]
    NotAMessage,
    /// A field is not there.
    #[error("{message}.{field} is missing")]
    Missing {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
    },
    /// A field is there, but is not what it should be.
    #[error("{message}.{field} is not {expected}")]
    Malformed {
        /// Name of the message.
        message: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A field that this version does not know holds arrays within arrays beyond the limit, or a reserved byte.
    #[error("an unknown field cannot be skipped: {0}")]
    Unskippable(&'static str),
    /// Each field is well-formed, but they contradict each other.
    #[error("{message} contradicts itself: {rule} does not hold")]
    Inconsistent {
        /// Name of the message.
        message: &'static str,
        /// The rule that was broken.
        rule: &'static str,
    },
}
