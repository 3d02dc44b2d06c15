//! Finding libzmq and its functions.

use std::ffi::{OsString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use libloading::os::unix;

use super::message::RawMessage;

/// The oldest libzmq that will do: it has all the options used here with their present meaning.
const OLDEST: Version = Version { major: 4, minor: 3, patch: 0 };

/// What is tried after all candidates: the system's own.
const SYSTEM_LIBRARY: &str = "libzmq.so.5";

/// Every library that was loaded, once each. It is never unloaded: its threads and messages may outlive every handle.
static LOADED: Mutex<Vec<Arc<Library>>> = Mutex::new(Vec::new());

/// A loaded libzmq.
pub struct Library {
    functions: &'static Functions,
    path: PathBuf,
    version: Version,
}

impl Library {
    /// Loads the first of `candidates` that is a libzmq of version 4.3 or newer, or else the system's `libzmq.so.5`.
    ///
    /// A candidate may also be a library that was linked with libzmq, such as pyzmq's extension module.
    ///
    /// # Errors
    /// When none will do; the error lists what was tried, and why it was not taken.
    pub fn open(candidates: &[PathBuf]) -> Result<Arc<Self>, LoadError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tried = Vec::new();
        for path in candidates.iter().map(PathBuf::as_path).chain([Path::new(SYSTEM_LIBRARY)]) {
            match Self::open_one(path, &mut loaded) {
                Ok(library) => return Ok(library),
                Err(reason) => tried.push((path.to_owned(), reason)),
            }
        }
        Err(LoadError { tried })
    }

    /// The version that the library says it has.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The path by which it was found; workers are given it, so that all processes run the same one.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn functions(&self) -> &'static Functions {
        self.functions
    }

    fn open_one(path: &Path, loaded: &mut Vec<Arc<Self>>) -> Result<Arc<Self>, String> {
        if let Some(library) = loaded.iter().find(|library| library.path == path) {
            return Ok(Arc::clone(library));
        }
        // SAFETY: loading runs the library's initialisers; libzmq's and libsodium's are those of ordinary C++ libraries
        // and safe to run in any thread. The caller vouches for the path as for any program that it runs.
        let handle = unsafe { unix::Library::open(Some(OsString::from(path)), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = handle.map_err(|error| error.to_string())?;
        // SAFETY: libzmq's C interface is fixed by its SONAME 5, which covers all versions of 4.x; whatever exports all
        // of these names is libzmq or an extension linked with it.
        let functions = unsafe { Functions::resolve(&handle) }.map_err(|error| error.to_string())?;
        let version = Version::of(&functions);
        if version < OLDEST {
            return Err(format!("its version is {version}, but {OLDEST} or newer is needed"));
        }
        std::mem::forget(handle);
        let library = Arc::new(Self { functions: Box::leak(Box::new(functions)), path: path.to_owned(), version });
        loaded.push(Arc::clone(&library));
        Ok(library)
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "libzmq {} at {}", self.version, self.path.display())
    }
}

/// A version of libzmq.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub struct Version {
    pub major: c_int,
    pub minor: c_int,
    pub patch: c_int,
}

impl Version {
    fn of(functions: &Functions) -> Self {
        let mut version = Self { major: 0, minor: 0, patch: 0 };
        // SAFETY: three valid pointers to integers.
        unsafe { (functions.version)(&mut version.major, &mut version.minor, &mut version.patch) };
        version
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// No usable libzmq was found.
#[derive(Debug)]
pub struct LoadError {
    /// Each path that was tried, and why it was not taken.
    pub tried: Vec<(PathBuf, String)>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no usable libzmq (version {OLDEST} or newer) was found. Tried:")?;
        for (path, reason) in &self.tried {
            write!(f, "\n  {}: {reason}", path.display())?;
        }
        write!(f, "\nInstall pyzmq (pip install pyzmq), which brings it, or the system's package libzmq5.")
    }
}

impl std::error::Error for LoadError {}

/// Declares the table of functions, and how it is filled: `name` stands for the C function `zmq_name`.
macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of libzmq that are used here, resolved once.
        pub(super) struct Functions {
            $(pub(super) $name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            /// # Safety
            /// The library's functions must have the C signatures declared below.
            unsafe fn resolve(library: &unix::Library) -> Result<Self, libloading::Error> {
                Ok(Self {
                    // SAFETY: the caller vouches for the signatures.
                    $($name: *unsafe { library.get(concat!("zmq_", stringify!($name), "\0").as_bytes()) }?,)*
                })
            }
        }
    };
}

/// A context or a socket of libzmq.
pub(super) type Handle = *mut c_void;

/// What frees the bytes of a message: called with the bytes and the hint given with them, on any thread.
pub(super) type Free = unsafe extern "C" fn(data: *mut c_void, hint: *mut c_void);

functions! {
    version(*mut c_int, *mut c_int, *mut c_int);
    errno() -> c_int;
    strerror(c_int) -> *const c_char;
    ctx_new() -> Handle;
    ctx_set(Handle, c_int, c_int) -> c_int;
    ctx_term(Handle) -> c_int;
    socket(Handle, c_int) -> Handle;
    close(Handle) -> c_int;
    setsockopt(Handle, c_int, *const c_void, usize) -> c_int;
    getsockopt(Handle, c_int, *mut c_void, *mut usize) -> c_int;
    bind(Handle, *const c_char) -> c_int;
    connect(Handle, *const c_char) -> c_int;
    socket_monitor(Handle, *const c_char, c_int) -> c_int;
    msg_init(*mut RawMessage) -> c_int;
    msg_init_size(*mut RawMessage, usize) -> c_int;
    msg_init_data(*mut RawMessage, *mut c_void, usize, Option<Free>, *mut c_void) -> c_int;
    msg_data(*mut RawMessage) -> *mut c_void;
    msg_size(*const RawMessage) -> usize;
    msg_more(*const RawMessage) -> c_int;
    msg_gets(*const RawMessage, *const c_char) -> *const c_char;
    msg_send(*mut RawMessage, Handle, c_int) -> c_int;
    msg_recv(*mut RawMessage, Handle, c_int) -> c_int;
    msg_close(*mut RawMessage) -> c_int;
    curve_keypair(*mut c_char, *mut c_char) -> c_int;
}
