//! The worker processes of a broker: their pages, pipes and ends.

use super::BrokerConfig;
use super::lines::Lines;
use headrace_protocol::broker::Exit;
use headrace_sys::memfd::Memfd;
use headrace_sys::poll::PollFd;
use headrace_sys::spawn::{Child, Spawn};
use headrace_sys::status_page::StatusPage;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Bytes read from a worker's pipe at a time.
const PIPE_BYTES: usize = 64 << 10;

/// How to start a worker, and the ones that run.
#[derive(Debug)]
pub(super) struct Children {
    spawn: Spawn,
    boot: Memfd,
    /// Arguments after the descriptors: the endpoint first, the path of libzmq last.
    endpoint: OsString,
    library: OsString,
    running: Vec<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    incarnation: u64,
    child: Child,
    page: StatusPage,
    out: [Lines; 2],
    /// The attempt that was last sent SIGINT; a second one would hit its clean-up.
    interrupted: Option<(u32, u32)>,
}

/// A process that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) worker: u32,
    pub(super) incarnation: u64,
    pub(super) exit: Exit,
    pub(super) executing: Option<(u32, u32)>,
}

impl Children {
    /// No process yet.
    pub(super) fn new(config: &BrokerConfig, endpoint: &str, library: &Path) -> io::Result<Self> {
        Ok(Children {
            spawn: Spawn { program: config.program.clone(), args: config.args.clone(), env: config.env.clone() },
            boot: Memfd::with_bytes("headrace-boot", &config.boot)?,
            endpoint: endpoint.into(),
            library: library.into(),
            running: (0..config.workers).map(|_| None).collect(),
        })
    }

    /// Starts the process of a worker.
    pub(super) fn start(&mut self, worker: u32, incarnation: u64) -> io::Result<()> {
        let page = StatusPage::create()?;
        let child = self.spawn.start(&[page.as_raw_fd(), self.boot.as_raw_fd()], |fds| {
            // status page, control socket, boot file, as numbers in the child
            let number = |fd: i32| OsString::from(fd.to_string());
            vec![
                number(fds.inherited[0]),
                number(fds.control),
                number(fds.inherited[1]),
                self.endpoint.clone(),
                number(worker as i32),
                OsString::from(incarnation.to_string()),
                self.library.clone(),
            ]
        })?;
        let out = [Lines::default(), Lines::default()];
        self.running[worker as usize] = Some(Process { incarnation, child, page, out, interrupted: None });
        Ok(())
    }

    /// Descriptors that turn readable when a process writes or ends.
    pub(super) fn poll_fds(&self, fds: &mut Vec<PollFd>) {
        for process in self.running.iter().flatten() {
            fds.push(PollFd::input(process.child.pidfd.fd()));
            for pipe in [&process.child.stdout, &process.child.stderr].into_iter().flatten() {
                fds.push(PollFd::input(pipe.as_raw_fd()));
            }
        }
    }

    /// Reads what the processes wrote and hands over whole lines.
    pub(super) fn read_pipes(&mut self, mut line: impl FnMut(u32, u8, &[u8])) {
        for (worker, process) in self.running.iter_mut().enumerate() {
            let Some(process) = process else { continue };
            process.read_pipes(|stream, text| line(worker as u32, stream, text));
        }
    }

    /// The processes that have ended since the last call. What they wrote is handed over first.
    pub(super) fn reap(&mut self, mut line: impl FnMut(u32, u8, &[u8])) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (worker, slot) in self.running.iter_mut().enumerate() {
            let Some(process) = slot else { continue };
            let Ok(Some(status)) = process.child.pidfd.wait() else { continue };
            process.read_pipes(|stream, text| line(worker as u32, stream, text));
            for (stream, lines) in [1, 2].into_iter().zip(&mut process.out) {
                if let Some(text) = lines.finish() {
                    line(worker as u32, stream, &text);
                }
            }
            let exit = match status {
                headrace_sys::pidfd::ExitStatus::Signal(signal) => Exit::Signal(signal as u32),
                headrace_sys::pidfd::ExitStatus::Code(code) => Exit::Code(code),
            };
            let executing = process.page.executing();
            ended.push(Ended { worker: worker as u32, incarnation: process.incarnation, exit, executing });
            *slot = None;
        }
        ended
    }

    /// Interrupts the attempt if the worker is in it now; once.
    pub(super) fn interrupt(&mut self, worker: u32, attempt: (u32, u32)) {
        let Some(Some(process)) = self.running.get_mut(worker as usize) else { return };
        if process.page.executing() == Some(attempt) && process.interrupted != Some(attempt) {
            process.interrupted = Some(attempt);
            process.page.set_cancel(attempt.0, attempt.1);
            // The process may have ended meanwhile; then its end is the answer.
            let _ = process.child.pidfd.send_signal(headrace_sys::signals::SIGINT);
        }
    }

    /// Kills a process; its end is seen by [`Children::reap`].
    pub(super) fn kill(&mut self, worker: u32) {
        if let Some(Some(process)) = self.running.get(worker as usize) {
            let _ = process.child.pidfd.send_signal(headrace_sys::signals::SIGKILL);
        }
    }

    /// Workers whose process runs.
    pub(super) fn alive(&self) -> Vec<u32> {
        (0u32..).zip(&self.running).filter(|(_, process)| process.is_some()).map(|(worker, _)| worker).collect()
    }
}

impl Process {
    fn read_pipes(&mut self, mut line: impl FnMut(u8, &[u8])) {
        let mut piece = [0; PIPE_BYTES];
        let pipes = [&mut self.child.stdout, &mut self.child.stderr];
        for ((stream, pipe), lines) in [1, 2].into_iter().zip(pipes).zip(&mut self.out) {
            while let Some(open) = pipe {
                match headrace_sys::poll::read(open, &mut piece) {
                    Ok(0) => *pipe = None,
                    Ok(len) => {
                        if let Some(text) = lines.push(&piece[..len]) {
                            line(stream, &text);
                        }
                    }
                    // Nothing there for now, or a pipe that says nothing more.
                    Err(_) => break,
                }
            }
        }
    }
}
