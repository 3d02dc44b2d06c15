//! The channel between a client and the broker in the same process: frames in queues, and wake-ups only where somebody sleeps.
//!
//! A queue under a mutex leads each way. Whoever sends to a side that is awake makes no system call beyond the mutex's
//! own; a side that sleeps sleeps in `poll` on an eventfd, so that it can wait for other descriptors and be interrupted
//! by signals.
//!
//! # Why no wake-up is lost
//!
//! *Broker.* `to_broker` holds the queue and one flag, `asleep`, under one mutex.
//! 1. [`BrokerEnd::prepare_to_sleep`] sets `asleep` only while the queue is empty, in one critical section.
//! 2. A client pushes, and if `asleep` is set, clears it and signals the eventfd, in one critical section.
//!
//! The mutex orders the two. If the push comes first, (1) finds the queue filled and the broker does not sleep. If (1)
//! comes first, the push finds `asleep` set and signals; the eventfd stays readable until the broker clears it, so it
//! does not matter whether the broker has reached `poll` by then. Further pushes find `asleep` cleared and need no
//! signal, because one is pending. [`BrokerEnd::wake_up`] finds `asleep` cleared exactly if a signal is pending, and
//! clears the eventfd then; so no stale signal is left to make the next sleep a spin.
//!
//! *Clients.* Several threads may wait at once, each for something else, while one of them drains the queue for all.
//! `to_client` holds the queue, the count of frames ever pushed, and the list of waiters, under one mutex. Each waiter
//! has its interest and an eventfd of its own.
//! 1. The waiter looks at what has been received so far (the caller's tables) and notes [`ClientEnd::received`], while it holds
//!    the lock under which frames are taken *and applied*. So everything up to that count shows in the tables.
//! 2. [`ClientEnd::wait`] joins the list only if the count pushed still equals that note, in one critical section. It
//!    compares with what was *pushed*, not with what is queued, so a frame that another thread has taken from the queue
//!    since is not missed either.
//! 3. The broker pushes a frame and signals each waiter whose interest it meets, once, in one critical section.
//!
//! If (3) comes before (2) for a frame that (1) has not seen, the counts differ and the waiter does not sleep. If it comes after,
//! the waiter is on the list and is signalled if it is interested. A frame that meets no interest changes nothing that
//! its waiter waits for, and is taken whenever somebody drains.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headrace_sys::eventfd::EventFd;
use headrace_sys::origin::Origin;
use headrace_sys::poll::{self, PollFd};
use headrace_wire::{Log, Message, NO_WORKER};

/// Bytes of lines to print that wait for a client which does not ask for anything.
const LOG_BYTES_MAX: usize = 2 << 20;

/// A channel.
///
/// # Errors
/// When the process is out of descriptors.
pub fn pair() -> io::Result<(ClientEnd, BrokerEnd)> {
    let shared = Arc::new(Shared {
        to_broker: Mutex::new(ToBroker::default()),
        broker_signal: EventFd::new()?,
        to_client: Mutex::new(ToClient::default()),
        watch_signal: EventFd::new()?,
    });
    let origin = Origin::here();
    Ok((ClientEnd { shared: Arc::clone(&shared), origin }, BrokerEnd { shared, origin }))
}

/// What a waiter of the client's side waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Any frame.
    Any,
    /// Any ending in this run.
    Run {
        /// The run.
        run: u32,
    },
    /// The end of this run.
    RunEnd {
        /// The run.
        run: u32,
    },
    /// The ending of one task, or of its run.
    Task {
        /// The run.
        run: u32,
        /// Index of the task within the run.
        index: u32,
    },
}

/// What a frame to the client brings, as far as waiters are concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake<'a> {
    /// Something for everybody: a goodbye, a state, lines to print.
    All,
    /// Endings of tasks of one run.
    Results {
        /// The run.
        run: u32,
        /// Whether the run has ended.
        finished: bool,
        /// Indices of the tasks within the run.
        indices: &'a [u32],
    },
}

/// How a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Waited {
    /// Something was pushed that the caller has not seen or is interested in: drain, then look again.
    Ready,
    /// The time is over.
    TimedOut,
    /// A signal handler ran: let Python look at it, then wait again.
    Interrupted,
    /// The broker's end is gone and everything that it sent has been received.
    Closed,
}

