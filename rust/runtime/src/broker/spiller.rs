//! Writing results to files, on a thread of its own: a disk takes its time, and the broker has none.
//!
//! A file has no name from its birth (`O_TMPFILE`), so it is gone with its last descriptor, however the processes end.

use headrace_protocol::broker::{Payload, SpillFrom};
use headrace_sys::eventfd::EventFd;
use headrace_sys::threads::spawn_native;
use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Bytes that are copied at a time.
const STEP_BYTES: usize = 1 << 20;

/// Something that takes its time.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) what: Task,
}

/// What it is.
pub(super) enum Task {
    /// Write these parts to a file, which is this segment.
    Write { segment: u32, file: Target, parts: Vec<Part> },
    /// Put these bytes and those together.
    Gather { head: Vec<u8>, parts: Vec<Source> },
}

/// The file of a job.
pub(super) enum Target {
    /// A new one of this size.
    New(u64),
    /// This one.
    Known(Arc<File>),
}

/// One thing to write, and where in the file.
pub(super) struct Part {
    pub(super) from: Source,
    pub(super) to: u64,
}

/// Where bytes come from.
pub(super) enum Source {
    /// So many bytes of a segment's memory, from an offset on.
    Memory(Arc<File>, u64, u64),
    /// These.
    Value(Payload),
}

impl Source {
    /// A part as the machine names it; `None` if its segment is gone.
    pub(super) fn of(from: SpillFrom, find: impl FnOnce(u32) -> Option<Arc<File>>) -> Option<Self> {
        Some(match from {
            SpillFrom::Block { segment, offset, bytes } => Source::Memory(find(segment)?, offset, bytes),
            SpillFrom::Value(value) => Source::Value(value),
        })
    }
}

/// How a job ended.
pub(super) struct Written {
    pub(super) job: u64,
    pub(super) what: What,
}

/// What came of it.
pub(super) enum What {
    /// The file, if it is new and was written.
    File { segment: u32, file: Option<File>, outcome: Result<(), String> },
    /// All the bytes.
    Value(Result<Vec<u8>, String>),
}

/// The thread, which starts with the first job.
pub(super) struct Spiller {
    dir: PathBuf,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    written: (Sender<Written>, Receiver<Written>),
    /// Rung for each end of a job.
    bell: Arc<EventFd>,
    /// Whether jobs are to be given up. Relaxed: it says nothing of other memory, and is looked at again and again.
    stop: Arc<AtomicBool>,
}

impl Spiller {
    pub(super) fn new(dir: PathBuf) -> io::Result<Self> {
        let (bell, stop) = (Arc::new(EventFd::new()?), Arc::default());
        Ok(Spiller { dir, jobs: None, thread: None, written: channel(), bell, stop })
    }

    /// To be polled for input.
    pub(super) fn fd(&self) -> RawFd {
        self.bell.fd()
    }

    /// Starts a job.
    pub(super) fn start(&mut self, job: Job) {
        let number = job.number;
        let segment = match job.what {
            Task::Write { segment, .. } => Some(segment),
            Task::Gather { .. } => None,
        };
        if let Err(text) = self.hand_over(job) {
            let what = match segment {
                Some(segment) => What::File { segment, file: None, outcome: Err(text) },
                None => What::Value(Err(text)),
            };
            let _ = self.written.0.send(Written { job: number, what });
            self.bell.signal();
        }
    }

    /// The next job that has ended.
    pub(super) fn poll(&self) -> Option<Written> {
        let written = self.written.1.try_recv().ok();
        if written.is_some() {
            self.bell.clear();
        }
        written
    }

    fn hand_over(&mut self, job: Job) -> Result<(), String> {
        if self.thread.is_none() {
            let (jobs, queue) = channel::<Job>();
            let (dir, written) = (self.dir.clone(), self.written.0.clone());
            let (bell, stop) = (Arc::clone(&self.bell), Arc::clone(&self.stop));
            let body = move || {
                for job in queue {
                    let _ = written.send(run(&dir, job, &stop));
                    bell.signal();
                }
            };
            self.thread = Some(spawn_native("headrace-spill", body).map_err(|error| error.to_string())?);
            self.jobs = Some(jobs);
        }
        let jobs = self.jobs.as_ref().expect("it came with the thread");
        jobs.send(job).map_err(|_| "the thread that writes has ended".to_owned())
    }
}

