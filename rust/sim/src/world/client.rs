//! A client's process: it does what its plan says, waits for its runs, reads what they made and lets go of it.

use super::memory::{View, inline};
use super::{Event, Who, World};
use crate::chance::Chance;
use crate::encode::{self, Submission};
use crate::history::{Detail, Record};
use crate::scenario::{ClientPlan, Moment, Op};
use crate::workload::{Body, Dep, Name, Task, compute};
use headrace_protocol::client::{CALLS, Client};
use headrace_wire::{CancelReason, Message, Outcome, Results, WANTED_BADLY, citations};
use std::collections::VecDeque;

pub(crate) struct ClientProcess {
    machine: Client,
    pub(crate) conn: usize,
    pub(crate) alive: bool,
    pub(crate) stopped_until_ns: u64,
    inbox: VecDeque<Vec<u8>>,
    next_op: usize,
    /// By run; the first is not used.
    runs: Vec<RunState>,
    /// By position in the plan.
    calls: Vec<CallState>,
    /// Positions in the plan by index of the call.
    call_numbers: Vec<u16>,
    refs: Vec<Dep>,
    views: Vec<View>,
    knows_functions: bool,
    /// Whether the end of its session was noted.
    over_noted: bool,
    due_ns: u64,
    chance: Chance,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RunState {
    Planned,
    Open,
    Read,
    Released,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CallState {
    Planned,
    Open(u32),
    Read(u32),
    Forgotten,
}

const NEVER_NS: u64 = u64::MAX;

impl ClientProcess {
    fn index_of(&self, run: u8, number: u16) -> Option<u32> {
        match run {
            0 => match self.calls[usize::from(number)] {
                CallState::Open(index) | CallState::Read(index) => Some(index),
                CallState::Planned | CallState::Forgotten => None,
            },
            run => matches!(self.runs[usize::from(run)], RunState::Open | RunState::Read).then_some(number.into()),
        }
    }

    /// Whether the broker holds the result for this client, or will.
    fn may_cite(&self, plan: &ClientPlan, dep: Dep) -> bool {
        let is_held = dep.run == 0 || plan.workload(dep.run).keep.contains(&dep.number);
        is_held && self.index_of(dep.run, dep.number).is_some()
    }

    /// Whether nothing will come of it any more.
    pub(crate) fn is_over(&self) -> bool {
        !self.alive || self.machine.session().is_over()
    }

    /// Whether it has done all that it planned and let go of everything.
    fn is_done(&self, plan: &ClientPlan) -> bool {
        let runs_done = self.runs[1..].iter().all(|run| matches!(run, RunState::Planned | RunState::Released));
        let calls_done = self.calls.iter().all(|call| matches!(call, CallState::Planned | CallState::Forgotten));
        self.next_op == plan.ops.len() && runs_done && calls_done && self.refs.is_empty() && self.views.is_empty()
    }

    /// What it waits for, for people.
    pub(crate) fn waits_for(&self) -> String {
        let open = |(run, state): (usize, &RunState)| (*state == RunState::Open).then_some(run);
        let runs: Vec<usize> = self.runs.iter().enumerate().filter_map(open).collect();
        let calls = self.calls.iter().filter(|call| matches!(call, CallState::Open(_))).count();
        format!("runs {runs:?} and {calls} calls")
    }

    pub(crate) fn blocks_left(&mut self) -> usize {
        let left = self.machine.with_blocks(|blocks| blocks.statistics());
        left.blocks + left.foreign_blocks
    }
}

impl World<'_> {
    pub(super) fn start_client(&mut self, number: usize) {
        let plan = &self.scenario.clients[number];
        let conn = self.connect(Who::Client(number), plan.lossy);
        self.clients.push(ClientProcess {
            machine: Client::new(&encode::client_hello()),
            conn,
            alive: true,
            stopped_until_ns: 0,
            inbox: VecDeque::new(),
            next_op: 0,
            runs: vec![RunState::Planned; plan.runs.len() + 1],
            calls: vec![CallState::Planned; plan.calls.tasks.len()],
            call_numbers: Vec::new(),
            refs: Vec::new(),
            views: Vec::new(),
            knows_functions: false,
            over_noted: false,
            due_ns: NEVER_NS,
            chance: Chance::numbered(self.scenario.seed, "client process", number as u64),
        });
        self.client_sends(number);
        self.plan_next_op(number);
    }

    /// Whether every client is done, or will never be.
    pub(super) fn clients_are_done(&self) -> bool {
        let mut clients = self.clients.iter().zip(&self.scenario.clients);
        clients.all(|(client, plan)| client.is_over() || client.is_done(plan))
    }

    fn plan_next_op(&mut self, number: usize) {
        let client = &self.clients[number];
        if let Some((at_ns, _)) = self.scenario.clients[number].ops.get(client.next_op) {
            let at_ns = (*at_ns).max(self.now_ns).max(client.stopped_until_ns);
            self.queue.plan(at_ns, Event::Op(number));
        }
    }

    pub(super) fn client_op(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.is_over() {
            return;
        }
        if self.now_ns >= client.stopped_until_ns {
            let op = client.next_op;
            client.next_op += 1;
            let scenario = self.scenario;
            self.do_op(number, &scenario.clients[number].ops[op].1);
            self.client_sends(number);
            self.client_settles(number);
        }
        self.plan_next_op(number);
    }

    fn do_op(&mut self, number: usize, op: &Op) {
        let plan = &self.scenario.clients[number];
        let now_ns = self.now_ns;
        self.trace.note(now_ns, || format!("client {number} wants {op:?}"));
        let client = &mut self.clients[number];
        // Whether a cancel leaves what a worker has got alone.
        let spares = matches!(op, Op::Cancel(..) | Op::CancelRun(_)) && client.chance.one_in(4);
        match *op {
            Op::Submit(run) => self.submit_run(number, run),
            Op::Call(call) => self.submit_call(number, call),
            Op::Cancel(run, ref tasks) if client.index_of(run, 0).is_some() => {
                let indices: Vec<u32> = tasks.iter().map(|task| (*task).into()).collect();
                client.machine.cancel(run.into(), &indices, spares);
                tasks.iter().for_each(|&task| self.note_cancel(number, run, task));
            }
            Op::CancelRun(run) if client.index_of(run, 0).is_some() => {
                client.machine.cancel_run(run.into(), spares);
                (0..plan.workload(run).tasks.len() as u16).for_each(|task| self.note_cancel(number, run, task));
            }
            Op::Hold(dep) if client.may_cite(plan, dep) => {
                let index = client.index_of(dep.run, dep.number).expect("it was found just now");
                client.machine.hold(dep.run.into(), index);
                client.refs.push(dep);
            }
            Op::Unhold(dep) => self.let_ref_go(number, dep),
            Op::Forget(call) => self.forget_call(number, call),
            Op::Release(run) => self.release_run(number, run),
            Op::Query(run) => drop(client.machine.query(run.into())),
            Op::Close => {
                client.machine.close();
                // The process, and what it shows, stays for a while.
                let stays_ns = client.chance.log_within(1, 5_000_000_000);
                self.plan_in(stays_ns, Event::Leaves(number));
            }
            Op::Cancel(..) | Op::CancelRun(_) | Op::Hold(_) => {}
        }
    }

    fn note_cancel(&mut self, client: usize, run: u8, number: u16) {
        self.record(Record::CancelAsked { name: Name { client: client as u8, run, number } });
    }

    fn submit_run(&mut self, number: usize, run: u8) {
        let plan = &self.scenario.clients[number];
        let workload = plan.workload(run);
        let client = &mut self.clients[number];
        let foreign = workload.tasks.iter().flat_map(|task| &task.deps).filter(|dep| dep.run != run);
        if client.runs[usize::from(run)] != RunState::Planned || !foreign.copied().all(|dep| client.may_cite(plan, dep))
        {
            return;
        }
        client.runs[usize::from(run)] = RunState::Open;
        let name = |task: usize| Name { client: number as u8, run, number: task as u16 };
        let tasks: Vec<(Name, &Task)> = workload.tasks.iter().enumerate().map(|(at, task)| (name(at), task)).collect();
        let keep: Vec<u32> = workload.keep.iter().map(|index| (*index).into()).collect();
        let mut submission = Submission::graph(run, workload, &tasks, &keep);
        submission.is_first = !std::mem::replace(&mut client.knows_functions, true);
        client.machine.open_run(run.into(), tasks.len() as u32);
        let mut frames = Vec::new();
        {
            let place = |run: u8, number: u16| (run.into(), client.index_of(run, number).expect("it may be cited"));
            submission.encode(place, |submit| frames.push(encode::owned(submit)));
        }
        frames.iter().for_each(|frame| client.machine.submit(&encode::borrowed(frame)));
        (0..tasks.len()).for_each(|task| self.record(Record::Asked { name: name(task) }));
    }

    fn submit_call(&mut self, number: usize, call: u16) {
        let plan = &self.scenario.clients[number];
        let task = &plan.calls.tasks[usize::from(call)];
        let client = &mut self.clients[number];
        let is_new = client.calls[usize::from(call)] == CallState::Planned;
        if !is_new || !task.deps.iter().all(|dep| client.may_cite(plan, *dep)) {
            return;
        }
        let index = client.machine.open_call().expect("there are few calls");
        let name = Name { client: number as u8, run: 0, number: call };
        client.call_numbers.push(call);
        client.calls[usize::from(call)] = CallState::Open(index);
        if task.body == Body::Put {
            client.machine.put(index, &inline(compute(name, Body::Put, &[]), false));
            return self.record(Record::Asked { name });
        }
        let keep = [index];
        let tasks = [(name, task)];
        let mut submission = Submission::call(index, &tasks, &keep);
        submission.is_first = !std::mem::replace(&mut client.knows_functions, true);
        let mut frames = Vec::new();
        {
            let place = |run: u8, number: u16| (run.into(), client.index_of(run, number).expect("it may be cited"));
            submission.encode(place, |submit| frames.push(encode::owned(submit)));
        }
        frames.iter().for_each(|frame| client.machine.submit(&encode::borrowed(frame)));
        self.record(Record::Asked { name });
    }

    fn let_ref_go(&mut self, number: usize, dep: Dep) {
        let client = &mut self.clients[number];
        let Some(place) = client.refs.iter().position(|known| *known == dep) else { return };
        client.refs.swap_remove(place);
        let index = match dep.run {
            // A ref outlives what its call or run keeps.
            0 => client.call_numbers.iter().position(|known| *known == dep.number).expect("it was called") as u32,
            _ => dep.number.into(),
        };
        client.machine.unhold(dep.run.into(), index);
    }

    fn forget_call(&mut self, number: usize, call: u16) {
        let client = &mut self.clients[number];
        if let CallState::Open(index) | CallState::Read(index) = client.calls[usize::from(call)] {
            client.calls[usize::from(call)] = CallState::Forgotten;
            client.machine.forget_call(index);
            self.record(Record::LetGo { name: Name { client: number as u8, run: 0, number: call } });
        }
    }

    fn release_run(&mut self, number: usize, run: u8) {
        let tasks = self.scenario.clients[number].workload(run).tasks.len() as u16;
        let client = &mut self.clients[number];
        if matches!(client.runs[usize::from(run)], RunState::Open | RunState::Read) {
            client.runs[usize::from(run)] = RunState::Released;
            client.machine.release(run.into());
            let name = |task| Name { client: number as u8, run, number: task };
            (0..tasks).for_each(|task| self.record(Record::LetGo { name: name(task) }));
        }
    }

    pub(super) fn client_hears(&mut self, number: usize, frame: Vec<u8>) {
        let client = &mut self.clients[number];
        if !client.alive {
            return;
        }
        client.inbox.push_back(frame);
        let delay_ns = client.chance.below(self.scenario.pace.turn_ns + 1);
        self.call_client(number, delay_ns);
    }

    /// Has the process look at its input after this time, or before.
    pub(super) fn call_client(&mut self, number: usize, delay_ns: u64) {
        let client = &mut self.clients[number];
        let at_ns = (self.now_ns + delay_ns).max(client.stopped_until_ns);
        if at_ns < client.due_ns {
            client.due_ns = at_ns;
            self.queue.plan(at_ns, Event::Client(number));
        }
    }

    pub(super) fn client_turn(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if client.due_ns != self.now_ns || !client.alive {
            return;
        }
        client.due_ns = NEVER_NS;
        if self.now_ns < client.stopped_until_ns {
            return self.call_client(number, 0);
        }
        let conn = client.conn;
        self.tick_link(conn);
        while let Some(bytes) = self.clients[number].inbox.pop_front() {
            for frame in self.unpack(conn, bytes) {
                if let Ok(Message::Results(results)) = Message::decode(&frame) {
                    self.note_results(number, &results);
                    self.moment(Moment::ResultsArrived, Who::Client(number));
                }
                if let Err(error) = self.clients[number].machine.handle_frame(frame) {
                    self.fail("protocol", || format!("client {number}: {error}"));
                }
                self.strike();
                if !self.clients[number].alive {
                    return;
                }
            }
        }
        if self.conns[conn].link_ended().is_some() {
            self.clients[number].machine.handle_disconnect();
        }
        self.client_settles(number);
        if self.clients[number].machine.garbage_due() > 0 {
            if self.clients[number].chance.one_in(2) {
                self.drop_client_views(number);
            }
            self.clients[number].machine.note_collected(WANTED_BADLY);
        }
        self.client_sends(number);
    }

    /// Reads what is there, and lets go of what is read once the plan is through.
    fn client_settles(&mut self, number: usize) {
        let plan = &self.scenario.clients[number];
        if self.clients[number].machine.session().is_over() {
            if !std::mem::replace(&mut self.clients[number].over_noted, true) {
                self.record(Record::SessionOver { client: number as u8 });
            }
            return;
        }
        for run in 1..=plan.runs.len() as u8 {
            let client = &mut self.clients[number];
            let is_finished = client.machine.progress(run.into()).is_some_and(|progress| progress.finished);
            if client.runs[usize::from(run)] == RunState::Open && is_finished {
                client.runs[usize::from(run)] = RunState::Read;
                plan.workload(run).keep.iter().for_each(|&task| self.read_result(number, run, task, task.into()));
            }
        }
        for call in 0..plan.calls.tasks.len() as u16 {
            let client = &mut self.clients[number];
            let CallState::Open(index) = client.calls[usize::from(call)] else { continue };
            if client.machine.has_ended(CALLS, index) {
                client.calls[usize::from(call)] = CallState::Read(index);
                self.read_result(number, 0, call, index);
            }
        }
        if self.clients[number].next_op == plan.ops.len() || plan.eager {
            self.client_tidies(number);
        }
    }

    fn read_result(&mut self, number: usize, run: u8, task: u16, index: u32) {
        let client = &mut self.clients[number];
        let Some(ending) = client.machine.peek(run.into(), index) else { return };
        if ending.outcome() != Outcome::Done {
            return;
        }
        let value = self.memory.read(ending.bytes());
        let cites = citations(ending.bytes()).len() > 0;
        if cites && self.conns[client.conn].is_lossy() {
            return; // It is too far away to see shared memory.
        }
        if cites && client.chance.one_in(2) {
            client.machine.with_blocks(|blocks| blocks.hold_cited(ending.bytes()));
            client.views.push(View { value: ending.bytes().to_vec(), word: value });
        }
        self.record(Record::Read { name: Name { client: number as u8, run, number: task }, value });
    }

    /// The plan is through: lets go of everything that has been read.
    fn client_tidies(&mut self, number: usize) {
        for dep in std::mem::take(&mut self.clients[number].refs.clone()) {
            self.let_ref_go(number, dep);
        }
        let plan = &self.scenario.clients[number];
        for (call, task) in plan.calls.tasks.iter().enumerate() {
            let client = &self.clients[number];
            // Somebody will want what it has put.
            let is_needed = task.body == Body::Put && client.next_op < plan.ops.len();
            if matches!(client.calls[call], CallState::Read(_)) && !is_needed {
                self.forget_call(number, call as u16);
            }
        }
        for run in 1..self.clients[number].runs.len() {
            if self.clients[number].runs[run] == RunState::Read {
                self.release_run(number, run as u8);
            }
        }
        self.drop_client_views(number);
        self.clients[number].machine.flush_holds();
        self.client_sends(number);
    }

    /// Drops every view, after a look at it.
    fn drop_client_views(&mut self, number: usize) {
        for view in std::mem::take(&mut self.clients[number].views) {
            if self.memory.read(&view.value) != view.word {
                self.fail("unexpected", || format!("a view of client {number} has changed"));
            }
            self.clients[number].machine.with_blocks(|blocks| blocks.unhold_cited(&view.value));
        }
    }

    pub(super) fn client_sends(&mut self, number: usize) {
        let conn = self.clients[number].conn;
        while let Some(frame) = self.clients[number].machine.poll_frame() {
            self.send_up(conn, frame);
        }
        self.pump_link(conn);
    }

    /// Notes what a frame tells, before the client's machine sees it.
    fn note_results(&mut self, client: usize, results: &Results<'_>) {
        let run = results.run as u8;
        let endings = results.index.iter().zip(results.outcome).zip(results.values.iter());
        for ((index, outcome), blob) in endings {
            let Ok(outcome) = Outcome::try_from(*outcome) else { continue };
            let number = self.number_of(client, run, index);
            let detail = self.detail(client, outcome, blob);
            self.record(Record::Told { name: Name { client: client as u8, run, number }, outcome, detail });
        }
        if results.finished {
            self.record(Record::RunOver { client: client as u8, run, ended: results.ended });
        }
    }

    fn number_of(&self, client: usize, run: u8, index: u32) -> u16 {
        match run {
            0 => self.clients[client].call_numbers.get(index as usize).copied().unwrap_or(u16::MAX),
            _ => index as u16,
        }
    }

    fn detail(&self, client: usize, outcome: Outcome, blob: &[u8]) -> Detail {
        match outcome {
            Outcome::Skipped if blob.len() == 8 => {
                let word = |at: usize| u32::from_le_bytes(blob[at..at + 4].try_into().expect("four bytes"));
                let (run, number) = (word(0) as u8, self.number_of(client, word(0) as u8, word(4)));
                Detail::Root(Name { client: client as u8, run, number })
            }
            Outcome::Cancelled => match blob.first().map(|reason| CancelReason::try_from(*reason)) {
                Some(Ok(reason)) => Detail::Because(reason),
                _ => Detail::Nothing,
            },
            Outcome::TimedOut => match Message::decode(blob) {
                Ok(Message::Overrun(overrun)) => Detail::Overrun { queued: overrun.queued },
                _ => Detail::Nothing,
            },
            Outcome::Died => match Message::decode(blob) {
                Ok(Message::Death(death)) => {
                    Detail::Deaths { count: death.attempts, limit: death.limit, cause: death.cause }
                }
                _ => Detail::Nothing,
            },
            Outcome::Refused => Detail::Text(String::from_utf8_lossy(blob).into_owned()),
            _ => Detail::Nothing,
        }
    }

    /// A client's process ends without a word.
    pub(super) fn end_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if !client.alive {
            return;
        }
        self.drop_client_views(number);
        let client = &mut self.clients[number];
        client.alive = false;
        client.inbox.clear();
        let conn = client.conn;
        self.record(Record::SessionOver { client: number as u8 });
        if let Some(last_ns) = self.lose_tail(conn, !self.clients[number].machine.session().is_over()) {
            let delay_ns = self.clients[number].chance.below(self.scenario.pace.notice_ns + 1);
            self.queue.plan(last_ns + delay_ns, Event::Gone(conn));
        }
    }
}
