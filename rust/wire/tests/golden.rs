//! The golden frames: one frame of every message, as bytes that no change may alter.
//!
//! `HEADRACE_WRITE_GOLDEN=1 cargo test -p headrace-wire --test golden` writes those that do not exist yet; to change one
//! on purpose, delete it first. The readable twin of each, a `.json`, is written by hand; `tests/unit/test_golden_frames.py`
//! builds the same bytes from it with Python's msgpack.

mod samples;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use headrace_wire::Message;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    message.encode(&mut frame);
    frame
}

#[test]
fn every_golden_frame_is_what_is_written_and_read_today() {
    for (name, message) in samples::samples() {
        let path = folder().join(name).with_extension("bin");
        if std::env::var_os("HEADRACE_WRITE_GOLDEN").is_some() && !path.exists() {
            std::fs::write(&path, encoded(&message)).unwrap();
        }
        let frame = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(encoded(&message), frame, "{name}: today's frame differs from the golden one");
        let decoded = Message::decode(&frame).unwrap();
        assert_eq!(decoded, message, "{name}");
        assert_eq!(encoded(&decoded), frame, "{name}: decoded and encoded again");
    }
}

#[test]
fn there_is_one_golden_frame_of_every_type_and_none_besides() {
    let found: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let samples = samples::samples();
    assert_eq!(found, samples.iter().map(|(name, _)| (*name).to_owned()).collect());
    let types: BTreeSet<u8> = samples.iter().map(|(_, message)| message.type_number()).collect();
    assert_eq!(
        types,
        BTreeSet::from([
            1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35,
            36, 37, 40, 41, 50, 51, 52, 53, 54
        ])
    );
}
