//! Results that move to disk: which, when, and what everybody is told.

use crate::story::{CLIENT, Got, Said, Story};
use headrace_protocol::broker::{SegmentNews, SpillFrom, SpillPart};
use headrace_wire::{
    Citation, EXTERNAL, FILE_SEGMENTS, GiveBack, Message, Outcome, Put, Released, Verdict, Want, citations,
    write_citations,
};

const FILE: u32 = FILE_SEGMENTS + 1;
const BLOCK: u64 = 40_960;

fn citing(segment: u32, offset: u64) -> Vec<u8> {
    let mut value = Vec::new();
    write_citations(&[Citation { segment, offset, bytes: BLOCK }], &mut value);
    value.extend_from_slice(b"rest");
    value
}

/// A worker is granted a segment, which must fit.
fn granted(story: &mut Story, worker: u32, bytes: u64) -> u32 {
    story.send(story.peer(worker), &Message::Want(Want { bytes }));
    match &story.turn()[..] {
        &[Said::Segment { news: SegmentNews::Granted { segment, .. }, .. }] => segment,
        other => panic!("no grant: {other:?}"),
    }
}

/// One worker, a budget of two and a half blocks; tasks 0 and 1 of run 1 are kept, and their results fill a segment.
fn filled() -> (Story, u32) {
    let mut story = Story::with_disk(1, 100_000, 1 << 20);
    let segment = granted(&mut story, 0, 2 * BLOCK);
    story.submit(1, &[&[], &[]], &[0, 1]);
    loop {
        let (got, _) = leases(&mut story);
        if got.is_empty() {
            return (story, segment);
        }
        for (_, got) in got {
            story.report(0, &[(got, Verdict::Done, &citing(segment, BLOCK * u64::from(got.index)))]);
        }
    }
}

/// All leases that workers get in this turn, and what else is said.
fn leases(story: &mut Story) -> (Vec<(u32, Got)>, Vec<Said>) {
    let said = story.turn();
    let got = said.iter().flat_map(|said| match said {
        Said::Lease { worker, leases, .. } => leases.iter().map(|got| (*worker, *got)).collect(),
        _ => Vec::new(),
    });
    (got.collect(), said)
}

/// The job that begins because the client wants room for so many bytes.
fn job(story: &mut Story, bytes: u64) -> (u64, Option<u64>, Vec<SpillPart>) {
    let peer = story.peer(0);
    story.send(CLIENT, &Message::Want(Want { bytes }));
    assert_eq!(story.turn(), [Said::GiveBack { peer }]);
    story.send(peer, &Message::GiveBack(Default::default()));
    match story.turn().pop() {
        Some(Said::Spill { job, create, parts, .. }) => (job, create, parts),
        other => panic!("nothing moves: {other:?}"),
    }
}

fn part(segment: u32, offset: u64, to: u64) -> SpillPart {
    SpillPart { from: SpillFrom::Block { segment, offset, bytes: BLOCK }, to }
}

fn released(story: &mut Story, peer: headrace_protocol::broker::PeerId, segment: u32, offset: u64) {
    let (segment, offset) = ([segment], [(offset / 64) as u32]);
    let released = Released { segment: segment[..].into(), offset: offset[..].into() };
    story.send(peer, &Message::Released(released));
}

#[test]
fn a_kept_result_moves_when_room_is_short_and_everybody_hears_of_it_before_its_memory_goes() {
    let (mut story, segment) = filled();
    let (number, create, parts) = job(&mut story, BLOCK);
    assert_eq!((create.is_some(), &parts[..]), (true, &[part(segment, 0, 0)][..]), "what was used first");
    assert_eq!(story.turn(), [], "nothing changes before it is written");
    story.broker.handle_spilled(number, Ok(()), story.now_ns);
    let said = story.turn();
    let news = |said: &Said| matches!(said, Said::Segment { worker: None, news: SegmentNews::Shared { segment, .. } } if *segment == FILE);
    let places = [
        said.iter().position(news),
        said.iter().position(|said| *said == Said::Moved { run: 1, values: vec![(0, citing(FILE, 0))] }),
        said.iter().position(|said| *said == Said::Release { peer: CLIENT, blocks: vec![(segment, 0, 0)] }),
    ];
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} of {said:?}");
    let owner = story.peer(0);
    assert!(!said.iter().any(|said| matches!(said, Said::Release { peer, .. } if *peer == owner)), "{said:?}");
    released(&mut story, CLIENT, segment, 0);
    let said = story.turn();
    assert!(said.contains(&Said::Release { peer: owner, blocks: vec![(segment, 0, 1)] }), "{said:?}");
    assert_eq!(story.broker.store_statistics().spilled, BLOCK);
    // Its end is as any other's; with the last block the file goes.
    story.hold(1, &[], &[], true);
    let said = story.turn();
    let both = |blocks: &[(u32, u32, u32)]| blocks.len() == 2 && blocks.contains(&(FILE, 0, 0));
    assert!(matches!(&said[..], [Said::Release { peer: CLIENT, blocks }] if both(blocks)), "{said:?}");
    released(&mut story, CLIENT, FILE, 0);
    assert!(story.turn().contains(&Said::CloseSegment { segment: FILE, discard: 0 }));
}

