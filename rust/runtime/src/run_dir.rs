//! The private directory of one broker: where its sockets are, for nobody else to reach, and gone when the broker is.
//!
//! It lies under a base that must be the user's own and closed to others: `$XDG_RUNTIME_DIR`, or
//! `/tmp/headrace-<uid>`. Inside is a file `lock` on which the broker holds an flock as long as it lives, however it
//! dies. A directory whose lock can be had is therefore stale, and whoever comes next removes it.
//!
//! # Why no living directory is removed
//!
//! A broker makes its directory in three steps: make it, open the lock file in it, lock that. A reaper may come between
//! any two. It removes a directory only while it holds the lock in it, or with `rmdir` if it is empty. So a
//! maker that was overtaken finds that it cannot open the file (the directory is gone), cannot lock it (the reaper has
//! it), or has locked a file that no longer has a name. It then leaves that directory alone and makes another.

use std::ffi::OsStr;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use headrace_sys::origin::Origin;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

/// The longest path of a Unix socket (`sun_path` less its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The longest name for which [`RunDir::endpoint`] has room.
pub const ENDPOINT_NAME_BYTES_MAX: usize = 16;

const NAME_PREFIX: &str = "headrace-";
const NAME_DIGITS: usize = 8;
const LOCK_FILE: &str = "lock";

/// Tries to make a directory that nobody interferes with; one is enough unless others start and stop at the same moment.
const TRIES_MAX: u32 = 100;

/// A directory of this broker's own. It is removed when this is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: OwnedFd,
    origin: Origin,
}

/// Why a broker got no directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The base belongs to somebody else.
    #[error(
        "{path} belongs to user {owner}, and this process runs as user {user}: sockets there would not be private. Set \
         XDG_RUNTIME_DIR to a directory of your own with mode 0700"
    )]
    WrongOwner {
        /// The base.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// The base is open to others, or closed to its owner.
    #[error(
        "{path} has mode {mode:04o}, and a broker's directory needs 0700: run `chmod 700 {path}`, or set \
         XDG_RUNTIME_DIR to a directory of your own with that mode"
    )]
    WrongMode {
        /// The base.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The base is a file or a symbolic link.
    #[error(
        "{path} is {what}, and a broker needs a directory there: remove it, or set XDG_RUNTIME_DIR to a directory of your own with mode 0700"
    )]
    NotADirectory {
        /// The base.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The path of the base is not UTF-8.
    #[error("{path:?} is not UTF-8: set XDG_RUNTIME_DIR to a directory of your own with mode 0700 and a plainer name")]
    NotText {
        /// The base.
        path: PathBuf,
    },
    /// The base is so long that no socket fits below it.
    #[error(
        "{path} has {bytes} bytes, and the path of a socket in a directory below it may have {SOCKET_PATH_BYTES_MAX}: set \
         XDG_RUNTIME_DIR to a directory with a path of at most {limit} bytes"
    )]
    TooLong {
        /// The base.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// The longest that fits.
        limit: usize,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl RunDir {
    /// A new directory under `base`, after removing the stale ones there.
    ///
    /// Without a base it is `$XDG_RUNTIME_DIR`, if that is set to the absolute path of something that exists, or else
    /// `/tmp/headrace-<uid>`, which is made if it does not exist.
    ///
    /// # Errors
    /// When the base is not the caller's, or not private, or its path too long; the error says what to do.
    pub fn create(base: Option<&Path>) -> Result<Self, RunDirError> {
        let base = match base {
            Some(base) => base.to_owned(),
            None => default_base()?,
        };
        check_base(&base)?;
        reap_stale(&base);
        for _ in 0..TRIES_MAX {
            if let Some(directory) = Self::try_create(&base)? {
                return Ok(directory);
            }
        }
        Err(failed("make a directory in", &base, Errno::AGAIN))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The endpoint of a socket in it.
    ///
    /// # Panics
    /// If `name` is longer than [`ENDPOINT_NAME_BYTES_MAX`].
    pub fn endpoint(&self, name: &str) -> String {
        assert!(name.len() <= ENDPOINT_NAME_BYTES_MAX, "the name of an endpoint is short");
        format!("ipc://{}/{name}", self.path.display())
    }

    /// `None` if a reaper was faster.
    fn try_create(base: &Path) -> Result<Option<Self>, RunDirError> {
        let path = base.join(random_name());
        match rustix::fs::mkdir(&path, Mode::RWXU) {
            Err(Errno::EXIST) => return Ok(None),
            result => result.map_err(|errno| failed("make", &path, errno))?,
        }
        let file = path.join(LOCK_FILE);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = match rustix::fs::open(&file, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT) => return Ok(None),
            result => result.map_err(|errno| failed("make", &file, errno))?,
        };
        if !try_lock(&lock) || !has_name(&lock) {
            return Ok(None);
        }
        Ok(Some(Self { path, _lock: lock, origin: Origin::here() }))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // A forked child has a copy of this, and the directory is the parent's.
        if self.origin.is_here() {
            remove(&self.path);
        }
    }
}

fn default_base() -> Result<PathBuf, RunDirError> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    if let Some(runtime) = runtime.filter(|path| path.is_absolute() && rustix::fs::lstat(path).is_ok()) {
        return Ok(runtime);
    }
    let base = PathBuf::from(format!("/tmp/headrace-{}", rustix::process::geteuid().as_raw()));
    match rustix::fs::mkdir(&base, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(base),
        Err(errno) => Err(failed("make", &base, errno)),
    }
}

