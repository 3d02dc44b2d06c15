//! An order of tasks in which few results are alive at a time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The tasks that are `wanted` and all that they need, each behind what it needs. The predecessors of task `t` are
/// `needs[starts[t]..starts[t + 1]]`, in the order that decides where nothing else does.
///
/// Of several orders it is the one in which the least is alive at a time, if the kernel runs the tasks one by one (K3):
///
/// - depth first, predecessors in the order given;
/// - depth first, of the predecessors of a task first the one whose results take the most room while they are made. For
///   trees no order keeps fewer alive (Sethi and Ullman, "The generation of optimal code for arithmetic expressions",
///   JACM 17, 1970);
/// - nearest first: whenever nothing is ready, on with the task that needs the least room of those that have an input
///   already, so that results meet what they wait for. Dask's `order` chooses its next target in this spirit;
/// - the second one in so many `levels`, each with a lower priority than the one before: then what is ready waits until it
///   is due, where the others have the kernel run it at once.
///
/// The answer comes with the number of levels to use, which is 1 for all but the last. The size of a result is guessed: tasks
/// that are the only need of each other share the size of that among them, as slices do, and no result is larger than one of
/// a task that needs nothing.
///
/// # Errors
/// The tasks of a cycle, each needing the next.
///
/// # Cost
/// O((tasks + edges) · log tasks).
pub fn depth_first(starts: &[u32], needs: &[u32], wanted: &[u32], levels: u32) -> Result<(Vec<u32>, u32), Vec<u32>> {
    let given = Rows { starts, flat: needs.to_vec() };
    let as_given = given.walk(wanted)?;
    let sizes = given.sizes(&as_given);
    let mut sorted = Rows { starts, flat: needs.to_vec() };
    let room = sorted.sort_by_room(&as_given);
    let widest_first = sorted.walk(wanted)?;
    let nearest = sorted.nearest_first(&as_given, &room, wanted);
    let peak_in_levels = if levels > 1 { given.peak(&widest_first, wanted, &sizes, levels) } else { u64::MAX };
    let mut orders: Vec<_> = [Some(as_given), Some(widest_first.clone()), nearest].into_iter().flatten().collect();
    let peaks: Vec<u64> = orders.iter().map(|order| given.peak(order, wanted, &sizes, 1)).collect();
    let (best, &peak) = (0..).zip(&peaks).min_by_key(|entry| entry.1).unwrap_or((0, &0));
    // Levels cost something, so they have to be worth it.
    if peak_in_levels < peak - peak / 10 {
        return Ok((widest_first, levels));
    }
    Ok((orders.swap_remove(best), 1))
}

/// The size of a result of a task that needs nothing.
const WHOLE: u64 = 1 << 20;

/// For each task some others.
struct Rows<'a> {
    starts: &'a [u32],
    flat: Vec<u32>,
}

