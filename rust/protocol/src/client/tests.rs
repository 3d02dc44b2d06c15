//! The client against a broker that is played by hand; every frame goes through the real codec.

use std::collections::BTreeMap;
use std::sync::Arc;

use headrace_wire::*;
use proptest::prelude::*;

use super::*;

fn hello() -> Hello<'static> {
    Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        version: "0.1.0",
        python: "3.11.7",
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: 4711,
    }
}

fn welcome() -> Welcome<'static> {
    Welcome { protocol: PROTOCOL_VERSION, version: "0.1.0", features: 0, session: 5, result_bytes_max: 1 << 26 }
}

/// A client whose session is open and whose HELLO has left.
pub(super) fn open_client() -> Client {
    let mut client = Client::new(&hello());
    client.handle_frame(encoded(&Message::Welcome(welcome()))).unwrap();
    assert!(client.poll_frame().is_some());
    client
}

/// A RESULTS frame of these endings.
fn results(run: u32, endings: &[(u32, Outcome, &[u8])], ended: u64, finished: bool) -> Vec<u8> {
    let index: Vec<u32> = endings.iter().map(|ending| ending.0).collect();
    let outcome: Vec<u8> = endings.iter().map(|ending| ending.1 as u8).collect();
    let mut values = BlobsBuf::default();
    endings.iter().for_each(|ending| values.push(ending.2));
    let values = values.as_blobs();
    encoded(&Message::Results(Results { run, finished, index: (&index).into(), outcome: &outcome, values, ended }))
}

