//! The warden: a native thread that stands in for the main thread while user code keeps that from the desk.
//!
//! It never touches Python, so it answers the broker while a task holds the interpreter lock for a minute. Its rules, in
//! the order in which it asks:
//!
//! - The control socket ended: the broker is gone, and so is this process.
//! - The task that runs has passed its time limit: interrupt it, and tell the broker.
//! - The main thread sleeps: leave the socket alone. After [`IDLE_TICKS`] sleep too, until rung for.
//! - The main thread has not been at the desk for a tick: it is in a long task, or waits for the interpreter. Send what is
//!   finished, receive, and *watch*: sleep on the socket until that task ends.
//! - The main thread comes and goes, but nobody has served the socket for [`LATE_TICKS`]: a frame of leases takes longer
//!   than was estimated. Serve once.
//!
//! [`crate::worker_loop`] says why this loses neither input nor wake-ups.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use headrace_sys::control::{self, Received};
use headrace_sys::exit::exit_now;
use headrace_sys::poll::{self, PollFd};
use headrace_sys::threads::spawn_native;

use crate::clock::now_ns;
use crate::segments;
use crate::transport::Link;
use crate::worker_loop::{Desk, Main, RETRY, Shared, Warden};

/// How often it looks while the main thread is busy. With it, a task of more than twice this no longer keeps anything
/// waiting, and looking costs less than a hundredth of a core.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks of idleness after which it sleeps: calls in quick succession then pay no wake-up for it.
const IDLE_TICKS: u32 = 5;

/// Ticks without a service of the socket after which it serves; frames of leases are meant to last about one.
const LATE_TICKS: u32 = 2;

/// Exit code of a process whose broker is gone. Nobody is left to read it.
const EXIT_BROKER_GONE: i32 = 4;

/// Starts it. It lives as long as the process.
pub(crate) fn start<L: Link + 'static>(shared: Arc<Shared<L>>) -> io::Result<()> {
    spawn_native("headrace-warden", move || run(&shared)).map(drop)
}

fn run<L: Link>(shared: &Shared<L>) -> ! {
    let mut rounds = Rounds::default();
    let mut nap = Nap::Tick;
    loop {
        let (socket_fd, timeout) = match nap {
            Nap::Tick => (None, Some(TICK)),
            Nap::UntilInput => (Some(shared.socket_fd), None),
            Nap::UntilInputOrRetry => (Some(shared.socket_fd), Some(RETRY)),
            Nap::UntilRung => (None, None),
        };
        let timeout = rounds.sooner(timeout);
        // A descriptor below zero is skipped.
        let fds = [shared.control.as_raw_fd(), shared.bell.fd(), shared.alarm.fd(), socket_fd.unwrap_or(-1)];
        let mut fds = fds.map(PollFd::input);
        let woken = poll::wait(&mut fds, timeout);
        let [control, bell, alarm, socket] = fds;
        if control.is_ready() {
            heed_control(shared);
            if !bell.is_ready() && !alarm.is_ready() && !socket.is_ready() {
                continue;
            }
        }
        if bell.is_ready() || alarm.is_ready() {
            // The main thread was at the desk just now, and may want it again soon: the first look is a tick away.
            if bell.is_ready() {
                shared.bell.clear();
            }
            if alarm.is_ready() {
                shared.alarm.clear();
            }
            rounds.begin(shared.page.beats());
            nap = Nap::Tick;
        } else {
            nap = rounds.look(&mut shared.desk(), shared.page.beats());
        }
        if woken.is_err() {
            // Nothing explains it, and it would come back at once and for ever.
            std::thread::sleep(TICK);
        }
    }
}

/// How long it sleeps, and on what beside control socket and bell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Nap {
    Tick,
    UntilInput,
    UntilInputOrRetry,
    UntilRung,
}

/// What it saw when it last looked.
#[derive(Default)]
struct Rounds {
    beats: u64,
    turns: u64,
    idle_ticks: u32,
    late_ticks: u32,
    /// When the task that runs passes its time limit.
    limit_ns: Option<u64>,
}

impl Rounds {
    /// Notes where the main thread is.
    fn begin(&mut self, beats: u64) {
        self.beats = beats;
    }

    /// How long to sleep at most, if a time limit may end first. No less than a tick, so that one that is over but cannot be
    /// enforced yet costs little.
    fn sooner(&self, timeout: Option<Duration>) -> Option<Duration> {
        let Some(limit_ns) = self.limit_ns else { return timeout };
        let left = Duration::from_nanos(limit_ns.saturating_sub(now_ns())).max(TICK);
        Some(timeout.map_or(left, |timeout| timeout.min(left)))
    }

    /// Looks at the desk and does what is to be done there, a tick after it last looked, or because there is input.
    fn look<L: Link>(&mut self, desk: &mut Desk<L>, beats: u64) -> Nap {
        let stayed = beats == self.beats;
        self.beats = beats;
        self.limit_ns = desk.press_limit();
        if desk.main == Main::Idle {
            return self.look_at_sleeper(desk);
        }
        self.idle_ticks = 0;
        if stayed && !desk.is_broken() {
            desk.warden = Warden::Watching;
            desk.flush();
        } else if desk.turns != self.turns {
            self.late_ticks = 0;
        } else {
            self.late_ticks += 1;
            if self.late_ticks == LATE_TICKS {
                self.late_ticks = 0;
                desk.flush();
            }
        }
        self.turns = desk.turns;
        match desk.warden {
            Warden::Watching if desk.is_broken() => Nap::UntilRung,
            Warden::Watching if desk.is_blocked() => Nap::UntilInputOrRetry,
            Warden::Watching => Nap::UntilInput,
            Warden::Ticking | Warden::Parked => Nap::Tick,
        }
    }

    fn look_at_sleeper<L>(&mut self, desk: &mut Desk<L>) -> Nap {
        self.late_ticks = 0;
        self.idle_ticks += 1;
        if self.idle_ticks <= IDLE_TICKS {
            desk.warden = Warden::Ticking;
            return Nap::Tick;
        }
        desk.warden = Warden::Parked;
        Nap::UntilRung
    }
}

/// Takes in what the broker says of segments. The end of the control socket is the end of this process.
fn heed_control<L>(shared: &Shared<L>) {
    loop {
        match control::receive(&shared.control) {
            Ok(Received::Message { bytes, fd }) => {
                if let Some(news) = segments::decode(&bytes) {
                    shared.segments.handle(news, fd);
                }
            }
            Ok(Received::Nothing) => return,
            Ok(Received::End) | Err(_) => exit_now(EXIT_BROKER_GONE),
        }
    }
}