impl Rows<'_> {
    fn of(&self, task: u32) -> &[u32] {
        &self.flat[self.starts[task as usize] as usize..self.starts[task as usize + 1] as usize]
    }

    fn tasks(&self) -> usize {
        self.starts.len() - 1
    }

    /// Depth first, in the order in which predecessors stand.
    fn walk(&self, wanted: &[u32]) -> Result<Vec<u32>, Vec<u32>> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.tasks()];
        let mut order = Vec::new();
        // The tasks from a wanted one down to the current one, each with the number of its predecessors that were looked at.
        let mut path: Vec<(u32, usize)> = Vec::new();
        for &last in wanted {
            if marks[last as usize] == Mark::New {
                marks[last as usize] = Mark::Open;
                path.push((last, 0));
            }
            while let Some((task, seen)) = path.last_mut() {
                let Some(&need) = self.of(*task).get(*seen) else {
                    marks[*task as usize] = Mark::Done;
                    order.push(*task);
                    path.pop();
                    continue;
                };
                *seen += 1;
                match std::mem::replace(&mut marks[need as usize], Mark::Open) {
                    Mark::New => path.push((need, 0)),
                    Mark::Done => marks[need as usize] = Mark::Done,
                    Mark::Open => {
                        return Err(path.iter().map(|entry| entry.0).skip_while(|&task| task != need).collect());
                    }
                }
            }
        }
        Ok(order)
    }

    /// Puts the predecessors first that take the most room; the answer says how many results are alive at most while each
    /// task and all that it needs run, where no two tasks share any.
    fn sort_by_room(&mut self, order: &[u32]) -> Vec<u32> {
        let mut room = vec![1_u32; self.tasks()];
        for &task in order {
            let row = &mut self.flat[self.starts[task as usize] as usize..self.starts[task as usize + 1] as usize];
            row.sort_by_key(|&need| Reverse(room[need as usize]));
            let behind = row.iter().zip(0..).map(|(&need, ahead)| room[need as usize] + ahead);
            room[task as usize] = behind.max().unwrap_or(0).max(row.len() as u32 + 1);
        }
        room
    }

    /// Runs the tasks by the kernel's rule, and whenever nothing is ready goes down from the nearest task that has an input
    /// already, else from a wanted one. `None` if that takes too long.
    fn nearest_first(&self, order: &[u32], room: &[u32], wanted: &[u32]) -> Option<Vec<u32>> {
        let (reader_starts, readers) = self.readers(order);
        let readers = Rows { starts: &reader_starts, flat: readers };
        let mut missing: Vec<u32> = (0..self.tasks() as u32).map(|task| self.of(task).len() as u32).collect();
        let mut is_done = vec![false; self.tasks()];
        let mut near = BinaryHeap::new();
        let (mut ready, mut found) = (Vec::new(), Vec::with_capacity(order.len()));
        let mut steps_left = 8 * (order.len() + readers.flat.len());
        let mut wanted = wanted.iter().copied();
        let mut goal = None;
        while found.len() < order.len() {
            while near.peek().is_some_and(|&Reverse((_, left, task))| missing[task as usize] != left) {
                near.pop();
            }
            let mut task = match near.peek() {
                Some(&Reverse((_, _, task))) => task,
                None => loop {
                    match goal {
                        Some(task) if !is_done[task as usize] => break task,
                        _ => goal = Some(wanted.next()?),
                    }
                },
            };
            while let Some(&need) = self.of(task).iter().find(|need| !is_done[**need as usize]) {
                steps_left = steps_left.checked_sub(self.of(task).len())?;
                task = need;
            }
            ready.push(task);
            while let Some(task) = ready.pop() {
                is_done[task as usize] = true;
                missing[task as usize] = u32::MAX;
                found.push(task);
                for &reader in readers.of(task).iter().rev() {
                    let left = &mut missing[reader as usize];
                    *left -= 1;
                    match *left {
                        0 => ready.push(reader),
                        left => near.push(Reverse((room[reader as usize], left, reader))),
                    }
                }
            }
        }
        Some(found)
    }

    /// A guess at the size of each result.
    fn sizes(&self, order: &[u32]) -> Vec<u64> {
        let (reader_starts, readers) = self.readers(order);
        let readers = Rows { starts: &reader_starts, flat: readers };
        let mut sizes = vec![WHOLE; self.tasks()];
        for &task in order {
            sizes[task as usize] = match self.of(task) {
                [] => WHOLE,
                [need] => (sizes[*need as usize] / readers.of(*need).len() as u64).max(1),
                needs => needs.iter().map(|need| sizes[*need as usize]).sum::<u64>().min(WHOLE),
            };
        }
        sizes
    }

    /// The most that is alive at a time, if the tasks are submitted in this order, cut into levels of falling priority, and
    /// run one by one by the kernel's rule: what has become ready goes first, in order of submission, then those that need
    /// nothing. Wanted results stay.
    fn peak(&self, order: &[u32], wanted: &[u32], sizes: &[u64], levels: u32) -> u64 {
        let (reader_starts, readers) = self.readers(order);
        let readers = Rows { starts: &reader_starts, flat: readers };
        let mut missing: Vec<u32> = (0..self.tasks() as u32).map(|task| self.of(task).len() as u32).collect();
        let mut unread: Vec<u32> = (0..self.tasks() as u32).map(|task| readers.of(task).len() as u32).collect();
        wanted.iter().for_each(|&task| unread[task as usize] += 1);
        let mut level = vec![0; self.tasks()];
        for (place, &task) in order.iter().enumerate() {
            level[task as usize] = place * levels as usize / order.len();
        }
        let mut ready: Vec<Vec<u32>> = vec![Vec::new(); levels as usize];
        for &task in order.iter().rev().filter(|task| self.of(**task).is_empty()) {
            ready[level[task as usize]].push(task);
        }
        let (mut live, mut most, mut first) = (0_u64, 0, 0);
        while let Some(place) = (first..ready.len()).find(|place| !ready[*place].is_empty()) {
            first = place;
            let Some(task) = ready[place].pop() else { break };
            live += sizes[task as usize];
            most = most.max(live);
            let mut read = |task: u32, unread: u32| live -= if unread == 0 { sizes[task as usize] } else { 0 };
            read(task, unread[task as usize]);
            for &need in self.of(task) {
                unread[need as usize] -= 1;
                read(need, unread[need as usize]);
            }
            for &reader in readers.of(task).iter().rev() {
                missing[reader as usize] -= 1;
                if missing[reader as usize] == 0 {
                    ready[level[reader as usize]].push(reader);
                    first = first.min(level[reader as usize]);
                }
            }
        }
        most
    }

    /// The tasks that need each, in the order given, which has all of them: as rows.
    fn readers(&self, order: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let mut starts = vec![0_u32; self.tasks() + 1];
        for &task in order {
            self.of(task).iter().for_each(|&need| starts[need as usize + 1] += 1);
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut flat = vec![0; starts[self.tasks()] as usize];
        for &task in order {
            for &need in self.of(task) {
                flat[next[need as usize] as usize] = task;
                next[need as usize] += 1;
            }
        }
        (starts, flat)
    }
}