/// The other end is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the other end of the channel is gone")]
pub struct Closed;

/// The client's end; any number of threads may use it at once. Dropping it lets the broker know.
pub struct ClientEnd {
    shared: Arc<Shared>,
    origin: Origin,
}

impl ClientEnd {
    /// Sends several frames, which the broker takes within one turn.
    ///
    /// # Errors
    /// When the broker's end is gone.
    pub fn send_all(&self, frames: Vec<Vec<u8>>) -> Result<(), Closed> {
        let mut queue = self.shared.to_broker();
        if queue.broker_gone {
            return Err(Closed);
        }
        queue.frames.extend(frames);
        queue.wake(&self.shared.broker_signal);
        Ok(())
    }

    /// Sends one frame; wakes the broker if it sleeps.
    ///
    /// # Errors
    /// When the broker's end is gone.
    pub fn send(&self, frame: Vec<u8>) -> Result<(), Closed> {
        let mut queue = self.shared.to_broker();
        if queue.broker_gone {
            return Err(Closed);
        }
        queue.frames.push_back(frame);
        queue.wake(&self.shared.broker_signal);
        Ok(())
    }

    /// The next frame, if one is there. The caller applies it before it releases the lock under which it took it: see
    /// [`received`](ClientEnd::received).
    pub fn try_recv(&self) -> Option<Vec<u8>> {
        let mut queue = self.shared.to_client();
        queue.take()
    }

    /// How many frames have been taken so far. Where several threads receive, it is read under the lock of the caller's
    /// under which frames are taken and applied, together with the look at what they brought.
    pub fn received(&self) -> u64 {
        self.shared.to_client().taken
    }

    /// Whether any frame was pushed beyond the first `received`.
    pub fn has_come(&self, received: u64) -> bool {
        self.shared.to_client().pushed != received
    }

    /// Sleeps until a frame arrives that meets `interest`, for at most `timeout` (`None`: for ever). Returns at once if
    /// any frame was pushed beyond the first `received`.
    pub fn wait(&self, interest: Interest, received: u64, timeout: Option<Duration>) -> Waited {
        let (number, signal) = {
            let mut queue = self.shared.to_client();
            if queue.pushed != received {
                return Waited::Ready;
            }
            if queue.broker_gone {
                return Waited::Closed;
            }
            match queue.join(interest) {
                Ok(joined) => joined,
                // No descriptor to sleep on: like an interrupt, the caller looks around and tries again.
                Err(_) => return Waited::Interrupted,
            }
        };
        let polled = poll::wait(&mut [PollFd::input(signal.fd())], timeout);
        let mut queue = self.shared.to_client();
        if queue.leave(number, signal) {
            return if queue.pushed == received { Waited::Closed } else { Waited::Ready };
        }
        match polled {
            Ok(_) => Waited::TimedOut,
            Err(_) => Waited::Interrupted,
        }
    }

    /// For an event loop that watches [`fd`](ClientEnd::fd): makes it readable, once, when a frame arrives that meets
    /// `interest`. Returns false, and arms nothing, if there is something to look at already: a frame beyond the first
    /// `received`, or the end of the broker. A later call replaces an earlier one.
    #[must_use]
    pub fn watch(&self, interest: Interest, received: u64) -> bool {
        let mut queue = self.shared.to_client();
        if std::mem::take(&mut queue.watch_signalled) {
            self.shared.watch_signal.clear();
        }
        queue.watch = None;
        let sleeps = queue.pushed == received && !queue.broker_gone;
        if sleeps {
            queue.watch = Some(interest);
        }
        sleeps
    }

    /// The descriptor of [`watch`](ClientEnd::watch), to poll for input. It stays readable until the next call of that.
    pub fn fd(&self) -> RawFd {
        self.shared.watch_signal.fd()
    }

    /// Whether the broker's end is gone; frames may still be there to receive.
    pub fn is_closed(&self) -> bool {
        self.shared.to_client().broker_gone
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return; // a forked child: the lock may be held by a thread that is not here
        }
        {
            let mut queue = self.shared.to_client();
            queue.client_gone = true;
            queue.frames = VecDeque::new();
        }
        let mut queue = self.shared.to_broker();
        queue.client_gone = true;
        queue.wake(&self.shared.broker_signal);
    }
}

