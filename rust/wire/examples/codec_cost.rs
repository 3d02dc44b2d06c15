//! What does a frame cost? Prints nanoseconds a task for encoding and decoding large and small frames.
//!
//! `cargo run --release -p headrace-wire --example codec_cost`

use std::hint::black_box;
use std::time::Instant;

use headrace_wire::*;

fn main() {
    println!("{:<28}{:>12}{:>12}{:>10}", "frame", "encode", "decode", "bytes");
    for tasks in [1, 1_000, 100_000] {
        let columns = Columns::new(tasks);
        measure("submit", tasks, &Message::Submit(columns.submit()));
        measure("lease", tasks, &Message::Lease(columns.lease()));
        measure("report", tasks, &Message::Report(columns.report()));
        measure("results", tasks, &Message::Results(columns.results()));
    }
}

fn measure(name: &str, tasks: usize, message: &Message<'_>) {
    let rounds = 20.max(200_000 / tasks);
    let mut frame = Vec::new();
    message.encode(&mut frame);
    let encode_ns = best_ns(rounds, || {
        frame.clear();
        black_box(message).encode(black_box(&mut frame));
    });
    let decode_ns = best_ns(rounds, || {
        black_box(Message::decode(black_box(&frame))).expect("our own frame");
    });
    let name = format!("{name} of {tasks}");
    let per_task = |ns: f64| ns / tasks as f64;
    println!("{name:<28}{:>9.2} ns{:>9.2} ns{:>10}", per_task(encode_ns), per_task(decode_ns), frame.len());
}

/// The mean of the best of five rows of calls.
fn best_ns(rounds: usize, mut call: impl FnMut()) -> f64 {
    let row = |_| {
        let start = Instant::now();
        (0..rounds).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / rounds as f64
    };
    (0..5).map(row).fold(f64::INFINITY, f64::min)
}

/// A stencil-like load: three predecessors a task and eight bytes of arguments.
struct Columns {
    ones: Vec<u32>,
    threes: Vec<u32>,
    eights: Vec<u32>,
    zeros: Vec<u32>,
    numbers: Vec<u32>,
    deps: Vec<u32>,
    bytes: Vec<u8>,
}

impl Columns {
    fn new(tasks: usize) -> Self {
        Self {
            ones: vec![1; tasks],
            threes: vec![3; tasks],
            eights: vec![8; tasks],
            zeros: vec![0; tasks],
            numbers: (0..tasks as u32).collect(),
            deps: vec![0; 3 * tasks],
            bytes: vec![0; 8 * tasks],
        }
    }

    fn blobs(&self) -> Blobs<'_> {
        Blobs { lens: (&self.eights).into(), bytes: &self.bytes }
    }

    fn submit(&self) -> Submit<'_> {
        Submit {
            function_map: U32s::Words(&[1]),
            task_function: (&self.zeros).into(),
            dep_counts: (&self.threes).into(),
            deps: (&self.deps).into(),
            args: self.blobs(),
            ..Submit::default()
        }
    }

    fn lease(&self) -> Lease<'_> {
        Lease {
            task: (&self.numbers).into(),
            attempt: (&self.ones).into(),
            function: (&self.ones).into(),
            flags: &self.bytes[..self.numbers.len()],
            index: (&self.numbers).into(),
            dep_counts: (&self.threes).into(),
            deps: (&self.deps).into(),
            args: self.blobs(),
            ..Lease::default()
        }
    }

    fn report(&self) -> Report<'_> {
        Report {
            task: (&self.numbers).into(),
            attempt: (&self.ones).into(),
            verdict: &self.bytes[..self.numbers.len()],
            values: self.blobs(),
            ..Report::default()
        }
    }

    fn results(&self) -> Results<'_> {
        Results {
            index: (&self.numbers).into(),
            outcome: &self.bytes[..self.numbers.len()],
            values: self.blobs(),
            ..Results::default()
        }
    }
}
