//! A client's way to its broker, for shared memory.
use std::sync::Weak;

use headrace_protocol::store::Blocks;

use super::session::Session;
use crate::memory::Seat;

/// The session may be gone before the last view is.
pub(super) struct ClientSeat {
    pub(super) session: Weak<Session>,
}

impl Seat for ClientSeat {
    fn with_blocks(&self, look: &mut dyn FnMut(&mut Blocks)) {
        if let Some(session) = self.session.upgrade() {
            session.command(|tables| tables.machine().map(|machine| machine.with_blocks(look)));
        }
    }

    fn want(&self, bytes: u64) {
        if let Some(session) = self.session.upgrade() {
            session.command(|tables| tables.machine().map(|machine| machine.want(bytes)));
        }
    }

    fn lack(&self, segment: u32) {
        if let Some(session) = self.session.upgrade() {
            session.command(|tables| tables.machine().map(|machine| machine.lack(segment)));
        }
    }

    fn withdraw(&self, bytes: u64) {
        if let Some(session) = self.session.upgrade() {
            session.command(|tables| tables.machine().map(|machine| machine.withdraw(bytes)));
        }
    }

    fn return_segment(&self, segment: u32) {
        if let Some(session) = self.session.upgrade() {
            session.command(|tables| tables.machine().map(|machine| machine.return_segment(segment)));
        }
    }

    fn listen(&self) {
        if let Some(session) = self.session.upgrade() {
            session.listen();
        }
    }

    fn garbage_due(&self) -> u8 {
        self.session.upgrade().map_or(0, |session| session.lock().tables.garbage_due())
    }

    fn note_collected(&self, urgency: u8) {
        if let Some(session) = self.session.upgrade() {
            session.command(|tables| tables.machine().map(|machine| machine.note_collected(urgency)));
        }
    }
}
