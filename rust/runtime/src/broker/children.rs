//! The worker processes of a broker: their pages, pipes and ends.

use super::Launch;
use super::oom::OomWatch;
use super::output::Output;
use super::stacks::Stacks;
use crate::segments;
use headrace_protocol::broker::{Exit, SegmentNews};
use headrace_sys::control::{self, MESSAGE_BYTES_MAX, Received};
use headrace_sys::memfd;
use headrace_sys::pidfd::{ExitStatus, PidFd, Signal};
use headrace_sys::poll::PollFd;
use headrace_sys::spawn::{CONTROL_FD, INHERITED_FD, Spawn};
use headrace_sys::status_page::StatusPage;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a process may go on that has closed its end of the control socket, and what is told of one that does.
pub(crate) const LOST_PATIENCE: Duration = Duration::from_millis(200);
const LOST: &[u8] =
    b"headrace: this worker has closed its connection to the broker, or became another program, and is killed\n";
/// Times that a worker's pipes are read in one turn, so that a flood does not hold up the work of others.
const READS_A_TURN: usize = 4;
/// The same once the process has ended. Another process may have the pipe and go on writing.
const READS_AT_END: usize = 16;

/// What takes (worker, stream, text) and the (slot, attempt) that wrote it.
pub(crate) trait Hear: FnMut(u32, u8, &[u8], Option<(u32, u32)>) {}
impl<F: FnMut(u32, u8, &[u8], Option<(u32, u32)>)> Hear for F {}

/// How to start a worker, and the ones that run.
#[derive(Debug)]
pub(crate) struct Children {
    /// Its arguments are those up to the descriptors and the endpoint.
    launch: Launch,
    library: OsString,
    boot: OwnedFd,
    /// The processes of each worker: the one that works, then its successor.
    running: Vec<Vec<Process>>,
    oom: OomWatch,
}

#[derive(Debug)]
struct Process {
    incarnation: u64,
    process: PidFd,
    /// Its end tells the worker that the broker is gone.
    control: OwnedFd,
    /// News of segments that the control socket would not take yet, in order.
    untold: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    page: StatusPage,
    stacks: Stacks,
    /// Frames that it had received when it was last looked at.
    frames: u64,
    output: Output,
    /// The attempt that was last sent SIGINT; a second one would hit its clean-up.
    interrupted: Option<(u32, u32)>,
    /// When it closed its end of the control socket. Mostly its end follows at once.
    lost: Option<Instant>,
    /// Whether we have sent it SIGKILL.
    killed: bool,
}

/// A process that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) worker: u32,
    pub(crate) incarnation: u64,
    pub(crate) exit: Exit,
    pub(crate) executing: Option<(u32, u32)>,
}

impl Children {
    /// No process yet, of so many workers; others may join.
    pub(crate) fn new(mut launch: Launch, workers: usize, endpoint: &str, library: &Path) -> io::Result<Self> {
        // Status page, control socket, boot file: the numbers that they have in the child.
        launch.args.extend([INHERITED_FD, CONTROL_FD, INHERITED_FD + 1].map(|fd| fd.to_string().into()));
        launch.args.push(endpoint.into());
        let boot = memfd::create_constant("headrace-boot", &std::mem::take(&mut launch.boot))?;
        Ok(Children {
            launch,
            library: library.into(),
            boot,
            running: (0..workers).map(|_| Vec::new()).collect(),
            oom: OomWatch::of_this_process(),
        })
    }

    /// Starts the process of a worker.
    pub(crate) fn start(&mut self, worker: u32, incarnation: u64) -> io::Result<()> {
        let page = StatusPage::create()?;
        let stacks = Stacks::new()?;
        let Launch { program, args, env, worker_env, .. } = &self.launch;
        let mut args = args.clone();
        args.extend([worker.to_string().into(), incarnation.to_string().into(), self.library.clone()]);
        args.push((INHERITED_FD + 2).to_string().into());
        let inherit = [page.as_fd(), self.boot.as_fd(), stacks.fd()];
        let own = worker_env.get(worker as usize).map_or(&[][..], Vec::as_slice);
        let is_common = |(name, _): &&(OsString, OsString)| own.iter().all(|(other, _)| other != name);
        let env: Vec<_> = env.iter().filter(is_common).chain(own).cloned().collect();
        let spawn = Spawn { program, args: &args, env: &env, inherit: &inherit };
        let child = spawn.start()?;
        if self.running.len() <= worker as usize {
            self.running.resize_with(worker as usize + 1, Vec::new);
        }
        self.running[worker as usize].push(Process {
            incarnation,
            process: child.process,
            control: child.control,
            untold: VecDeque::new(),
            page,
            stacks,
            frames: 0,
            output: Output::new(child.stdout, child.stderr),
            interrupted: None,
            lost: None,
            killed: false,
        });
        Ok(())
    }

