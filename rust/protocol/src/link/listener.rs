//! The ends of all sessions that others have begun, by number.

use super::packet::Packet;
use super::{End, Limits, Link, State, Statistics};
use std::collections::{BTreeMap, VecDeque};

/// Sessions that nobody has confirmed yet; beyond that the oldest one goes. A stranger costs no more than this.
const ANSWERING_MAX: usize = 1_024;

/// What a listener has to tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A frame of a session, in order.
    Frame {
        /// The session.
        session: u64,
        /// The frame.
        frame: Vec<u8>,
    },
    /// A session is over; nothing comes of it any more.
    Ended {
        /// The session.
        session: u64,
        /// Why.
        end: End,
    },
}

/// The listening side: all sessions of one address. A route is the caller's name for where packets come from and go to; a
/// peer that comes back on another one is known by its session.
#[derive(Debug)]
pub struct Listener {
    limits: Limits,
    next_session: u64,
    sessions: BTreeMap<u64, Session>,
    /// Sessions that wait to be confirmed, by the dialer's token, oldest first.
    answering: VecDeque<(u64, u64)>,
    events: VecDeque<Event>,
    /// Sessions that may have something to send.
    busy: VecDeque<u64>,
    /// OVER for packets of sessions that are unknown.
    refusals: VecDeque<(u64, Vec<u8>)>,
    /// Counts of sessions that are gone.
    past: Statistics,
}

#[derive(Debug)]
struct Session {
    link: Link,
    route: u64,
    is_busy: bool,
    /// Whether its end was told.
    end_told: bool,
}

impl Listener {
    /// A listener whose sessions are numbered from here on. The numbers must not be those of an earlier one (L5), which a
    /// random start ensures.
    pub fn new(limits: Limits, first_session: u64) -> Self {
        Listener {
            limits,
            next_session: first_session,
            sessions: BTreeMap::new(),
            answering: VecDeque::new(),
            events: VecDeque::new(),
            busy: VecDeque::new(),
            refusals: VecDeque::new(),
            past: Statistics::default(),
        }
    }

    // Events

    /// Takes a packet that came by this route.
    pub fn handle_packet(&mut self, route: u64, bytes: &[u8], now_ns: u64) {
        let packet = Packet::decode(bytes);
        let number = match packet {
            Some(Packet::Open { token }) => self.answer(token, route, now_ns),
            Some(Packet::Data(data)) => data.session,
            Some(Packet::Over { session }) => session,
            Some(Packet::Accept { .. }) | None => {
                self.past.strange += 1;
                return;
            }
        };
        let (Some(session), Some(packet)) = (self.sessions.get_mut(&number), packet) else {
            if matches!(packet, Some(Packet::Data(_))) {
                self.refusals.push_back((route, Packet::Over { session: number }.encode()));
            }
            return;
        };
        session.route = route;
        session.link.take_packet(packet, now_ns);
        while let Some(frame) = session.link.poll_frame() {
            self.events.push_back(Event::Frame { session: number, frame });
        }
        self.note(number);
    }

    /// The session of a token, a new one if need be.
    fn answer(&mut self, token: u64, route: u64, now_ns: u64) -> u64 {
        if let Some((_, session)) = self.answering.iter().find(|(known, _)| *known == token) {
            return *session;
        }
        if self.answering.len() == ANSWERING_MAX
            && let Some((_, oldest)) = self.answering.pop_front()
        {
            self.remove(oldest);
        }
        let number = self.next_session;
        self.next_session = self.next_session.wrapping_add(1);
        let link = Link::new(self.limits, State::Answering { token }, number, now_ns);
        self.sessions.insert(number, Session { link, route, is_busy: false, end_told: false });
        self.answering.push_back((token, number));
        number
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        let due = |session: &Session| session.link.next_timeout_ns().is_some_and(|due_ns| due_ns <= now_ns);
        let due: Vec<u64> =
            self.sessions.iter().filter(|(_, session)| due(session)).map(|(number, _)| *number).collect();
        for number in due {
            if let Some(session) = self.sessions.get_mut(&number) {
                session.link.handle_timeout(now_ns);
            }
            self.note(number);
        }
    }

    // Commands

    /// Takes a frame for the other end of a session; dropped if there is no such session.
    pub fn send(&mut self, session: u64, frame: Vec<u8>) {
        if let Some(found) = self.sessions.get_mut(&session) {
            found.link.send(frame);
            self.note(session);
        }
    }

    /// Ends a session once the other end has everything. What it still sends is handed out until then.
    pub fn close(&mut self, session: u64) {
        if let Some(found) = self.sessions.get_mut(&session) {
            found.link.close();
            self.note(session);
        }
    }

    /// Ends a session at once and without a word; whoever still speaks in it learns that it is over.
    pub fn forget(&mut self, session: u64) {
        self.remove(session);
    }

    // Actions

    /// The next packet to send, and its route. Ask until there is none when the events have been dealt with.
    pub fn poll_packet(&mut self, now_ns: u64) -> Option<(u64, Vec<u8>)> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        while let Some(&number) = self.busy.front() {
            if let Some(session) = self.sessions.get_mut(&number) {
                if let Some(packet) = session.link.poll_packet(now_ns) {
                    return Some((session.route, packet));
                }
                session.is_busy = false;
                if session.link.ended().is_some() {
                    self.remove(number);
                }
            }
            self.busy.pop_front();
        }
        None
    }

    /// The next frame or end.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Listener::handle_timeout`] wants to be called.
    pub fn next_timeout_ns(&self) -> Option<u64> {
        self.sessions.values().filter_map(|session| session.link.next_timeout_ns()).min()
    }

    /// Counts of all sessions together.
    pub fn statistics(&self) -> Statistics {
        self.sessions.values().fold(self.past, |sum, session| sum.and(session.link.statistics()))
    }

    /// Sessions now, whether or not they are confirmed.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    // Details

    /// A session may have ended, been confirmed, or have something to send.
    fn note(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let was_answering = |entry: &(u64, u64)| entry.1 == number;
        if !matches!(session.link.state, State::Answering { .. })
            && let Some(place) = self.answering.iter().position(was_answering)
        {
            self.answering.remove(place);
            // Nobody has heard of one that ends before it was confirmed.
            if session.link.ended() == Some(End::Silent) {
                return self.remove(number);
            }
        }
        if let Some(end) = session.link.ended()
            && !std::mem::replace(&mut session.end_told, true)
        {
            self.events.push_back(Event::Ended { session: number, end });
        }
        if !std::mem::replace(&mut session.is_busy, true) {
            self.busy.push_back(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(session) = self.sessions.remove(&number) {
            self.past = self.past.and(Statistics { unacknowledged_bytes: 0, ..session.link.statistics() });
        }
        self.answering.retain(|(_, session)| *session != number);
    }
}

impl Statistics {
    fn and(self, other: Statistics) -> Statistics {
        Statistics {
            sent: self.sent + other.sent,
            resent: self.resent + other.resent,
            doubled: self.doubled + other.doubled,
            overflowed: self.overflowed + other.overflowed,
            strange: self.strange + other.strange,
            unacknowledged_bytes: self.unacknowledged_bytes + other.unacknowledged_bytes,
        }
    }
}