#[test]
fn a_result_that_the_client_was_not_told_of_yet_is_told_before_it_has_moved() {
    let (mut story, segment) = filled();
    let (number, ..) = job(&mut story, BLOCK);
    story.submit(2, &[&[]], &[0]);
    let got = leases(&mut story).0[0].1;
    // Another result cites the same block, in the turn in which the job ends.
    story.report(0, &[(got, Verdict::Done, &citing(segment, 0))]);
    story.broker.handle_spilled(number, Ok(()), story.now_ns);
    let said = story.turn();
    let places = [
        said.iter().position(|said| matches!(said, Said::Ended { run: 2, .. })),
        said.iter().position(|said| *said == Said::Moved { run: 2, values: vec![(0, citing(FILE, 0))] }),
        said.iter().position(|said| matches!(said, Said::Release { peer: CLIENT, .. })),
    ];
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} of {said:?}");
}

#[test]
fn a_block_that_was_replaced_while_it_was_written_stays_in_memory() {
    let (mut story, segment) = filled();
    let (number, ..) = job(&mut story, BLOCK);
    // The run is gone, its memory free, and another result lies there.
    story.hold(1, &[], &[], true);
    story.turn();
    for offset in [0, BLOCK] {
        released(&mut story, CLIENT, segment, offset);
    }
    story.turn();
    story.submit(2, &[&[]], &[0]);
    let got = leases(&mut story).0[0].1;
    story.report(0, &[(got, Verdict::Done, &citing(segment, 0))]);
    story.turn();
    story.broker.handle_spilled(number, Ok(()), story.now_ns);
    let said = story.turn();
    assert!(!said.iter().any(|said| matches!(said, Said::Moved { .. })), "{said:?}");
    assert!(said.contains(&Said::CloseSegment { segment: FILE, discard: 0 }), "nothing lies in the file: {said:?}");
    assert_eq!(story.broker.store_statistics().spilled, 0);
}

#[test]
fn a_disk_that_fails_loses_nothing_and_is_named() {
    let (mut story, segment) = filled();
    let (number, ..) = job(&mut story, BLOCK);
    story.broker.handle_spilled(number, Err("No space left on device, in /data".into()), story.now_ns);
    let said = story.turn();
    let peer = story.peer(0);
    assert_eq!(said.last(), Some(&Said::GiveBack { peer }), "{said:?}");
    story.send(peer, &Message::GiveBack(Default::default()));
    let said = story.turn();
    let [Said::Segment { worker: None, news: SegmentNews::Refused { text } }] = &said[..] else { panic!("{said:?}") };
    assert!(text.contains("No space left on device, in /data"), "{text}");
    assert!(text.contains("work-0: ") && text.contains("work-1: "), "the largest results are named: {text}");
    assert!(!said.iter().any(|said| matches!(said, Said::Release { .. })), "{said:?}");
    // After a while it is tried again.
    story.pass_ns(6_000_000_000);
    let (_, create, parts) = job(&mut story, BLOCK);
    assert_eq!((create.is_some(), &parts[..]), (true, &[part(segment, 0, 0)][..]));
}

#[test]
fn room_that_is_enough_but_for_whole_pages_is_not_enough() {
    let (mut story, segment) = filled();
    // 18,080 bytes are left, which are four pages and a part of one; that needs five.
    let (_, _, parts) = job(&mut story, 18_000);
    assert_eq!(parts, [part(segment, 0, 0)]);
    // And of this budget 99,000 bytes are never granted.
    let mut story = Story::with_disk(1, 100_000, 1 << 20);
    story.send(CLIENT, &Message::Want(Want { bytes: 99_000 }));
    let said = story.turn();
    assert!(matches!(said[..], [Said::Segment { news: SegmentNews::Refused { .. }, .. }]), "{said:?}");
}