    /// Descriptors that turn readable when a process writes, ends, or lets go of its broker.
    pub(crate) fn poll_fds(&self, fds: &mut Vec<PollFd>) {
        for process in self.running.iter().flatten() {
            fds.push(PollFd::input(process.process.fd()));
            if process.lost.is_none() {
                fds.push(PollFd::input(process.control.as_raw_fd()));
            }
            process.output.poll_fds(fds);
        }
    }

    /// Reads what the processes wrote.
    pub(crate) fn read_output(&mut self, mut hear: impl Hear) {
        for (worker, processes) in (0u32..).zip(&mut self.running) {
            for process in processes {
                process.read_output(READS_A_TURN, |stream, text, by| hear(worker, stream, text, by));
            }
        }
    }

    /// Reads what a worker's tasks wrote before they sent the frame that has been received.
    #[inline]
    pub(crate) fn catch_up(&mut self, worker: u32, mut hear: impl Hear) {
        if let Some(process) = self.at_work(worker)
            && process.output.is_behind(&process.page)
        {
            process.read_output(READS_A_TURN, |stream, text, by| hear(worker, stream, text, by));
        }
    }

    /// The processes that have ended since the last call; what user code left behind in their groups ends with them. What they
    /// wrote is handed over first.
    pub(crate) fn reap(&mut self, mut hear: impl Hear) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (worker, processes) in (0u32..).zip(&mut self.running) {
            processes.retain_mut(|process| {
                let Ok(Some(status)) = process.process.try_wait_with_group() else {
                    if process.outlives_its_connection() {
                        hear(worker, 2, LOST, None);
                        process.kill();
                    }
                    return true;
                };
                process.read_output(READS_AT_END, |stream, text, by| hear(worker, stream, text, by));
                process.output.finish(&process.page, |stream, text, by| hear(worker, stream, text, by));
                let exit = process.exit(status, &mut self.oom);
                let (incarnation, executing) = (process.incarnation, process.page.executing());
                ended.push(Ended { worker, incarnation, exit, executing });
                false
            });
        }
        ended
    }

    /// To be called often: what the kernel did long ago explains no death.
    #[inline]
    pub(crate) fn age(&mut self, now_ns: u64) {
        self.oom.age(now_ns);
    }

    /// Tells a worker of a segment; in order, and at once unless its socket is full.
    pub(crate) fn tell_of_segment(&mut self, worker: u32, news: &SegmentNews, fd: Option<OwnedFd>) {
        if let Some(process) = self.at_work(worker) {
            process.untold.push_back((segments::encode(news, MESSAGE_BYTES_MAX), fd));
            process.tell();
        }
    }

    /// Tells what sockets would not take before.
    pub(crate) fn retry_control(&mut self) {
        self.running.iter_mut().flatten().filter(|process| !process.untold.is_empty()).for_each(Process::tell);
    }

    /// Whether a worker's end is due.
    pub(crate) fn awaits_end(&self) -> bool {
        self.running.iter().flatten().any(|process| process.lost.is_some())
    }

    /// Whether a worker has not been told everything.
    pub(crate) fn is_blocked(&self) -> bool {
        self.running.iter().flatten().any(|process| !process.untold.is_empty())
    }

    /// Interrupts the attempt if the worker is in it now; once.
    pub(crate) fn interrupt(&mut self, worker: u32, attempt: (u32, u32)) {
        let Some(process) = self.at_work(worker) else { return };
        if process.page.executing() == Some(attempt) && process.interrupted != Some(attempt) {
            process.interrupted = Some(attempt);
            process.page.set_cancel(attempt.0, attempt.1);
            // The process may have ended meanwhile; then its end is the answer.
            let _ = process.process.send_signal(Signal::INT);
        }
    }

    /// Asks a worker for its Python stacks; why not, if that cannot be.
    pub(crate) fn ask_for_stacks(&mut self, worker: u32, now_ns: u64) -> Result<(), String> {
        let process = self.at_work(worker).ok_or("its process has ended")?;
        process.stacks.ask(&process.process, now_ns).map_err(|error| format!("its process cannot be asked: {error}"))
    }

    /// The stacks that have come since the last call.
    pub(crate) fn poll_stacks(&mut self, now_ns: u64, mut give: impl FnMut(u32, &str)) {
        for (worker, processes) in (0..).zip(&mut self.running) {
            if let Some(text) = processes.first_mut().and_then(|process| process.stacks.poll(now_ns)) {
                give(worker, &text);
            }
        }
    }

    /// When to look for stacks again.
    pub(crate) fn stacks_due_ns(&self, now_ns: u64) -> Option<u64> {
        self.running.iter().flatten().find_map(|process| process.stacks.due_ns(now_ns))
    }

    /// Whether the worker has received a frame since the last call.
    pub(crate) fn has_heard(&mut self, worker: u32) -> bool {
        let Some(process) = self.at_work(worker) else { return false };
        let frames = process.page.frames();
        std::mem::replace(&mut process.frames, frames) != frames
    }

    /// Processor time that the worker's process has used.
    pub(super) fn cpu_ns(&mut self, worker: u32) -> Option<u64> {
        self.at_work(worker)?.process.cpu_ns()
    }

    /// Kills a process and all that user code started in it; its end is seen by [`Children::reap`].
    pub(crate) fn kill(&mut self, worker: u32) {
        if let Some(process) = self.at_work(worker) {
            process.kill();
        }
    }

    /// Kills every process of a worker.
    pub(crate) fn kill_all(&mut self, worker: u32) {
        self.running[worker as usize].iter_mut().for_each(Process::kill);
    }

    /// Kills the processes that have not taken their worker's place yet: they have nothing to finish.
    pub(crate) fn kill_successors(&mut self) {
        self.running.iter_mut().flat_map(|processes| processes.iter_mut().skip(1)).for_each(Process::kill);
    }

    /// Workers whose process runs.
    pub(crate) fn alive(&self) -> Vec<u32> {
        (0u32..).zip(&self.running).filter(|(_, processes)| !processes.is_empty()).map(|(worker, _)| worker).collect()
    }

    fn at_work(&mut self, worker: u32) -> Option<&mut Process> {
        self.running.get_mut(worker as usize)?.first_mut()
    }
}

