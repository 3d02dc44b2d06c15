//! The worker's loop: one socket, one machine, and two threads that take turns at them.
//!
//! The **main thread** runs user code. Between two tasks it takes the [`Desk`]'s lock once, to hand in what ended and to
//! take what starts ([`WorkerLoop::next`]); when a frame of leases is done it sends the report and receives. With nothing
//! to run it sleeps on the socket itself ([`WorkerLoop::wait`], without the interpreter lock), so that a short task pays
//! no hand-over between threads. The **warden** ([`crate::warden`]) does the same work at the desk while user code keeps
//! the main thread from it.
//!
//! # Why no input is stranded
//!
//! libzmq's descriptor is edge-triggered: it turns readable when something happened, and *any* send or receive may
//! swallow that. Hence:
//!
//! 1. The socket is used only under the desk's lock, in [`Desk::turn`], which ends with a receive that found nothing. Such
//!    a receive has processed all of libzmq's commands before it says so; whatever arrives later makes the descriptor
//!    readable again.
//! 2. So whenever the lock is free, everything that arrived before is in the machine, or the descriptor is readable.
//! 3. Somebody then sleeps on the descriptor, or comes back within two ticks. While the main thread is [`Main::Idle`], it
//!    sleeps there; it became idle in the same holding of the lock in which its turn ended. The warden leaves the socket
//!    alone until it is [`Main::Busy`] again, so nobody swallows the edge that the sleeper needs. While it is busy, the
//!    warden looks every tick, and sleeps on the descriptor itself once the main thread stays in one task; the main thread
//!    may then swallow an edge, but only by a turn of its own, after which (1) holds again.
//! 4. A frame that could not be sent ([`Desk::is_blocked`]: the queue is full, or the connection is not up yet) is tried
//!    again by a clock, because the edge that says "now" may be swallowed by a receive. It is the only use of a clock, and
//!    credits keep it from happening.
//!
//! # Why no wake-up is lost
//!
//! The bell only says "look at the desk". The main thread changes [`Desk`]'s state under the lock and rings afterwards;
//! the warden clears the bell first, sleeps a tick, then locks and looks. A ring that comes before the clearing is for a
//! change that the look will see; one that comes later ends the warden's next sleep. A parked warden is not rung for at
//! once but by an alarm a tick later: most tasks are over by then, and none waited for another thread to be woken. The
//! main thread needs no bell for that: what may end its sleep comes through the socket. Only a thread of the user's that asks
//! for shared memory serves the socket while the main thread sleeps on it, and nudges it then. The end of the broker concerns the warden alone, which always sleeps on the control socket as well and ends the process.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use headrace_protocol::worker::{Closed, Ending, Identity, Running, Start, Worker};
use headrace_sys::eventfd::EventFd;
use headrace_sys::poll::{self, PollFd};
use headrace_sys::signals;
use headrace_sys::status_page::StatusPage;
use headrace_sys::timerfd::TimerFd;
use headrace_wire::GoodbyeReason;

use crate::clock::now_ns;
use crate::inproc::BrokerEnd;
use crate::segments::Segments;
use crate::transport::{Link, SendError, ZmqError};
use crate::warden;

/// After this a frame that could not be sent is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// What the main thread does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Next {
    /// Run what was put into `start`.
    Run,
    /// Look for garbage, as urgent as [`Blocks::garbage_due`](headrace_protocol::store::Blocks::garbage_due) has it, and say so by [`WorkerLoop::note_collected`].
    Collect(u8),
    /// Nothing to do: give the interpreter away and [`WorkerLoop::wait`].
    Idle,
    /// The session is over; [`WorkerLoop::end`] says why.
    Stop,
}

/// Why a wait ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Waited {
    /// There is work, or the session is over.
    News,
    /// A signal handler ran.
    Interrupted,
}

/// Where the main thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Main {
    /// It sleeps on the socket, or is about to.
    Idle,
    /// It runs a task, or comes to the desk without sleeping.
    Busy,
}

