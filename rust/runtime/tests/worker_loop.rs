//! The worker's loop and its warden on a transport whose descriptor is as edge-triggered as libzmq's.

use std::collections::VecDeque;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use headrace_protocol::worker::{Ending, Identity, Start};
use headrace_runtime::transport::{Link, SendError, ZmqError};
use headrace_runtime::worker_loop::{Next, WorkerLoop};
use headrace_sys::eventfd::EventFd;
use headrace_sys::status_page::StatusPage;
use headrace_wire::{
    BlobsBuf, Citation, GiveBack, Goodbye, GoodbyeReason, Heartbeat, LEASE_HOLD, LEASE_REPORT, Lease, Message, Recall,
    Release, Verdict, write_citations,
};

/// Far beyond what an answer takes, so that a busy machine does not fail a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// The worker's end: like libzmq's, its descriptor is signalled by the first frame after a receive that found nothing,
/// and every send or receive takes the signal back.
struct EdgyLink {
    inbox: Arc<Inbox>,
    to_broker: Sender<Vec<u8>>,
}

struct Inbox {
    edge: EventFd,
    frames: Mutex<Frames>,
}

#[derive(Default)]
struct Frames {
    waiting: VecDeque<Vec<u8>>,
    reader_sleeps: bool,
}

impl Link for EdgyLink {
    type Frame = Vec<u8>;

    fn send(&mut self, frame: &mut Vec<u8>) -> Result<(), SendError> {
        let _frames = self.inbox.frames.lock().unwrap();
        self.inbox.edge.clear();
        // The test may be over.
        let _ = self.to_broker.send(std::mem::take(frame));
        Ok(())
    }

    fn try_recv(&mut self) -> Result<Option<Vec<u8>>, ZmqError> {
        let mut frames = self.inbox.frames.lock().unwrap();
        self.inbox.edge.clear();
        let frame = frames.waiting.pop_front();
        frames.reader_sleeps = frame.is_none();
        Ok(frame)
    }

    fn has_input(&mut self) -> Result<bool, ZmqError> {
        Ok(!self.inbox.frames.lock().unwrap().waiting.is_empty())
    }

    fn fd(&self) -> RawFd {
        self.inbox.edge.fd()
    }
}

/// The test as broker, and a thread as the worker's main thread.
struct Cluster {
    inbox: Arc<Inbox>,
    from_worker: Receiver<Vec<u8>>,
    main: JoinHandle<()>,
    _control: UnixDatagram,
}

impl Cluster {
    /// Starts a worker whose tasks are `body(task)`.
    fn start(body: impl FnMut(u32) + Send + 'static) -> Self {
        Self::with_garbage(body, |_| panic!("nobody asked for memory"))
    }

    /// The same, and `look_for_garbage(urgency)` is done where somebody wants memory.
    fn with_garbage(
        mut body: impl FnMut(u32) + Send + 'static,
        mut look_for_garbage: impl FnMut(u8) + Send + 'static,
    ) -> Self {
        let inbox = Arc::new(Inbox { edge: EventFd::new().unwrap(), frames: Mutex::default() });
        let (to_broker, from_worker) = channel();
        let (control, workers_control) = UnixDatagram::pair().unwrap();
        let link = EdgyLink { inbox: Arc::clone(&inbox), to_broker };
        let identity =
            Identity { version: "0".into(), python: "3".into(), worker: 0, incarnation: 0, pid: std::process::id() };
        let page = StatusPage::create().unwrap();
        let worker = WorkerLoop::new(link, &identity, OwnedFd::from(workers_control), Arc::new(page)).unwrap();
        worker.open();
        let main = thread::spawn(move || {
            let mut start = Start::default();
            let mut ended = None;
            loop {
                match worker.next(ended.take(), &mut start) {
                    Next::Run => {
                        body(start.task);
                        ended = Some(Ending::Value(b"done"));
                    }
                    Next::Collect(urgency) => {
                        look_for_garbage(urgency);
                        worker.note_collected(urgency);
                    }
                    Next::Idle => {
                        let _ = worker.wait().unwrap();
                    }
                    Next::Stop => return,
                }
            }
        });
        let cluster = Cluster { inbox, from_worker, main, _control: control };
        assert!(cluster.hear(|message| matches!(message, Message::Hello(_))));
        cluster
    }

