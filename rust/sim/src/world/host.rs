//! What surrounds the broker: its loop, which takes turns, starts processes, hears their ends and writes to disk.

use super::worker::Fate;
use super::{Event, Who, World};
use crate::chance::Chance;
use crate::coverage::FaultKind;
use crate::scenario::Moment;
use headrace_protocol::broker::{Action, Frame, PeerId, SegmentNews, SpillPart};
use headrace_protocol::link::{Event as LinkEvent, Limits, Listener};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The loop around the broker.
#[derive(Debug)]
pub(crate) struct Host {
    inbox: VecDeque<(usize, Vec<u8>)>,
    pub(crate) exits: Vec<usize>,
    pub(crate) gone: Vec<usize>,
    pub(crate) written: Vec<(u64, bool)>,
    /// The connection of each peer, by its number; `None` once it is cut or forgotten.
    routes: Vec<Option<usize>>,
    /// The ends of all links, and who speaks in which session.
    pub(crate) listener: Listener,
    sessions: BTreeMap<u64, (usize, PeerId)>,
    /// The session of each connection that has one.
    session_of: BTreeMap<usize, u64>,
    /// When the next turn is due.
    due_ns: u64,
    pub(crate) stopped_until_ns: u64,
    pub(crate) disk_fails_until_ns: u64,
    pub(crate) failing_spawns: u32,
    /// Whether a job runs on the disk's thread.
    pub(crate) is_spilling: bool,
    /// Whether the broker shuts down.
    pub(crate) is_ending: bool,
    chance: Chance,
}

const NEVER_NS: u64 = u64::MAX;
/// Bodies up to this many tasks are cheap to check after every turn.
const CHECKED_ALWAYS: u64 = 32;
/// What a frame takes the broker where the load counts; it should come out at less.
const FRAME_TAKES_NS: u64 = 3_000;
/// Turns of which one is checked where that takes seconds.
const CHECK_ODDS_LARGE: u64 = 50_000;

impl Host {
    pub(crate) fn new(seed: u64, limits: Limits) -> Self {
        Host {
            listener: Listener::new(limits, Chance::new(seed, "listener").bits()),
            sessions: BTreeMap::new(),
            session_of: BTreeMap::new(),
            inbox: VecDeque::new(),
            exits: Vec::new(),
            gone: Vec::new(),
            written: Vec::new(),
            routes: Vec::new(),
            due_ns: NEVER_NS,
            stopped_until_ns: 0,
            disk_fails_until_ns: 0,
            failing_spawns: 0,
            is_spilling: false,
            is_ending: false,
            chance: Chance::new(seed, "host"),
        }
    }

    /// The session in which the broker speaks with the process of a connection.
    pub(crate) fn session_of(&self, conn: usize) -> Option<u64> {
        self.session_of.get(&conn).copied()
    }

    /// A name for somebody who speaks for the first time.
    fn new_peer(&mut self, conn: usize) -> PeerId {
        self.routes.push(Some(conn));
        PeerId(self.routes.len() as u64 - 1)
    }
}