/// One worker, a budget of not quite five blocks; four kept results fill a segment. The last of them is dead, and the client
/// has not let go of it.
fn filled_and_viewed() -> (Story, u32) {
    let mut story = Story::with_disk(1, 200_000, 1 << 20);
    let segment = granted(&mut story, 0, 4 * BLOCK);
    story.submit(1, &[&[], &[], &[], &[]], &[0, 1, 2, 3]);
    let mut left = 4;
    while left > 0 {
        for (_, got) in leases(&mut story).0 {
            story.report(0, &[(got, Verdict::Done, &citing(segment, BLOCK * u64::from(got.index)))]);
            left -= 1;
        }
    }
    story.turn();
    story.hold(1, &[], &[3], false);
    let said = story.turn();
    assert!(
        said.contains(&Said::Release { peer: CLIENT, blocks: vec![(segment, 3 * BLOCK as u32 / 64, 0)] }),
        "{said:?}"
    );
    (story, segment)
}

#[test]
fn results_move_soon_where_others_do_not_answer_or_views_stay() {
    for answers in [true, false] {
        let (mut story, segment) = filled_and_viewed();
        let peer = story.peer(0);
        story.send(peer, &Message::Want(Want { bytes: BLOCK }));
        assert_eq!(story.turn(), [CLIENT, peer].map(|peer| Said::GiveBack { peer }));
        if answers {
            for peer in [CLIENT, peer] {
                story.send(peer, &Message::GiveBack(Default::default()));
            }
        }
        assert_eq!(story.turn(), [], "a block is dying");
        story.pass_ns(50_000_000);
        let said = story.turn();
        assert!(matches!(&said[..], [Said::Spill { parts, .. }] if parts == &[part(segment, 0, 0)]), "{said:?}");
    }
}

#[test]
fn the_last_pages_of_the_budget_are_granted_only_if_nothing_can_make_more_room() {
    for spill_limit in [0, 1 << 20] {
        let mut story = Story::with_disk(1, 1 << 20, spill_limit);
        let segment = granted(&mut story, 0, (1 << 20) - 12_288);
        story.submit(1, &[&[]], &[0]);
        let (_, got) = leases(&mut story).0[0];
        story.report(0, &[(got, Verdict::Done, &citing(segment, 0))]);
        story.turn();
        let peer = story.peer(0);
        story.send(peer, &Message::Want(Want { bytes: 4_096 }));
        assert_eq!(story.turn(), [Said::GiveBack { peer }]);
        story.send(peer, &Message::GiveBack(Default::default()));
        let said = story.turn();
        if spill_limit == 0 {
            let news = SegmentNews::Granted { segment: segment + 1, bytes: 4_096 };
            assert_eq!(said, [Said::Segment { worker: Some(0), news }]);
            continue;
        }
        let [Said::Spill { job, .. }] = said[..] else { panic!("{said:?}") };
        story.broker.handle_spilled(job, Ok(()), story.now_ns);
        released(&mut story, CLIENT, segment, 0);
        story.turn();
        story.send(
            peer,
            &Message::GiveBack(GiveBack {
                segment: [segment][..].into(),
                pages: [10][..].into(),
                ..GiveBack::default()
            }),
        );
        let said = story.turn();
        let news = SegmentNews::Granted { segment: segment + 1, bytes: 24_576 };
        assert!(said.contains(&Said::Segment { worker: Some(0), news }), "{said:?}");
    }
}

#[test]
fn whoever_comes_first_leaves_half_of_the_room_to_others() {
    let mut story = Story::with_disk(2, 1 << 20, 0);
    granted(&mut story, 0, (1 << 20) - 65_536);
    let sizes = [0, 1, 0].map(|worker| {
        story.send(story.peer(worker), &Message::Want(Want { bytes: 5_000 }));
        match story.turn()[..] {
            [Said::Segment { news: SegmentNews::Granted { bytes, .. }, .. }] => bytes,
            ref other => panic!("no grant: {other:?}"),
        }
    });
    assert_eq!(sizes, [32_768, 16_384, 8_192]);
}

#[test]
fn inputs_of_leases_stay() {
    let mut story = Story::with_disk(1, 100_000, 1 << 20);
    let segment = granted(&mut story, 0, 2 * BLOCK);
    story.submit(1, &[&[], &[], &[0]], &[0, 1, 2]);
    let mut leased_last = false;
    loop {
        let (got, _) = leases(&mut story);
        if got.is_empty() {
            break;
        }
        for (_, got) in got {
            match got.index {
                2 => leased_last = true,
                index => story.report(0, &[(got, Verdict::Done, &citing(segment, BLOCK * u64::from(index)))]),
            }
        }
    }
    assert!(leased_last);
    let (_, _, parts) = job(&mut story, BLOCK);
    assert_eq!(parts, [part(segment, BLOCK, 0)], "task 2 is leased and needs the other one");
}

