//! What this process has of the system's room: descriptors and memory.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// How many descriptors it may have.
#[must_use]
pub fn descriptors_max() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many it has. Some microseconds, and a few milliseconds where there are ten thousand.
#[must_use]
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Gives memory back to the system that was freed, and that the allocator keeps.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator's own function, which locks what it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_counted() {
        let before = descriptors();
        let files: Vec<fs::File> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors() >= before.saturating_sub(20) + files.len(), "other tests open and close some, too");
        assert!(descriptors_max() >= descriptors());
        give_memory_back();
    }
}