impl Drop for Spiller {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(dir: &Path, job: Job, stop: &AtomicBool) -> Written {
    let what = match job.what {
        Task::Write { segment, file, parts } => write(dir, segment, file, &parts, stop),
        Task::Gather { head, parts } => What::Value(gather(head, &parts).map_err(|error| error.to_string())),
    };
    Written { job: job.number, what }
}

fn write(dir: &Path, segment: u32, file: Target, parts: &[Part], stop: &AtomicBool) -> What {
    let written = match file {
        Target::Known(file) => write_parts(&file, parts, stop).map(|()| None),
        Target::New(bytes) => create(dir, bytes).and_then(|file| {
            write_parts(&file, parts, stop)?;
            Ok(Some(file))
        }),
    };
    match written {
        Ok(file) => What::File { segment, file, outcome: Ok(()) },
        Err(error) => What::File { segment, file: None, outcome: Err(format!("{error}, in {}", dir.display())) },
    }
}

/// A value with the bytes of its blocks behind it.
fn gather(mut head: Vec<u8>, parts: &[Source]) -> io::Result<Vec<u8>> {
    let bytes = |part: &Source| match part {
        Source::Memory(_, _, bytes) => *bytes as usize,
        Source::Value(value) => value.len(),
    };
    head.reserve_exact(parts.iter().map(bytes).sum());
    for part in parts {
        match part {
            Source::Value(value) => head.extend_from_slice(value.bytes()),
            Source::Memory(file, offset, bytes) => {
                let end = head.len() + *bytes as usize;
                while head.len() < end {
                    let at = offset + *bytes - (end - head.len()) as u64;
                    if rustix::io::pread(&**file, spare_capacity(&mut head), at)? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    // There may be room for more than this part.
                    head.truncate(end);
                }
            }
        }
    }
    Ok(head)
}

fn write_parts(file: &File, parts: &[Part], stop: &AtomicBool) -> io::Result<()> {
    let mut buffer = Vec::new();
    for Part { from, to } in parts {
        match from {
            Source::Value(value) => file.write_all_at(value.bytes(), *to)?,
            Source::Memory(memory, offset, bytes) => {
                buffer.resize(STEP_BYTES.min(*bytes as usize), 0);
                for at in (0..*bytes).step_by(STEP_BYTES) {
                    if stop.load(Ordering::Relaxed) {
                        return Err(io::Error::other("the broker ends"));
                    }
                    let step = &mut buffer[..STEP_BYTES.min((bytes - at) as usize)];
                    memory.read_exact_at(step, offset + at)?;
                    file.write_all_at(step, to + at)?;
                }
            }
        }
    }
    Ok(())
}

/// A file without a name, as large as it will ever be; it takes of the disk what is written to it.
fn create(dir: &Path, bytes: u64) -> io::Result<File> {
    let access = OFlags::RDWR | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(dir, access | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
        Ok(fd) => fd,
        // File systems that cannot: a name that is gone at once.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let path = dir.join(format!(".headrace-{}-{:p}", std::process::id(), &bytes));
            let fd = rustix::fs::open(&path, access | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?;
            rustix::fs::unlink(&path)?;
            fd
        }
        Err(errno) => return Err(errno.into()),
    };
    rustix::fs::ftruncate(&fd, bytes)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(spiller: &Spiller) -> Written {
        let mut fds = [headrace_sys::poll::PollFd::input(spiller.fd())];
        loop {
            if let Some(written) = spiller.poll() {
                return written;
            }
            headrace_sys::poll::wait(&mut fds, Some(std::time::Duration::from_secs(10))).unwrap();
        }
    }

    fn job(number: u64, segment: u32, file: Target, parts: Vec<Part>) -> Job {
        Job { number, what: Task::Write { segment, file, parts } }
    }

    #[test]
    fn parts_of_memory_are_gathered_behind_a_head() {
        let long: Vec<u8> = (0..3_000_000_u32).map(|byte| byte as u8).collect();
        let parts = [Source::Memory(memory(&long), 100, 3_000_000), Source::Memory(memory(b"tail"), 101, 3)];
        let found = gather(b"head".to_vec(), &parts).unwrap();
        assert_eq!(found, [&b"head"[..], &long, b"ail"].concat());
    }

    fn memory(contents: &[u8]) -> Arc<File> {
        let file = File::from(headrace_sys::segment::create(8 << 20).unwrap());
        file.write_all_at(contents, 100).unwrap();
        Arc::new(file)
    }

    #[test]
    fn parts_are_written_where_they_belong_and_files_have_no_name() {
        let dir = std::env::temp_dir().join(format!("headrace-spiller-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let mut spiller = Spiller::new(dir.clone()).unwrap();
        let long: Vec<u8> = (0..3_000_000_u32).map(|byte| byte as u8).collect();
        let part = Part { from: Source::Memory(memory(&long), 100, 3_000_000), to: 4_096 };
        spiller.start(job(1, 9, Target::New(8 << 20), vec![part]));
        let Written { job: 1, what: What::File { segment: 9, file: Some(file), outcome: Ok(()) } } = wait(&spiller)
        else {
            panic!()
        };
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        let file = Arc::new(file);
        let part = Part { from: Source::Memory(memory(b"later"), 100, 5), to: 0 };
        spiller.start(job(2, 9, Target::Known(Arc::clone(&file)), vec![part]));
        let Written { job: 2, what: What::File { file: None, outcome: Ok(()), .. } } = wait(&spiller) else { panic!() };
        let mut found = vec![0; 3_000_000];
        file.read_exact_at(&mut found, 4_096).unwrap();
        assert_eq!((found == long, file.metadata().unwrap().len()), (true, 8 << 20));
        file.read_exact_at(&mut found[..5], 0).unwrap();
        assert_eq!(&found[..5], b"later");
        std::fs::remove_dir(&dir).unwrap();
        spiller.start(job(3, 10, Target::New(4_096), Vec::new()));
        let Written { job: 3, what: What::File { file: None, outcome: Err(text), .. } } = wait(&spiller) else {
            panic!()
        };
        assert!(text.contains("No such file or directory") && text.contains("headrace-spiller"), "{text}");
    }
}
