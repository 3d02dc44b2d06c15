//! Starting a worker process from a process full of threads.
//!
//! The child comes from `clone(CLONE_VM | CLONE_VFORK)`, as `posix_spawn` makes it, and not from `fork`: a fork copies
//! the page tables of the user's whole process, makes each of its pages fault once more, and runs the fork handlers of
//! every library in it (OpenBLAS stops its threads there). Here the child borrows our memory, on a stack of its own,
//! while the calling thread stands still until the child has its own program or has given up.
//!
//! The rules for `in_child` follow from that. It runs with all signals blocked and resets every disposition before it
//! unblocks them, so no handler of the parent runs in it. It makes system calls only, and takes no lock: another thread
//! may hold any. It writes to nothing but its stack and the two words in which it reports a failure.

use std::ffi::{CString, OsString, c_char, c_int, c_uint, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use crate::pidfd::PidFd;
use crate::signals;

/// The descriptor at which a child has its end of the control socket.
pub const CONTROL_FD: RawFd = 3;

/// The descriptor at which a child has the first of [`Spawn::inherit`]; the others follow.
pub const INHERITED_FD: RawFd = 4;

/// The most descriptors that a child can be given.
pub const INHERITED_MAX: usize = 12;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Spawn<'a> {
    /// Path of the program; it is not searched for.
    pub program: &'a Path,
    /// Its arguments, without its own name.
    pub args: &'a [OsString],
    /// Its whole environment.
    pub env: &'a [(OsString, OsString)],
    /// Descriptors that it inherits, at [`INHERITED_FD`] and on. It gets no others but standard input (`/dev/null`),
    /// standard output and error (pipes) and [`CONTROL_FD`].
    pub inherit: &'a [BorrowedFd<'a>],
}

/// A process that was started. Dropping it neither ends nor waits for the process.
#[derive(Debug)]
pub struct Child {
    /// The process.
    pub process: PidFd,
    /// Our end of the control socket (`SOCK_SEQPACKET`, non-blocking): each side sees the other's death as its end.
    pub control: OwnedFd,
    /// What the child writes to standard output; non-blocking.
    pub stdout: OwnedFd,
    /// What the child writes to standard error; non-blocking.
    pub stderr: OwnedFd,
}

impl Spawn<'_> {
    /// Starts the process, in a session and process group of its own. It dies with the **thread** that calls this, so that must
    /// be one that lives as long as the process is wanted.
    ///
    /// # Errors
    /// When the program cannot be executed (the error names it) or the system has no process or descriptor to give.
    pub fn start(&self) -> io::Result<Child> {
        let (control, child_control) = control_sockets()?;
        let (stdout, child_stdout) = output_pipe()?;
        let (stderr, child_stderr) = output_pipe()?;
        let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let own = [null.as_fd(), child_stdout.as_fd(), child_stderr.as_fd(), child_control.as_fd()];
        let fds: Vec<RawFd> = own.iter().chain(self.inherit).map(AsRawFd::as_raw_fd).collect();
        if self.inherit.len() > INHERITED_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors to inherit"));
        }

        let program = c_string(self.program.as_os_str().as_bytes().to_vec())?;
        let args = self.args.iter().map(|arg| c_string(arg.as_bytes().to_vec())).collect::<io::Result<Vec<_>>>()?;
        let env = self.env.iter().map(|(name, value)| c_string([name.as_bytes(), b"=", value.as_bytes()].concat()));
        let env = env.collect::<io::Result<Vec<_>>>()?;
        let argv = null_terminated([&program].into_iter().chain(&args));
        let envp = null_terminated(env.iter());
        let plan = Plan {
            program: program.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            fds: fds.as_ptr(),
            fds_len: fds.len() as c_int,
            // SAFETY: takes nothing and cannot fail.
            parent: unsafe { libc::getpid() },
            failed_step: AtomicI32::new(Step::None as c_int),
            failed_errno: AtomicI32::new(0),
        };
        let process = plan.clone_process()?;
        plan.outcome(process, self.program).map(|process| Child { process, control, stdout, stderr })
    }
}

/// Takes possession of a descriptor that this process was started with, and marks it to be closed on exec.
///
/// # Errors
/// When `fd` is not open, is not one that [`Spawn`] gives to a child, or was taken before.
pub fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {fd} {text}"));
    if !(CONTROL_FD..INHERITED_FD + INHERITED_MAX as RawFd).contains(&fd) {
        return Err(invalid("is none that a worker is started with"));
    }
    // SAFETY: `fcntl` with F_SETFD takes any number, and fails if it is not open.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Relaxed: the bit alone decides who of two callers is the first; no other data goes with it.
    if TAKEN.fetch_or(1 << fd, Ordering::Relaxed) & 1 << fd != 0 {
        return Err(invalid("was taken before"));
    }
    // SAFETY: it is open, nothing in this process opened it, since its number was assigned before the program began, and
    // it is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn control_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    set_nonblocking(&ours)?;
    Ok((ours, theirs))
}

/// For our end only: the child's end belongs to user code, which expects writes to wait.
fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

fn c_string(bytes: Vec<u8>) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an argument holds a zero byte"))
}

