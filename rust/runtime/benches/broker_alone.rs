//! How many tasks a second does a broker get done if tasks cost nothing? `cargo bench -p headrace-runtime --bench broker_alone`
//!
//! The real broker with its sockets, and worker processes without Python that answer every lease at once and say that it took
//! them a microsecond: so a frame holds a millisecond of estimated work, a thousand tasks. All arguments differ, and every
//! result travels to the client. The client's time to make the graph does not count; its SUBMIT frame does.

use headrace_protocol::limits::Offer;
use headrace_protocol::worker::{Ending, Identity, Start, Worker};
use headrace_runtime::broker::{BrokerConfig, Launch, start};
use headrace_runtime::inproc::{ClientEnd, Interest};
use headrace_sys::poll::{self, PollFd};
use headrace_sys::spawn::take_inherited;
use headrace_sys::zmq::{Context, Dealer, Library, SendError, find_candidates};
use headrace_wire::{Blobs, BlobsBuf, Hello, Hold, Message, PROTOCOL_VERSION, Role, Submit};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// What a task is said to take.
const TASK_NS: u64 = 1_000;
const ROUNDS: usize = 5;
const PYTHON: &str = "3.11.7";

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == "--worker") {
        return work(&words[2..]);
    }
    let workers: Vec<u32> = words.iter().filter_map(|word| word.parse().ok()).collect();
    for workers in if workers.is_empty() { vec![1, 2, 4] } else { workers } {
        for tasks in [10_000, 100_000, 1_000_000] {
            let mut seconds = run(workers, tasks);
            seconds.sort_by(f64::total_cmp);
            let rate = |seconds: f64| f64::from(tasks) / seconds / 1e6;
            println!(
                "{workers} workers {tasks:8} tasks   {:6.2} million tasks a second (best {:.2}, worst {:.2} of {ROUNDS})",
                rate(seconds[ROUNDS / 2]),
                rate(seconds[0]),
                rate(seconds[ROUNDS - 1]),
            );
        }
    }
}

/// Seconds from SUBMIT to the last result.
fn run(workers: u32, tasks: u32) -> Vec<f64> {
    let config = BrokerConfig {
        workers,
        spares: 0,
        offer: Offer::default(),
        launch: Launch {
            program: std::env::current_exe().expect("a program has a name"),
            args: vec!["--worker".into()],
            env: std::env::vars_os().collect(),
            worker_env: Vec::new(),
            boot: Vec::new(),
        },
        places: 0,
        libzmq: find_candidates(),
        run_dir_base: None,
        crash_limit: 3,
        oom_limit: 1,
        tasks_max: u64::MAX,
        result_bytes_max: 1 << 20,
        store_limit: 8 << 30,
        spill_dir: std::env::temp_dir(),
        spill_limit: 0,
        version: env!("CARGO_PKG_VERSION").into(),
        python: PYTHON.into(),
        grace_ns: 1_000_000_000,
        is_open: false,
        network: None,
    };
    let (broker, client) = start(config).expect("the broker starts");
    send(&client, Message::Hello(hello()));
    // The first round finds workers that start, and memory that nobody has touched.
    let mut seconds: Vec<f64> = (0..=ROUNDS as u32).map(|round| round_trip(&client, round + 1, tasks)).collect();
    drop(client);
    broker.join();
    seconds.split_off(1)
}

fn round_trip(client: &ClientEnd, run: u32, tasks: u32) -> f64 {
    let frame = submit(run, tasks);
    let begin = Instant::now();
    client.send(frame).expect("the broker is there");
    let mut results = 0;
    loop {
        let received = client.received();
        while let Some(frame) = client.try_recv() {
            let Ok(Message::Results(message)) = Message::decode(&frame) else { continue };
            results += message.index.len();
            if message.finished {
                let elapsed = begin.elapsed();
                assert_eq!((message.run, results), (run, tasks as usize), "every result has come, once");
                send(client, Message::Hold(Hold { run, release_run: true, ..Hold::default() }));
                return elapsed.as_secs_f64();
            }
        }
        let _ = client.wait(Interest::RunEnd { run }, received, Some(Duration::from_millis(100)));
    }
}

fn send(client: &ClientEnd, message: Message<'_>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    client.send(bytes).expect("the broker is there");
}

fn hello() -> Hello<'static> {
    Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        version: env!("CARGO_PKG_VERSION"),
        python: PYTHON,
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: std::process::id(),
    }
}

/// Independent tasks of one function, each with a number of its own, all kept.
fn submit(run: u32, tasks: u32) -> Vec<u8> {
    let numbers: Vec<u32> = (0..tasks).collect();
    let (zeros, lens) = (vec![0; tasks as usize], vec![4; tasks as usize]);
    let args: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut name = BlobsBuf::default();
    name.push(b"work");
    let submit = Submit {
        run,
        function_ids: zeros[..1].into(),
        function_names: name.as_blobs(),
        functions: name.as_blobs(),
        function_map: zeros[..1].into(),
        task_function: (&zeros).into(),
        dep_counts: (&zeros).into(),
        args: Blobs { lens: (&lens).into(), bytes: &args },
        keep: (&numbers).into(),
        ..Submit::default()
    };
    let mut bytes = Vec::new();
    Message::Submit(submit).encode(&mut bytes);
    bytes
}

/// A worker process: the machine and the socket of the real one, and tasks that return their argument.
fn work(words: &[String]) {
    let [_status, control, _boot, endpoint, worker, incarnation, libzmq, _stacks] = words else {
        panic!("not the words of a broker: {words:?}")
    };
    let number = |word: &String| word.parse().expect("it is a number");
    let control = take_inherited(number(control) as i32).expect("it was inherited");
    let library = Library::open(&[libzmq.into()]).expect("the broker has found it");
    let context = Context::new(&library).expect("a context");
    let name = format!("w{}", std::process::id());
    let mut dealer = Dealer::connect(&context, endpoint, name.as_bytes()).expect("a socket");
    let (version, python) = (env!("CARGO_PKG_VERSION").into(), PYTHON.into());
    let (worker, pid) = (number(worker) as u32, std::process::id());
    let mut machine = Worker::new(&Identity { version, python, worker, incarnation: number(incarnation), pid });
    let mut start = Start::default();
    let mut clock_ns = 0;
    let mut unsent: Vec<u8> = Vec::new();
    loop {
        while let Ok(Some(frame)) = dealer.try_recv() {
            machine.handle_frame(&frame);
            while machine.start_next(&mut start, || clock_ns) {
                clock_ns += TASK_NS;
                machine.finish(Ending::Value(start.args()));
            }
            machine.flush(clock_ns);
        }
        if machine.closed().is_some() {
            return;
        }
        loop {
            if unsent.is_empty() {
                let Some(frame) = machine.poll_frame() else { break };
                unsent = frame;
            }
            match dealer.send(&mut unsent) {
                Ok(()) => unsent.clear(),
                Err(SendError::WouldBlock | SendError::Unreachable) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if dealer.has_input().expect("the socket works") {
            continue;
        }
        let patience = (!unsent.is_empty()).then_some(Duration::from_millis(1));
        let mut fds = [PollFd::input(dealer.fd()), PollFd::input(control.as_raw_fd())];
        let _ = poll::wait(&mut fds, patience);
        if fds[1].is_ready() || fds[1].hung_up() {
            return;
        }
    }
}
