//! A session over a network that loses, delays, doubles and reorders packets: frames in order, each once.
//!
//! The machines of broker, worker and client rely on what ipc gives them: the frames of a connection arrive in order and
//! none is lost. Between machines nobody gives that: a connection that is made anew has lost what was under way. A [`Link`]
//! is one end of a session and makes up for it; a [`Listener`] keeps the ends of all that dialled. Over ipc and in-process
//! channels there is none, so it costs nothing there.
//!
//! As all machines here it knows no socket and no clock: `handle_…` takes packets and time, `send` takes frames, `poll_…`
//! gives both, `next_timeout_ns` says when to come back.
//!
//! - **L1** Frames are handed out in the order in which they were given, each once.
//! - **L2** A frame is acknowledged once it was handed out, and kept by its sender until then.
//! - **L3** What is not acknowledged in time is sent again; the time doubles with each try, up to a limit.
//! - **L4** At most a window of bytes is under way, or one frame that is longer. A receiver keeps as much beyond a gap, so
//!   that all of it fits; what another sender has under way beyond that is as good as lost.
//! - **L5** Nothing is handed out before the other end has repeated the number that the listener gave to the session just
//!   now. So a late copy of an old packet begins nothing.
//! - **L6** A packet of a session that is unknown here is answered OVER, and has no other effect. An end that hears OVER of
//!   its session, ends. So whoever comes back after a partition goes on, or learns that there is nothing to go on with.
//! - **L7** An end that hears nothing asks, and after so many questions in a row without an answer the session is over.
//!   Questions are counted and not time, so that a process that was stopped itself does not blame the other.
//! - **L8** Acknowledgements ride with frames. Where none leaves in this turn, one goes alone; nothing waits for a clock.
//! - **L9** After [`Link::close`] no frame is taken; the session is over once all have been acknowledged.
//!
//! What an end believes of the other only decides what it sends again: a wrong acknowledgement of a frame that was never sent
//! is ignored, a frame that comes twice is dropped, and so a hostile packet that guesses the session can end it, but not
//! make it lie. Guessing is for the layer below to prevent.

mod inbound;
mod listener;
mod outbound;
mod packet;
#[cfg(test)]
mod tests;

pub use listener::{Event, Listener};

use inbound::Inbound;
use outbound::Outbound;
use packet::{Data, Packet};

/// What a frame counts beside its bytes, so that empty ones are not free.
const FRAME_BYTES: usize = 64;

/// Sizes and times of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of frames under way, and of frames kept beyond a gap; each frame counts for some more.
    pub window_bytes: usize,
    /// When a frame is sent again for the first time, and at most how long that takes later.
    pub resend_ns: u64,
    /// The most that it is.
    pub resend_ns_max: u64,
    /// How long an end hears nothing before it asks.
    pub silence_ns: u64,
    /// Questions in a row without an answer after which the session is over.
    pub questions_max: u32,
}

impl Default for Limits {
    /// For machines in one building: a frame is lost where a connection breaks, not because of a full queue.
    fn default() -> Self {
        Limits {
            window_bytes: 8 << 20,
            resend_ns: 200_000_000,
            resend_ns_max: 3_200_000_000,
            silence_ns: 1_000_000_000,
            questions_max: 10,
        }
    }
}

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// This end closed it, and everything has arrived.
    Closed,
    /// The other end knows nothing of it (any more).
    Over,
    /// The other end is silent.
    Silent,
}

/// Counts since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Frames sent for the first time, and again.
    pub sent: u64,
    /// Frames sent again.
    pub resent: u64,
    /// Frames that came once more, and were dropped.
    pub doubled: u64,
    /// Frames beyond a gap that did not fit.
    pub overflowed: u64,
    /// Packets that meant nothing here.
    pub strange: u64,
    /// Bytes of frames that have not been acknowledged.
    pub unacknowledged_bytes: usize,
}

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// The dialer waits for a number.
    Dialling {
        token: u64,
    },
    /// The listener waits for the number to be repeated.
    Answering {
        token: u64,
    },
    Open,
    Over(End),
}

/// One end of a session. See the module.
#[derive(Debug)]
pub struct Link {
    limits: Limits,
    state: State,
    session: u64,
    inbound: Inbound,
    outbound: Outbound,
    closing: bool,
    /// Questions since something was heard, and when the next one is due.
    questions: u32,
    question_due_ns: u64,
    /// A packet without a frame is due: OPEN, ACCEPT, an acknowledgement, a question, or OVER.
    bare_due: bool,
    asks: bool,
    strange: u64,
}

impl Link {
    /// The end that begins. `token` must differ from those of all other attempts to begin, as a random one does.
    pub fn dial(limits: Limits, token: u64, now_ns: u64) -> Self {
        Link::new(limits, State::Dialling { token }, 0, now_ns)
    }

