//! Memory with a descriptor and no name: it is gone with its last holder, however that ends.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

/// Zeroed memory of a fixed size: the seals forbid both sides to change it, so no access to a map of it can fault.
///
/// `name` shows in `/proc` and means nothing.
///
/// # Errors
/// When the process is out of descriptors.
pub fn create_fixed(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    let fd = create(name)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Memory that holds `contents` and never changes again.
///
/// Processes that inherit the descriptor share its file offset: they read it by position (`os.pread`) or map it.
///
/// # Errors
/// When the process is out of descriptors or the system out of memory.
pub fn create_constant(name: &str, contents: &[u8]) -> io::Result<OwnedFd> {
    let fd = create(name)?;
    let mut written = 0;
    while written < contents.len() {
        match rustix::io::pwrite(&fd, &contents[written..], written as u64) {
            Ok(bytes) => written += bytes,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&fd, seals)?;
    Ok(fd)
}

/// An empty file in memory, which may grow. Processes that inherit the descriptor share its file offset: they write behind
/// each other.
///
/// # Errors
/// When the process is out of descriptors.
pub fn create_file(name: &str) -> io::Result<OwnedFd> {
    create(name)
}

/// Empties a file of [`create_file`]: who writes to it next begins at its start.
///
/// # Errors
/// None that another process can cause.
pub fn empty(fd: &OwnedFd) -> io::Result<()> {
    rustix::fs::seek(fd, SeekFrom::Start(0))?;
    Ok(rustix::fs::ftruncate(fd, 0)?)
}

/// The bytes in a file of [`create_file`].
///
/// # Errors
/// None that another process can cause.
pub fn len(fd: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(fd)?.st_size.unsigned_abs())
}

/// The first bytes of such a file, fewer if it is shorter.
///
/// # Errors
/// When the system is out of memory.
pub fn read(fd: &OwnedFd, bytes: usize) -> io::Result<Vec<u8>> {
    let mut text = vec![0; bytes];
    let read = rustix::io::pread(fd, &mut text, 0)?;
    text.truncate(read);
    Ok(text)
}

fn create(name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)
}

/// A writable map of memory from [`create_fixed`], shared with every process that maps it: an array of atomic words.
#[derive(Debug)]
pub(crate) struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: the map belongs to the process and not to a thread, and all access goes through atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `count` words.
    pub(crate) fn map(fd: impl AsFd, count: usize) -> io::Result<Self> {
        let bytes = count * size_of::<AtomicU64>();
        let sealed = rustix::fs::fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK);
        let size = rustix::fs::fstat(&fd)?.st_size;
        if !sealed || u64::try_from(size).unwrap_or(0) < bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a sealed memory of the expected size"));
        }
        // SAFETY: a new map at an address that the kernel chooses overlaps nothing.
        let start = unsafe {
            rustix::mm::mmap(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        }?;
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero by itself");
        Ok(Self { start, count })
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the map is aligned to pages, has `count` words (the memory is as large and sealed against shrinking, so
        // an access never faults), any bytes are valid words, and it stays until `self` is dropped. Other processes may
        // write at any time, which is what the words are atomic for.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` mapped; the borrow of `words` has ended.
        // Unmapping a whole map cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.count * size_of::<AtomicU64>()) };
    }
}