/// The broker's end, for one thread. Dropping it wakes all who wait for it.
pub struct BrokerEnd {
    shared: Arc<Shared>,
    origin: Origin,
}

impl BrokerEnd {
    /// The next frame, if one is there. No system call.
    pub fn try_recv(&mut self) -> Option<Vec<u8>> {
        self.shared.to_broker().frames.pop_front()
    }

    /// Sends one frame and wakes those who wait for what it brings.
    ///
    /// # Errors
    /// When the client's end is gone.
    pub fn send(&mut self, frame: Vec<u8>, wake: Wake<'_>) -> Result<(), Closed> {
        let mut queue = self.shared.to_client();
        if queue.client_gone {
            return Err(Closed);
        }
        queue.push(frame);
        queue.wake(wake, &self.shared.watch_signal);
        Ok(())
    }

    /// Sends lines to print. They wait aside, and the oldest go if nobody takes them: what tasks write is without bound.
    ///
    /// # Errors
    /// When the client's end is gone.
    pub fn send_log(&mut self, frame: Vec<u8>) -> Result<(), Closed> {
        let mut queue = self.shared.to_client();
        if queue.client_gone {
            return Err(Closed);
        }
        queue.push_log(frame);
        queue.wake(Wake::All, &self.shared.watch_signal);
        Ok(())
    }

    /// Announces that the broker is about to poll [`fd`](BrokerEnd::fd). Returns false if it must not: a frame has
    /// arrived, or the client's end has gone and [`is_closed`](BrokerEnd::is_closed) has not said so yet. Every sleep that
    /// is allowed ends with [`wake_up`](BrokerEnd::wake_up).
    #[must_use]
    pub fn prepare_to_sleep(&mut self) -> bool {
        let mut queue = self.shared.to_broker();
        queue.asleep = queue.frames.is_empty() && (!queue.client_gone || queue.client_gone_seen);
        queue.asleep
    }

    /// Announces that the broker is awake, for whatever reason; from here on clients do not signal.
    pub fn wake_up(&mut self) {
        let mut queue = self.shared.to_broker();
        if !std::mem::take(&mut queue.asleep) {
            self.shared.broker_signal.clear();
        }
    }

    /// The descriptor to poll for input between [`prepare_to_sleep`](BrokerEnd::prepare_to_sleep) and
    /// [`wake_up`](BrokerEnd::wake_up).
    pub fn fd(&self) -> RawFd {
        self.shared.broker_signal.fd()
    }

    /// Whether the client's end is gone; frames may still be there to receive.
    pub fn is_closed(&mut self) -> bool {
        let mut queue = self.shared.to_broker();
        queue.client_gone_seen = queue.client_gone;
        queue.client_gone
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return; // a forked child: the lock may be held by a thread that is not here
        }
        self.shared.to_broker().broker_gone = true;
        let mut queue = self.shared.to_client();
        queue.broker_gone = true;
        queue.wake(Wake::All, &self.shared.watch_signal);
    }
}

struct Shared {
    to_broker: Mutex<ToBroker>,
    broker_signal: EventFd,
    to_client: Mutex<ToClient>,
    watch_signal: EventFd,
}