/// Where the warden is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Warden {
    /// It looks at the desk every tick.
    Ticking,
    /// It sleeps on the socket in the main thread's place, until that rings.
    Watching,
    /// It sleeps until the main thread rings.
    Parked,
}

/// What the warden is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rouse {
    /// Nothing.
    Not,
    /// To look at the desk.
    Now,
    /// To look at the desk in a tick, if it is still worth it then.
    Soon,
}

/// What the two threads share under one lock.
pub(crate) struct Desk<L> {
    /// None after [`WorkerLoop::close`].
    link: Option<L>,
    page: Arc<StatusPage>,
    pub(crate) worker: Worker,
    segments: Arc<Segments>,
    /// A frame that the socket did not take.
    unsent: Vec<u8>,
    broken: Option<ZmqError>,
    pub(crate) main: Main,
    pub(crate) warden: Warden,
    /// Times that the socket was served.
    pub(crate) turns: u64,
    /// Where those sit who submit tasks in this process.
    pub(crate) nested: Option<BrokerEnd>,
}

/// What the two threads share.
pub(crate) struct Shared<L> {
    desk: Mutex<Desk<L>>,
    pub(crate) bell: EventFd,
    /// Wakes the main thread where another one has served the socket while it slept.
    pub(crate) nudge: EventFd,
    pub(crate) alarm: TimerFd,
    pub(crate) control: OwnedFd,
    pub(crate) segments: Arc<Segments>,
    pub(crate) page: Arc<StatusPage>,
    pub(crate) socket_fd: RawFd,
}

/// The main thread's end. Clones name the same loop; [`WorkerLoop::next`] and [`WorkerLoop::wait`] are for one thread, the
/// rest for any.
pub struct WorkerLoop<L: Link + 'static> {
    pub(crate) shared: Arc<Shared<L>>,
}

