//! The door of a broker that listens to the network. It is shut for a moment when others have taken most of the descriptors.
//!
//! Whoever reaches the port can open connections, which are cut after five seconds if they do not shake hands. The broker needs
//! descriptors meanwhile: to start workers, and for local peers, for whom libzmq ends the process where there is none. So some
//! are kept: with fewer left, nobody new comes in from the network before there are more. Who is in stays in.

use std::io::{self, Write};
use std::os::fd::RawFd;

use headrace_sys::room;
use headrace_sys::zmq::{Arrivals, Context, Router, ZmqError};

/// Descriptors that are kept: a quarter of those that there may be, but at most so many.
const KEPT_MAX: usize = 4_096;
/// Time between two looks while somebody comes, or the door is shut.
const LOOK_NS: u64 = 1_000_000_000;
/// So many that have gone again leave memory behind that is worth being given back.
const CROWD: usize = 1_000;
/// Time between two words on a door that is shut.
const WORD_EVERY_NS: u64 = 10_000_000_000;

/// The door.
pub(super) struct Door {
    arrivals: Arrivals,
    /// Those that have come and were not counted yet.
    came: usize,
    /// So many more may come before descriptors are counted.
    spare: usize,
    is_shut: bool,
    look_ns: u64,
    word_ns: u64,
    /// The most descriptors since memory was given back.
    most: usize,
}

impl Door {
    /// To what the router is to listen at from now on.
    pub(super) fn new(context: &Context, router: &mut Router) -> Result<Self, ZmqError> {
        let arrivals = router.watch_arrivals(context)?;
        Ok(Door { arrivals, came: 0, spare: 0, is_shut: false, look_ns: 0, word_ns: 0, most: 0 })
    }

    /// The descriptor to poll for input.
    pub(super) fn fd(&self) -> RawFd {
        self.arrivals.fd()
    }

    /// Whether somebody has come. To be asked before every sleep.
    pub(super) fn is_called(&mut self) -> bool {
        let came = self.arrivals.count().unwrap_or(0);
        self.came += came;
        came > 0
    }

    /// Sees to it that there are descriptors left.
    pub(super) fn turn(&mut self, now_ns: u64) {
        self.is_called();
        let is_due = now_ns >= self.look_ns && (self.came > 0 || self.is_shut || self.most >= CROWD);
        if self.came <= self.spare && !is_due {
            return;
        }
        (self.came, self.look_ns) = (0, now_ns + LOOK_NS);
        let (used, limit) = (room::descriptors(), room::descriptors_max());
        let kept = KEPT_MAX.min(limit / 4);
        let left = limit.saturating_sub(used + kept);
        self.spare = left / 2;
        // Not the last ones: a crowd may be faster than the next look.
        let are_few = left < kept / 2;
        if are_few && !self.is_shut {
            self.is_shut = self.arrivals.keep_out(true).is_ok();
            self.say(used, limit, now_ns);
        } else if !are_few && self.is_shut {
            self.is_shut = self.arrivals.keep_out(false).is_err();
        }
        self.give_memory_back(used);
    }

    fn give_memory_back(&mut self, used: usize) {
        self.most = self.most.max(used);
        if self.most >= used + CROWD {
            room::give_memory_back();
            self.most = used;
        }
    }

    fn say(&mut self, used: usize, limit: usize, now_ns: u64) {
        if now_ns >= self.word_ns {
            self.word_ns = now_ns + WORD_EVERY_NS;
            let text = format!(
                "headrace: {used} of {limit} descriptors are taken: nobody new comes in from the network before some are free\n"
            );
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}
