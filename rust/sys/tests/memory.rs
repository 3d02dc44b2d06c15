//! Shared memory: sizes are sealed, constants stay constant, words cross processes.

mod support;

use std::os::fd::AsFd;

use headrace_sys::memfd::{create_constant, create_fixed};
use headrace_sys::status_page::{PAGE_BYTES, StatusPage};
use rustix::io::Errno;

#[test]
fn the_size_of_shared_memory_is_sealed() {
    let fd = create_fixed("test", 4096).unwrap();
    assert_eq!(rustix::fs::ftruncate(&fd, 4095), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&fd, 8192), Err(Errno::PERM));
    let seals = rustix::fs::SealFlags::WRITE;
    assert_eq!(rustix::fs::fcntl_add_seals(&fd, seals), Err(Errno::PERM), "and the seals are sealed");
    assert_eq!(rustix::io::pwrite(&fd, b"contents may change", 0), Ok(19));
}

#[test]
fn constant_memory_is_readable_by_position_and_never_written() {
    let contents: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    let fd = create_constant("test", &contents).unwrap();
    for _ in 0..2 {
        let mut read = vec![0; contents.len() + 1];
        assert_eq!(rustix::io::pread(&fd, &mut read, 0), Ok(contents.len()));
        assert!(read[..contents.len()] == contents);
    }
    assert_eq!(rustix::io::pwrite(&fd, b"x", 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(&fd, 0), Err(Errno::PERM));
}

#[test]
fn both_sides_of_a_status_page_see_the_same() {
    let broker = StatusPage::create().unwrap();
    let worker = StatusPage::attach(broker.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!((broker.executing(), worker.cancel(), broker.beats()), (None, None, 0));
    for (task, attempt) in [(0, 0), (7, 1), (u32::MAX - 1, u32::MAX)] {
        worker.set_executing(task, attempt);
        assert_eq!(broker.executing(), Some((task, attempt)));
        broker.set_cancel(task, attempt);
        assert_eq!(worker.cancel(), Some((task, attempt)));
        assert_eq!(worker.executing(), worker.cancel());
        worker.beat();
    }
    assert_eq!(broker.beats(), 3);
    worker.clear_executing();
    broker.clear_cancel();
    assert_eq!((broker.executing(), worker.cancel()), (None, None));
}

#[test]
fn only_a_status_page_is_taken_for_one() {
    let blank = create_fixed("test", PAGE_BYTES).unwrap();
    let short = create_fixed("test", PAGE_BYTES - 1).unwrap();
    let constant = create_constant("test", &[0; PAGE_BYTES as usize]).unwrap();
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()).unwrap();
    for fd in [blank, short, constant, null] {
        assert!(StatusPage::attach(fd).is_err());
    }
}