    fn say(&self, message: &Message<'_>) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        let mut frames = self.inbox.frames.lock().unwrap();
        frames.waiting.push_back(frame);
        if std::mem::take(&mut frames.reader_sleeps) {
            self.inbox.edge.signal();
        }
    }

    /// Leases tasks without arguments; each next one depends on the one before if `chain`.
    fn lease(&self, tasks: &[u32], chain: bool) {
        let (mut blobs, mut empty) = (BlobsBuf::default(), BlobsBuf::default());
        blobs.push(b"f");
        tasks.iter().for_each(|_| empty.push(b""));
        let zeros = vec![0; tasks.len()];
        let dep_counts: Vec<u32> = (0..tasks.len()).map(|position| u32::from(chain && position > 0)).collect();
        let deps = if chain { &tasks[..tasks.len() - 1] } else { &[] };
        self.say(&Message::Lease(Lease {
            function_ids: (&[0][..]).into(),
            function_names: blobs.as_blobs(),
            functions: blobs.as_blobs(),
            task: tasks.into(),
            attempt: tasks.into(),
            function: (&zeros).into(),
            flags: &vec![LEASE_REPORT | LEASE_HOLD; tasks.len()],
            index: (&zeros).into(),
            dep_counts: (&dep_counts).into(),
            deps: deps.into(),
            args: empty.as_blobs(),
            ..Lease::default()
        }));
    }

    fn recall(&self, tasks: &[u32]) {
        self.say(&Message::Recall(Recall { task: tasks.into(), attempt: tasks.into(), ..Recall::default() }));
    }

    /// The next frame of the worker.
    fn hear<T>(&self, read: impl FnOnce(Message<'_>) -> T) -> T {
        let frame = self.from_worker.recv_timeout(PATIENCE).expect("the worker is silent");
        read(Message::decode(&frame).unwrap())
    }

    fn hear_report(&self) -> Vec<(u32, Verdict)> {
        self.hear(|message| match message {
            Message::Report(report) => {
                let verdicts = report.verdict.iter().map(|&verdict| Verdict::try_from(verdict).unwrap());
                report.task.iter().zip(verdicts).collect()
            }
            other => panic!("not a report: {other:?}"),
        })
    }

    fn stop(self) {
        self.say(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Shutdown as u8, text: "" }));
        self.main.join().unwrap();
        assert!(self.from_worker.try_recv().is_err(), "nothing else was sent");
    }
}