impl World<'_> {
    /// Has the loop take a turn at this time, or before.
    pub(super) fn call_host(&mut self, at_ns: u64) {
        let at_ns = at_ns.max(self.now_ns).max(self.host.stopped_until_ns);
        if at_ns < self.host.due_ns {
            self.host.due_ns = at_ns;
            self.queue.plan(at_ns, Event::Host);
        }
    }

    pub(super) fn host_hears(&mut self, conn: usize, frame: Vec<u8>) {
        self.host.inbox.push_back((conn, frame));
        let turn_ns = self.host.chance.below(self.scenario.pace.turn_ns + 1);
        self.call_host(self.now_ns + turn_ns);
    }

    pub(super) fn host_turn(&mut self) {
        if self.host.due_ns != self.now_ns {
            return; // An earlier turn came in between.
        }
        self.host.due_ns = NEVER_NS;
        if self.now_ns < self.host.stopped_until_ns {
            return self.call_host(self.host.stopped_until_ns);
        }
        self.count_load();
        self.drain_inbox();
        for process in std::mem::take(&mut self.host.exits) {
            let (worker, incarnation, exit, executing) = self.workers[process].epitaph();
            self.seats[worker as usize].retain(|seated| *seated != process);
            self.broker.handle_exit(worker, incarnation, exit, executing, self.now_ns);
        }
        for conn in std::mem::take(&mut self.host.gone) {
            for peer in self.conns[conn].peers.clone() {
                self.broker.handle_client_exit(peer, self.now_ns);
            }
        }
        for (job, fails) in std::mem::take(&mut self.host.written) {
            self.host.is_spilling = false;
            let outcome = if fails { Err("the disk is full".to_owned()) } else { Ok(()) };
            self.broker.handle_spilled(job, outcome, self.now_ns);
        }
        if self.host.is_ending {
            // As the real loop: it only waits for its processes.
            return self.perform_all();
        }
        self.broker.end_turn(self.now_ns);
        self.perform_all();
        self.check_kernel();
        let due_ns = self.broker.next_timeout_ns().into_iter().chain(self.host.listener.next_timeout_ns()).min();
        if let Some(due_ns) = due_ns {
            self.call_host(due_ns.max(self.now_ns + 1));
        }
    }

    /// Notes what waits, if the load counts.
    fn count_load(&mut self) {
        if !self.scenario.is_large {
            return;
        }
        let bytes = self.host.inbox.iter().map(|(_, frame)| frame.len()).sum();
        let load = &mut self.load;
        load.turns += 1;
        load.frames_waiting_max = load.frames_waiting_max.max(self.host.inbox.len());
        load.bytes_waiting_max = load.bytes_waiting_max.max(bytes);
        // What comes meanwhile is the next turn's.
        self.host.stopped_until_ns = self.now_ns + self.host.inbox.len() as u64 * FRAME_TAKES_NS;
    }

    fn drain_inbox(&mut self) {
        for (conn, bytes) in std::mem::take(&mut self.host.inbox) {
            if self.conns[conn].is_lossy() {
                self.host.listener.handle_packet(conn as u64, &bytes, self.now_ns);
                self.heed_listener(conn);
                continue;
            }
            let peer = match self.conns[conn].peer {
                Some(peer) => peer,
                None => {
                    let peer = self.host.new_peer(conn);
                    self.conns[conn].peers.push(peer);
                    peer
                }
            };
            self.conns[conn].peer = Some(peer);
            self.apply_frame(conn, peer, bytes);
        }
        self.host.listener.handle_timeout(self.now_ns);
        self.heed_listener(usize::MAX);
    }

    /// Takes the frames and ends of sessions; those that begin now do so on this connection.
    fn heed_listener(&mut self, conn: usize) {
        while let Some(event) = self.host.listener.poll_event() {
            match event {
                LinkEvent::Frame { session, frame } => {
                    let (conn, peer) = match self.host.sessions.get(&session) {
                        Some(known) => *known,
                        None => (conn, self.host.new_peer(conn)),
                    };
                    self.host.sessions.insert(session, (conn, peer));
                    self.host.session_of.insert(conn, session);
                    self.apply_frame(conn, peer, frame);
                }
                LinkEvent::Ended { session, .. } => {
                    if let Some((conn, peer)) = self.host.sessions.remove(&session) {
                        self.host.session_of.remove(&conn);
                        self.host.routes[peer.0 as usize] = None;
                        match self.conns[conn].who {
                            // Whoever is that far away has no map of shared memory here.
                            Who::Client(_) => self.broker.handle_client_exit(peer, self.now_ns),
                            _ => self.broker.handle_disconnect(peer, self.now_ns),
                        }
                    }
                }
            }
        }
    }

    fn apply_frame(&mut self, conn: usize, peer: PeerId, frame: Vec<u8>) {
        let kind = message_type(&frame);
        let frame: Frame = Arc::new(frame);
        self.broker.handle_frame(peer, &frame, self.now_ns);
        let moment = match kind {
            1 => Moment::HelloApplied,
            10 => Moment::SubmitApplied,
            12 => Moment::HoldApplied,
            13 => Moment::CancelApplied,
            21 => Moment::ReportApplied,
            27 => Moment::ReleasedApplied,
            33 => Moment::OverdueApplied,
            _ => return,
        };
        let who = self.conns[conn].who;
        self.moment(moment, who);
        if let (Moment::ReportApplied, Who::Worker(process)) = (moment, who)
            && self.workers[process].occupation().runs
        {
            self.moment(Moment::ReportOvertaken, who);
        }
        self.strike();
    }

    fn check_kernel(&mut self) {
        let is_large = self.scenario.is_large;
        let is_small = !is_large && self.broker.statistics().tasks_held <= CHECKED_ALWAYS;
        let odds = if is_large { CHECK_ODDS_LARGE } else { 100 };
        if (is_small || self.checks.one_in(odds))
            && let Err(text) = self.broker.check()
        {
            self.fail("kernel", || text);
        }
    }

    pub(super) fn perform_all(&mut self) {
        while let Some(action) = self.broker.poll_action() {
            self.perform(action);
            self.strike();
        }
        while let Some((conn, packet)) = self.host.listener.poll_packet(self.now_ns) {
            self.carry_packet(conn as usize, false, packet);
        }
    }

    fn route(&self, peer: PeerId) -> Option<usize> {
        self.host.routes[peer.0 as usize]
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { peer, frame, .. } | Action::Log { peer, frame } => {
                if let Some(conn) = self.route(peer) {
                    self.send_down(conn, frame);
                }
            }
            Action::Spawn { worker, incarnation } => {
                if self.host.failing_spawns > 0 && !self.healed {
                    self.host.failing_spawns -= 1;
                    self.cover([FaultKind::FailSpawn; 2], Who::Broker);
                    self.broker.handle_spawn_failure(worker, "the simulator says so", self.now_ns);
                    return;
                }
                let delay_ns = self.host.chance.below(self.scenario.pace.spawn_ns + 1);
                self.start_process(worker, incarnation, delay_ns);
            }
            Action::Interrupt { worker, task, attempt } => {
                if let Some(process) = self.at_work(worker) {
                    self.interrupt(process, (task, attempt));
                }
            }
            Action::Kill { worker } => {
                if let Some(process) = self.at_work(worker) {
                    self.end_process(process, Fate::Killed);
                }
            }
            Action::Look { worker } => {
                if self.at_work(worker).is_some_and(|process| self.workers[process].take_heard()) {
                    self.broker.handle_sign_of_life(worker);
                }
            }
            Action::Cut { peer } => {
                self.expect_cause_to_cut(peer);
                if let Some(conn) = self.host.routes[peer.0 as usize].take()
                    && let Some(session) = self.host.session_of(conn)
                {
                    self.host.listener.close(session);
                }
            }
            Action::Forget { peer } => {
                // What still comes from there is a stranger's.
                let Some(conn) = self.host.routes[peer.0 as usize].take() else { return };
                self.conns[conn].peer = None;
                if let Some(session) = self.host.session_of.remove(&conn) {
                    self.host.sessions.remove(&session);
                    self.host.listener.forget(session);
                    if matches!(self.conns[conn].who, Who::Client(_)) {
                        self.broker.handle_client_exit(peer, self.now_ns);
                    }
                }
            }
            Action::Segment { worker, news } => self.tell_of_segment(worker, news),
            Action::CloseSegment { .. } => {}
            Action::DumpStacks { worker } => self.broker.handle_stacks(worker),
            Action::Spill { job, parts, file, .. } => self.write_to_disk(job, file, parts),
        }
    }

    /// Whoever means well is not cut.
    fn expect_cause_to_cut(&mut self, peer: PeerId) {
        let Some(conn) = self.host.routes[peer.0 as usize] else { return };
        let means_well = match self.conns[conn].who {
            Who::Worker(process) => self.workers[process].means_well(),
            Who::Client(client) => !self.clients[client].is_over(),
            Who::Broker => false,
        };
        if means_well && !self.broker.has_given_up() && !self.host.is_ending {
            self.fail("protocol", || format!("connection {conn} was cut and does what it should"));
        }
    }

    fn tell_of_segment(&mut self, worker: Option<u32>, news: SegmentNews) {
        let Some(process) = worker.and_then(|worker| self.at_work(worker)) else { return };
        if matches!(news, SegmentNews::Granted { .. }) {
            self.moment(Moment::Granted, Who::Worker(process));
        }
        let at_ns = self.workers[process].news_due_ns(self.now_ns, self.scenario.pace.frame_ns);
        self.queue.plan(at_ns, Event::News { process, news });
    }

    fn write_to_disk(&mut self, job: u64, file: u32, parts: Vec<SpillPart>) {
        self.moment(Moment::SpillBegun, Who::Broker);
        self.host.is_spilling = true;
        let fails = self.now_ns < self.host.disk_fails_until_ns && !self.healed;
        let delay_ns = self.host.chance.below(self.scenario.pace.disk_ns + 1);
        let copied_ns = self.host.chance.below(delay_ns + 1);
        self.plan_in(copied_ns, Event::Copies { file, parts });
        self.plan_in(delay_ns, Event::Written { job, fails });
    }
}

/// The number of a message's type.
pub(crate) fn message_type(frame: &[u8]) -> u8 {
    match frame.first() {
        Some(0xdc) => frame.get(3).copied().unwrap_or(0),
        _ => frame.get(1).copied().unwrap_or(0),
    }
}
