//! Enums that travel as one byte.

use crate::message::{CancelReason, EstateKind, EventKind, GoodbyeReason, OrderKind, Outcome, Role, Verdict};

/// A byte that stands for nothing in the enum that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{number} is not the number of a {kind}")]
pub struct UnknownNumber {
    /// Name of the enum.
    pub kind: &'static str,
    /// The byte.
    pub number: u8,
}

macro_rules! numbered {
    ($name:ident { $($variant:ident),* }) => {
        impl TryFrom<u8> for $name {
            type Error = UnknownNumber;

            fn try_from(number: u8) -> Result<Self, UnknownNumber> {
                match number {
                    $(number if number == Self::$variant as u8 => Ok(Self::$variant),)*
                    number => Err(UnknownNumber { kind: stringify!($name), number }),
                }
            }
        }
    };
}

numbered!(Role { Client, Worker, Observer, Agent });
numbered!(OrderKind { Start, Interrupt, Kill, Look, Stacks });
numbered!(EventKind {
    Exited,
    Killed,
    OutOfMemory,
    Ended,
    NotStarted,
    Heard,
    Wrote,
    Stacks,
    Named,
    Stores,
    NoSegment,
    Copied,
    Leaving,
    Has
});
numbered!(EstateKind { Granted, Shared, Refused, Dropped, Made, Closed });
numbered!(Outcome { Done, Failed, Skipped, Cancelled, Died, Refused, TimedOut });
numbered!(CancelReason { User, ParentCancelled, ClientClosed, BrokerShutdown, Deadline, RunFailed, SubmitterEnded });
numbered!(Verdict { Done, DoneHeld, Failed, Returned, Cancelled, Value, Lost, FailedForGood, TimedOut, Became });
numbered!(GoodbyeReason { Closed, VersionMismatch, ProtocolError, Shutdown, WorkersFailed });
