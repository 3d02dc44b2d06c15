//! The clock. Time enters the session machines as a number; this is where the number comes from.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock: never set back, the same in all processes of the machine, still while it sleeps.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
