//! The question that libzmq asks for each connection with keys: who is that? (ZeroMQ's RFC 27.)

use std::os::fd::RawFd;

use super::context::Context;
use super::curve::{DOMAIN, Key};
use super::error::ZmqError;
use super::socket::{REP, Socket};

/// Where libzmq asks.
const ENDPOINT: &str = "inproc://zeromq.zap.01";
const VERSION: &[u8] = b"1.0";
/// Parts of a question about a key.
const PARTS: usize = 7;

/// Answers for all sockets of one context. It has to be there before an endpoint with keys is bound.
pub struct Gatekeeper {
    socket: Socket,
    /// Version and number of the question that waits for its answer.
    question: Option<(Vec<u8>, Vec<u8>)>,
}

/// Somebody at the gate.
#[derive(Debug)]
pub struct Caller {
    /// The key that it has proven to have; `None` if it shows none, or is at another gate.
    pub key: Option<Key>,
    /// Its address, for people.
    pub address: String,
}

impl Gatekeeper {
    /// Takes its place.
    ///
    /// # Errors
    /// When the context has one already.
    pub fn open(context: &Context) -> Result<Self, ZmqError> {
        let mut socket = Socket::open(context, REP)?;
        socket.bind(ENDPOINT)?;
        Ok(Self { socket, question: None })
    }

    /// The next caller, if one waits; to be answered before the next.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn poll(&mut self) -> Result<Option<Caller>, ZmqError> {
        if self.question.is_some() {
            self.answer(None)?;
        }
        let Some(first) = self.socket.receive()? else { return Ok(None) };
        let mut parts = vec![first.bytes().to_vec()];
        let mut more = first.has_more();
        while more {
            // The parts of a transmission arrive together, so none is missing yet.
            let Some(part) = self.socket.receive()? else { break };
            more = part.has_more();
            parts.push(part.bytes().to_vec());
        }
        let part = |at: usize| parts.get(at).map_or(&[][..], Vec::as_slice);
        self.question = Some((part(0).to_vec(), part(1).to_vec()));
        let is_ours = parts.len() == PARTS && part(0) == VERSION && part(2) == DOMAIN.as_bytes() && part(5) == b"CURVE";
        let key = is_ours.then(|| Key::of_bytes(part(6))).flatten();
        Ok(Some(Caller { key, address: String::from_utf8_lossy(part(3)).into_owned() }))
    }

    /// Lets the caller in under this name, which its frames will carry, or sends it away.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn answer(&mut self, name: Option<&str>) -> Result<(), ZmqError> {
        let Some((version, number)) = self.question.take() else { return Ok(()) };
        let (code, text) = if name.is_some() { ("200", "OK") } else { ("400", "this key is not on the list") };
        let parts = [&version, &number, code.as_bytes(), text.as_bytes(), name.unwrap_or("").as_bytes()];
        let sent = parts.into_iter().try_for_each(|part| self.socket.send_head(part));
        sent.and_then(|()| self.socket.send_body(&mut Vec::new())).or_else(|error| match error {
            // libzmq has given the connection up meanwhile.
            super::SendError::WouldBlock | super::SendError::Unreachable => Ok(()),
            super::SendError::Failed(error) => Err(error),
        })
    }

    /// The descriptor to poll for input; edge-triggered, see the [module](super).
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Whether a caller waits. To be asked before every sleep on [`fd`](Gatekeeper::fd).
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn has_input(&mut self) -> Result<bool, ZmqError> {
        Ok(self.socket.events()?.input)
    }
}
