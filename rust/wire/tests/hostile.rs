//! Bytes that nobody meant well: the decoder answers with an error or with a message that is safe to use.
//!
//! The random test does 20,000 executions by default and as many as `HEADRACE_FUZZ_RUNS` says;
//! `HEADRACE_FUZZ_SEED` starts it elsewhere.

mod samples;
mod walk;

use headrace_wire::{DecodeError, Message};

/// SplitMix64: enough to scatter mutations, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Message types, heads of every kind of msgpack value, and the ends of number ranges.
const LOADED_BYTES: [u8; 32] = [
    0x00, 0x01, 0x02, 0x0a, 0x0b, 0x10, 0x14, 0x15, 0x16, 0x1e, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1,
    0xc3, 0xc4, 0xc6, 0xc7, 0xcc, 0xcf, 0xd3, 0xd8, 0xdb, 0xdd, 0xdf, 0xe0, 0xff,
];

const LOADED_WORDS: [u32; 6] = [0, 1, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, u32::MAX];

fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn golden_frames() -> Vec<Vec<u8>> {
    let encode = |message: Message<'_>| {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        frame
    };
    samples::samples().into_iter().map(|(_, message)| encode(message)).collect()
}

fn mutate(frame: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = random.below(frame.len());
    let end = (at + 1 + random.below(8)).min(frame.len());
    match random.below(9) {
        _ if frame.is_empty() => frame.push(random.next() as u8),
        0 => frame[at] ^= 1 << random.below(8),
        1 => frame[at] = LOADED_BYTES[random.below(LOADED_BYTES.len())],
        2 => frame[at] = frame[at].wrapping_add(1).wrapping_sub(2 * random.below(2) as u8),
        3 => frame.truncate(at),
        4 => drop(frame.drain(at..end)),
        5 => frame.extend_from_within(at..end),
        6 => frame.insert(at, random.next() as u8),
        7 => {
            let word = LOADED_WORDS[random.below(LOADED_WORDS.len())].to_le_bytes();
            let len = word.len().min(frame.len() - at);
            frame[at..at + len].copy_from_slice(&word[..len]);
        }
        _ => {
            let other = &others[random.below(others.len())];
            frame.truncate(at);
            frame.extend_from_slice(&other[random.below(other.len())..]);
        }
    }
}

/// Decodes, and uses the message if there is one.
fn execute(frame: &[u8]) -> Result<(), DecodeError> {
    let message = Message::decode(frame)?;
    walk::walk(&message);
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message), "{frame:02x?}");
    Ok(())
}

#[test]
fn random_bytes_and_mutated_frames_never_panic() {
    let mut random = Random(number_from_env("HEADRACE_FUZZ_SEED", 2026));
    let frames = golden_frames();
    let mut seen = std::collections::BTreeMap::new();
    let mut frame = Vec::new();
    for run in 0..number_from_env("HEADRACE_FUZZ_RUNS", 20_000) {
        frame.clear();
        if run % 8 == 0 {
            frame.extend((0..random.below(200)).map(|_| random.next() as u8));
        } else {
            frame.extend_from_slice(&frames[random.below(frames.len())]);
            for _ in 0..1 + random.below(4) {
                mutate(&mut frame, &frames, &mut random);
            }
        }
        let kind = match execute(&frame) {
            Ok(()) => "accepted",
            Err(DecodeError::UnknownType(_)) => "unknown type",
            Err(DecodeError::Truncated) => "truncated",
            Err(DecodeError::Trailing(_)) => "trailing",
            Err(DecodeError::NotAMessage) => "not a message",
            Err(DecodeError::Missing { .. }) => "missing",
            Err(DecodeError::Malformed { .. }) => "malformed",
            Err(DecodeError::Unskippable(_)) => "unskippable",
            Err(DecodeError::Inconsistent { .. }) => "inconsistent",
        };
        *seen.entry(kind).or_insert(0_u64) += 1;
    }
    println!("{seen:?}");
    assert_eq!(seen.len(), 9, "some answer was never given: {seen:?}");
}

#[test]
fn a_million_levels_of_nesting_are_an_error_at_once() {
    // As the frame itself, as the message type, as a field, as an unknown field, and as what an unknown message holds.
    let fronts: [&[u8]; 5] = [&[], &[0x92], &[0x93, 14], &[0x94, 14, 0, 0], &[0x92, 99]];
    for opener in [&[0x91_u8][..], &[0x81, 0x00], &[0xdd, 0, 0, 0, 1], &[0xdf, 0, 0, 0, 1, 0x00]] {
        for front in fronts {
            let mut frame = front.to_vec();
            frame.extend(opener.repeat(1_000_000));
            frame.push(0xc0);
            let error = Message::decode(&frame).unwrap_err();
            assert!(!matches!(error, DecodeError::UnknownType(_)), "{front:?} {opener:?}: {error}");
        }
    }
}

#[test]
fn lengths_that_promise_more_than_arrived_are_an_error() {
    let frames: [&[u8]; 7] = [
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xdd, 0xff, 0xff, 0xff, 0xff, 99],
        &[0x92, 24, 0xc6, 0xff, 0xff, 0xff, 0xfc, 0, 0],
        &[0x93, 24, 0xc4, 0, 0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0x93, 24, 0xc4, 0, 0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0],
        &[0x93, 24, 0xc4, 0, 0xc9, 0xff, 0xff, 0xff, 0xff, 0],
        &[0x93, 3, 1, 0xdb, 0xff, 0xff, 0xff, 0xff, b'a'],
    ];
    for frame in frames {
        assert_eq!(Message::decode(frame), Err(DecodeError::Truncated), "{frame:02x?}");
    }
}

#[test]
fn an_unknown_field_with_many_empty_arrays_takes_linear_time() {
    let mut frame = vec![0x93, 24, 0xc4, 0, 0xdd];
    frame.extend(4_000_000_u32.to_be_bytes());
    frame.resize(frame.len() + 4_000_000, 0x90);
    assert!(matches!(Message::decode(&frame), Ok(Message::Forget(_))));
}
