//! The order for few live results: complete, topological, and for trees the best there is.
#![allow(missing_docs)]

use headrace_kernel::depth_first as ordered;

fn depth_first(starts: &[u32], needs: &[u32], wanted: &[u32]) -> Result<Vec<u32>, Vec<u32>> {
    ordered(starts, needs, wanted, 1).map(|(order, _)| order)
}

/// Predecessors by task, as the function takes them.
fn rows(needs: &[Vec<u32>]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0];
    for row in needs {
        starts.push(starts[starts.len() - 1] + row.len() as u32);
    }
    (starts, needs.concat())
}

/// Most results that are alive at a time, if tasks run in this order; the last one's stays.
fn peak(needs: &[Vec<u32>], order: &[u32]) -> usize {
    let mut readers = vec![0; needs.len()];
    needs.iter().flatten().for_each(|&need| readers[need as usize] += 1);
    let (mut live, mut most) = (0, 0);
    for &task in order {
        live += 1;
        most = most.max(live);
        for &need in &needs[task as usize] {
            readers[need as usize] -= 1;
            live -= usize::from(readers[need as usize] == 0);
        }
    }
    most
}

/// The least peak of all orders.
fn best(needs: &[Vec<u32>], order: &mut Vec<u32>) -> usize {
    if order.len() == needs.len() {
        return peak(needs, order);
    }
    let mut least = usize::MAX;
    for task in 0..needs.len() as u32 {
        if !order.contains(&task) && needs[task as usize].iter().all(|need| order.contains(need)) {
            order.push(task);
            least = least.min(best(needs, order));
            order.pop();
        }
    }
    least
}

fn chance(seed: u64) -> impl FnMut(usize) -> usize {
    let mut random = seed;
    move |limit| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    }
}

#[test]
fn trees_have_the_least_peak_that_there_is() {
    for seed in 0..60 {
        let (mut below, tasks) = (chance(seed), 7);
        // Each task but the last has one reader, which comes after it.
        let mut needs: Vec<Vec<u32>> = vec![Vec::new(); tasks];
        for task in 0..tasks - 1 {
            needs[task + 1 + below(tasks - 1 - task)].push(task as u32);
        }
        let (starts, flat) = rows(&needs);
        let order = depth_first(&starts, &flat, &[tasks as u32 - 1]).unwrap();
        assert_eq!(peak(&needs, &order), best(&needs, &mut Vec::new()), "{needs:?}: {order:?}");
    }
}

#[test]
fn each_task_that_is_needed_comes_once_behind_what_it_needs() {
    for seed in 0..200 {
        let (mut below, tasks) = (chance(seed), 30);
        let needs: Vec<Vec<u32>> = (0..tasks).map(|task: u32| (0..task).filter(|_| below(6) == 0).collect()).collect();
        let wanted: Vec<u32> = (0..3).map(|_| below(tasks as usize) as u32).collect();
        let (starts, flat) = rows(&needs);
        let order = depth_first(&starts, &flat, &wanted).unwrap();
        let mut needed: Vec<u32> = wanted.clone();
        let mut at = 0;
        while at < needed.len() {
            needed.extend(needs[needed[at] as usize].clone());
            at += 1;
        }
        needed.sort_unstable();
        needed.dedup();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, needed);
        for (place, &task) in order.iter().enumerate() {
            assert!(needs[task as usize].iter().all(|need| order[..place].contains(need)));
        }
        assert_eq!(order, depth_first(&starts, &flat, &wanted).unwrap());
    }
}

#[test]
fn a_cycle_is_named_and_nothing_is_too_deep() {
    let (starts, flat) = rows(&[vec![], vec![3, 0], vec![1], vec![2], vec![3]]);
    assert_eq!(depth_first(&starts, &flat, &[4]), Err(vec![3, 2, 1]));
    assert_eq!(depth_first(&starts, &flat, &[0]), Ok(vec![0]));
    let tasks = 1_000_000;
    let (starts, flat): (Vec<u32>, Vec<u32>) =
        ((0..=tasks).map(|task| task.max(1) - 1).collect(), (0..tasks - 1).collect());
    let order = depth_first(&starts, &flat, &[tasks - 1]).unwrap();
    assert_eq!(order, (0..tasks).collect::<Vec<u32>>());
}

#[test]
fn products_of_blocks_wait_until_they_are_due_and_sums_of_slices_do_not() {
    // 6 rows of 4 blocks; a sum of products for each pair of rows.
    let (rows_of_blocks, blocks) = (6_u32, 4_u32);
    let mut needs: Vec<Vec<u32>> = vec![Vec::new(); (rows_of_blocks * blocks) as usize];
    let mut sums = Vec::new();
    for one in 0..rows_of_blocks {
        for other in 0..rows_of_blocks {
            let first = needs.len() as u32;
            needs.extend((0..blocks).map(|block| vec![one * blocks + block, other * blocks + block]));
            needs.push((first..first + blocks).collect());
            sums.push(needs.len() as u32 - 1);
        }
    }
    let total = needs.len() as u32;
    needs.push(sums);
    let (starts, flat) = rows(&needs);
    assert_eq!(ordered(&starts, &flat, &[total], 64).unwrap().1, 64);
    assert_eq!(ordered(&starts, &flat, &[total], 1).unwrap().1, 1);
    // 20 blocks in 5 slices each, which are smaller than they; a sum for each number of a slice.
    let mut needs: Vec<Vec<u32>> = vec![Vec::new(); 20];
    needs.extend((0..100_u32).map(|slice| vec![slice / 5]));
    needs.extend((0..5_u32).map(|number| (0..20).map(|block| 20 + block * 5 + number).collect()));
    let (starts, flat) = rows(&needs);
    assert_eq!(ordered(&starts, &flat, &[120, 121, 122, 123, 124], 64).unwrap().1, 1);
}
