//! The floor under a hop from worker to worker: a token goes worker → ROUTER → other worker, and nothing else happens.
//!
//! Two worker processes and blocking calls of libzmq at every end, so nothing of headrace takes part. For each line with
//! a number of hops on standard input it prints the nanoseconds that they took. `bench/test_pinned_hop.py` drives it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{self, BufRead, Write};
use std::process::{Child, Command};
use std::time::Instant;
use std::{env, fs};

use headrace_sys::zmq::find_candidates;
use libloading::{Library, Symbol};

const DEALER: c_int = 5;
const ROUTER: c_int = 6;
const ROUTING_ID: c_int = 5;
const TOKEN: [u8; 64] = [7; 64];
const NAMES: [&[u8]; 2] = [b"worker-a", b"worker-b"];

fn main() {
    let arguments: Vec<String> = env::args().collect();
    match arguments.as_slice() {
        [_, endpoint, number] => work(endpoint, NAMES[number.parse::<usize>().expect("a worker's number")]),
        _ => route(),
    }
}

/// The broker's side: forwards the token to the worker that has not got it.
fn route() {
    let directory = env::temp_dir().join(format!("headrace-router-hop-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory of its own");
    let endpoint = format!("ipc://{}", directory.join("router").display());
    let zmq = Zmq::open();
    let router = zmq.socket(ROUTER);
    zmq.bind(router, &endpoint);
    let mut workers = [0, 1].map(|number| start_worker(&endpoint, number));
    let mut name = [0; 32];
    let mut body = [0; 64];
    for _ in &workers {
        zmq.receive(router, &mut name);
        zmq.receive(router, &mut body);
    }
    for line in io::stdin().lock().lines() {
        let hops: usize = line.expect("a line").trim().parse().expect("a number of hops");
        let start = Instant::now();
        for hop in 0..hops {
            zmq.send(router, NAMES[hop % 2], true);
            zmq.send(router, &TOKEN, false);
            zmq.receive(router, &mut name);
            zmq.receive(router, &mut body);
        }
        println!("{}", start.elapsed().as_nanos());
        io::stdout().flush().expect("standard output");
    }
    for worker in &mut workers {
        worker.kill().and_then(|()| worker.wait()).expect("the worker ends");
    }
    fs::remove_dir_all(&directory).expect("the directory goes");
}

fn start_worker(endpoint: &str, number: usize) -> Child {
    let program = env::current_exe().expect("this program's path");
    Command::new(program).args([endpoint, &number.to_string()]).spawn().expect("a worker starts")
}

/// The worker's side: sends back what it gets.
fn work(endpoint: &str, name: &[u8]) {
    // SAFETY: takes no pointers; from now on this process ends with the one that started it.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let zmq = Zmq::open();
    let dealer = zmq.socket(DEALER);
    zmq.connect(dealer, endpoint, name);
    let mut body = [0; 64];
    zmq.send(dealer, b"hello", false);
    loop {
        let length = zmq.receive(dealer, &mut body);
        zmq.send(dealer, &body[..length], false);
    }
}

type Handle = *mut c_void;

/// The few functions that this needs, each called as the manual says.
struct Zmq {
    library: Library,
    context: Handle,
}

impl Zmq {
    fn open() -> Self {
        // SAFETY: libzmq's initialisers have no precondition.
        let library = find_candidates().iter().find_map(|path| unsafe { Library::new(path) }.ok());
        let library = library.expect("libzmq: name it in HEADRACE_LIBZMQ");
        // SAFETY: the signature of the manual; it takes nothing.
        let context =
            unsafe { library.get::<unsafe extern "C" fn() -> Handle>(b"zmq_ctx_new").expect("zmq_ctx_new")() };
        assert!(!context.is_null());
        Self { library, context }
    }

    fn socket(&self, kind: c_int) -> Handle {
        let open: Symbol<'_, unsafe extern "C" fn(Handle, c_int) -> Handle> = self.function(c"zmq_socket");
        // SAFETY: the context is alive.
        let socket = unsafe { open(self.context, kind) };
        assert!(!socket.is_null());
        socket
    }

    fn bind(&self, socket: Handle, endpoint: &str) {
        self.attach(c"zmq_bind", socket, endpoint);
    }

    fn connect(&self, socket: Handle, endpoint: &str, name: &[u8]) {
        let set: Symbol<'_, unsafe extern "C" fn(Handle, c_int, *const c_void, usize) -> c_int> =
            self.function(c"zmq_setsockopt");
        // SAFETY: the socket is open, and the name is readable for its length.
        assert_eq!(unsafe { set(socket, ROUTING_ID, name.as_ptr().cast(), name.len()) }, 0);
        self.attach(c"zmq_connect", socket, endpoint);
    }

    fn attach(&self, call: &CStr, socket: Handle, endpoint: &str) {
        let attach: Symbol<'_, unsafe extern "C" fn(Handle, *const c_char) -> c_int> = self.function(call);
        let endpoint = CString::new(endpoint).expect("an endpoint without zero bytes");
        // SAFETY: the socket is open, and the endpoint ends with a zero byte.
        assert_eq!(unsafe { attach(socket, endpoint.as_ptr()) }, 0, "{call:?}");
    }

    fn send(&self, socket: Handle, bytes: &[u8], more: bool) {
        let send: Symbol<'_, unsafe extern "C" fn(Handle, *const c_void, usize, c_int) -> c_int> =
            self.function(c"zmq_send");
        // SAFETY: the socket is open, and the bytes are readable for their length.
        let sent = unsafe { send(socket, bytes.as_ptr().cast(), bytes.len(), c_int::from(more) * 2) };
        assert_eq!(usize::try_from(sent), Ok(bytes.len()));
    }

    fn receive(&self, socket: Handle, into: &mut [u8]) -> usize {
        let receive: Symbol<'_, unsafe extern "C" fn(Handle, *mut c_void, usize, c_int) -> c_int> =
            self.function(c"zmq_recv");
        // SAFETY: the socket is open, and the buffer is writable for its length.
        let length = unsafe { receive(socket, into.as_mut_ptr().cast(), into.len(), 0) };
        usize::try_from(length).expect("zmq_recv").min(into.len())
    }

    fn function<T>(&self, name: &CStr) -> Symbol<'_, T> {
        // SAFETY: every caller gives the signature of libzmq's manual.
        unsafe { self.library.get(name.to_bytes_with_nul()) }.expect("a function of libzmq")
    }
}
