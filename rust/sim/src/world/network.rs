//! Connections. An orderly one is what ipc is: frames arrive in order, none is lost, and it ends with the process. A lossy one
//! carries packets of a link, and loses, doubles and delays them.

use super::{Event, Who, World};
use crate::chance::Chance;
use crate::coverage::NetFault;
use crate::describe::describe;
use crate::encode;
use crate::history::Record;
use crate::scenario::{Moment, Ways};
use crate::world::body::named;
use crate::world::host::message_type;
use headrace_protocol::broker::PeerId;
use headrace_protocol::link::{End, Link};
use headrace_wire::{Message, Verdict};
use std::collections::VecDeque;

/// A connection of one process with the broker.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) who: Who,
    /// The process's end of the link, where the connection is lossy.
    link: Option<Link>,
    /// When the link is called next.
    link_due_ns: u64,
    /// What the broker's host calls the process of an orderly connection; forgotten when the broker says so.
    pub(crate) peer: Option<PeerId>,
    /// All that it was called so far.
    pub(crate) peers: Vec<PeerId>,
    up: Lane,
    down: Lane,
    chance: Chance,
}

/// One way of a connection.
#[derive(Debug, Default)]
struct Lane {
    /// Frames of an orderly connection.
    under_way: VecDeque<Vec<u8>>,
    /// When the last of them arrives.
    last_ns: u64,
    /// Packets of a lossy connection that are under way.
    packets: u32,
    /// Until when it carries nothing.
    cut_until_ns: u64,
}

const NEVER_NS: u64 = u64::MAX;
/// Where the frame begins in a packet of a link that has one.
const PACKET_HEAD_BYTES: usize = 34;

impl Conn {
    fn lane(&mut self, up: bool) -> &mut Lane {
        if up { &mut self.up } else { &mut self.down }
    }

    pub(crate) fn is_lossy(&self) -> bool {
        self.link.is_some()
    }

    /// Why the link is over, if it is.
    pub(crate) fn link_ended(&self) -> Option<End> {
        self.link.as_ref().and_then(Link::ended)
    }
}

