//! The memory that blocks lie in: one process writes, the others read, and no access fails for want of memory.
//!
//! A segment is as large as it will ever be from its birth, and empty: pages come with [`Segment::commit`] and go with
//! [`Segment::punch`]. Every process maps it whole, so that a byte is named by its offset.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

/// Most bytes that one call commits. A signal takes back what its call has done so far: in steps, a large commit gets
/// ahead however often signals come.
const COMMIT_STEP_BYTES: u64 = 16 << 20;

/// The memory of a segment. No page is allocated yet, and the seals forbid everyone to change its size.
///
/// # Errors
/// When the process is out of descriptors, or `bytes` is more than a file can have.
pub fn create(bytes: u64) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("headrace", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&fd, bytes)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Gives all pages of a segment back to the system, whoever still has a map of it.
///
/// # Errors
/// The system's own, of which there should be none.
pub fn discard(fd: impl AsFd, bytes: u64) -> io::Result<()> {
    Ok(punch_hole(fd, 0, bytes)?)
}

/// A segment, mapped whole.
///
/// Children that this process forks keep the map.
#[derive(Debug)]
pub struct Segment {
    map: Map,
    fd: OwnedFd,
    bytes: u64,
    writable: bool,
}

impl Segment {
    /// Maps the first `bytes` of memory from [`create`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the memory is smaller or may change its size; otherwise when the process is out
    /// of address space.
    pub fn map(fd: OwnedFd, bytes: u64, writable: bool) -> io::Result<Self> {
        let sealed = rustix::fs::fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK | SealFlags::GROW);
        let size = rustix::fs::fstat(&fd)?.st_size;
        if !sealed || u64::try_from(size).unwrap_or(0) < bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a sealed memory of the expected size"));
        }
        let access = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let map = Map::new(&fd, 0, bytes, access, MapFlags::SHARED | MapFlags::NORESERVE)?;
        Ok(Self { map, fd, bytes, writable })
    }

    /// Maps the first `bytes` of a file, read-only. It has no name, so that nobody can cut it short.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] if the file is smaller or has a name; otherwise when the process is out of address
    /// space.
    pub fn map_file(fd: OwnedFd, bytes: u64) -> io::Result<Self> {
        let file = rustix::fs::fstat(&fd)?;
        if file.st_nlink != 0 || u64::try_from(file.st_size).unwrap_or(0) < bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not an unnamed file of the expected size"));
        }
        let map = Map::new(&fd, 0, bytes, ProtFlags::READ, MapFlags::SHARED)?;
        Ok(Self { map, fd, bytes, writable: false })
    }

    /// Reads the pages that the range touches, where that is not memory anyway.
    ///
    /// # Errors
    /// When the disk fails: without this call, the first access would be the end of the process.
    ///
    /// # Panics
    /// If the range leaves the segment.
    pub fn fetch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.check(offset, bytes);
        let page = page_bytes();
        let (start, end) = (offset / page * page, (offset + bytes).next_multiple_of(page));
        let at = self.at(start).as_ptr().cast();
        // SAFETY: the range lies in the map, but for the end of its last page, and reading pages changes no byte.
        match retry(|| unsafe { rustix::mm::madvise(at, (end - start) as usize, Advice::LinuxPopulateRead) }) {
            // Linux before 5.14 does not know the advice.
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Maps all of a memory from [`create`], which may be of another process, by a descriptor that stays the caller's.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::InvalidInput`] if it is no memory, has no bytes, or may change its
    /// size; otherwise when `fd` is not open or not for such access, or the process is out of descriptors or address space.
    pub fn attach(fd: RawFd, writable: bool) -> io::Result<Self> {
        // SAFETY: the call takes any number, and changes nothing of the caller's.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if copy == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else has been told of.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        let size = rustix::fs::fstat(&copy)?.st_size;
        Self::map(copy, u64::try_from(size).unwrap_or(0), writable)
    }

    /// Its size in bytes.
    #[expect(clippy::len_without_is_empty, reason = "there is no segment of no bytes")]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether this process may write to it.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The offset of the byte at `address`, if it lies in this map.
    #[must_use]
    pub fn offset_of(&self, address: usize) -> Option<u64> {
        let offset = address.checked_sub(self.map.start.addr().get())? as u64;
        (offset < self.bytes).then_some(offset)
    }

    /// Where the byte at `offset` lies: valid to read while the segment is mapped, and worth reading in a block that was
    /// committed.
    ///
    /// # Panics
    /// If it lies behind the end; the end itself is allowed.
    #[must_use]
    pub fn at(&self, offset: u64) -> NonNull<u8> {
        self.check(offset, 0);
        // SAFETY: the map has `bytes` bytes from its start, and `offset` is at most that.
        unsafe { self.map.start.add(offset as usize) }
    }

    /// Allocates the pages that the range touches. No later access to them can fail, and the first ones need not wait.
    /// What they hold stays.
    ///
    /// # Errors
    /// When the system is out of memory. Part of the range may have pages then.
    ///
    /// # Panics
    /// If the range leaves the segment, or the segment is not writable.
    pub fn commit(&self, offset: u64, bytes: u64) -> io::Result<()> {
        assert!(self.writable, "only the owner of a segment commits its pages");
        self.check(offset, bytes);
        if bytes == 0 {
            return Ok(());
        }
        let page = page_bytes();
        let end = (offset + bytes).next_multiple_of(page).min(self.bytes);
        let mut at = offset / page * page;
        while at < end {
            let step = COMMIT_STEP_BYTES.min(end - at);
            retry(|| rustix::fs::fallocate(&self.fd, FallocateFlags::empty(), at, step))?;
            let start = self.at(at).as_ptr().cast();
            // SAFETY: the range lies in the map, and populating it changes no byte.
            match retry(|| unsafe { rustix::mm::madvise(start, step as usize, Advice::LinuxPopulateWrite) }) {
                // Linux before 5.14 does not know the advice: there, the first access to each page takes a fault.
                Ok(()) | Err(Errno::INVAL) => at += step,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Gives back the pages that lie wholly in the range; their bytes are lost. Before its next use, the range must be
    /// committed again.
    ///
    /// # Errors
    /// None that a caller can cause.
    ///
    /// # Panics
    /// If the range leaves the segment, or the segment is not writable.
    pub fn punch(&self, offset: u64, bytes: u64) -> io::Result<()> {
        assert!(self.writable, "only the owner of a segment gives back its pages");
        self.check(offset, bytes);
        let page = page_bytes();
        let (start, end) = (offset.next_multiple_of(page), (offset + bytes) / page * page);
        if start < end {
            punch_hole(&self.fd, start, end - start)?;
        }
        Ok(())
    }

    /// Copies `bytes` to a block of the owner that no one else was told of. One copy.
    ///
    /// # Panics
    /// If they do not fit there, or the segment is not writable.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        assert!(self.writable, "only the owner of a segment writes to it");
        self.check(offset, bytes.len() as u64);
        // SAFETY: the target lies in the map, which is writable. It is memory of a block, which by the protocol of the
        // store only its owner writes, in the one thread that allocated it and before anyone else learns of it: nothing
        // reads or writes it meanwhile, and no reference that Rust knows points there, `bytes` included.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset).as_ptr(), bytes.len()) }
    }

    /// A private map of a range, in which what this process writes is seen by nobody else. A page is copied when it is
    /// first written to; until then it shows the block, which must therefore live as long as the map.
    ///
    /// # Errors
    /// When the process is out of address space or the system refuses the memory.
    ///
    /// # Panics
    /// If the range leaves the segment.
    pub fn copy_on_write(&self, offset: u64, bytes: u64) -> io::Result<CowMap> {
        self.check(offset, bytes);
        let start = offset / page_bytes() * page_bytes();
        let before = offset - start;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // A map cannot be empty. What lies behind the end of the range is never handed out.
        let map = Map::new(&self.fd, start, (before + bytes).max(1), access, MapFlags::PRIVATE)?;
        Ok(CowMap { map, before: before as usize, bytes: bytes as usize })
    }

    fn check(&self, offset: u64, bytes: u64) {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        assert!(fits, "{bytes} bytes at {offset} leave a segment of {} bytes", self.bytes);
    }
}

impl AsFd for Segment {
    /// The descriptor of the memory, open for reading and writing whatever the map is for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A private map of a range of a segment. See [`Segment::copy_on_write`].
#[derive(Debug)]
pub struct CowMap {
    map: Map,
    before: usize,
    bytes: usize,
}

impl CowMap {
    /// Where the byte at `offset` of the range lies: valid to read and to write while the map lives.
    ///
    /// # Panics
    /// If it lies behind the end; the end itself is allowed.
    #[must_use]
    pub fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.bytes, "byte {offset} leaves a map of {} bytes", self.bytes);
        // SAFETY: `before` bytes of the map lie before the range, and `offset` is at most the range's size.
        unsafe { self.map.start.add(self.before + offset) }
    }

    /// The size of the range in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the range is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A map, unmapped on drop. It hands out no more than its address.
#[derive(Debug)]
struct Map {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the map belongs to the process and not to a thread; who uses the address answers for the accesses.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    fn new(fd: impl AsFd, offset: u64, bytes: u64, access: ProtFlags, flags: MapFlags) -> io::Result<Self> {
        let bytes = usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new map at an address that the kernel chooses overlaps nothing.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, access, flags, fd, offset) }?;
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at address zero by itself");
        Ok(Self { start, bytes })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; who holds an address into it was told that it ends here.
        // Unmapping a whole map cannot fail.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn page_bytes() -> u64 {
    // SAFETY: it reads a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("every Linux knows its page size")
}

fn punch_hole(fd: impl AsFd, offset: u64, bytes: u64) -> rustix::io::Result<()> {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    retry(|| rustix::fs::fallocate(&fd, mode, offset, bytes))
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: u64 = 8 << 20;

    fn owned() -> (Segment, OwnedFd) {
        let fd = create(BYTES).unwrap();
        (Segment::map(fd.try_clone().unwrap(), BYTES, true).unwrap(), fd)
    }

    fn read(start: NonNull<u8>, bytes: usize) -> Vec<u8> {
        // SAFETY: the tests ask for bytes of live maps that nothing writes meanwhile.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), bytes) }.to_vec()
    }

    /// The permissions of the map at `start`, such as `r--s`.
    fn permissions(start: NonNull<u8>) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-", start.addr()))).expect("it is mapped");
        assert!(line.contains("memfd:headrace"), "{line}");
        line.split(' ').nth(1).unwrap().to_owned()
    }

    fn allocated_bytes(fd: &OwnedFd) -> u64 {
        u64::try_from(rustix::fs::fstat(fd).unwrap().st_blocks).unwrap() * 512
    }

    #[test]
    fn the_size_is_sealed() {
        let fd = create(BYTES).unwrap();
        assert_eq!(rustix::fs::ftruncate(&fd, BYTES - 1), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&fd, BYTES + 1), Err(Errno::PERM));
        assert_eq!(rustix::fs::fcntl_add_seals(&fd, SealFlags::WRITE), Err(Errno::PERM));
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(allocated_bytes(&fd), 0);
    }

    #[test]
    fn memory_that_may_change_its_size_is_refused() {
        let unsealed = rustix::fs::memfd_create("headrace", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, BYTES).unwrap();
        for seals in [SealFlags::empty(), SealFlags::SHRINK] {
            rustix::fs::fcntl_add_seals(&unsealed, seals).unwrap();
            let error = Segment::map(unsealed.try_clone().unwrap(), BYTES, true).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        let error = Segment::map(create(BYTES).unwrap(), BYTES + 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn whoever_has_the_descriptor_maps_the_whole_memory() {
        use std::os::fd::AsRawFd;

        let (owner, fd) = owned();
        owner.commit(0, BYTES).unwrap();
        owner.write(BYTES - 3, b"end");
        for writable in [false, true] {
            let attached = Segment::attach(fd.as_raw_fd(), writable).unwrap();
            assert_eq!((attached.len(), attached.is_writable()), (BYTES, writable));
            assert_ne!(attached.as_fd().as_raw_fd(), fd.as_raw_fd());
            assert!(rustix::io::fcntl_getfd(attached.as_fd()).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            assert_eq!(read(attached.at(BYTES - 3), 3), b"end");
        }
        assert_eq!(allocated_bytes(&fd), BYTES, "it stays the caller's");
    }

    #[test]
    fn what_is_no_sealed_memory_is_not_attached() {
        use std::os::fd::AsRawFd;

        let unsealed = rustix::fs::memfd_create("headrace", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&unsealed, BYTES).unwrap();
        let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
        for fd in [unsealed, pipe, create(0).unwrap()] {
            let error = Segment::attach(fd.as_raw_fd(), false).unwrap_err();
            assert!(matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput), "{error}");
        }
        assert_eq!(Segment::attach(-1, false).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn readers_see_what_the_owner_writes_and_cannot_write() {
        let (owner, fd) = owned();
        let reader = Segment::map(fd, BYTES, false).unwrap();
        assert!(owner.is_writable() && !reader.is_writable());
        assert_eq!((permissions(owner.at(0)), permissions(reader.at(0))), ("rw-s".to_owned(), "r--s".to_owned()));
        owner.commit(5000, 5).unwrap();
        owner.write(5000, b"block");
        assert_eq!(read(reader.at(5000), 5), b"block");

        let start = reader.at(0).addr().get();
        assert_eq!(reader.offset_of(start + 5000), Some(5000));
        assert_eq!(reader.offset_of(start + BYTES as usize), None);
        assert_eq!(reader.offset_of(start - 1), None);
        assert!(std::panic::catch_unwind(|| reader.write(0, b"no")).is_err());
        assert!(std::panic::catch_unwind(|| owner.write(BYTES - 1, b"no")).is_err());
        assert!(std::panic::catch_unwind(|| owner.at(BYTES + 1)).is_err());
    }

    #[test]
    fn pages_come_and_go() {
        let (owner, fd) = owned();
        let page = page_bytes();
        owner.commit(3 * page - 1, 2).unwrap();
        assert_eq!(allocated_bytes(&fd), 2 * page);
        owner.write(3 * page - 1, b"ab");
        owner.commit(0, BYTES).unwrap();
        assert_eq!(allocated_bytes(&fd), BYTES);
        assert_eq!(read(owner.at(3 * page - 1), 2), b"ab", "a second commit takes nothing away");

        owner.punch(2 * page + 1, 3 * page - 1).unwrap();
        assert_eq!(allocated_bytes(&fd), BYTES - 2 * page);
        owner.punch(1, page).unwrap();
        assert_eq!(allocated_bytes(&fd), BYTES - 2 * page, "no page lies wholly in that range");
        assert_eq!(read(owner.at(3 * page - 1), 2), b"a\0");
        owner.commit(0, 0).unwrap();
    }

    #[test]
    fn an_unnamed_file_is_mapped_like_memory() {
        use std::os::unix::fs::FileExt;

        let path = std::env::temp_dir().join(format!("headrace-segment-{}", std::process::id()));
        let file = std::fs::OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
        file.set_len(BYTES).unwrap();
        file.write_all_at(b"block", 5000).unwrap();
        let named = Segment::map_file(file.try_clone().unwrap().into(), BYTES).unwrap_err();
        assert_eq!(named.kind(), io::ErrorKind::InvalidData);
        std::fs::remove_file(&path).unwrap();
        let segment = Segment::map_file(file.try_clone().unwrap().into(), BYTES).unwrap();
        segment.fetch(5000, 5).unwrap();
        assert_eq!(read(segment.at(5000), 5), b"block");
        assert!(!segment.is_writable());
        assert!(Segment::map_file(file.into(), BYTES + 1).is_err());
    }

    #[test]
    fn a_size_of_odd_bytes_can_be_committed_to_its_end() {
        let fd = create(page_bytes() + 1).unwrap();
        let owner = Segment::map(fd, page_bytes() + 1, true).unwrap();
        owner.commit(0, owner.len()).unwrap();
        owner.write(page_bytes(), b"z");
    }

    #[test]
    fn private_writes_stay_private() {
        let (owner, fd) = owned();
        owner.commit(0, 3 * page_bytes()).unwrap();
        let offset = page_bytes() - 2;
        owner.write(offset, b"shared");
        let reader = Segment::map(fd, BYTES, false).unwrap();
        for segment in [&owner, &reader] {
            let cow = segment.copy_on_write(offset, 6).unwrap();
            assert_eq!(permissions(cow.map.start), "rw-p");
            assert_eq!((read(cow.at(0), 6), cow.len()), (b"shared".to_vec(), 6));
            // SAFETY: the range is writable and nothing else uses it.
            unsafe { ptr::copy_nonoverlapping(b"SHARED".as_ptr(), cow.at(0).as_ptr(), 6) };
            assert_eq!(read(cow.at(0), 6), b"SHARED");
            assert_eq!(read(cow.at(2), 4), b"ARED");
            assert_eq!(read(segment.at(offset), 6), b"shared");
            assert!(std::panic::catch_unwind(|| cow.at(7)).is_err());
        }
        assert!(owner.copy_on_write(BYTES, 0).unwrap().is_empty());
    }
}