fn null_terminated<'a>(strings: impl Iterator<Item = &'a CString>) -> Vec<*const c_char> {
    strings.map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// All that the child needs, prepared before it exists. The pointers stay good until it has its own program.
struct Plan {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    /// The descriptor that becomes number i, for each i.
    fds: *const RawFd,
    fds_len: c_int,
    parent: libc::pid_t,
    /// Written by the child when it gives up, read by the parent afterwards: `CLONE_VFORK` orders the two.
    failed_step: AtomicI32,
    failed_errno: AtomicI32,
}

/// What a child may fail at.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
enum Step {
    None = 0,
    Prepare = 1,
    Descriptors = 2,
    Execute = 3,
}

/// Stack of the child until it has its own program: far more than its few system calls need.
type Stack = [MaybeUninit<u128>; 4096];

impl Plan {
    fn clone_process(&self) -> io::Result<PidFd> {
        let mut stack: Box<Stack> = Box::new([MaybeUninit::uninit(); 4096]);
        let mut pidfd: c_int = -1;
        let _blocked = signals::block_all();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: the stack grows down from its end, which is aligned to 16 bytes. The plan, the stack and `pidfd` stay
        // until this returns, and CLONE_VFORK keeps it from returning before the child has left our memory by exec or
        // exit. What the child may do there is in the module's text. The kernel writes the descriptor to `pidfd`.
        let pid = unsafe {
            let top = stack.as_mut_ptr_range().end.cast();
            let plan = ptr::from_ref(self).cast_mut().cast();
            libc::clone(in_child, top, flags, plan, &raw mut pidfd)
        };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if pidfd < 0 {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel has no pidfd; Linux 5.4 or newer is needed",
            ));
        }
        // SAFETY: the kernel has just opened it for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        Ok(PidFd::from_fd(pidfd, pid.unsigned_abs()))
    }

    /// Tells a process that runs its program from one that gave up, and buries the latter.
    fn outcome(&self, mut process: PidFd, program: &Path) -> io::Result<PidFd> {
        // Relaxed: the parent ran on only after the child had left this memory.
        let step = self.failed_step.load(Ordering::Relaxed);
        if step == Step::None as c_int {
            return Ok(process);
        }
        let error = io::Error::from_raw_os_error(self.failed_errno.load(Ordering::Relaxed));
        // It is exiting, if it has not done so already.
        while process.try_wait()?.is_none() {
            crate::poll::wait(&mut [crate::poll::PollFd::input(process.fd())], None).or_else(interrupted_is_fine)?;
        }
        let what = match step {
            step if step == Step::Execute as c_int => format!("cannot execute {}", program.display()),
            step if step == Step::Descriptors as c_int => "cannot hand descriptors to a new process".to_owned(),
            _ => "cannot prepare a new process".to_owned(),
        };
        Err(io::Error::new(error.kind(), format!("{what}: {error}")))
    }
}

fn interrupted_is_fine(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

/// What the child does before it has its own program.
extern "C" fn in_child(plan: *mut c_void) -> c_int {
    // SAFETY: the parent keeps the plan while this runs.
    let plan = unsafe { &*plan.cast_const().cast::<Plan>() };
    // SAFETY: called once, in the child, with the parent's thread suspended.
    let (step, errno) = unsafe { become_program(plan) };
    plan.failed_errno.store(errno, Ordering::Relaxed);
    plan.failed_step.store(step as c_int, Ordering::Relaxed);
    127 // `clone` makes it the exit code, without running anything of the parent's
}

/// Returns only if it failed.
///
/// # Safety
/// Only for a fresh child that shares the parent's memory and nothing else; the plan's pointers must be good.
unsafe fn become_program(plan: &Plan) -> (Step, c_int) {
    // SAFETY: plain system calls on the child's own descriptors, signals and session, with pointers from the plan or to
    // this stack. A zeroed `sigaction` is an empty one.
    unsafe {
        if libc::setsid() < 0 {
            return (Step::Prepare, errno());
        }
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
            return (Step::Prepare, errno());
        }
        // A parent that died before the line above sends nothing. (Not "is it 1": there are sub-reapers.)
        if libc::getppid() != plan.parent {
            return (Step::Prepare, libc::ESRCH);
        }
        if !place_descriptors(plan.fds, plan.fds_len) {
            return (Step::Descriptors, errno());
        }
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=64 {
            libc::sigaction(signal, &default, ptr::null_mut()); // KILL, STOP and libc's own two cannot be set
        }
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
        libc::execve(plan.program, plan.argv, plan.envp);
        (Step::Execute, errno())
    }
}

/// Makes `fds[i]` number i for each i, and marks all above them to be closed on exec.
///
/// # Safety
/// Only in the child; `fds` must point to `len` numbers, `len` ≤ 4 + `INHERITED_MAX`.
unsafe fn place_descriptors(fds: *const RawFd, len: c_int) -> bool {
    let mut high = [0; INHERITED_FD as usize + INHERITED_MAX];
    let high = high.as_mut_ptr();
    // SAFETY: `fds` and `high` have room for `len` numbers; the rest are plain system calls.
    unsafe {
        // First out of the way of all targets: a source may lie where another one goes.
        for i in 0..len as usize {
            *high.add(i) = libc::fcntl(*fds.add(i), libc::F_DUPFD_CLOEXEC, len);
            if *high.add(i) < 0 {
                return false;
            }
        }
        for i in 0..len {
            if libc::dup2(*high.add(i as usize), i) < 0 {
                return false;
            }
        }
        if libc::syscall(libc::SYS_close_range, len as c_uint, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
            // Linux before 5.11, where nothing better can be done without allocating.
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            for fd in len..limit.rlim_cur.min(1 << 20) as c_int {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        true
    }
}

/// # Safety
/// None: it is unsafe only because the function behind it is foreign.
unsafe fn errno() -> c_int {
    // SAFETY: always a valid pointer; of the parent's suspended thread, here.
    unsafe { *libc::__errno_location() }
}
