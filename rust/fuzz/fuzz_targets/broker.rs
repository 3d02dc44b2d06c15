//! Any script: peers of every kind send anything to a broker, processes die, time passes; nothing breaks, nothing is left.
#![no_main]

#[path = "../../protocol/tests/siege/mod.rs"]
mod siege;

libfuzzer_sys::fuzz_target!(|script: &[u8]| siege::besiege(script));
