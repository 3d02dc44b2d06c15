//! What an older or newer peer may send, and what contradicts itself.

use headrace_wire::*;

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

fn query() -> Message<'static> {
    Message::Query(Query { run: 1, number: 2 })
}

#[test]
fn fields_of_a_newer_version_are_skipped() {
    // nil, float, extension, a map of an array, a long string.
    let extra: [&[u8]; 5] = [
        &[0xc0],
        &[0xcb, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xd6, 7, 1, 2, 3, 4],
        &[0x81, 0xa1, b'k', 0x92, 1, 2],
        &[0xd9, 2, b'h', b'i'],
    ];
    let mut frame = vec![0x93 + extra.len() as u8, 14, 1, 2];
    frame.extend(extra.concat());
    assert_eq!(Message::decode(&frame), Ok(query()));
}

#[test]
fn fields_that_an_older_peer_does_not_send_are_defaults() {
    let state = Message::State(State { run: 1, tasks_held: 7, store_limit: 5, ..State::default() });
    let mut frame = encoded(&state);
    // Eighteen values of later versions: eleven numbers of one byte, and seven columns of two (each of the blobs is two).
    let old_values = frame[2] - 18;
    frame[2] = old_values;
    frame.truncate(frame.len() - 11 - 7 * 2);
    let old = Message::State(State { run: 1, tasks_held: 7, ..State::default() });
    assert_eq!(Message::decode(&frame), Ok(old));
}

#[test]
fn integers_may_be_wider_than_needed() {
    let wide = [0xdc, 0, 3, 0xcd, 0, 14, 0xd3, 0, 0, 0, 0, 0, 0, 0, 1, 0xcf, 0, 0, 0, 0, 0, 0, 0, 2];
    assert_eq!(Message::decode(&wide), Ok(query()));
}

#[test]
fn an_unknown_message_is_told_apart_from_a_broken_one() {
    assert_eq!(Message::decode(&[0x92, 99, 0x91, 1]), Err(DecodeError::UnknownType(99)));
    assert_eq!(Message::decode(&[0x92, 99, 0x91]), Err(DecodeError::Truncated));
    assert_eq!(
        Message::decode(&[0x92, 99, 0xc1]).unwrap_err().to_string(),
        "an unknown field cannot be skipped: it holds a byte that msgpack reserves"
    );
}

#[test]
fn fields_of_the_first_version_are_required() {
    let error = Message::decode(&[0x92, 14, 1]).unwrap_err();
    assert_eq!(error, DecodeError::Missing { message: "Query", field: "number" });
    // A blob column is two values; one of them is not enough.
    let error = Message::decode(&[0x95, 11, 1, 0xc2, 0xc4, 0, 0xc4, 0]).unwrap_err();
    assert_eq!(error.to_string(), "Results.values is missing");
}

#[test]
fn a_field_of_the_wrong_kind_is_named() {
    let cases: [(&[u8], &str); 9] = [
        (&[0x93, 14, 0xc3, 2], "Query.run is not an integer of at least 0"),
        (&[0x93, 14, 0xff, 2], "Query.run is not an integer of at least 0"),
        (&[0x93, 14, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0, 2], "Query.run is not an integer below 2^32"),
        (&[0x93, 3, 0xcd, 1, 0, 0xa0], "Goodbye.reason is not an integer below 256"),
        (&[0x93, 3, 1, 0xa1, 0xff], "Goodbye.text is not UTF-8"),
        (&[0x93, 3, 1, 0xc4, 0], "Goodbye.text is not a string"),
        (&[0x92, 24, 0xc4, 3, 0, 0, 0], "Forget.dead is not a column of four-byte words"),
        (&[0x92, 24, 0xa0], "Forget.dead is not a binary"),
        (&[0x99, 1, 1, 9, 0xa0, 0xa0, 0, 0, 0, 0], "Hello.role is not a known role"),
    ];
    for (frame, text) in cases {
        assert_eq!(Message::decode(frame).unwrap_err().to_string(), text);
    }
    for frame in [&[0x90_u8][..], &[0xc0], &[0x92, 0xc0, 0], &[0x81, 14, 0]] {
        assert_eq!(Message::decode(frame), Err(DecodeError::NotAMessage));
    }
}

#[test]
fn numbers_of_enums_are_known_or_named() {
    assert_eq!(Outcome::try_from(6), Ok(Outcome::TimedOut));
    assert_eq!(Outcome::try_from(7).unwrap_err().to_string(), "7 is not the number of a Outcome");
    assert_eq!([1, 2, 3].map(Role::try_from), [Role::Client, Role::Worker, Role::Observer].map(Ok));
    assert_eq!(Role::try_from(0), Err(UnknownNumber { kind: "Role", number: 0 }));
}

/// The bytes of `message` with the first `from` replaced by the equally long `to`.
fn patched(message: &Message<'_>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut frame = encoded(message);
    let at = frame.windows(from.len()).position(|window| window == from).expect("the frame holds these bytes");
    frame[at..at + to.len()].copy_from_slice(to);
    frame
}

