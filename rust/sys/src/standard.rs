//! Standard output and error of this process, past all buffers.

use std::io;
use std::os::fd::BorrowedFd;

/// One of the two, and what file it was at first.
#[derive(Clone, Copy, Debug)]
pub struct Standard {
    is_error: bool,
    file: Option<(u64, u64)>,
}

impl Standard {
    /// Standard output, as it is now.
    #[must_use]
    pub fn output() -> Self {
        Self::new(false)
    }

    /// Standard error, as it is now.
    #[must_use]
    pub fn error() -> Self {
        Self::new(true)
    }

    fn new(is_error: bool) -> Self {
        Self { is_error, file: file_of(fd(is_error)) }
    }

    /// Whether it leads where it led at first: nobody has put another file in its place. One system call.
    #[must_use]
    pub fn is_unchanged(self) -> bool {
        self.file.is_some() && file_of(fd(self.is_error)) == self.file
    }

    /// Writes what the file takes in one go; how much that was.
    ///
    /// # Errors
    /// The system's own, also that a signal came.
    pub fn write(self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(fd(self.is_error), bytes)?)
    }
}

fn fd(is_error: bool) -> BorrowedFd<'static> {
    if is_error { rustix::stdio::stderr() } else { rustix::stdio::stdout() }
}

fn file_of(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    rustix::fs::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_changed_them() {
        assert!(Standard::output().is_unchanged());
        assert!(Standard::error().is_unchanged());
    }
}
