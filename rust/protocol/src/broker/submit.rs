//! SUBMIT: from the client's columns to tasks in the kernel.

use super::ledger::{NONE, Slot};
use super::peers::{Peer, session_mut};
use super::policy::{DEFAULT_POLICY, PolicyError};
use super::runs::{CALLS, Run, Slots};
use super::{Broker, Frame, Payload, PeerId};
use crate::limits::Asker;
use headrace_kernel::{Chunk, ClassId, Classes, Priorities, TaskIndex, TaskState, seeded};
use headrace_wire::{ANY_WORKER, EXTERNAL, Outcome, SUBMIT_MORE, Submit};

/// Arguments of one task, or the pickle of one function, in bytes. Both travel to a worker in one frame, beside others, and
/// a socket takes frames of twice this.
pub const ARGS_BYTES_MAX: usize = 1 << 29;

impl Broker {
    pub(super) fn handle_submit(&mut self, peer: PeerId, frame: &Frame, submit: &Submit<'_>, now_ns: u64) {
        self.admit_rest(now_ns);
        let known = self.find_run(peer, submit.run);
        if let Err(text) = self.check_place(known, submit) {
            return self.refuse(peer, &text, now_ns);
        }
        let position = match known {
            Some(position) => position,
            None => {
                let position = self.open_run(peer, submit.run, now_ns);
                self.limit_run(position, submit, now_ns);
                self.begin_replacement(peer, position, submit);
                position
            }
        };
        match self.admit_or_begin(peer, position, frame, submit) {
            Ok(true) => {}
            Ok(false) => self.close_chunk(position, submit, Ok(()), now_ns),
            Err(text) => self.close_chunk(position, submit, Err(text), now_ns),
        }
    }

    /// Whether a chunk goes on where its run stands, and keeps each task once. A client that counts otherwise than the
    /// broker is broken.
    fn check_place(&self, position: Option<u32>, submit: &Submit<'_>) -> Result<(), String> {
        let Submit { run: number, first, .. } = *submit;
        let tasks = submit.dep_counts.len();
        let run = position.map(|position| self.run(position));
        match run.map(|run| &run.slots) {
            None if number == CALLS => {}
            Some(Slots::Sparse(known)) => {
                if let Some(index) = (first..).take(tasks).find(|index| known.contains_key(index)) {
                    return Err(format!("call {index} was submitted twice"));
                }
            }
            dense => {
                let known = if let Some(Slots::Dense(slots)) = dense { slots.len() } else { 0 };
                if first as usize != known || run.is_some_and(|run| !run.open) {
                    return Err(format!(
                        "run {number} has {known} tasks, and a chunk from task {first} on does not follow"
                    ));
                }
            }
        }
        let mut kept = vec![false; if submit.keep.len() > 1 { tasks } else { 0 }];
        let is_new = |local: u32| kept.get_mut(local as usize).is_none_or(|kept| !std::mem::replace(kept, true));
        match submit.keep.iter().map(|index| index - first).all(is_new) {
            true => Ok(()),
            false => Err(format!("a chunk of run {number} keeps a task twice")),
        }
    }

    /// Ends the intake of a chunk.
    pub(super) fn close_chunk(
        &mut self,
        position: u32,
        submit: &Submit<'_>,
        admitted: Result<(), String>,
        now_ns: u64,
    ) {
        if let Err(text) = admitted {
            self.refuse_chunk(position, submit, &text);
        }
        let run = self.run_mut(position);
        run.open = run.number == CALLS || submit.flags & SUBMIT_MORE != 0;
        let held = if run.open { Vec::new() } else { std::mem::take(&mut run.held) };
        if run.finished() {
            run.ended_ns = Some(now_ns);
            self.note_news(position);
        }
        held.into_iter().for_each(|task| self.kernel.unhold(task));
        self.cancel_stopped(position, now_ns);
    }

    pub(super) fn open_run(&mut self, peer: PeerId, number: u32, now_ns: u64) -> u32 {
        let seat = match self.peers.get(&peer) {
            Some(&Peer::Worker(worker)) => Some(worker),
            _ => None,
        };
        let run = Some(Run::new(peer, seat, number, self.workers.len(), now_ns));
        let position = match self.free_runs.pop() {
            Some(position) => {
                self.runs[position as usize] = run;
                position
            }
            None => {
                self.runs.push(run);
                (self.runs.len() - 1) as u32
            }
        };
        if let Some(session) = session_mut(&mut self.peers, &mut self.workers, peer) {
            session.runs.insert(number, position);
        }
        position
    }