#[test]
fn inline_results_move_when_they_exceed_the_budget() {
    let mut story = Story::with_disk(1, 100_000, 1 << 20);
    let deps: Vec<&[u32]> = vec![&[]; 99];
    story.submit(1, &deps, &(0..99).collect::<Vec<u32>>());
    let value = [7; 10_000];
    let (mut moved, mut jobs, mut done) = (0, 0, 0);
    while done < 99 {
        let (got, said) = leases(&mut story);
        for (_, got) in got {
            story.report(0, &[(got, Verdict::Done, &value)]);
            done += 1;
        }
        for said in said {
            match said {
                Said::Spill { job, parts, .. } => {
                    let is_value =
                        |part: &SpillPart| matches!(&part.from, SpillFrom::Value(bytes) if bytes.bytes() == value);
                    assert!(parts.iter().all(is_value));
                    jobs += 1;
                    story.broker.handle_spilled(job, Ok(()), story.now_ns);
                }
                Said::Moved { values, .. } => {
                    assert!(values.iter().all(|(_, value)| citations(value).all(|cited| cited.segment >= FILE)));
                    moved += values.len();
                }
                _ => {}
            }
        }
    }
    assert!(jobs > 0 && moved < 99, "{moved} in {jobs}");
    assert_eq!(story.broker.store_statistics().spilled, moved as u64 * 10_048);
}

#[test]
fn without_a_disk_an_inline_result_beyond_the_budget_fails_its_task() {
    let mut story = Story::with_disk(1, 15_000, 0);
    story.submit(1, &[&[], &[]], &[0, 1]);
    let mut endings = Vec::new();
    while endings.len() < 2 {
        let (got, said) = leases(&mut story);
        for (_, got) in got {
            story.report(0, &[(got, Verdict::Done, &[7; 10_000])]);
        }
        for said in said {
            if let Said::Ended { endings: told, .. } = said {
                endings.extend(told);
            }
        }
    }
    assert_eq!(endings[0], (0, Outcome::Done, vec![7; 10_000]));
    let text = String::from_utf8(endings[1].2.clone()).unwrap();
    assert_eq!(endings[1].1, Outcome::Refused);
    assert!(
        text.starts_with("StoreFull: a result needs 10000 bytes") && text.contains("work-0: 10000 bytes"),
        "{text}"
    );
}

#[test]
fn a_disk_that_is_too_small_for_an_inline_result_is_as_none() {
    let mut story = Story::with_disk(1, 15_000, 4_096);
    story.submit(1, &[&[], &[]], &[0, 1]);
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        let (got, said) = leases(&mut story);
        for (_, got) in got {
            story.report(0, &[(got, Verdict::Done, &[7; 10_000])]);
        }
        for said in said {
            if let Said::Ended { endings: told, .. } = said {
                outcomes.extend(told.into_iter().map(|(_, outcome, _)| outcome));
            }
        }
    }
    assert_eq!(outcomes, [Outcome::Done, Outcome::Refused]);
}

/// The same as [`filled`]; besides, the worker runs a root and holds a task that takes result 0. Gives both leases.
fn filled_and_busy() -> (Story, u32, [Got; 2]) {
    let (mut story, segment) = filled();
    story.submit(2, &[&[]], &[0]);
    story.submit_with(3, &[&[EXTERNAL]], &[0], &[(1, 0)], &[]);
    let (got, _) = leases(&mut story);
    let [(0, root), (0, consumer)] = got[..] else { panic!("{got:?}") };
    (story, segment, [root, consumer])
}

