//! Whatever is encoded comes back, and nothing short of all of it does.

mod strategies;
mod walk;

use headrace_wire::{DecodeError, Message};
use proptest::prelude::*;

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

proptest! {
    #[test]
    fn a_message_survives_the_round_trip(message in strategies::message()) {
        let frame = encoded(&message);
        let decoded = Message::decode(&frame).unwrap();
        prop_assert_eq!(&decoded, &message);
        prop_assert_eq!(walk::walk(&decoded), walk::walk(&message));
        prop_assert_eq!(encoded(&decoded), frame);
    }

    #[test]
    fn encode_appends_and_leaves_what_was_there(message in strategies::message(), before in any::<[u8; 3]>()) {
        let mut out = before.to_vec();
        message.encode(&mut out);
        prop_assert_eq!(&out[..3], &before);
        prop_assert_eq!(&out[3..], encoded(&message));
    }

    #[test]
    fn no_proper_prefix_is_a_message(message in strategies::message()) {
        let frame = encoded(&message);
        for len in 0..frame.len() {
            prop_assert_eq!(Message::decode(&frame[..len]), Err(DecodeError::Truncated), "{} of {}", len, frame.len());
        }
    }

    #[test]
    fn no_message_has_a_tail(message in strategies::message(), tail in 1..9_usize) {
        let mut frame = encoded(&message);
        frame.resize(frame.len() + tail, 0xc0);
        prop_assert_eq!(Message::decode(&frame), Err(DecodeError::Trailing(tail)));
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_another_message(message in strategies::message()) {
        let mut frame = encoded(&message);
        for bit in 0..8 * frame.len() {
            frame[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Message::decode(&frame) {
                walk::walk(&other);
                prop_assert_ne!(encoded(&other), encoded(&message));
            }
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