impl<L: Link + 'static> WorkerLoop<L> {
    /// Starts the warden. HELLO leaves with [`WorkerLoop::open`]; until then nothing is sent or received.
    ///
    /// `control` is the worker's end of the control socket: the end of the broker shows there, and ends this process at
    /// once, whatever it does.
    ///
    /// # Errors
    /// When the system has no thread or descriptor to give.
    pub fn new(link: L, identity: &Identity, control: OwnedFd, page: Arc<StatusPage>) -> io::Result<Self> {
        let socket_fd = link.fd();
        let segments = Arc::<Segments>::default();
        let desk = Desk {
            link: Some(link),
            page: Arc::clone(&page),
            worker: Worker::new(identity),
            segments: Arc::clone(&segments),
            unsent: Vec::new(),
            broken: None,
            main: Main::Idle,
            warden: Warden::Ticking,
            turns: 0,
            nested: None,
        };
        let (bell, nudge, alarm) = (EventFd::new()?, EventFd::new()?, TimerFd::new()?);
        let shared =
            Arc::new(Shared { desk: Mutex::new(desk), bell, nudge, alarm, control, segments, page, socket_fd });
        warden::start(Arc::clone(&shared))?;
        Ok(WorkerLoop { shared })
    }

    /// Says HELLO.
    pub fn open(&self) {
        self.shared.desk().turn();
    }

    /// Says why this worker cannot go on.
    pub fn leave(&self, reason: GoodbyeReason, text: &str) {
        self.shared.desk().worker.leave(reason, text);
    }

    /// Sends what is left, for at most `timeout`, and drops the link; the process is about to end.
    pub fn close(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        loop {
            let mut desk = self.shared.desk();
            desk.turn();
            if !desk.is_blocked() || desk.is_broken() || Instant::now() >= deadline {
                let link = desk.link.take();
                drop(desk);
                // Waits while the last frames leave; the desk stays open for the warden meanwhile.
                drop(link);
                return;
            }
            drop(desk);
            // Whatever comes of it: the deadline bounds it.
            let _ = poll::wait(&mut [PollFd::input(self.shared.socket_fd)], Some(RETRY));
        }
    }

    /// Hands in how the running task ended, and takes the next one. One holding of the lock, and no system call unless a
    /// frame of leases is done.
    pub fn next(&self, ended: Option<Ending<'_>>, start: &mut Start) -> Next {
        let Shared { page, .. } = &*self.shared;
        let mut desk = self.shared.desk();
        if let Some(ending) = ended {
            desk.worker.finish(ending);
        }
        let next = desk.next(start);
        let rouse = desk.rouse_warden();
        drop(desk);
        match next {
            Next::Run => page.set_executing(start.task, start.attempt),
            Next::Collect(_) | Next::Idle | Next::Stop => {
                page.clear_executing();
                start.clear();
            }
        }
        page.beat();
        self.shared.rouse_warden(rouse);
        next
    }

    /// Sleeps until there is work. Heartbeats are answered and values handed out meanwhile. To be called without the
    /// interpreter lock, after [`Next::Idle`].
    ///
    /// # Errors
    /// When polling fails, which nothing explains.
    pub fn wait(&self) -> io::Result<Waited> {
        let retry_if_blocked = |desk: &Desk<L>| desk.is_blocked().then_some(RETRY);
        let mut retry = retry_if_blocked(&self.shared.desk());
        loop {
            let Shared { socket_fd, nudge, .. } = &*self.shared;
            let mut fds = [PollFd::input(*socket_fd), PollFd::input(nudge.fd())];
            match poll::wait(&mut fds, retry) {
                Ok(_) => {
                    if fds[1].is_ready() {
                        nudge.clear();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Waited::Interrupted),
                Err(error) => return Err(error),
            }
            let mut desk = self.shared.desk();
            desk.turn();
            if desk.worker.has_work() || desk.worker.garbage_due() > 0 || desk.is_over() {
                // From here on the warden stands in, should somebody keep the interpreter from the caller.
                desk.main = Main::Busy;
                let rouse = desk.rouse_warden();
                drop(desk);
                self.shared.rouse_warden(rouse);
                return Ok(Waited::News);
            }
            retry = retry_if_blocked(&desk);
        }
    }

    /// Has the machine say something, at once, on any thread.
    pub(crate) fn post(&self, say: impl FnOnce(&mut Worker)) {
        self.speak(|desk| say(&mut desk.worker));
    }

    /// The same with all that is at the desk.
    pub(crate) fn speak(&self, say: impl FnOnce(&mut Desk<L>)) {
        let mut desk = self.shared.desk();
        say(&mut desk);
        desk.turn();
        let took_input_of_sleeper = desk.main == Main::Idle;
        drop(desk);
        if took_input_of_sleeper {
            self.shared.nudge.signal();
        }
    }

    /// Name and pickle of a function.
    #[must_use]
    pub fn function(&self, number: u32) -> Option<(String, Arc<[u8]>)> {
        let desk = self.shared.desk();
        desk.worker.function(number).map(|(name, pickle)| (name.to_owned(), Arc::clone(pickle)))
    }

    /// The task that runs.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.shared.desk().worker.running()
    }

    /// Whether the attempt that executes now is to be cancelled, or overdue. No lock, no system call.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let page = &self.shared.page;
        let executing = page.executing();
        executing.is_some() && (executing == page.cancel() || executing == page.overdue())
    }

    /// Why the session is over.
    ///
    /// # Errors
    /// The socket's own, if it broke.
    pub fn end(&self) -> Result<Option<Closed>, ZmqError> {
        let desk = self.shared.desk();
        match &desk.broken {
            Some(error) => Err(error.clone()),
            None => Ok(desk.worker.closed().cloned()),
        }
    }
}

impl<L: Link + 'static> Clone for WorkerLoop<L> {
    fn clone(&self) -> Self {
        WorkerLoop { shared: Arc::clone(&self.shared) }
    }
}

impl<L> Shared<L> {
    #[inline]
    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk<L>> {
        self.desk.lock().expect("nobody panics at the desk")
    }

    pub(crate) fn rouse_warden(&self, rouse: Rouse) {
        match rouse {
            Rouse::Not => {}
            Rouse::Now => self.bell.signal(),
            Rouse::Soon => self.alarm.set(warden::TICK),
        }
    }
}

