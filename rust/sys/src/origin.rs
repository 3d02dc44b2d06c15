//! The process in which an object was made.
//!
//! A fork copies our objects into a child that has none of the threads behind them. Closing a socket there would wait
//! for an I/O thread that does not exist, and removing a directory would take it away from the parent. So whatever has
//! such an effect when it is dropped carries an [`Origin`] and does nothing elsewhere.

/// Remembers the process that made an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    pid: u32,
}

impl Origin {
    /// The calling process.
    pub fn here() -> Self {
        Self { pid: std::process::id() }
    }

    /// Whether the caller is still in that process, and not in a forked child of it. Costs one `getpid`.
    #[must_use]
    pub fn is_here(self) -> bool {
        self.pid == std::process::id()
    }
}