    pub(super) fn admit(
        &mut self,
        peer: PeerId,
        position: u32,
        frame: &Frame,
        submit: &Submit<'_>,
    ) -> Result<(), String> {
        let tasks = submit.dep_counts.len();
        let fits = |len: u32| len as usize <= ARGS_BYTES_MAX;
        if !submit.args.lens.all(fits) || !submit.functions.lens.all(fits) {
            return Err(format!("arguments of one task, or a function, take more than {ARGS_BYTES_MAX} bytes"));
        }
        let (asker, lift) = self.asker(peer, submit)?;
        let functions = self.admit_functions(peer, asker.owner, submit)?;
        let (deps, external) = self.resolve_deps(peer, position, submit)?;
        let policies = self.policies_of(asker, submit, &functions)?;
        let class = |policy: &u32| self.policies.get(*policy).class;
        let row_classes: Vec<ClassId> = policies.iter().map(class).collect();
        let common = *row_classes.last().expect("there is a row at least");
        let classes: Vec<ClassId> = match row_classes.iter().all(|class| *class == common) {
            true => Vec::new(),
            false => submit.task_options.iter().map(|row| row_classes[row as usize]).collect(),
        };
        let run_priority = submit.run_priority.saturating_add(lift);
        let priority = |row| (submit.priority.at(row as usize) as i32).saturating_add(run_priority);
        let priorities: Vec<i32> = submit.task_options.iter().map(priority).collect();
        let first = submit.first;
        let keep: Vec<u32> = submit.keep.iter().map(|index| index.wrapping_sub(first)).collect();
        if keep.iter().any(|local| *local as usize >= tasks) {
            return Err("a kept task is not part of its chunk".into());
        }
        let chunk = Chunk {
            dep_counts: &submit.dep_counts.to_vec(),
            deps: &deps,
            external: &external,
            class: if classes.is_empty() { Classes::One(common) } else { Classes::Each(&classes) },
            priority: match priorities.is_empty() {
                true => Priorities::One(run_priority),
                false => Priorities::Each(&priorities),
            },
            keep: &keep,
        };
        let mut slots = Vec::with_capacity(tasks);
        let admitted = self.kernel.submit(&chunk, &mut slots).map_err(|error| error.to_string());
        if admitted.is_ok() {
            self.enter(position, frame, submit, &functions, &policies, &slots);
            if asker.nest != 0 {
                self.note_nested(submit, position, &slots);
            }
        }
        policies.iter().for_each(|policy| self.policies.drop_unused(&mut self.limits, *policy));
        admitted?;
        external.iter().for_each(|task| self.want_result(*task));
        for local in keep {
            self.ledger.slot_mut(slots[local as usize].0).kept = true;
        }
        let run = self.runs[position as usize].as_mut().expect("the run was just opened");
        if run.number != CALLS {
            run.keep.extend(submit.keep.iter());
            if submit.flags & SUBMIT_MORE != 0 && !seeded!("chunks not held") {
                slots.iter().for_each(|task| self.kernel.hold(*task));
                run.held.append(&mut slots);
            }
        }
        Ok(())
    }

    /// Broker-wide numbers of the functions that this chunk calls, by position in its function map.
    fn admit_functions(&mut self, peer: PeerId, owner: u32, submit: &Submit<'_>) -> Result<Vec<u32>, String> {
        let Some(session) = session_mut(&mut self.peers, &mut self.workers, peer) else {
            return Err("it is gone".into());
        };
        let pickles = submit.function_names.iter().zip(submit.functions.iter());
        for (number, (name, pickle)) in submit.function_ids.iter().zip(pickles) {
            // A copy: a pickle outlives by far the frame that brought it.
            let own = |bytes: &[u8]| Payload::owned(bytes.to_vec());
            let known = self.functions.add(owner, own(name), own(pickle));
            session.functions.insert(number, known);
        }
        let find = |number| session.functions.get(&number).copied().ok_or_else(|| format!("unknown function {number}"));
        submit.function_map.iter().map(find).collect()
    }

    /// Predecessors as the kernel wants them: numbers within the chunk, or positions in the list of older tasks.
    fn resolve_deps(
        &self,
        peer: PeerId,
        position: u32,
        submit: &Submit<'_>,
    ) -> Result<(Vec<u32>, Vec<TaskIndex>), String> {
        let find = |position: Option<u32>, number: u32, index: u32| {
            position
                .and_then(|position| self.runs[position as usize].as_ref()?.slots.get(index))
                .map(TaskIndex)
                .filter(|task| self.kernel.state(*task) != TaskState::Done || self.kernel.result_alive(*task))
                .ok_or_else(|| format!("the result of task {index} of run {number} was released"))
        };
        let mut external = Vec::with_capacity(submit.external_run.len());
        for (number, index) in submit.external_run.iter().zip(submit.external_index.iter()) {
            external.push(find(self.find_run(peer, number), number, index)?);
        }
        let mut deps = submit.deps.to_vec();
        if submit.first > 0 {
            for dep in &mut deps {
                if *dep & EXTERNAL == 0 {
                    *dep = match dep.checked_sub(submit.first) {
                        Some(local) => local,
                        None => {
                            external.push(find(Some(position), submit.run, *dep)?);
                            EXTERNAL | (external.len() - 1) as u32
                        }
                    };
                }
            }
        }
        Ok((deps, external))
    }

