//! Any bytes: an error, or a message that can be used and encoded again.
#![no_main]

#[path = "../../wire/tests/walk/mod.rs"]
mod walk;

use headrace_wire::Message;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| {
    let Ok(message) = Message::decode(frame) else { return };
    walk::walk(&message);
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
});