fn check_base(base: &Path) -> Result<(), RunDirError> {
    let path = base.to_owned();
    let stat = rustix::fs::lstat(base).map_err(|errno| failed("use", base, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {}
        FileType::Symlink => return Err(RunDirError::NotADirectory { path, what: "a symbolic link" }),
        _ => return Err(RunDirError::NotADirectory { path, what: "a file" }),
    }
    let user = rustix::process::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(RunDirError::WrongOwner { path, owner: stat.st_uid, user });
    }
    let mode = stat.st_mode & 0o777;
    if mode != 0o700 {
        return Err(RunDirError::WrongMode { path, mode });
    }
    if base.to_str().is_none() {
        return Err(RunDirError::NotText { path });
    }
    let bytes = base.as_os_str().len();
    let limit = SOCKET_PATH_BYTES_MAX - ENDPOINT_NAME_BYTES_MAX - NAME_PREFIX.len() - NAME_DIGITS - 2;
    if bytes > limit {
        return Err(RunDirError::TooLong { path, bytes, limit });
    }
    Ok(())
}

/// Removes what brokers left behind that did not get to it themselves. What cannot be removed stays: it harms nobody.
fn reap_stale(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        // A link by such a name is not ours, and leads to what is not ours.
        let is_ours = |status: fs::Metadata| status.is_dir() && status.uid() == rustix::process::geteuid().as_raw();
        if is_run_dir_name(&entry.file_name()) && entry.metadata().is_ok_and(is_ours) {
            reap_if_stale(&entry.path());
        }
    }
}

fn reap_if_stale(path: &Path) {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path.join(LOCK_FILE), flags, Mode::empty()) {
        // Held until the directory is gone.
        Ok(lock) => {
            if try_lock(&lock) && has_name(&lock) {
                remove(path);
            }
        }
        Err(Errno::NOENT) => {
            let _ = rustix::fs::rmdir(path);
        }
        Err(_) => {}
    }
}

/// Removes a run directory, the lock file last. Nothing in it but sockets and the lock is ours.
fn remove(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_name() != LOCK_FILE {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_file(path.join(LOCK_FILE));
    let _ = fs::remove_dir(path);
}

fn try_lock(file: &OwnedFd) -> bool {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

fn has_name(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat: Stat| stat.st_nlink > 0)
}

fn is_run_dir_name(name: &OsStr) -> bool {
    let digits = name.to_str().and_then(|name| name.strip_prefix(NAME_PREFIX));
    digits.is_some_and(|digits| digits.len() == NAME_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn random_name() -> String {
    let random = RandomState::new().build_hasher().finish() as u32;
    format!("{NAME_PREFIX}{random:0NAME_DIGITS$x}")
}

fn failed(action: &'static str, path: &Path, errno: Errno) -> RunDirError {
    RunDirError::Io { action, path: path.to_owned(), source: errno.into() }
}
