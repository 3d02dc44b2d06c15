//! Small messages over a `SOCK_SEQPACKET` socket pair, each with a descriptor or without.
//!
//! A message arrives whole or not at all. Neither side ever waits here.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

/// The longest message: room for a sentence with names and a path.
pub const MESSAGE_BYTES_MAX: usize = 4_096;

/// What [`receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Message {
        /// What it says.
        bytes: Vec<u8>,
        /// The descriptor that came with it, closed on exec.
        fd: Option<OwnedFd>,
    },
    /// No message is there now.
    Nothing,
    /// The other side is gone, and everything it sent was received.
    End,
}

/// Sends a message, and a duplicate of `fd` with it.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when the other side leaves too much unread; [`io::ErrorKind::BrokenPipe`] or
/// [`io::ErrorKind::ConnectionReset`] when it is gone.
///
/// # Panics
/// If the message is empty, which would look like the end, or longer than [`MESSAGE_BYTES_MAX`].
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    assert!((1..=MESSAGE_BYTES_MAX).contains(&bytes.len()), "a control message of {} bytes", bytes.len());
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
        debug_assert!(pushed, "the space is for one descriptor");
    }
    loop {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => return result.map(drop).map_err(io::Error::from),
        }
    }
}

/// Takes the next message. However the socket fails, that is its end. A message comes without its descriptor if this process
/// has no room for one.
///
/// # Errors
/// When a message came without all of its bytes.
pub fn receive(socket: impl AsFd) -> io::Result<Received> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            // The other side went without reading everything. That is told once, and before what it has sent.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(_) => return Ok(Received::End),
            Ok(message) => break message,
        }
    };
    // A descriptor too many is closed here.
    let fd = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::other("a control message arrived without all that was sent with it"));
    }
    if message.bytes == 0 {
        return Ok(Received::End);
    }
    bytes.truncate(message.bytes);
    Ok(Received::Message { bytes, fd })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::io::FdFlags;
    use rustix::net::{AddressFamily, SocketFlags, SocketType};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn message(socket: &OwnedFd) -> (Vec<u8>, Option<OwnedFd>) {
        match receive(socket).unwrap() {
            Received::Message { bytes, fd } => (bytes, fd),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_arrive_whole_and_in_order() {
        let (left, right) = pair();
        assert!(matches!(receive(&right).unwrap(), Received::Nothing));
        let long = [7; MESSAGE_BYTES_MAX];
        send(&left, b"one", None).unwrap();
        send(&left, &long, None).unwrap();
        let (bytes, fd) = message(&right);
        assert_eq!((&*bytes, fd.is_none()), (&b"one"[..], true));
        assert_eq!(message(&right).0, long);
        assert!(matches!(receive(&right).unwrap(), Received::Nothing));
    }

    #[test]
    fn a_descriptor_comes_with_its_message() {
        let (left, right) = pair();
        let memory = crate::memfd::create_constant("test", b"the contents").unwrap();
        send(&left, b"with", Some(memory.as_fd())).unwrap();
        send(&left, b"without", None).unwrap();
        drop((memory, left));
        let (bytes, fd) = message(&right);
        assert_eq!(bytes, b"with");
        let fd = fd.unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        let mut contents = Vec::new();
        rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0)).unwrap();
        File::from(fd).read_to_end(&mut contents).unwrap();
        assert_eq!(contents, b"the contents");
        assert!(message(&right).1.is_none());
        assert!(matches!(receive(&right).unwrap(), Received::End));
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (left, right) = pair();
        let error = (0..1_000_000).find_map(|_| send(&left, &[1; 200], None).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        while matches!(receive(&right).unwrap(), Received::Message { .. }) {}
        send(&left, b"again", None).unwrap();
    }

    #[test]
    fn last_words_are_heard_though_nobody_listened_to_us() {
        let (left, right) = pair();
        send(&left, b"unread", None).unwrap();
        send(&right, b"last words", None).unwrap();
        drop(right);
        assert_eq!(message(&left).0, b"last words");
        assert!(matches!(receive(&left).unwrap(), Received::End));
        assert_eq!(send(&left, b"gone", None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(receive(&left).unwrap(), Received::End));
    }

    #[test]
    fn a_message_that_is_too_long_is_no_message() {
        let (left, right) = pair();
        rustix::io::write(&left, &[0; MESSAGE_BYTES_MAX + 1]).unwrap();
        assert!(receive(&right).is_err());
        assert!(matches!(receive(&right).unwrap(), Received::Nothing));
        assert!(std::panic::catch_unwind(|| send(&left, b"", None)).is_err());
    }
}