/// The holds that were sent, as (run, add, remove, release_run), and nothing else was.
fn sent_holds(client: &mut Client) -> Vec<(u32, Vec<u32>, Vec<u32>, bool)> {
    std::iter::from_fn(|| client.poll_frame())
        .map(|frame| match Message::decode(&frame) {
            Ok(Message::Hold(hold)) => (hold.run, hold.add.to_vec(), hold.remove.to_vec(), hold.release_run),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn assert_nothing_else_was_sent(client: &mut Client) {
    assert_eq!(client.poll_frame(), None);
}

#[test]
fn a_session_greets_and_opens() {
    let mut client = Client::new(&hello());
    assert_eq!(Message::decode(&client.poll_frame().unwrap()), Ok(Message::Hello(hello())));
    assert_eq!(client.session(), &Session::Greeting);
    client.handle_frame(encoded(&Message::Welcome(welcome()))).unwrap();
    let open = Session::Open { number: 5, version: "0.1.0".into(), features: 0, result_bytes_max: 1 << 26 };
    assert_eq!(client.session(), &open);
    assert_nothing_else_was_sent(&mut client);
    assert_eq!(client.statistics(), Statistics { frames_in: 1, frames_out: 1, ..Statistics::default() });
}

#[test]
fn a_broker_of_another_version_is_named_and_left() {
    let mut client = Client::new(&hello());
    let other = Welcome { protocol: 2, version: "0.9.0", ..welcome() };
    let error = client.handle_frame(encoded(&Message::Welcome(other))).unwrap_err();
    let text = "this client is headrace 0.1.0 (protocol 1), the broker is headrace 0.9.0 (protocol 2): install the \
                same version on both sides";
    assert_eq!(error.to_string(), text);
    assert!(client.poll_frame().is_some(), "HELLO");
    let goodbye = client.poll_frame().unwrap();
    let reason = GoodbyeReason::VersionMismatch as u8;
    assert_eq!(Message::decode(&goodbye), Ok(Message::Goodbye(Goodbye { reason, text })));
    let farewell = Farewell { side: Side::Client, reason: Some(GoodbyeReason::VersionMismatch), text: text.into() };
    assert_eq!(client.session(), &Session::Over(farewell));
    assert_nothing_else_was_sent(&mut client);
}

#[test]
fn nothing_comes_before_welcome_but_a_goodbye() {
    let mut client = Client::new(&hello());
    let error = client.handle_frame(results(0, &[], 0, false)).unwrap_err();
    assert_eq!(error.to_string(), "the broker sent Results before Welcome");

    let mut client = Client::new(&hello());
    let goodbye = Goodbye { reason: GoodbyeReason::VersionMismatch as u8, text: "Python 3.11 here, 3.12 there" };
    client.handle_frame(encoded(&Message::Goodbye(goodbye))).unwrap();
    let Session::Over(farewell) = client.session() else { panic!("{:?}", client.session()) };
    assert_eq!((farewell.side, farewell.reason), (Side::Broker, Some(GoodbyeReason::VersionMismatch)));
    assert_eq!(farewell.text, "Python 3.11 here, 3.12 there");
}

#[test]
fn what_ends_a_session_first_stands() {
    let mut client = open_client();
    client.handle_frame(encoded(&Message::Goodbye(Goodbye { reason: 200, text: "a newer reason" }))).unwrap();
    client.handle_disconnect();
    client.close();
    client.handle_frame(vec![1, 2, 3]).unwrap();
    let farewell = Farewell { side: Side::Broker, reason: None, text: "a newer reason".into() };
    assert_eq!(client.session(), &Session::Over(farewell));
    assert_nothing_else_was_sent(&mut client);

    let mut client = open_client();
    client.handle_disconnect();
    assert!(matches!(client.session(), Session::Over(Farewell { side: Side::Connection, .. })));

    let mut client = open_client();
    client.close();
    let goodbye = client.poll_frame().unwrap();
    assert!(matches!(Message::decode(&goodbye), Ok(Message::Goodbye(Goodbye { reason: 0, .. }))));
    assert_nothing_else_was_sent(&mut client);
}

#[test]
fn unknown_messages_are_counted_and_misplaced_ones_end_the_session() {
    let mut client = open_client();
    client.handle_frame(vec![0x92, 99, 0xc0]).unwrap();
    assert_eq!(client.statistics().frames_unknown, 1);
    let error = client.handle_frame(encoded(&Message::Forget(Forget::default()))).unwrap_err();
    assert_eq!(error, ProtocolError::NotForClients("Forget"));
    assert!(client.session().is_over());

    let mut client = open_client();
    assert_eq!(client.handle_frame(vec![0x92]), Err(ProtocolError::Frame(DecodeError::Truncated)));
    let goodbye = client.poll_frame().unwrap();
    let Ok(Message::Goodbye(goodbye)) = Message::decode(&goodbye) else { panic!("{goodbye:?}") };
    assert_eq!(goodbye.reason, GoodbyeReason::ProtocolError as u8);
    assert_eq!(goodbye.text, "a frame from the broker could not be read: the frame ends inside a value");
}

#[test]
fn commands_leave_in_their_order() {
    let mut client = open_client();
    client.open_run(1, 0);
    client.submit(&Submit { run: 1, ..Submit::default() });
    client.cancel(1, &[3, 4], false);
    client.cancel_run(1, true);
    let number = client.query(1);
    client.release(1);
    let frames: Vec<Vec<u8>> = std::iter::from_fn(|| client.poll_frame()).collect();
    let sent: Vec<Message<'_>> = frames.iter().map(|frame| Message::decode(frame).unwrap()).collect();
    let index = U32s::Words(&[3, 4]);
    let expected = [
        Message::Submit(Submit { run: 1, ..Submit::default() }),
        Message::Cancel(Cancel { run: 1, whole: false, index, spare_leased: false }),
        Message::Cancel(Cancel { run: 1, whole: true, index: U32s::default(), spare_leased: true }),
        Message::Query(Query { run: 1, number }),
        Message::Hold(Hold { run: 1, release_run: true, ..Hold::default() }),
    ];
    assert_eq!(sent, expected);
    assert_eq!(client.statistics().frames_out, 6);
}

#[test]
fn endings_of_every_kind_are_read_where_they_arrived() {
    let mut client = open_client();
    client.open_run(7, 8);
    let death = Death {
        worker: 1,
        pid: 9,
        signal: 9,
        exit_code: 0,
        attempts: 3,
        limit: 3,
        stderr: b"Killed\n",
        ..Death::default()
    };
    let died = encoded(&Message::Death(death.clone()));
    let endings: [(u32, Outcome, &[u8]); 6] = [
        (5, Outcome::Done, b"five"),
        (0, Outcome::Failed, b"record"),
        (1, Outcome::Skipped, &[7, 0, 0, 0, 0, 0, 0, 0]),
        (2, Outcome::Cancelled, &[CancelReason::ParentCancelled as u8]),
        (3, Outcome::Died, &died),
        (4, Outcome::Refused, b"no such worker"),
    ];
    let frame = results(7, &endings, 7, false);
    let bytes = frame.as_ptr_range();
    client.handle_frame(frame).unwrap();

    let expected = [
        Detail::Failed(b"record"),
        Detail::Skipped { run: 7, root: 0 },
        Detail::Cancelled(CancelReason::ParentCancelled),
        Detail::Died(death),
        Detail::Refused("no such worker"),
        Detail::Done(b"five"),
    ];
    for (index, detail) in expected.iter().enumerate() {
        let ending = client.peek(7, index as u32).unwrap();
        assert_eq!(&ending.detail(), detail);
        assert!(bytes.contains(&ending.bytes().as_ptr()), "nothing was copied");
    }
    assert!(client.has_ended(7, 5) && !client.has_ended(7, 6) && !client.has_ended(7, 8));
    assert!(client.peek(7, 6).is_none() && client.peek(7, 8).is_none() && client.peek(8, 0).is_none());
    let progress = client.progress(7).unwrap();
    let expected = Progress { tasks: 8, ended: 7, arrived: 6, failed: 3, skipped: 1, cancelled: 1, finished: false };
    assert_eq!(progress, expected);
}

#[test]
fn garbage_in_an_ending_is_refused_before_anything_is_entered() {
    let death = Message::Query(Query::default());
    let wrong_death = encoded(&death);
    for (outcome, blob) in [(Outcome::Died, &wrong_death[..]), (Outcome::Died, b"x"), (Outcome::Refused, &[0xff])] {
        let mut client = open_client();
        client.open_run(1, 2);
        let error = client.handle_frame(results(1, &[(0, Outcome::Done, b"ok"), (1, outcome, blob)], 2, true));
        assert_eq!(error, Err(ProtocolError::UnreadableEnding { run: 1, index: 1 }));
        assert!(client.peek(1, 0).is_none());
    }
    let mut client = open_client();
    client.open_run(1, 2);
    let error = client.handle_frame(results(1, &[(0, Outcome::Done, b"ok"), (2, Outcome::Done, b"")], 2, true));
    assert_eq!(error, Err(ProtocolError::NoSuchTask { run: 1, tasks: 2 }));
    assert_eq!(client.progress(1).unwrap(), Progress { tasks: 2, ..Progress::default() });
}

#[test]
fn the_first_word_on_a_task_stands_and_later_ones_are_counted() {
    let mut client = open_client();
    client.open_run(1, 2);
    client.handle_frame(results(1, &[(0, Outcome::Done, b"first")], 1, false)).unwrap();
    client.handle_frame(results(1, &[(0, Outcome::Failed, b"second"), (1, Outcome::Done, b"one")], 2, true)).unwrap();
    assert_eq!(client.peek(1, 0).unwrap().detail(), Detail::Done(b"first"));
    assert_eq!(client.arrivals(1, 0), &[0, 1]);
    client.release(1);
    client.handle_frame(results(1, &[(0, Outcome::Done, b"late")], 2, true)).unwrap();
    assert_eq!(client.statistics().endings_late, 2);
    assert_eq!((client.progress(1), client.arrivals(1, 0)), (None, &[][..]));
}

#[test]
fn readers_of_arrivals_keep_their_own_position() {
    let mut client = open_client();
    client.open_run(1, 4);
    client.handle_frame(results(1, &[(2, Outcome::Done, b""), (0, Outcome::Done, b"")], 2, false)).unwrap();
    assert_eq!(client.arrivals(1, 0), &[2, 0]);
    client.handle_frame(results(1, &[(3, Outcome::Done, b"")], 3, false)).unwrap();
    assert_eq!(client.arrivals(1, 2), &[3]);
    assert_eq!(client.arrivals(1, 3), &[]);
    assert_eq!(client.arrivals(1, 9), &[]);
    assert!(!client.has_ended(1, 1));
    client.handle_frame(results(1, &[], 4, true)).unwrap();
    assert!(client.has_ended(1, 1), "it was not kept, and the run is finished");
    assert!(client.peek(1, 1).is_none());
}

#[test]
fn a_frame_lives_as_long_as_something_in_it_is_wanted() {
    let mut client = open_client();
    client.open_run(1, 2);
    client.handle_frame(results(1, &[(0, Outcome::Done, b"aa"), (1, Outcome::Done, b"bb")], 2, true)).unwrap();
    let first = client.take_value(1, 0).unwrap();
    assert!(client.take_value(1, 0).is_none() && client.peek(1, 0).is_none() && client.has_ended(1, 0));
    assert_eq!(client.peek(1, 1).unwrap().bytes(), b"bb");
    let second = client.take_value(1, 1).unwrap();
    assert_eq!((first.bytes(), second.bytes()), (&b"aa"[..], &b"bb"[..]));
    let frame = Arc::downgrade(first.frame());
    drop((first, second));
    assert!(frame.upgrade().is_none(), "the table has let go of it");
    assert!(client.has_ended(1, 0), "taken is ended still");
}

#[test]
fn a_call_is_answered_told_once_and_forgotten() {
    let mut client = open_client();
    let (first, second) = (client.open_call().unwrap(), client.open_call().unwrap());
    client
        .handle_frame(results(CALLS, &[(second, Outcome::Done, b"b"), (first, Outcome::Done, b"a")], 2, false))
        .unwrap();
    assert_eq!([client.poll_ended_call(), client.poll_ended_call()], [Some(second), Some(first)]);
    assert_eq!(client.poll_ended_call(), None);
    assert_eq!(client.peek(CALLS, first).unwrap().bytes(), b"a");
    assert_eq!(client.take_value(CALLS, first).unwrap().bytes(), b"a");
    assert!(client.peek(CALLS, first).is_none() && client.has_ended(CALLS, first));
    client.forget_call(first);
    client.forget_call(second);
    client.forget_call(second);
    assert!(!client.has_ended(CALLS, first));
    assert_eq!((client.statistics().calls_open, client.statistics().holds_waiting), (0, 2));
    assert_nothing_else_was_sent(&mut client);
    client.flush_holds();
    assert_eq!(sent_holds(&mut client), [(CALLS, vec![], vec![first, second], false)]);
    let progress = Progress { tasks: 2, ended: 2, arrived: 2, ..Progress::default() };
    assert_eq!(client.progress(CALLS), Some(progress));
}

#[test]
fn a_call_forgotten_before_its_end_is_let_go_at_once() {
    let mut client = open_client();
    let call = client.open_call().unwrap();
    client.forget_call(call);
    assert_eq!(sent_holds(&mut client), [(CALLS, vec![], vec![call], false)]);
    client.handle_frame(results(CALLS, &[(call, Outcome::Done, b"late")], 1, false)).unwrap();
    assert_eq!((client.statistics().endings_late, client.poll_ended_call()), (1, None));
}

#[test]
fn a_small_value_does_not_keep_a_large_frame_alive() {
    let mut client = open_client();
    let (small, large) = (client.open_call().unwrap(), client.open_call().unwrap());
    let bytes = vec![7; 10_000];
    client
        .handle_frame(results(CALLS, &[(small, Outcome::Done, b"s"), (large, Outcome::Done, &bytes)], 2, false))
        .unwrap();
    assert_eq!(client.peek(CALLS, small).unwrap().frame().len(), 1);
    let large = client.peek(CALLS, large).unwrap();
    assert!(large.bytes() == bytes && large.frame().len() > 10_000);
}

#[test]
fn what_is_left_of_a_frame_does_not_keep_it_alive() {
    let mut client = open_client();
    client.open_run(1, 4);
    let long = vec![7; 10_000];
    let endings = [(0, Outcome::Done, &b"zero"[..]), (1, Outcome::Done, &long), (2, Outcome::Done, &long)];
    client.handle_frame(results(1, &endings, 3, false)).unwrap();
    let kept = |client: &Client| client.peek(1, 0).unwrap().frame().len();
    assert!(kept(&client) > 20_000);
    client.take_value(1, 1).unwrap();
    assert!(kept(&client) > 20_000, "half of it is needed");
    // A frame of long values, of which one is new.
    client.handle_frame(moved(1, &[(1, long.clone()), (2, b"two".to_vec()), (99, b"none".to_vec())])).unwrap();
    assert!(kept(&client) < 100);
    for (index, bytes) in [(0, &b"zero"[..]), (2, b"two")] {
        let ending = client.peek(1, index).unwrap();
        assert!(ending.bytes() == bytes && ending.frame().len() < 100, "{index}");
    }
}

#[test]
fn calls_in_sequence_leave_memory_flat() {
    let calls = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut client = open_client();
    for call in 0..calls {
        assert_eq!(client.open_call(), Some(call));
        client.handle_frame(results(CALLS, &[(call, Outcome::Done, b"value")], u64::from(call) + 1, false)).unwrap();
        assert_eq!(client.peek(CALLS, call).unwrap().bytes(), b"value");
        client.forget_call(call);
        if let Some(frame) = client.poll_frame() {
            let Ok(Message::Hold(hold)) = Message::decode(&frame) else { panic!("{frame:?}") };
            assert_eq!(hold.remove.len(), 64);
        }
    }
    assert!(client.statistics().holds_waiting < 64);
    assert_eq!(client.statistics().calls_open, 0);
    assert!(client.calls.capacity() < 256, "{}", client.calls.capacity());
    assert!(client.out.capacity() < 64);
}

#[test]
fn refs_are_counted_before_their_run_is_released() {
    let mut client = open_client();
    client.open_run(1, 3);
    client.open_run(2, 1);
    client.hold(1, 2);
    client.hold(2, 0);
    client.hold(1, 2);
    assert_nothing_else_was_sent(&mut client);
    client.release(1);
    assert_eq!(sent_holds(&mut client), [(1, vec![2, 2], vec![], true), (2, vec![0], vec![], false)]);
    client.release(1);
    client.unhold(1, 2);
    assert_eq!(sent_holds(&mut client), [(1, vec![], vec![2], false)], "of unknown size: at once");
}

#[test]
fn holds_of_small_results_wait_for_company_and_large_ones_do_not() {
    let mut client = open_client();
    client.open_run(1, 2);
    let large = vec![0; 2 << 20];
    client.handle_frame(results(1, &[(0, Outcome::Done, b"s"), (1, Outcome::Done, &large)], 2, true)).unwrap();
    client.unhold(1, 0);
    assert_nothing_else_was_sent(&mut client);
    client.unhold(1, 1);
    assert_eq!(sent_holds(&mut client), [(1, vec![], vec![0, 1], false)]);
    (0..64).for_each(|_| client.hold(1, 0));
    assert_eq!(sent_holds(&mut client), [(1, vec![0; 64], vec![], false)]);
}

#[test]
fn answers_find_their_questions() {
    let mut client = open_client();
    let (first, second, third) = (client.query(0), client.query(1), client.query(1));
    let answer = |number| {
        encoded(&Message::State(State { run: 1, number, done: 12, worker: U32s::default(), ..State::default() }))
    };
    client.forget_question(third);
    for number in [second, third, 1_000] {
        client.handle_frame(answer(number)).unwrap();
    }
    assert!(client.take_reply(first).is_none() && client.take_reply(third).is_none());
    assert!(client.take_reply(1_000).is_none());
    assert_eq!(client.take_reply(second).unwrap().state().unwrap().done, 12);
    assert!(client.take_reply(second).is_none());
}

pub(super) fn hear(client: &mut Client, log: Log<'_>) {
    client.handle_frame(encoded(&Message::Log(log))).unwrap();
}

#[test]
fn log_lines_wait_in_order_and_the_oldest_go_first() {
    let mut client = open_client();
    let mut lines = |text: &[u8]| hear(&mut client, Log { worker: 1, stream: 2, text, ..Log::default() });
    lines(b"old\n");
    lines(&[&vec![b'a'; 3 << 20][..], b"\n"].concat());
    lines(&[&vec![b'b'; (1 << 20) - 2][..], b"\n"].concat());
    assert_eq!(client.statistics().log_bytes_dropped, 4);
    assert_eq!(client.poll_log().unwrap().text[0], b'a');
    let LogLines { worker, stream, text } = client.poll_log().unwrap();
    assert_eq!((worker, stream, text[0]), (1, 2, b'b'));
    assert_eq!(client.poll_log(), None);
}

fn moved(run: u32, results: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let index: Vec<u32> = results.iter().map(|(index, _)| *index).collect();
    let mut values = BlobsBuf::default();
    results.iter().for_each(|(_, value)| values.push(value));
    encoded(&Message::Moved(Moved { run, index: (&index).into(), values: values.as_blobs() }))
}

/// Mostly short, so that few others keep long ones alive.
fn blob() -> impl Strategy<Value = Vec<u8>> {
    let long = prop::collection::vec(any::<u8>(), 1..9).prop_map(|bytes| bytes.repeat(300));
    prop_oneof![5 => prop::collection::vec(any::<u8>(), 0..30), 1 => long]
}

proptest! {
    /// Any endings in any frames, taken or not, and moved or not: the table says what a plain map says.
    #[test]
    fn the_table_agrees_with_a_plain_map(
        frames in prop::collection::vec(prop::collection::vec((0..40_u32, blob(), any::<bool>()), 0..12), 0..12),
        moves in prop::collection::vec(prop::collection::vec((0..44_u32, blob()), 0..12), 12),
    ) {
        let mut client = open_client();
        client.open_run(1, 40);
        (0..40).for_each(|call| assert_eq!(client.open_call(), Some(call)));
        let mut model: BTreeMap<u32, Option<&[u8]>> = BTreeMap::new();
        let mut order = Vec::new();
        for (frame, moves) in frames.iter().zip(&moves) {
            let endings: Vec<(u32, Outcome, &[u8])> =
                frame.iter().map(|(index, blob, _)| (*index, Outcome::Done, &blob[..])).collect();
            client.handle_frame(results(1, &endings, 0, false)).unwrap();
            client.handle_frame(results(CALLS, &endings, 0, false)).unwrap();
            for (index, _, blob) in endings {
                model.entry(index).or_insert_with(|| {
                    order.push(index);
                    Some(blob)
                });
            }
            client.handle_frame(moved(1, moves)).unwrap();
            client.handle_frame(moved(CALLS, moves)).unwrap();
            for (index, blob) in moves {
                if let Some(held @ Some(_)) = model.get_mut(index) {
                    *held = Some(blob);
                }
            }
            for (index, ..) in frame.iter().filter(|ending| ending.2) {
                let expected = model.insert(*index, None).flatten();
                for run in [1, CALLS] {
                    let taken = client.take_value(run, *index);
                    prop_assert_eq!(taken.as_ref().map(Ending::bytes), expected);
                }
            }
            for index in 0..41 {
                for run in [1, CALLS] {
                    let ending = client.peek(run, index);
                    prop_assert_eq!(ending.as_ref().map(Ending::bytes), model.get(&index).copied().flatten());
                    prop_assert_eq!(client.has_ended(run, index), model.contains_key(&index));
                }
            }
            prop_assert_eq!(client.arrivals(1, 0), &order[..]);
        }
        let calls: Vec<u32> = std::iter::from_fn(|| client.poll_ended_call()).collect();
        prop_assert_eq!(calls, order);
    }
}