impl World<'_> {
    pub(super) fn connect(&mut self, who: Who, is_lossy: bool) -> usize {
        let number = self.conns.len();
        let mut chance = Chance::numbered(self.scenario.seed, "conn", number as u64);
        let limits = encode::limits(&self.scenario.net);
        let link = is_lossy.then(|| Link::dial(limits, chance.bits(), self.now_ns));
        let (up, down) = (Lane::default(), Lane::default());
        self.conns.push(Conn { who, link, link_due_ns: NEVER_NS, peer: None, peers: Vec::new(), up, down, chance });
        number
    }

    /// A process sends a frame to the broker.
    pub(super) fn send_up(&mut self, conn: usize, frame: Vec<u8>) {
        self.see_frame_up(conn, &frame);
        let (now_ns, who) = (self.now_ns, self.conns[conn].who);
        self.trace.note(now_ns, || format!("from {who:?}: {}", describe(&frame)));
        match &mut self.conns[conn].link {
            Some(link) => link.send(frame),
            None => self.carry(conn, true, frame),
        }
    }

    /// The broker sends a frame.
    pub(super) fn send_down(&mut self, conn: usize, frame: Vec<u8>) {
        self.see_frame_down(conn, &frame);
        let (now_ns, who) = (self.now_ns, self.conns[conn].who);
        self.trace.note(now_ns, || format!("to {who:?}: {}", describe(&frame)));
        match self.host.session_of(conn) {
            Some(session) => self.host.listener.send(session, frame),
            None => self.carry(conn, false, frame),
        }
    }

    /// An orderly connection takes a frame.
    fn carry(&mut self, number: usize, up: bool, frame: Vec<u8>) {
        let conn = &mut self.conns[number];
        let delay_ns = conn.chance.below(self.scenario.pace.frame_ns + 1);
        let lane = conn.lane(up);
        lane.last_ns = lane.last_ns.max(self.now_ns + delay_ns);
        lane.under_way.push_back(frame);
        let at_ns = lane.last_ns;
        self.queue.plan(at_ns, Event::Frame { conn: number, up });
    }

    pub(super) fn frame_arrives(&mut self, conn: usize, up: bool) {
        if let Some(frame) = self.conns[conn].lane(up).under_way.pop_front() {
            self.take(conn, up, frame);
        }
    }

    /// The process's end of a link sends what it has to.
    pub(super) fn pump_link(&mut self, conn: usize) {
        let Some(mut link) = self.conns[conn].link.take() else { return };
        while let Some(packet) = link.poll_packet(self.now_ns) {
            self.carry_packet(conn, true, packet);
        }
        // A process that was stopped may be late.
        let due_ns = link.next_timeout_ns().map_or(NEVER_NS, |due_ns| due_ns.max(self.now_ns));
        if due_ns < self.conns[conn].link_due_ns {
            self.conns[conn].link_due_ns = due_ns;
            self.queue.plan(due_ns, Event::Link(conn));
        }
        self.conns[conn].link = Some(link);
    }

    pub(super) fn link_is_due(&mut self, conn: usize) {
        if self.conns[conn].link_due_ns != self.now_ns {
            return;
        }
        self.conns[conn].link_due_ns = NEVER_NS;
        // Only a process that runs looks at its clock.
        match self.conns[conn].who {
            Who::Worker(process) => self.call_worker(process, 0),
            Who::Client(client) => self.call_client(client, 0),
            Who::Broker => {}
        }
    }

    /// The process looks at its clock.
    pub(super) fn tick_link(&mut self, conn: usize) {
        let now_ns = self.now_ns;
        if let Some(link) = &mut self.conns[conn].link {
            link.handle_timeout(now_ns);
        }
    }

    /// What a process has received, as frames: a link makes none or several of a packet.
    pub(super) fn unpack(&mut self, conn: usize, bytes: Vec<u8>) -> VecDeque<Vec<u8>> {
        let now_ns = self.now_ns;
        match &mut self.conns[conn].link {
            None => VecDeque::from([bytes]),
            Some(link) => {
                link.handle_packet(&bytes, now_ns);
                std::iter::from_fn(|| link.poll_frame()).collect()
            }
        }
    }

    /// A lossy connection takes a packet, and does with it what it wants.
    pub(super) fn carry_packet(&mut self, number: usize, up: bool, packet: Vec<u8>) {
        let net = &self.scenario.net;
        let conn = &mut self.conns[number];
        let is_cut = self.now_ns < conn.lane(up).cut_until_ns;
        let mut copies = 1;
        let mut late_ns = 0;
        if !self.healed {
            let kind = if packet.len() > PACKET_HEAD_BYTES { message_type(&packet[PACKET_HEAD_BYTES..]) } else { 0 };
            if is_cut || conn.chance.ppm(net.lost_ppm) {
                copies = 0;
                self.coverage.meet_net(NetFault::Lost, kind);
            } else if conn.chance.ppm(net.doubled_ppm) {
                copies = 2;
                self.coverage.meet_net(NetFault::Doubled, kind);
            }
            if conn.chance.ppm(net.late_ppm) {
                late_ns = conn.chance.below(net.late_ns + 1);
                self.coverage.meet_net(NetFault::Late, kind);
            }
        }
        for _ in 0..copies {
            let conn = &mut self.conns[number];
            let delay_ns = late_ns + conn.chance.below(self.scenario.pace.frame_ns + 1);
            conn.lane(up).packets += 1;
            self.plan_in(delay_ns, Event::Packet { conn: number, up, packet: packet.clone() });
        }
    }

    pub(super) fn packet_arrives(&mut self, conn: usize, up: bool, packet: Vec<u8>) {
        self.conns[conn].lane(up).packets -= 1;
        self.take(conn, up, packet);
    }

    /// A frame or packet is where it was sent to.
    fn take(&mut self, conn: usize, up: bool, bytes: Vec<u8>) {
        let (now_ns, who) = (self.now_ns, self.conns[conn].who);
        self.trace.number(now_ns ^ (conn as u64) << 48 ^ u64::from(up));
        self.trace.bytes(&bytes);
        match (up, who) {
            (true, _) => self.host_hears(conn, bytes),
            (false, Who::Worker(process)) => self.worker_hears(process, bytes),
            (false, Who::Client(client)) => self.client_hears(client, bytes),
            (false, Who::Broker) => {}
        }
    }

    /// The process is gone, and where it was `cut` short, what had not left it does not arrive. When the last frame of an
    /// orderly connection arrives, with which it ends.
    pub(super) fn lose_tail(&mut self, number: usize, cut: bool) -> Option<u64> {
        let conn = &mut self.conns[number];
        if conn.is_lossy() {
            return None;
        }
        if cut {
            let left = conn.up.under_way.len() as u64;
            let arriving = conn.chance.below(left + 1) as usize;
            conn.up.under_way.truncate(arriving);
        }
        conn.down.under_way.clear();
        Some(conn.up.last_ns.max(self.now_ns))
    }

    /// The process's end of a link, if it has one, ends when everything has arrived. Whether that is still to come.
    pub(super) fn close_link(&mut self, number: usize) -> bool {
        if let Some(link) = &mut self.conns[number].link {
            link.close();
        }
        self.pump_link(number);
        self.conns[number].link.as_ref().is_some_and(|link| link.ended().is_none())
    }

    /// A lossy connection carries nothing for a while; whether it is one.
    pub(super) fn cut(&mut self, conn: usize, ways: Ways, until_ns: u64) -> bool {
        let conn = &mut self.conns[conn];
        if ways != Ways::Down {
            conn.up.cut_until_ns = until_ns;
        }
        if ways != Ways::Up {
            conn.down.cut_until_ns = until_ns;
        }
        conn.is_lossy()
    }

    /// Whether a frame of the process is on its way, and one to it.
    pub(super) fn is_under_way(&self, conn: usize) -> (bool, bool) {
        let is_used = |lane: &Lane| !lane.under_way.is_empty() || lane.packets > 0;
        (is_used(&self.conns[conn].up), is_used(&self.conns[conn].down))
    }

    fn see_frame_up(&mut self, conn: usize, frame: &[u8]) {
        let who = self.conns[conn].who;
        let Who::Worker(process) = who else { return };
        if let Ok(Message::Report(report)) = Message::decode(frame) {
            for ((slot, attempt), verdict) in report.task.iter().zip(report.attempt.iter()).zip(report.verdict) {
                if matches!(Verdict::try_from(*verdict), Ok(Verdict::Returned | Verdict::Cancelled)) {
                    self.record(Record::GaveUp { process, slot, attempt });
                }
            }
            self.moment(Moment::ReportSent, who);
        }
    }

    fn see_frame_down(&mut self, conn: usize, frame: &[u8]) {
        let who = self.conns[conn].who;
        let moment = match (who, Message::decode(frame)) {
            (Who::Worker(process), Ok(Message::Lease(lease))) => {
                for ((slot, attempt), args) in lease.task.iter().zip(lease.attempt.iter()).zip(lease.args.iter()) {
                    self.record(Record::Leased { process, name: named(args), slot, attempt });
                }
                Moment::LeaseSent
            }
            (_, Ok(Message::Recall(_))) => Moment::RecallSent,
            (_, Ok(Message::Revoke(_))) => Moment::RevokeSent,
            (_, Ok(Message::Forget(_))) => Moment::ForgetSent,
            (_, Ok(Message::Release(_))) => Moment::ReleaseSent,
            (_, Ok(Message::Results(_))) => Moment::ResultsSent,
            _ => return,
        };
        self.moment(moment, who);
    }
}