impl<L: Link> Desk<L> {
    /// Sends what is due and receives what has arrived, until there is neither. See the module for why it ends so.
    pub(crate) fn turn(&mut self) {
        self.turns += 1;
        loop {
            self.send_all();
            if let Err(error) = self.receive_all() {
                self.broken.get_or_insert(error);
            }
            if self.worker.flush_due() {
                self.worker.flush(now_ns());
            }
            if self.broken.is_some() || self.is_blocked() || !self.fill_unsent() {
                return;
            }
        }
    }

    /// Closes the report and serves the socket.
    pub(crate) fn flush(&mut self) {
        self.worker.flush(now_ns());
        self.turn();
    }

    /// Interrupts the running attempt if it is overdue, and says so. When to look again, if there is a limit.
    pub(crate) fn press_limit(&mut self) -> Option<u64> {
        self.worker.next_timeout_ns()?;
        if let Some((task, attempt)) = self.worker.handle_timeout(self.page.executing(), now_ns()) {
            self.page.set_overdue(task, attempt);
            signals::interrupt_main_thread();
            self.turn();
        }
        self.worker.next_timeout_ns()
    }

    /// Whether a frame waits for room in the socket.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whether the socket is of no use any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some() || self.link.is_none()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_broken() || self.worker.closed().is_some()
    }

    fn next(&mut self, start: &mut Start) -> Next {
        self.main = Main::Busy;
        if self.worker.garbage_due() > 0 {
            return self.nothing_to_run();
        }
        let mut served = self.worker.flush_due();
        if served {
            self.flush();
        }
        while !self.worker.start_next(start, now_ns) {
            // Leases that cannot start are given back, which may be due at once.
            if served && !self.worker.flush_due() {
                return self.nothing_to_run();
            }
            self.flush();
            served = true;
        }
        Next::Run
    }

    /// What there is to do instead.
    fn nothing_to_run(&mut self) -> Next {
        if self.is_over() {
            return Next::Stop;
        }
        if self.worker.garbage_due() > 0 {
            return Next::Collect(self.worker.garbage_due());
        }
        self.main = Main::Idle;
        Next::Idle
    }

    /// The main thread has come: the warden goes back to ticking if it was watching, or if it is needed again. Whether
    /// the caller must rouse it, after it has left the desk.
    pub(crate) fn rouse_warden(&mut self) -> Rouse {
        let rouse = match self.warden {
            Warden::Ticking => Rouse::Not,
            Warden::Watching => Rouse::Now,
            Warden::Parked if self.main == Main::Busy => Rouse::Soon,
            Warden::Parked => Rouse::Not,
        };
        if rouse != Rouse::Not {
            self.warden = Warden::Ticking;
        }
        rouse
    }

    fn send_all(&mut self) {
        while self.fill_unsent() {
            let Some(link) = &mut self.link else { return };
            match link.send(&mut self.unsent) {
                Ok(()) => {}
                Err(SendError::WouldBlock | SendError::Unreachable) => return,
                Err(SendError::Failed(error)) => {
                    self.broken.get_or_insert(error);
                    return;
                }
            }
        }
    }

    fn receive_all(&mut self) -> Result<(), ZmqError> {
        while let Some(link) = &mut self.link {
            let Some(frame) = link.try_recv()? else { break };
            self.page.note_frame();
            self.worker.handle_frame(&frame);
            drop(frame);
            self.hand_to_nested();
            while let Some((segment, range)) = self.worker.poll_punch() {
                self.segments.punch(segment, range);
            }
            // An answer need not wait until everything that is on its way has been received: it may be very much.
            self.send_all();
        }
        Ok(())
    }

    /// Takes the next frame to send; whether there is one.
    fn fill_unsent(&mut self) -> bool {
        if self.unsent.is_empty() {
            self.unsent = self.worker.poll_frame().unwrap_or_default();
        }
        !self.unsent.is_empty()
    }
}