impl Process {
    /// Whether it goes on without a connection to its broker, as another program, say.
    fn outlives_its_connection(&mut self) -> bool {
        match self.lost {
            // A worker says nothing here, so whatever can be read is the end.
            None if matches!(control::receive(&self.control), Ok(Received::End)) => {
                self.lost = Some(Instant::now() + LOST_PATIENCE);
                false
            }
            None => false,
            Some(until) if Instant::now() >= until => {
                self.lost = Some(Instant::now() + LOST_PATIENCE);
                true
            }
            Some(_) => false,
        }
    }

    fn exit(&self, status: ExitStatus, oom: &mut OomWatch) -> Exit {
        match status {
            ExitStatus::Signaled { signal } if signal == Signal::KILL.as_raw() && !self.killed => {
                oom.explain(self.process.peak_bytes()).map_or(Exit::Signal(signal.unsigned_abs()), Exit::OutOfMemory)
            }
            ExitStatus::Signaled { signal } => Exit::Signal(signal.unsigned_abs()),
            ExitStatus::Exited { code } => Exit::Code(code),
            ExitStatus::Unknown => Exit::Unknown,
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        // If it has ended, that is well too.
        let _ = self.process.send_signal_to_group(Signal::KILL);
    }

    fn tell(&mut self) {
        while let Some((message, fd)) = self.untold.front() {
            match control::send(&self.control, message, fd.as_ref().map(|fd| fd.as_fd())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // A socket that takes nothing any more is a worker that has ended.
                Ok(()) | Err(_) => drop(self.untold.pop_front()),
            }
        }
    }

    fn read_output(&mut self, times_max: usize, hear: impl FnMut(u8, &[u8], Option<(u32, u32)>)) {
        self.output.read(&self.page, times_max, hear);
    }
}