fn spin(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

#[test]
fn a_frame_of_leases_is_one_report() {
    let cluster = Cluster::start(|_| {});
    let tasks: Vec<u32> = (0..100).collect();
    cluster.lease(&tasks, true);
    let done: Vec<_> = tasks.iter().map(|&task| (task, Verdict::Done)).collect();
    assert_eq!(cluster.hear_report(), done);
    cluster.stop();
}

#[test]
fn the_warden_answers_while_a_task_runs() {
    let (release, held) = channel::<()>();
    let (entered, enter) = channel();
    let cluster = Cluster::start(move |task| {
        if task == 1 {
            entered.send(()).unwrap();
            held.recv().unwrap();
        }
    });
    cluster.lease(&[0, 1, 2, 3], false);
    enter.recv_timeout(PATIENCE).unwrap();
    assert_eq!(cluster.hear_report(), [(0, Verdict::Done)], "what is finished leaves at once");
    for number in 0..50 {
        cluster.say(&Message::Heartbeat(Heartbeat { number, finished: 0 }));
        let echo = cluster.hear(|message| match message {
            Message::Heartbeat(heartbeat) => heartbeat,
            other => panic!("not a heartbeat: {other:?}"),
        });
        assert_eq!(echo, Heartbeat { number, finished: 1 });
    }
    cluster.recall(&[3, 1]);
    assert_eq!(cluster.hear_report(), [(3, Verdict::Returned)]);
    release.send(()).unwrap();
    assert_eq!(cluster.hear_report(), [(1, Verdict::Done), (2, Verdict::Done)]);
    cluster.stop();
}

#[test]
fn leases_that_came_during_a_task_run_after_it() {
    let (release, held) = channel::<()>();
    let cluster = Cluster::start(move |task| {
        if task == 0 {
            held.recv().unwrap();
        }
    });
    cluster.lease(&[0], false);
    cluster.lease(&[1, 2], false);
    cluster.say(&Message::Heartbeat(Heartbeat::default()));
    cluster.hear(|message| assert!(matches!(message, Message::Heartbeat(_)), "the warden has received all"));
    release.send(()).unwrap();
    assert_eq!(cluster.hear_report(), [(0, Verdict::Done)]);
    assert_eq!(cluster.hear_report(), [(1, Verdict::Done), (2, Verdict::Done)]);
    cluster.stop();
}

#[test]
fn the_main_thread_looks_for_garbage_before_or_after_its_tasks() {
    let (release, held) = channel::<()>();
    let (entered, enter) = channel();
    let (looked, looks) = channel();
    let body = move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    };
    let cluster = Cluster::with_garbage(body, move |urgency| looked.send(urgency).unwrap());
    // A value that lies in somebody else's block, which is dead.
    let (mut value, mut values) = (Vec::new(), BlobsBuf::default());
    write_citations(&[Citation { segment: 7, offset: 64, bytes: 4_096 }], &mut value);
    values.push(&value);
    cluster.say(&Message::Lease(Lease { value_task: [99][..].into(), values: values.as_blobs(), ..Lease::default() }));
    cluster.say(&Message::Release(Release {
        segment: [7][..].into(),
        offset: [1][..].into(),
        citations: [0][..].into(),
    }));
    let ask = || cluster.say(&Message::GiveBack(GiveBack { urgency: 2, ..GiveBack::default() }));
    let hear_answer = || cluster.hear(|message| assert!(matches!(message, Message::GiveBack(_)), "{message:?}"));
    for _ in 0..3 {
        ask();
        assert_eq!(looks.recv_timeout(PATIENCE), Ok(2), "while it sleeps");
        hear_answer();
    }
    cluster.lease(&[0], false);
    enter.recv_timeout(PATIENCE).unwrap();
    ask();
    hear_answer();
    assert!(looks.try_recv().is_err(), "the task may take hours");
    release.send(()).unwrap();
    assert_eq!(looks.recv_timeout(PATIENCE), Ok(2));
    assert_eq!(cluster.hear_report(), [(0, Verdict::Done)]);
    cluster.stop();
}

/// Frames arrive at every moment of idle, short, long and mixed work: each lease is answered once, or this waits in vain.
#[test]
fn nothing_is_stranded_and_nobody_oversleeps() {
    let cluster = Cluster::start(|task| match task % 61 {
        0 => spin(Duration::from_micros(2500)),
        1..=4 => spin(Duration::from_micros(300)),
        _ => {}
    });
    let mut random: u32 = 12345;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 16
    };
    let mut sent = 0;
    let mut open = 0u32;
    for round in 0..1500u64 {
        let count = 1 + next() % 7;
        let tasks: Vec<u32> = (sent..sent + count).collect();
        sent += count;
        open += count;
        cluster.lease(&tasks, next() % 3 == 0);
        if next() % 5 == 0 {
            cluster.say(&Message::Heartbeat(Heartbeat { number: round, finished: 0 }));
        }
        if next() % 4 == 0 {
            cluster.recall(&tasks[..1]);
        }
        spin(Duration::from_micros(u64::from(next() % 40)));
        // Now and then the worker runs dry, and its next frame finds it asleep or on its way there.
        let leave = if next() % 3 == 0 { 0 } else { 200 };
        while open > leave {
            open -= cluster.hear(|message| match message {
                Message::Report(report) => report.task.len() as u32,
                _ => 0,
            });
        }
    }
    // Recalls may be answered still, even behind this heartbeat, for what is returned leaves at the end of a turn.
    cluster.say(&Message::Heartbeat(Heartbeat { number: u64::MAX, finished: 0 }));
    while !cluster.hear(|message| matches!(message, Message::Heartbeat(Heartbeat { number: u64::MAX, .. }))) {}
    cluster.say(&Message::Goodbye(Goodbye { reason: GoodbyeReason::Shutdown as u8, text: "" }));
    cluster.main.join().unwrap();
}