    fn new(limits: Limits, state: State, session: u64, now_ns: u64) -> Self {
        Link {
            limits,
            state,
            session,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            closing: false,
            questions: 0,
            question_due_ns: now_ns + limits.silence_ns,
            bare_due: true,
            asks: false,
            strange: 0,
        }
    }

    // Events

    /// Takes a packet from the other end.
    pub fn handle_packet(&mut self, bytes: &[u8], now_ns: u64) {
        match Packet::decode(bytes) {
            Some(packet) => self.take_packet(packet, now_ns),
            None => self.strange += 1,
        }
    }

    fn take_packet(&mut self, packet: Packet<'_>, now_ns: u64) {
        match (self.state, packet) {
            (State::Dialling { token: ours }, Packet::Accept { token, session }) if token == ours => {
                (self.state, self.session) = (State::Open, session);
                self.heard(now_ns);
                self.bare_due = true; // L5: it repeats the number at once.
            }
            (State::Answering { token: theirs }, Packet::Open { token }) if token == theirs => self.bare_due = true,
            (State::Open | State::Answering { .. }, Packet::Data(data)) if data.session == self.session => {
                self.state = State::Open;
                self.heard(now_ns);
                self.outbound.acknowledge(data.taken, data.here);
                if data.sequence > 0 {
                    self.inbound.take(data.sequence, data.frame, self.limits.window_bytes);
                }
                self.bare_due |= data.sequence > 0 || data.asks;
                self.finish_closing();
            }
            (State::Open, Packet::Over { session }) if session == self.session => self.state = State::Over(End::Over),
            // Late copies of how the session began.
            (State::Open, Packet::Open { .. } | Packet::Accept { .. }) => {}
            _ => self.strange += 1,
        }
    }

    fn heard(&mut self, now_ns: u64) {
        self.questions = 0;
        self.question_due_ns = now_ns + self.limits.silence_ns;
    }

    /// Lets time pass: what was not acknowledged is due again, and after a silence a question is.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        if self.is_over() {
            return;
        }
        if now_ns >= self.question_due_ns {
            if self.questions >= self.limits.questions_max {
                self.state = State::Over(End::Silent);
                return;
            }
            self.questions += 1;
            self.question_due_ns = now_ns + self.limits.silence_ns;
            (self.bare_due, self.asks) = (true, true);
        }
        if self.state == State::Open {
            self.outbound.handle_timeout(&self.limits, now_ns);
        }
    }

    // Commands

    /// Takes a frame for the other end. It is dropped if the session is over, or closed on this side (L9).
    pub fn send(&mut self, frame: Vec<u8>) {
        if !self.closing && !self.is_over() {
            self.outbound.push(frame);
        }
    }

    /// Ends the session once the other end has everything.
    pub fn close(&mut self) {
        self.closing = true;
        self.finish_closing();
    }

    fn finish_closing(&mut self) {
        if self.closing && self.outbound.is_empty() && !self.is_over() {
            self.state = State::Over(End::Closed);
            self.bare_due = true;
        }
    }

    // Actions

    /// The next packet to send. Ask until there is none when everything that came in was handled and handed out, so that
    /// acknowledgements ride with frames (L8).
    pub fn poll_packet(&mut self, now_ns: u64) -> Option<Vec<u8>> {
        if self.state == State::Open
            && let Some((sequence, frame)) = self.outbound.next(&self.limits, now_ns)
        {
            let data = self.inbound.data(self.session, std::mem::take(&mut self.asks));
            self.bare_due = false;
            return Some(Packet::Data(Data { sequence, frame, ..data }).encode());
        }
        if !std::mem::take(&mut self.bare_due) {
            return None;
        }
        let asks = std::mem::take(&mut self.asks);
        let packet = match self.state {
            State::Dialling { token } => Packet::Open { token },
            State::Answering { token } => Packet::Accept { token, session: self.session },
            State::Open => Packet::Data(self.inbound.data(self.session, asks)),
            State::Over(End::Closed) if self.session != 0 => Packet::Over { session: self.session },
            State::Over(_) => return None,
        };
        Some(packet.encode())
    }

    /// The next frame from the other end. With the asking it counts as handled (L2).
    pub fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.inbound.pop()
    }

    /// When [`Link::handle_timeout`] wants to be called.
    pub fn next_timeout_ns(&self) -> Option<u64> {
        let resend_ns = if self.state == State::Open { self.outbound.due_ns() } else { None };
        (!self.is_over()).then(|| resend_ns.map_or(self.question_due_ns, |due_ns| due_ns.min(self.question_due_ns)))
    }

    /// Why the session is over, if it is.
    pub fn ended(&self) -> Option<End> {
        match self.state {
            State::Over(end) => Some(end),
            _ => None,
        }
    }

    fn is_over(&self) -> bool {
        self.ended().is_some()
    }

    /// Counts.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            sent: self.outbound.sent,
            resent: self.outbound.resent,
            doubled: self.inbound.doubled,
            overflowed: self.inbound.overflowed,
            strange: self.strange,
            unacknowledged_bytes: self.outbound.bytes(),
        }
    }
}