#[test]
fn what_a_waiting_worker_has_not_started_comes_back_so_that_its_input_can_move() {
    let (mut story, segment, [_, consumer]) = filled_and_busy();
    let owner = story.peer(0);
    story.send(owner, &Message::Want(Want { bytes: 90_000 }));
    assert_eq!(story.turn(), [Said::GiveBack { peer: owner }]);
    story.send(owner, &Message::GiveBack(Default::default()));
    let Some(Said::Spill { job, parts, .. }) = story.turn().pop() else { panic!("the other result is cold") };
    assert_eq!(parts, [part(segment, BLOCK, 0)]);
    story.broker.handle_spilled(job, Ok(()), story.now_ns);
    story.turn();
    [owner, CLIENT].into_iter().for_each(|peer| story.send(peer, &Message::GiveBack(Default::default())));
    let recall = Said::Recall { worker: 0, tasks: vec![consumer.task], fetch: vec![] };
    assert_eq!(story.turn(), [recall]);
    story.report(0, &[(consumer, Verdict::Returned, b"")]);
    let said = story.turn();
    let [Said::Spill { job, parts, .. }] = &said[..] else { panic!("and no lease: {said:?}") };
    assert_eq!(parts, &[part(segment, 0, BLOCK)]);
    story.broker.handle_spilled(*job, Ok(()), story.now_ns);
    let said = story.turn();
    assert!(said.iter().any(|said| matches!(said, Said::Forget { worker: 0, .. })), "its copy goes: {said:?}");
    for offset in [0, BLOCK] {
        released(&mut story, CLIENT, segment, offset);
    }
    story.turn();
    story.send(
        owner,
        &Message::GiveBack(GiveBack { segment: [segment][..].into(), pages: [0][..].into(), ..GiveBack::default() }),
    );
    let said = story.turn();
    let granted = |said: &Said| matches!(said, Said::Segment { news: SegmentNews::Granted { .. }, .. });
    assert!(said.iter().any(granted), "{said:?}");
    let again = said.iter().find_map(|said| match said {
        Said::Lease { values, .. } => Some(values),
        _ => None,
    });
    assert_eq!(again, Some(&vec![citing(FILE, BLOCK)]), "it takes the result where it lies now: {said:?}");
}

#[test]
fn a_copy_of_before_a_move_goes_once_no_lease_needs_it() {
    let (mut story, segment) = filled();
    let (number, _, parts) = job(&mut story, BLOCK);
    assert_eq!(parts, [part(segment, 0, 0)]);
    // While it is written, somebody takes it.
    story.submit_with(2, &[&[EXTERNAL]], &[], &[(1, 0)], &[]);
    let (got, said) = leases(&mut story);
    let Said::Lease { deps, values, .. } = &said[0] else { panic!("{said:?}") };
    assert_eq!(values, &vec![citing(segment, 0)]);
    story.broker.handle_spilled(number, Ok(()), story.now_ns);
    let forget = Said::Forget { worker: 0, dead: deps.clone() };
    assert!(!story.turn().contains(&forget), "the lease needs it");
    story.report(0, &[(got[0].1, Verdict::Done, b"end")]);
    assert!(story.turn().contains(&forget));
}

#[test]
fn an_owner_is_asked_again_when_more_of_its_bytes_are_free() {
    let mut story = Story::with_disk(2, 100_000, 0);
    story.send(CLIENT, &Message::Want(Want { bytes: 2 * BLOCK }));
    let [Said::Segment { news: SegmentNews::Granted { segment, .. }, .. }] = story.turn()[..] else { panic!() };
    story.send(CLIENT, &Message::Put(Put { index: 0, value: &citing(segment, 0) }));
    story.submit(1, &[&[]], &[]);
    assert_eq!(leases(&mut story).0.len(), 1);
    story.send(story.peer(1), &Message::Want(Want { bytes: BLOCK }));
    assert_eq!(story.turn(), [Said::GiveBack { peer: CLIENT }]);
    story.send(CLIENT, &Message::GiveBack(Default::default()));
    assert_eq!(story.turn(), [], "somebody works");
    story.hold(0, &[], &[0], false);
    let release = Said::Release { peer: CLIENT, blocks: vec![(segment, 0, 1)] };
    assert_eq!(story.turn(), [release, Said::GiveBack { peer: CLIENT }]);
}

#[test]
fn roots_wait_while_tasks_run_that_may_let_results_die() {
    let mut story = Story::with_disk(1, 100_000, 1 << 20);
    let segment = granted(&mut story, 0, 2 * BLOCK);
    story.submit(1, &[&[], &[]], &[0, 1]);
    for _ in 0..2 {
        for (_, got) in leases(&mut story).0 {
            story.report(0, &[(got, Verdict::Done, &citing(segment, BLOCK * u64::from(got.index)))]);
        }
    }
    story.turn();
    // Four fifths of the budget are taken. A task that takes one of them, and then a root.
    story.submit_with(2, &[&[EXTERNAL]], &[0], &[(1, 0)], &[]);
    let (got, _) = leases(&mut story);
    let [(0, consumer)] = got[..] else { panic!("{got:?}") };
    story.submit(3, &[&[]], &[0]);
    assert_eq!(leases(&mut story).0, [], "a root can wait");
    story.report(0, &[(consumer, Verdict::Done, b"end")]);
    assert_eq!(leases(&mut story).0.len(), 1, "now it would be waiting for nothing");
}
