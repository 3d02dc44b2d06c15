//! Which batch the kernel must give.

use headrace_kernel::{ClassId, LeaseRequest, Leased, Oracle, Preference, TaskIndex, TaskState, WorkerId};

use super::{Naive, Op, World};

impl World {
    /// Leases a batch and checks task by task that it had to be this one.
    pub(super) fn lease(&mut self, op: &Op) {
        let &Op::Lease { worker, ref classes, tasks_max, seeds_max, budget, only_preferred, roots, salt } = op else {
            unreachable!()
        };
        let class_ids: Vec<ClassId> = classes.iter().map(|&class| ClassId(class)).collect();
        let request = LeaseRequest { classes: &class_ids, tasks_max, seeds_max, budget, only_preferred, roots };
        let mut leased = Vec::new();
        self.kernel.lease(WorkerId(worker), &request, &mut Salted(salt), &mut leased);
        if !self.workers.contains_key(&worker) {
            assert!(leased.is_empty(), "a lease for a worker that is not there");
            return;
        }
        let (mut stack, mut seeds_left, mut cost) = (Vec::new(), seeds_max, 0);
        let mut given = leased.iter();
        for _ in 0..tasks_max {
            let mut popped: Option<u32> = None;
            let follower = loop {
                match stack.pop() {
                    Some(task) if classes.contains(&self.tasks[task as usize].class) => {
                        popped = Some(task);
                        break Some(vec![task as usize]);
                    }
                    Some(_) => {}
                    None => break self.followers(worker, classes),
                }
            };
            let seed = if seeds_left > 0 { self.seed(classes, only_preferred, roots, salt) } else { None };
            let expected = match &follower {
                None if seeds_left == 0 => break,
                None => seed.map(|seed| vec![seed]),
                Some(followers) => Some(self.unless_a_ready_one_goes_before(followers, classes, seed)),
            };
            let Some(expected) = expected else { break };
            let Some(&Leased { task, attempt, .. }) = given.next() else {
                panic!("the batch ended before one of {expected:?}");
            };
            let task = self.task_at(task);
            assert!(expected.contains(&task), "{task} was leased instead of one of {expected:?}");
            if Some(task) == seed {
                seeds_left -= 1;
                stack.extend(popped);
            }
            self.leave(task);
            let before: Vec<bool> = self.consumers(task).iter().map(|&c| self.may_follow(c, worker)).collect();
            self.tasks[task].state = TaskState::Leased;
            self.workers.get_mut(&worker).expect("known").push(task);
            for (&consumer, &before) in self.consumers(task).iter().zip(&before).rev() {
                if !before && self.may_follow(consumer, worker) {
                    stack.push(consumer as u32);
                }
            }
            let slot = self.slot(task).0 as usize;
            self.attempts[slot] += 1;
            assert_eq!(attempt.0, self.attempts[slot], "K4: every lease has a new number");
            cost += Salted(salt).cost(self.slot(task));
            if cost >= budget {
                break;
            }
        }
        assert_eq!(given.next(), None, "the batch goes on beyond its limits");
        for lease in &leased {
            let task = self.task_at(lease.task);
            let consumers = self.consumers(task);
            let hold = consumers.iter().any(|&consumer| self.pending(consumer));
            let elsewhere = |&consumer: &usize| self.pending(consumer) && !self.workers[&worker].contains(&consumer);
            assert_eq!(lease.hold, hold, "hold of {task}");
            let report = self.tasks[task].holds > 0 || consumers.iter().any(elsewhere);
            assert_eq!(lease.report, report, "report of {task}");
        }
    }

    /// Those of which one must be next where these may follow: a ready task of higher priority goes before each.
    fn unless_a_ready_one_goes_before(&self, followers: &[usize], classes: &[u32], seed: Option<usize>) -> Vec<usize> {
        let queues = classes.iter().filter_map(|class| self.ready.get(class));
        let top = queues.flat_map(|levels| levels.values().flatten()).map(|&task| self.tasks[task].priority).max();
        let gives_way = |task: &&usize| top > Some(self.tasks[**task].priority);
        match seed {
            None => followers.to_vec(),
            Some(seed) if followers.iter().any(|task| gives_way(&task)) => {
                followers.iter().filter(|task| !gives_way(task)).copied().chain([seed]).collect()
            }
            Some(_) => followers.to_vec(),
        }
    }

    /// Those of which one must be next, because they may follow what the worker has.
    fn followers(&self, worker: u32, classes: &[u32]) -> Option<Vec<usize>> {
        classes.iter().find_map(|&class| {
            let of_class = |&task: &usize| self.tasks[task].class == class && self.may_follow(task, worker);
            let followers: Vec<usize> = self.live().filter(of_class).collect();
            (!followers.is_empty()).then_some(followers)
        })
    }

    /// The ready task that must be next.
    fn seed(&self, classes: &[u32], only_preferred: bool, roots: bool, salt: u32) -> Option<usize> {
        let other = |task: usize| {
            let Naive { preds, .. } = &self.tasks[task];
            !preds.is_empty() && Salted(salt).preference(&[], self.slot(task)) == Preference::Other
        };
        let queue_of = |class: &u32| -> Vec<usize> {
            self.ready.get(class).map_or(Vec::new(), |levels| levels.values().flatten().copied().collect())
        };
        let priority = |task: usize| self.tasks[task].priority;
        let best = |candidates: Vec<usize>| {
            candidates.into_iter().reduce(|best, task| if priority(task) > priority(best) { task } else { best })
        };
        let may = |task: &usize| roots || !self.tasks[*task].preds.is_empty();
        if only_preferred {
            let firsts = classes.iter().flat_map(|class| queue_of(class).into_iter().take(8));
            return best(firsts.filter(|task| may(task) && !other(*task)).collect());
        }
        if !roots {
            let firsts = |class: &u32| queue_of(class).into_iter().take(8).filter(may).collect::<Vec<usize>>();
            let top = best(classes.iter().flat_map(firsts).collect())?;
            let firsts = firsts(&self.tasks[top].class);
            let mut level = firsts.into_iter().filter(|&task| priority(task) == priority(top));
            return Some(level.find(|&task| !other(task)).unwrap_or(top));
        }
        let top = best(classes.iter().filter_map(|class| queue_of(class).first().copied()).collect())?;
        let queue = queue_of(&self.tasks[top].class);
        let level = queue.iter().copied().filter(|&task| priority(task) == priority(top));
        Some(level.take(8).find(|&task| !other(task)).unwrap_or(top))
    }
}

/// An oracle whose answers depend on a salt and the slot alone.
pub struct Salted(pub u32);

impl Salted {
    fn mix(&self, task: TaskIndex) -> u32 {
        let mixed = (task.0 ^ self.0.rotate_left(7)).wrapping_mul(0x9e37_79b1);
        mixed ^ (mixed >> 15)
    }
}

impl Oracle for Salted {
    fn cost(&mut self, task: TaskIndex) -> u64 {
        u64::from(self.mix(task) % 5)
    }

    fn preference(&mut self, _: &[TaskIndex], task: TaskIndex) -> Preference {
        match self.mix(task) >> 8 & 3 {
            0 => Preference::Mine,
            1 => Preference::Nobody,
            _ => Preference::Other,
        }
    }
}
