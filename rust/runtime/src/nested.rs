//! The worker's loop for tasks that submit tasks: their frames pass through the desk, and the main thread may wait there for
//! what they bring, within a task.
//!
//! While it waits it sleeps on the socket itself, as between two tasks ([`Main::Idle`]), so that nothing is handed from thread to
//! thread. Other threads of the process wait at their end of the channel ([`ClientEnd`]), whoever serves the socket.

use std::io;
use std::time::{Duration, Instant};

use headrace_protocol::worker::{Ending, Start};
use headrace_sys::poll::{self, PollFd};

use crate::clock::now_ns;
use crate::inproc::{self, ClientEnd, Wake};
use crate::transport::Link;
use crate::worker_loop::{Desk, Main, RETRY, Waited, WorkerLoop};

impl<L: Link + 'static> WorkerLoop<L> {
    /// A channel for those who submit tasks in this process. It is opened once.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn open_nested(&self) -> io::Result<ClientEnd> {
        let (client, broker) = inproc::pair()?;
        let mut desk = self.shared.desk();
        desk.worker.open_nested();
        desk.nested = Some(broker);
        Ok(client)
    }

    /// Sends what was put into the channel.
    pub fn deliver_nested(&self) {
        self.speak(Desk::take_from_nested);
    }

    /// Slot and attempt of the task that runs.
    #[must_use]
    pub fn running_attempt(&self) -> Option<(u32, u32)> {
        self.shared.desk().worker.running_attempt()
    }

    /// Whether this attempt has not ended.
    #[must_use]
    pub fn has_attempt(&self, attempt: (u32, u32)) -> bool {
        self.shared.desk().worker.has_attempt(attempt)
    }

    /// Says that the task that runs waits from now on, and whether on the main thread; then [`WorkerLoop::wait_nested`] sends
    /// it.
    pub fn begin_nested_wait(&self, run: u32, index: u32, is_main: bool) {
        match is_main {
            true => self.shared.desk().worker.wait(run, index, true, now_ns()),
            false => self.speak(|desk| desk.worker.wait(run, index, false, now_ns())),
        }
    }

    /// Says that it goes on.
    pub fn end_nested_wait(&self) {
        self.speak(|desk| desk.worker.go_on());
    }

    /// Sleeps, on the main thread and within a task, until `has_come` finds that a frame is in the channel, there is something
    /// to run or to heed meanwhile, or the time is over. To be called without the interpreter lock.
    ///
    /// # Errors
    /// When polling fails, which nothing explains.
    pub fn wait_nested(&self, has_come: impl Fn() -> bool, timeout: Duration) -> io::Result<Waited> {
        let until = Instant::now() + timeout;
        loop {
            let mut desk = self.shared.desk();
            desk.turn();
            let left = until.saturating_duration_since(Instant::now());
            let is_news = desk.worker.has_nested_news() || desk.worker.garbage_due() > 0 || desk.is_over();
            if is_news || has_come() || left.is_zero() {
                self.leave_sleep(desk);
                return Ok(Waited::News);
            }
            desk.main = Main::Idle;
            let nap = if desk.is_blocked() { left.min(RETRY) } else { left };
            drop(desk);
            let mut fds = [PollFd::input(self.shared.socket_fd), PollFd::input(self.shared.nudge.fd())];
            let polled = poll::wait(&mut fds, Some(nap));
            if fds[1].is_ready() {
                self.shared.nudge.clear();
            }
            if let Err(error) = polled {
                self.leave_sleep(self.shared.desk());
                let is_signal = error.kind() == io::ErrorKind::Interrupted;
                return if is_signal { Ok(Waited::Interrupted) } else { Err(error) };
            }
        }
    }

    /// Takes a task that the one that runs waits for, and suspends that.
    #[must_use]
    pub fn start_nested(&self, start: &mut Start) -> bool {
        let is_started = self.shared.desk().worker.start_nested(start, now_ns);
        if is_started {
            self.shared.page.set_executing(start.task, start.attempt);
            self.shared.page.beat();
        }
        is_started
    }

    /// Hands in how that ended. The other one goes on.
    pub fn finish_nested(&self, ending: Ending<'_>) {
        let mut desk = self.shared.desk();
        desk.worker.finish_nested(ending, now_ns);
        let below = desk.worker.running_attempt();
        if let Some((task, attempt)) = below {
            self.shared.page.set_executing(task, attempt);
        }
        self.shared.page.beat();
        desk.flush();
    }

    /// Why the wait of the task that runs must fail.
    #[must_use]
    pub fn take_standstill(&self) -> Option<String> {
        self.shared.desk().worker.take_standstill()
    }

    /// How urgent it is to look for garbage.
    #[must_use]
    pub fn garbage_due(&self) -> u8 {
        self.shared.desk().worker.garbage_due()
    }

    /// Whether the session is over, so that nothing will come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.desk().is_over()
    }

    /// From here on the warden stands in again.
    fn leave_sleep(&self, mut desk: std::sync::MutexGuard<'_, Desk<L>>) {
        desk.main = Main::Busy;
        let rouse = desk.rouse_warden();
        drop(desk);
        self.shared.rouse_warden(rouse);
    }
}

impl<L: Link> Desk<L> {
    /// Takes frames of those who submit tasks here, to be sent.
    pub(crate) fn take_from_nested(&mut self) {
        while let Some(frame) = self.nested.as_mut().and_then(inproc::BrokerEnd::try_recv) {
            self.worker.post_nested(frame);
        }
    }

    /// Hands them what has come for them.
    pub(crate) fn hand_to_nested(&mut self) {
        let Some(nested) = &mut self.nested else { return };
        while let Some(frame) = self.worker.poll_nested() {
            // They see for themselves whether it is theirs; nobody is gone as long as this process lives.
            let _ = nested.send(frame, Wake::All);
        }
    }
}