impl Shared {
    // A panic inside these short sections leaves them whole, and a closed channel must still be told: poison is ignored.
    fn to_broker(&self) -> MutexGuard<'_, ToBroker> {
        self.to_broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_client(&self) -> MutexGuard<'_, ToClient> {
        self.to_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct ToBroker {
    frames: VecDeque<Vec<u8>>,
    /// Set by the broker before it sleeps, cleared by who signals it or by itself.
    asleep: bool,
    client_gone: bool,
    /// Whether the broker has been told; it may then sleep again.
    client_gone_seen: bool,
    broker_gone: bool,
}

impl ToBroker {
    fn wake(&mut self, signal: &EventFd) {
        if std::mem::take(&mut self.asleep) {
            signal.signal();
        }
    }
}

#[derive(Default)]
struct ToClient {
    /// Frames with their numbers.
    frames: VecDeque<(u64, Vec<u8>)>,
    /// Frames of lines to print, likewise: they are taken in one order, but dropped by themselves.
    logs: VecDeque<(u64, Vec<u8>)>,
    log_bytes: usize,
    /// Bytes of those that were dropped since somebody was told.
    log_bytes_dropped: usize,
    /// Frames pushed since the start; `taken` of them have been received.
    pushed: u64,
    taken: u64,
    waiters: Vec<Waiter>,
    next_waiter: u64,
    /// Eventfds of earlier waits, not signalled.
    spare: Vec<Arc<EventFd>>,
    watch: Option<Interest>,
    watch_signalled: bool,
    broker_gone: bool,
    client_gone: bool,
}

/// The line that stands for lines that were dropped.
fn dropped_notice(bytes: usize) -> Vec<u8> {
    let text = format!(
        "headrace: {bytes} bytes of output were dropped, because tasks write faster than this process asks for their \
         results; let them write to files instead\n"
    );
    let mut frame = Vec::new();
    Message::Log(Log { worker: NO_WORKER, stream: 2, text: text.as_bytes(), ..Log::default() }).encode(&mut frame);
    frame
}

/// A thread in [`ClientEnd::wait`].
struct Waiter {
    number: u64,
    interest: Interest,
    signal: Arc<EventFd>,
    signalled: bool,
}

impl ToClient {
    fn take(&mut self) -> Option<Vec<u8>> {
        let is_before = |log: &(u64, _)| self.frames.front().is_none_or(|frame| log.0 < frame.0);
        let (_, frame) = match self.logs.front().is_some_and(is_before) {
            // It stands for frames that count as taken.
            true if self.log_bytes_dropped > 0 => {
                return Some(dropped_notice(std::mem::take(&mut self.log_bytes_dropped)));
            }
            true => {
                let log = self.logs.pop_front()?;
                self.log_bytes -= log.1.len();
                log
            }
            false => self.frames.pop_front()?,
        };
        self.taken += 1;
        Some(frame)
    }

    fn push(&mut self, frame: Vec<u8>) {
        self.frames.push_back((self.pushed, frame));
        self.pushed += 1;
    }

    fn push_log(&mut self, frame: Vec<u8>) {
        self.log_bytes += frame.len();
        self.logs.push_back((self.pushed, frame));
        self.pushed += 1;
        while self.log_bytes > LOG_BYTES_MAX && self.logs.len() > 1 {
            let dropped = self.logs.pop_front().map_or(0, |(_, frame)| frame.len());
            self.log_bytes -= dropped;
            self.log_bytes_dropped += dropped;
            self.taken += 1;
        }
    }

    fn join(&mut self, interest: Interest) -> io::Result<(u64, Arc<EventFd>)> {
        let signal = match self.spare.pop() {
            Some(signal) => signal,
            None => Arc::new(EventFd::new()?),
        };
        let number = self.next_waiter;
        self.next_waiter += 1;
        self.waiters.push(Waiter { number, interest, signal: Arc::clone(&signal), signalled: false });
        Ok((number, signal))
    }

    /// Takes the waiter off the list; returns whether it was signalled.
    fn leave(&mut self, number: u64, signal: Arc<EventFd>) -> bool {
        let Some(position) = self.waiters.iter().position(|waiter| waiter.number == number) else { return false };
        let waiter = self.waiters.swap_remove(position);
        if waiter.signalled {
            signal.clear();
        }
        self.spare.push(signal);
        waiter.signalled
    }

    fn wake(&mut self, wake: Wake<'_>, watch_signal: &EventFd) {
        for waiter in &mut self.waiters {
            if !waiter.signalled && waiter.interest.is_met_by(wake) {
                waiter.signalled = true;
                waiter.signal.signal();
            }
        }
        if self.watch.is_some_and(|interest| interest.is_met_by(wake)) {
            self.watch = None;
            self.watch_signalled = true;
            watch_signal.signal();
        }
    }
}

impl Interest {
    fn is_met_by(self, wake: Wake<'_>) -> bool {
        let Wake::Results { run: ended_run, finished, indices } = wake else { return true };
        match self {
            Interest::Any => true,
            Interest::Run { run } => run == ended_run,
            Interest::RunEnd { run } => run == ended_run && finished,
            Interest::Task { run, index } => run == ended_run && (finished || indices.contains(&index)),
        }
    }
}