    /// The policy of each option row; of tasks without any there is one row, too.
    fn policies_of(&mut self, asker: Asker, submit: &Submit<'_>, functions: &[u32]) -> Result<Vec<u32>, String> {
        let mut policies = submit.policies.iter();
        let pins = submit.worker.iter().chain(submit.task_options.is_empty().then_some(ANY_WORKER));
        let mut rows = Vec::with_capacity(submit.worker.len());
        for pin in pins {
            match self.policies.number_of(&mut self.limits, asker, pin, policies.next().unwrap_or_default()) {
                Ok(policy) => rows.push(policy),
                Err(error) => {
                    rows.iter().for_each(|policy| self.policies.drop_unused(&mut self.limits, *policy));
                    return Err(match error {
                        PolicyError::Malformed(text) => text.to_owned(),
                        PolicyError::NoSuitableWorker(text) => {
                            let key = self.first_of_row(submit, functions, rows.len() as u32);
                            format!("NoSuitableWorker: task '{key}' {text}")
                        }
                    });
                }
            }
        }
        Ok(rows)
    }

    /// The key of the first task with these options.
    fn first_of_row(&self, submit: &Submit<'_>, functions: &[u32], row: u32) -> String {
        let Some(local) = submit.task_options.iter().position(|options| options == row) else { return String::new() };
        let index = submit.first + local as u32;
        if let Some(place) = submit.key_index.iter().position(|keyed| keyed == index) {
            return String::from_utf8_lossy(submit.keys.iter().nth(place).unwrap_or_default()).into_owned();
        }
        let name = &self.functions.get(functions[submit.task_function.at(local) as usize]).name;
        format!("{}-{index}", String::from_utf8_lossy(name.bytes()))
    }

    fn enter(
        &mut self,
        position: u32,
        frame: &Frame,
        submit: &Submit<'_>,
        functions: &[u32],
        policies: &[u32],
        slots: &[TaskIndex],
    ) {
        let chunk = match slots.len() {
            0 => NONE,
            tasks => self.ledger.add_chunk(Payload::within(frame, submit.args.bytes), tasks as u32),
        };
        let common = submit.task_options.is_empty().then(|| policies[policies.len() - 1]);
        let mut args_start = 0;
        for (local, task) in slots.iter().enumerate() {
            let args_len = submit.args.lens.at(local);
            let policy = common.unwrap_or_else(|| policies[submit.task_options.at(local) as usize]);
            if policy != DEFAULT_POLICY {
                self.policies.add_task(policy);
                if self.policies.get(policy).queue_timeout_ms > 0 {
                    self.kernel.watch(*task);
                }
            }
            self.ledger.open(
                task.0,
                Slot {
                    run: position,
                    index: submit.first + local as u32,
                    function: functions[submit.task_function.at(local) as usize],
                    chunk,
                    args_start,
                    args_len,
                    policy,
                    ..Slot::default()
                },
            );
            args_start += args_len;
        }
        let run = self.runs[position as usize].as_mut().expect("the run was just opened");
        run.counts.total += slots.len() as u64;
        run.live += slots.len() as u64;
        match &mut run.slots {
            Slots::Dense(known) => known.extend(slots.iter().map(|task| task.0)),
            Slots::Sparse(known) => {
                known.extend(slots.iter().enumerate().map(|(local, task)| (submit.first + local as u32, task.0)));
            }
        }
        for (index, key) in submit.key_index.iter().zip(submit.keys.iter()) {
            run.keys.insert(index, key.into());
        }
    }

    /// A chunk that cannot run ends at once: its tasks are counted as failed and the kept ones say why.
    fn refuse_chunk(&mut self, position: u32, submit: &Submit<'_>, text: &str) {
        let tasks = submit.dep_counts.len() as u64;
        let run = self.run_mut(position);
        run.counts.total += tasks;
        run.counts.failed += tasks;
        if let Slots::Dense(known) = &mut run.slots {
            known.resize(known.len() + tasks as usize, NONE); // a next chunk counts from behind them
        }
        for index in submit.keep.iter() {
            run.outbox.push(index, Outcome::Refused, text.as_bytes());
        }
        let replaces = run.replaces;
        if run.stop_on_error {
            self.failed_runs.push(position);
        }
        if let Some(task) = replaces {
            self.nests.note_failure(task, Outcome::Refused, text.as_bytes());
        }
        self.note_news(position);
    }
}
