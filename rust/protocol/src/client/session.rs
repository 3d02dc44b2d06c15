//! Where a session stands: greeting, open, over.

use headrace_wire::{Goodbye, GoodbyeReason, PROTOCOL_VERSION, Welcome};

use super::ProtocolError;

/// Where the session stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Session {
    /// HELLO is on its way; commands may follow it at once.
    Greeting,
    /// The broker has answered.
    Open {
        /// The broker's number for the session.
        number: u64,
        /// The broker's version of headrace.
        version: String,
        /// The broker's feature bits.
        features: u64,
        /// Largest result in bytes that a task may return.
        result_bytes_max: u64,
    },
    /// Nothing will arrive any more.
    Over(Farewell),
}

/// Who ended a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// This client.
    Client,
    /// The broker, by GOODBYE.
    Broker,
    /// Neither: the connection was lost.
    Connection,
}

/// Why a session is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Farewell {
    /// Who ended it.
    pub side: Side,
    /// Why; `None` for a lost connection, or a reason that only a newer broker knows.
    pub reason: Option<GoodbyeReason>,
    /// What happened, for people.
    pub text: String,
}

impl Session {
    /// Whether nothing will arrive any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Session::Over(_))
    }

    /// One that was opened by the HELLO of another.
    pub(super) fn guest(version: &str) -> Self {
        Session::Open { number: 0, version: version.to_owned(), features: 0, result_bytes_max: u64::MAX }
    }

    pub(super) fn open(welcome: &Welcome<'_>, ours: &str) -> Result<Self, ProtocolError> {
        let Welcome { protocol, version, features, session, result_bytes_max } = *welcome;
        if protocol != PROTOCOL_VERSION {
            let (ours, theirs) = (ours.to_owned(), version.to_owned());
            return Err(ProtocolError::VersionMismatch { ours, theirs, protocol });
        }
        Ok(Session::Open { number: session, version: version.to_owned(), features, result_bytes_max })
    }
}

impl Farewell {
    pub(super) fn received(goodbye: &Goodbye<'_>) -> Self {
        let reason = GoodbyeReason::try_from(goodbye.reason).ok();
        Self { side: Side::Broker, reason, text: goodbye.text.to_owned() }
    }

    pub(super) fn sent(reason: GoodbyeReason, text: &str) -> Self {
        Self { side: Side::Client, reason: Some(reason), text: text.to_owned() }
    }

    pub(super) fn lost() -> Self {
        Self { side: Side::Connection, reason: None, text: "the connection to the broker was lost".to_owned() }
    }
}
