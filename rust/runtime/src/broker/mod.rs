//! The embedded broker: a native thread that owns the sockets, the worker processes and the pure machine between them.
//!
//! The thread never takes an interpreter lock. It blocks all signals, so that they reach Python. Everything that can fail
//! at the start (libzmq, the run directory, the socket) is done in the caller's thread and returned as an error.

mod children;
mod door;
mod gate;
mod oom;
mod output;
mod spiller;
mod stacks;
mod turn;

use crate::clock;
use crate::inproc::{self, ClientEnd};
use crate::run_dir::RunDir;
use crate::segments::Segments;
use gate::{Gate, GateError};
use headrace_protocol::broker::{Config as MachineConfig, STRAGGLER_NS};
use headrace_protocol::limits::Offer;
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::{Context, Library, OwnKeys, Router};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) use children::{Children, Ended};
pub use gate::Allowed;

/// How to start a worker.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Program of a worker: the interpreter.
    pub program: PathBuf,
    /// Its arguments, before the ones that are added: status page, control socket and boot file as descriptor numbers,
    /// endpoint, worker number, incarnation, path of libzmq, and the file for stacks.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What each worker has in its environment besides, by number; may be shorter.
    pub worker_env: Vec<Vec<(OsString, OsString)>>,
    /// Bytes that each worker finds in its boot file.
    pub boot: Vec<u8>,
}

/// How an embedded broker is set up.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Worker processes; at least 1.
    pub workers: u32,
    /// Further ones at most, while tasks wait for what they have submitted.
    pub spares: u32,
    /// What tasks may ask for while they run.
    pub offer: Offer,
    /// How to start a worker.
    pub launch: Launch,
    /// Places for workers of other machines.
    pub places: u32,
    /// Where libzmq may be, best guess first.
    pub libzmq: Vec<PathBuf>,
    /// Directory for run directories; `None` for the default.
    pub run_dir_base: Option<PathBuf>,
    /// Executing deaths after which a task fails.
    pub crash_limit: u8,
    /// Executing deaths for want of memory after which a task fails.
    pub oom_limit: u8,
    /// Tasks after which a worker process is replaced; `u64::MAX` for no end.
    pub tasks_max: u64,
    /// Largest result in bytes that travels in a frame.
    pub result_bytes_max: u64,
    /// Bytes that results may take in memory.
    pub store_limit: u64,
    /// Where results go beyond that.
    pub spill_dir: PathBuf,
    /// Bytes of them at most.
    pub spill_limit: u64,
    /// Version of headrace.
    pub version: String,
    /// Version of Python.
    pub python: String,
    /// Time between an interrupt of a running task and the kill of its worker, in ns.
    pub grace_ns: u64,
    /// Whether it takes clients of other processes. Then all values travel in frames: no memory is shared.
    pub is_open: bool,
    /// Where it listens to the network, and for whom. Only an open one does.
    pub network: Option<Network>,
}

/// Where a broker listens to the network.
#[derive(Clone, Debug)]
pub struct Network {
    /// The endpoint to bind.
    pub endpoint: String,
    /// The keys of the broker.
    pub keys: OwnKeys,
    /// Who may come in.
    pub allowed: Allowed,
}

/// Why a broker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// libzmq is missing or too old.
    #[error(transparent)]
    Library(#[from] headrace_sys::zmq::LoadError),
    /// The socket could not be made.
    #[error(transparent)]
    Socket(#[from] headrace_sys::zmq::ZmqError),
    /// The run directory is unusable.
    #[error(transparent)]
    RunDir(#[from] crate::run_dir::RunDirError),
    /// The system refused a descriptor or a thread.
    #[error("the broker could not be started: {0}")]
    System(#[from] io::Error),
}

impl From<GateError> for StartError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Socket(error) => StartError::Socket(error),
            GateError::System(error) => StartError::System(error),
        }
    }
}

/// A running broker thread.
///
/// It ends when the client end is closed or dropped, or says GOODBYE, whatever other clients do;
/// [`BrokerHandle::join`] waits for that.
#[derive(Debug)]
pub struct BrokerHandle {
    thread: JoinHandle<()>,
    run_dir: PathBuf,
    endpoint: Option<String>,
    segments: Arc<Segments>,
}

impl BrokerHandle {
    /// Waits until the broker has ended its workers and removed its directory.
    pub fn join(self) {
        // A panic of the thread was printed by the panic hook; its end has closed the channel, which the client sees.
        let _ = self.thread.join();
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// The segments of shared memory that its client has mapped.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Where it listens to the network.
    pub fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// The private directory of this broker.
    pub fn run_dir(&self) -> &PathBuf {
        &self.run_dir
    }
}

/// Starts a broker and connects its client.
///
/// # Errors
/// [`StartError`]; nothing is left behind then.
pub fn start(config: BrokerConfig) -> Result<(BrokerHandle, ClientEnd), StartError> {
    let library = Library::open(&config.libzmq)?;
    let run_dir = RunDir::create(config.run_dir_base.as_deref())?;
    let context = Context::new(&library)?;
    let endpoint = run_dir.endpoint("broker");
    let mut router = Router::bind(&context, &endpoint)?;
    let (mut gate, mut network, mut door) = (None, None, None);
    if let Some(Network { endpoint, keys, allowed }) = &config.network {
        // It stands before anything can be asked of it.
        gate = Some(Gate::open(&context, allowed.clone())?);
        door = Some(door::Door::new(&context, &mut router)?);
        network = Some(router.bind_guarded(endpoint, keys)?);
    }
    let (client_end, broker_end) = inproc::pair()?;
    let machine = MachineConfig {
        workers: config.workers,
        places: config.places,
        spares: config.spares,
        offer: config.offer.clone(),
        crash_limit: config.crash_limit,
        oom_limit: config.oom_limit,
        tasks_max: config.tasks_max,
        result_bytes_max: config.result_bytes_max,
        store_limit: config.store_limit,
        spill_limit: config.spill_limit,
        version: config.version.clone(),
        python: config.python.clone(),
        grace_ns: config.grace_ns,
        straggler_ns: STRAGGLER_NS,
        seed: clock::now_ns(),
    };
    let path = run_dir.path().to_owned();
    let children = Children::new(
        config.launch,
        (config.workers + config.places + config.spares) as usize,
        &endpoint,
        library.path(),
    )?;
    let spiller = spiller::Spiller::new(config.spill_dir)?;
    let segments = Arc::<Segments>::default();
    let parts = turn::Parts {
        router,
        door,
        client: broker_end,
        client_segments: Arc::clone(&segments),
        children,
        spiller,
        library,
        is_open: config.is_open,
        listens: network.is_some(),
    };
    let thread = spawn_native("headrace-broker", move || {
        let _closing = CloseAtEnd(Arc::clone(&parts.client_segments));
        turn::Loop::new(machine, parts).run();
        drop(gate);
        // The sockets are closed by now; the context waits for its threads, then the directory goes.
        drop(context);
        drop(run_dir);
    })?;
    Ok((BrokerHandle { thread, run_dir: path, endpoint: network, segments }, client_end))
}

/// Tells whoever waits for memory that none will come, however the thread ends.
struct CloseAtEnd(Arc<Segments>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}