fn rule_broken(frame: &[u8]) -> &'static str {
    match Message::decode(frame) {
        Err(DecodeError::Inconsistent { rule, .. }) => rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blob_column_is_as_long_as_its_lengths_say() {
    let blobs = Blobs { lens: U32s::Words(&[0x0101, 1]), bytes: &[7; 0x0102] };
    let results = Results { index: U32s::Words(&[0, 1]), outcome: &[0, 0], values: blobs, ..Results::default() };
    let frame = patched(&Message::Results(results), &[1, 1, 0, 0, 1, 0, 0, 0], &[1, 1, 0, 0, 2, 0, 0, 0]);
    let error = Message::decode(&frame).unwrap_err();
    assert_eq!(error.to_string(), "Results.values is not as long as its lengths say");
}

#[test]
fn a_submit_points_only_at_what_it_brings_or_what_came_before() {
    let submit = Submit {
        first: 0x20,
        function_map: U32s::Words(&[0x7777]),
        task_function: U32s::Words(&[0, 0]),
        dep_counts: U32s::Words(&[0, 2]),
        deps: U32s::Words(&[0x20, EXTERNAL]),
        external_run: U32s::Words(&[0x1111]),
        external_index: U32s::Words(&[0x2222]),
        args: Blobs { lens: U32s::Words(&[0, 0]), bytes: &[] },
        task_options: U32s::Words(&[0, 0]),
        priority: U32s::Words(&[0x4444]),
        worker: U32s::Words(&[ANY_WORKER]),
        key_index: U32s::Words(&[0x20]),
        keys: Blobs { lens: U32s::Words(&[1]), bytes: b"k" },
        keep: U32s::Words(&[0x21]),
        ..Submit::default()
    };
    let message = Message::Submit(submit);
    let counts = [0, 0, 0, 0, 2, 0, 0, 0];
    assert!(rule_broken(&patched(&message, &counts, &[0, 0, 0, 0, 3, 0, 0, 0])).starts_with("dep_counts.sum()"));
    let deps = [0x20, 0, 0, 0, 0, 0, 0, 0x80];
    for wrong in [[0x22, 0, 0, 0, 0, 0, 0, 0x80], [0x20, 0, 0, 0, 1, 0, 0, 0x80]] {
        assert!(rule_broken(&patched(&message, &deps, &wrong)).starts_with("deps.all("));
    }
    let keep = [0xc4, 4, 0x21, 0, 0, 0];
    for wrong in [0x1f, 0x22] {
        assert!(rule_broken(&patched(&message, &keep, &[0xc4, 4, wrong, 0, 0, 0])).starts_with("keep.all("));
    }
    let options = [0xc4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0xc4, 4, 0x44];
    let wrong = [0xc4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0xc4, 4, 0x44];
    assert!(rule_broken(&patched(&message, &options, &wrong)).starts_with("task_options.all("));
}

#[test]
fn keys_of_a_lease_ascend_and_stay_inside_it() {
    let lease = Lease {
        task: U32s::Words(&[1, 2]),
        attempt: U32s::Words(&[1, 1]),
        function: U32s::Words(&[0, 0]),
        flags: &[0, 0],
        index: U32s::Words(&[0, 1]),
        dep_counts: U32s::Words(&[0, 0]),
        args: Blobs { lens: U32s::Words(&[0, 0]), bytes: &[] },
        key_position: U32s::Words(&[0, 1]),
        keys: Blobs { lens: U32s::Words(&[1, 1]), bytes: b"ab" },
        ..Lease::default()
    };
    let message = Message::Lease(lease);
    let tail = [0, 0, 0, 0, 1, 0, 0, 0, 0xc4, 8, 1, 0, 0, 0, 1, 0, 0, 0, 0xc4, 2, b'a'];
    for (positions, rule) in [([0_u8, 2], "key_position.all("), ([1, 1], "is_ascending("), ([1, 0], "is_ascending(")] {
        let mut wrong = tail;
        (wrong[0], wrong[4]) = (positions[0], positions[1]);
        assert!(rule_broken(&patched(&message, &tail, &wrong)).starts_with(rule));
    }
}

#[test]
fn an_ending_has_the_blob_of_its_outcome() {
    let ending = |outcome: u8, len: u32| {
        let frame = [&[0x98, 11, 0, 0xc2, 0xc4, 4, 0, 0, 0, 0, 0xc4, 1, outcome, 0xc4, 4][..], &len.to_le_bytes()];
        let mut frame = frame.concat();
        frame.extend([0xc4, len as u8]);
        frame.resize(frame.len() + len as usize, 9);
        frame.push(1);
        frame
    };
    for (outcome, len) in [(0, 3), (1, 0), (2, 8), (4, 2), (5, 0), (6, 0)] {
        assert!(Message::decode(&ending(outcome, len)).is_ok(), "outcome {outcome} with {len} bytes");
    }
    for (outcome, len) in [(2, 4), (2, 9), (3, 0), (3, 1), (3, 2), (7, 0)] {
        assert!(rule_broken(&ending(outcome, len)).contains("fits_outcome"), "outcome {outcome} with {len} bytes");
    }
}

#[test]
fn a_whole_cancel_names_no_task() {
    assert_eq!(rule_broken(&[0x94, 13, 0, 0xc3, 0xc4, 4, 0, 0, 0, 0]), "!self.whole || self.index.is_empty()");
}
