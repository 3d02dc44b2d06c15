//! The segments of shared memory that a process has mapped, and the news of them that come beside the frames.
//!
//! The broker creates every segment and keeps its descriptor. To a worker the news travel over the control socket, with the
//! descriptor, and its warden takes them in; to an embedded client they are handed over in memory. Whoever needs a segment
//! waits here until it has come: it was sent before the frame that cites it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headrace_protocol::broker::SegmentNews;
use headrace_sys::segment::Segment;
use headrace_wire::FILE_SEGMENTS;

/// All maps of one process.
#[derive(Debug, Default)]
pub struct Segments {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    maps: BTreeMap<u32, Arc<Segment>>,
    /// Segments of others that came and could not be mapped, and why.
    unusable: BTreeMap<u32, String>,
    /// By address of its first byte, the number of each map that is there.
    by_address: BTreeMap<usize, u32>,
    answers: VecDeque<Answer>,
    closed: bool,
}

/// What became of a wish for a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// This one is granted, and mapped.
    Granted {
        /// Its number.
        segment: u32,
        /// Its size.
        bytes: u64,
    },
    /// This one is granted and of no use, and why; it is to be given back.
    Unusable {
        /// Its number.
        segment: u32,
        /// Why.
        text: String,
    },
    /// There will be none: the session has ended.
    Closed,
    /// There is no room, and why.
    Refused(String),
}

/// Why there is no map of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// It has not come.
    NotHere,
    /// It has come and could not be mapped, and why.
    Unusable(String),
}

impl Segments {
    /// Takes in what the broker says, with the descriptor of a segment that is granted or shared.
    pub fn handle(&self, news: SegmentNews, fd: Option<OwnedFd>) {
        let mut state = self.lock();
        match (news, fd) {
            (SegmentNews::Granted { segment, bytes }, Some(fd)) => match Segment::map(fd, bytes, true) {
                Ok(map) => {
                    state.enter(segment, map);
                    state.answers.push_back(Answer::Granted { segment, bytes });
                }
                Err(error) => state.answers.push_back(unusable(segment, bytes, &error)),
            },
            (SegmentNews::Shared { segment, bytes }, Some(fd)) => {
                let map =
                    if segment < FILE_SEGMENTS { Segment::map(fd, bytes, false) } else { Segment::map_file(fd, bytes) };
                match map {
                    Ok(map) => state.enter(segment, map),
                    Err(error) => drop(state.unusable.insert(segment, why_not_mapped(bytes, &error))),
                }
            }
            (SegmentNews::Granted { segment, bytes }, None) => {
                state.answers.push_back(unusable(segment, bytes, &did_not_come()));
            }
            (SegmentNews::Shared { segment, bytes }, None) => {
                state.unusable.insert(segment, why_not_mapped(bytes, &did_not_come()));
            }
            (SegmentNews::Refused { text }, _) => state.answers.push_back(Answer::Refused(text)),
            (SegmentNews::Dropped { segment }, _) => state.leave(segment),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The broker is gone: nothing more will come. The maps stay for results that are still to be read.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Forgets all maps: no result is left that cites them. Who looks at one keeps it.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.by_address.clear();
        let maps = std::mem::take(&mut state.maps);
        drop(state);
        drop(maps);
    }

    /// Gives pages of an own segment back to the system. Should that fail, they are back with the segment.
    pub fn punch(&self, segment: u32, range: Range<u64>) {
        let map = self.lock().maps.get(&segment).cloned();
        let _ = map.map(|map| map.punch(range.start, range.end - range.start));
    }

    /// The map of a segment; waits for it.
    ///
    /// # Errors
    /// [`Missing`], if it has not come in time or could not be mapped. The broker sends it once more if it is asked, after
    /// [`Segments::expect`].
    pub fn map(&self, segment: u32, timeout: Duration) -> Result<Arc<Segment>, Missing> {
        let state = self.lock();
        let missing = |state: &mut State| {
            !state.closed && !state.maps.contains_key(&segment) && !state.unusable.contains_key(&segment)
        };
        let (state, _) =
            self.changed.wait_timeout_while(state, timeout, missing).unwrap_or_else(PoisonError::into_inner);
        match state.maps.get(&segment) {
            Some(map) => Ok(Arc::clone(map)),
            None => Err(state.unusable.get(&segment).cloned().map_or(Missing::NotHere, Missing::Unusable)),
        }
    }

    /// Forgets that a segment could not be mapped: it will come once more.
    pub fn expect(&self, segment: u32) {
        self.lock().unusable.remove(&segment);
    }

    /// The next answer to a wish; `None` if there is none in time.
    #[must_use]
    pub fn answer(&self, timeout: Duration) -> Option<Answer> {
        let state = self.lock();
        let none = |state: &mut State| !state.closed && state.answers.is_empty();
        let (mut state, _) =
            self.changed.wait_timeout_while(state, timeout, none).unwrap_or_else(PoisonError::into_inner);
        let closed = state.closed;
        state.answers.pop_front().or_else(|| closed.then_some(Answer::Closed))
    }

    /// The segment that has all of these bytes of this process's memory, and where they start in it.
    #[must_use]
    pub fn find(&self, address: usize, bytes: usize) -> Option<(u32, u64)> {
        let state = self.lock();
        let (_, &number) = state.by_address.range(..=address).next_back()?;
        let map = &state.maps[&number];
        let offset = map.offset_of(address)?;
        (offset + bytes as u64 <= map.len()).then_some((number, offset))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, number: u32, map: Segment) {
        self.unusable.remove(&number);
        if self.maps.contains_key(&number) {
            return; // it was asked for by several threads
        }
        self.by_address.insert(map.at(0).addr().get(), number);
        self.maps.insert(number, Arc::new(map));
    }

    fn leave(&mut self, number: u32) {
        self.unusable.remove(&number);
        if let Some(map) = self.maps.remove(&number) {
            self.by_address.remove(&map.at(0).addr().get());
        }
    }
}

fn unusable(segment: u32, bytes: u64, error: &io::Error) -> Answer {
    Answer::Unusable { segment, text: why_not_mapped(bytes, error) }
}

fn why_not_mapped(bytes: u64, error: &io::Error) -> String {
    format!("a segment of {bytes} bytes of shared memory cannot be mapped: {error}")
}

fn did_not_come() -> io::Error {
    io::Error::other("its descriptor did not come; has this process too many open files?")
}

/// First byte of a message on the control socket; a number, a size or a text follows.
const GRANTED: u8 = 1;
const SHARED: u8 = 2;
const REFUSED: u8 = 3;
const DROPPED: u8 = 4;

/// News as a message for the control socket.
#[must_use]
pub(crate) fn encode(news: &SegmentNews, bytes_max: usize) -> Vec<u8> {
    let numbered =
        |kind: u8, segment: u32, bytes: u64| [&[kind][..], &segment.to_le_bytes(), &bytes.to_le_bytes()].concat();
    match news {
        SegmentNews::Granted { segment, bytes } => numbered(GRANTED, *segment, *bytes),
        SegmentNews::Shared { segment, bytes } => numbered(SHARED, *segment, *bytes),
        SegmentNews::Dropped { segment } => numbered(DROPPED, *segment, 0),
        SegmentNews::Refused { text } => {
            let mut message = [&[REFUSED][..], text.as_bytes()].concat();
            message.truncate(bytes_max);
            message
        }
    }
}

/// A message of the control socket as news; `None` for what this version does not know.
#[must_use]
pub(crate) fn decode(message: &[u8]) -> Option<SegmentNews> {
    let (&kind, rest) = message.split_first()?;
    if kind == REFUSED {
        return Some(SegmentNews::Refused { text: String::from_utf8_lossy(rest).into_owned() });
    }
    let (segment, rest) = rest.split_first_chunk()?;
    let (bytes, _) = rest.split_first_chunk()?;
    let (segment, bytes) = (u32::from_le_bytes(*segment), u64::from_le_bytes(*bytes));
    match kind {
        GRANTED => Some(SegmentNews::Granted { segment, bytes }),
        SHARED => Some(SegmentNews::Shared { segment, bytes }),
        DROPPED => Some(SegmentNews::Dropped { segment }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_survive_the_control_socket() {
        for news in [
            SegmentNews::Granted { segment: 7, bytes: 1 << 40 },
            SegmentNews::Shared { segment: 8, bytes: 4_096 },
            SegmentNews::Dropped { segment: 9 },
            SegmentNews::Refused { text: "no room".to_owned() },
        ] {
            assert_eq!(decode(&encode(&news, 256)), Some(news));
        }
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&[99, 0, 0]), None);
    }

    #[test]
    fn a_segment_without_its_descriptor_can_come_once_more() {
        let segments = Segments::default();
        let shared = SegmentNews::Shared { segment: 3, bytes: 8_192 };
        let fd = headrace_sys::segment::create(8_192).unwrap();
        segments.handle(shared.clone(), None);
        let missing = segments.map(3, Duration::from_secs(9)).unwrap_err();
        assert!(matches!(missing, Missing::Unusable(text) if text.contains("too many open files")));
        assert!(matches!(segments.map(3, Duration::ZERO), Err(Missing::Unusable(_))), "until it is to come again");
        segments.expect(3);
        assert_eq!(segments.map(3, Duration::ZERO).unwrap_err(), Missing::NotHere);
        let small = headrace_sys::segment::create(4_096).unwrap();
        segments.handle(shared.clone(), Some(small));
        segments.handle(shared.clone(), Some(fd.try_clone().unwrap()));
        let start = segments.map(3, Duration::ZERO).unwrap().at(0).addr().get();
        segments.handle(shared, Some(fd));
        assert_eq!(segments.map(3, Duration::ZERO).unwrap().at(0).addr().get(), start, "two may have asked");
        segments.handle(SegmentNews::Dropped { segment: 3 }, None);
        assert_eq!(segments.find(start, 1), None);
    }

    #[test]
    fn a_granted_segment_answers_and_is_found_by_address() {
        let segments = Segments::default();
        let fd = headrace_sys::segment::create(8_192).unwrap();
        segments.handle(SegmentNews::Granted { segment: 3, bytes: 8_192 }, Some(fd));
        assert_eq!(segments.answer(Duration::ZERO), Some(Answer::Granted { segment: 3, bytes: 8_192 }));
        let start = segments.map(3, Duration::ZERO).unwrap().at(0).addr().get();
        assert_eq!(segments.find(start + 100, 50), Some((3, 100)));
        assert_eq!(segments.find(start + 8_000, 500), None);
        segments.handle(SegmentNews::Dropped { segment: 3 }, None);
        assert_eq!(segments.find(start + 100, 50), None);
        assert_eq!(segments.map(3, Duration::ZERO).unwrap_err(), Missing::NotHere);
        segments.close();
        assert_eq!(segments.answer(Duration::from_secs(9)), Some(Answer::Closed));
    }
}
