//! Fetching bytes from other machines: a window of requests for each copy, and where the replies go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use headrace_protocol::broker::CopyPart;
use headrace_sys::poll::PollFd;
use headrace_sys::zmq::{Context, Dealer, Key, Monitor, OwnKeys, PeerKeys, SendError, Sight, ZmqError};

use super::chunk::{CHUNK_BYTES, HERE, Request};
use super::{CopyJob, FRAMES_A_TURN, Tract};

/// Requests of one copy that are on their way.
const WINDOW: usize = 8;
/// How long a connection may take.
const CONNECTED: Duration = Duration::from_secs(5);
/// How long a copy may go without a byte, how long a source may not know its segment, and the pause before it is asked again.
const STALLED: Duration = Duration::from_secs(15);
const UNKNOWN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(20);
/// Damaged replies after which a source is given up.
const FAULTS_MAX: u32 = 3;

pub(super) struct Fetcher {
    context: Context,
    keys: OwnKeys,
    /// Connections, by endpoint.
    links: HashMap<String, Link>,
    jobs: BTreeMap<u64, Fetch>,
    ended: Vec<(u64, Result<(), String>)>,
}

struct Link {
    key: Key,
    dealer: Dealer,
    monitor: Monitor,
}

/// One copy.
struct Fetch {
    endpoint: String,
    parts: Vec<CopyPart>,
    /// By number: the part, and where in it.
    chunks: Vec<Chunk>,
    /// Chunks to ask for.
    wanted: VecDeque<u32>,
    asked: usize,
    left: usize,
    /// When a byte came last, and since when the source has not known the segment.
    progress: Instant,
    unknown: Option<Instant>,
    pause: Option<Instant>,
    faults: u32,
    /// It waits for another source.
    failed: bool,
}

struct Chunk {
    part: u32,
    at: u64,
    len: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Missing,
    Asked,
    Here,
}

impl Fetcher {
    pub(super) fn new(context: Context, keys: OwnKeys) -> Self {
        Fetcher { context, keys, links: HashMap::new(), jobs: BTreeMap::new(), ended: Vec::new() }
    }

    /// Begins a copy, goes on with it, or gives it up.
    pub(super) fn begin(&mut self, job: CopyJob, segments: &mut HashMap<u32, Tract>, now: Instant) {
        let CopyJob { number, endpoint, key, parts } = job;
        if parts.is_empty() {
            self.jobs.remove(&number);
            return self.ended.push((number, Err("it was given up".to_owned())));
        }
        if let Err(text) = self.connect(&endpoint, &key) {
            return self.ended.push((number, Err(text)));
        }
        let fetch = self.jobs.entry(number).or_insert_with(|| {
            for part in &parts {
                let present = segments.get_mut(&part.to.0).and_then(|tract| tract.present.as_mut());
                present.into_iter().for_each(|present| present.remove(part.to.1..part.to.1 + part.bytes));
            }
            Fetch::new(&parts, now)
        });
        (fetch.endpoint, fetch.parts, fetch.failed) = (endpoint, parts, false);
        (fetch.progress, fetch.unknown, fetch.faults) = (now, None, 0);
        fetch.ask_again();
    }

    fn connect(&mut self, endpoint: &str, key: &str) -> Result<(), String> {
        let key = Key::parse(key).ok_or("the other machine has no key")?;
        if self.links.get(endpoint).is_some_and(|link| link.key == key) {
            return Ok(());
        }
        let name = format!("x-{:016x}", RandomState::new().build_hasher().finish());
        let keys = PeerKeys { own: self.keys.clone(), broker: key };
        let made = Dealer::connect_watched(&self.context, endpoint, name.as_bytes(), Some(&keys));
        let (dealer, monitor) = made.map_err(|error| error.to_string())?;
        self.links.insert(endpoint.to_owned(), Link { key, dealer, monitor });
        Ok(())
    }

    /// A machine has left.
    pub(super) fn expel(&mut self, key: &Key) {
        self.links.retain(|_, link| link.key != *key);
    }

    /// Takes in what has come, and asks for more. Whether bytes have come.
    pub(super) fn turn(&mut self, segments: &mut HashMap<u32, Tract>, now: Instant) -> Result<bool, ZmqError> {
        let mut has_news = false;
        let endpoints: Vec<String> = self.links.keys().cloned().collect();
        for endpoint in &endpoints {
            let Some(link) = self.links.get_mut(endpoint) else { continue };
            let mut broke = false;
            while let Some(sight) = link.monitor.poll()? {
                broke |= sight != Sight::Up;
            }
            if broke {
                // What was asked is lost.
                let there = self.jobs.values_mut().filter(|fetch| fetch.endpoint == *endpoint);
                there.for_each(Fetch::ask_again);
            }
            for _ in 0..FRAMES_A_TURN {
                let Some((head, body)) = link.dealer.try_recv_pair()? else { break };
                let body = body.as_deref().unwrap_or_default();
                has_news |= take_in(&mut self.jobs, &mut self.ended, (&head, body), segments, now);
            }
        }
        self.jobs.retain(|_, fetch| fetch.left > 0);
        for (number, fetch) in &mut self.jobs {
            if fetch.failed {
                continue;
            }
            let is_unknown = fetch.unknown.is_some_and(|since| now > since + UNKNOWN);
            let is_cut_off = fetch.asked == 0 && !fetch.wanted.is_empty() && now > fetch.progress + CONNECTED;
            if is_unknown || is_cut_off || fetch.faults > FAULTS_MAX || now > fetch.progress + STALLED {
                let why = match (is_unknown, is_cut_off) {
                    (true, _) => "its source is gone",
                    (_, true) => "there is no connection to its source",
                    _ => "nothing came, or nothing good",
                };
                self.ended.push((*number, Err(format!("{why} ({})", fetch.endpoint))));
                fetch.failed = true;
                continue;
            }
            match self.links.get_mut(&fetch.endpoint) {
                Some(link) => fetch.ask(*number, &mut link.dealer, now)?,
                None => {
                    self.ended.push((*number, Err("the machine that it came from has left".to_owned())));
                    fetch.failed = true;
                }
            }
        }
        Ok(has_news)
    }

    pub(super) fn take_ended(&mut self) -> Vec<(u64, Result<(), String>)> {
        std::mem::take(&mut self.ended)
    }

    /// Whether something is to be asked that could not be.
    pub(super) fn is_blocked(&self) -> bool {
        self.jobs.values().any(|fetch| !fetch.failed && fetch.asked < WINDOW && !fetch.wanted.is_empty())
    }

    pub(super) fn has_input(&mut self) -> bool {
        self.links.values_mut().any(|link| link.dealer.has_input().unwrap_or(false))
    }

    pub(super) fn poll_fds(&self, fds: &mut Vec<PollFd>) {
        fds.extend(self.links.values().flat_map(|link| [link.dealer.fd(), link.monitor.fd()]).map(PollFd::input));
    }
}

impl Fetch {
    fn new(parts: &[CopyPart], now: Instant) -> Self {
        let mut chunks = Vec::new();
        for (number, part) in (0..).zip(parts) {
            for at in (0..part.bytes).step_by(CHUNK_BYTES as usize) {
                let len = (part.bytes - at).min(CHUNK_BYTES.into()) as u32;
                chunks.push(Chunk { part: number, at, len, state: State::Missing });
            }
        }
        Fetch {
            endpoint: String::new(),
            parts: Vec::new(),
            left: chunks.len(),
            chunks,
            wanted: VecDeque::new(),
            asked: 0,
            progress: now,
            unknown: None,
            pause: None,
            faults: 0,
            failed: false,
        }
    }

    /// All that is missing is to be asked for.
    fn ask_again(&mut self) {
        for chunk in &mut self.chunks {
            if chunk.state == State::Asked {
                chunk.state = State::Missing;
            }
        }
        let missing = (0..).zip(&self.chunks).filter(|(_, chunk)| chunk.state == State::Missing);
        self.wanted = missing.map(|(number, _)| number).collect();
        self.asked = 0;
    }

    fn ask(&mut self, job: u64, dealer: &mut Dealer, now: Instant) -> Result<(), ZmqError> {
        if self.pause.is_some_and(|until| now < until) {
            return Ok(());
        }
        self.pause = None;
        while self.asked < WINDOW
            && let Some(&number) = self.wanted.front()
        {
            let chunk = &mut self.chunks[number as usize];
            let part = &self.parts[chunk.part as usize];
            let request =
                Request { job, chunk: number, segment: part.from.0, offset: part.from.1 + chunk.at, len: chunk.len };
            let mut frame = Vec::new();
            request.write(&mut frame);
            match dealer.send(&mut frame) {
                Ok(()) => {}
                // It has no connection yet.
                Err(SendError::WouldBlock | SendError::Unreachable) => return Ok(()),
                Err(SendError::Failed(error)) => return Err(error),
            }
            self.wanted.pop_front();
            (chunk.state, self.asked) = (State::Asked, self.asked + 1);
        }
        Ok(())
    }
}

/// Puts the bytes of a reply in their place. Whether some came.
fn take_in(
    jobs: &mut BTreeMap<u64, Fetch>,
    ended: &mut Vec<(u64, Result<(), String>)>,
    (head, bytes): (&[u8], &[u8]),
    segments: &mut HashMap<u32, Tract>,
    now: Instant,
) -> bool {
    let Some((request, [how])) = Request::read(head) else { return false };
    let Some(fetch) = jobs.get_mut(&request.job).filter(|fetch| !fetch.failed) else { return false };
    let Some(chunk) = fetch.chunks.get_mut(request.chunk as usize).filter(|chunk| chunk.state == State::Asked) else {
        return false;
    };
    let part = fetch.parts[chunk.part as usize];
    if (request.segment, request.offset) != (part.from.0, part.from.1 + chunk.at) {
        return false; // the answer of a source of before
    }
    fetch.asked -= 1;
    let is_good = *how == HERE && bytes.len() == chunk.len as usize;
    if !is_good {
        chunk.state = State::Missing;
        fetch.wanted.push_front(request.chunk);
        match *how {
            HERE => fetch.faults += 1,
            // It may not have been told yet what it is to have.
            _ => {
                fetch.unknown.get_or_insert(now);
                fetch.pause = Some(now + PAUSE);
            }
        }
        return false;
    }
    let to = part.to.1 + chunk.at;
    let Some(tract) = segments.get_mut(&part.to.0) else {
        fetch.left = 0;
        ended.push((request.job, Err("the segment for it could not be made".to_owned())));
        return false;
    };
    if let Err(error) = tract.file.write_all_at(bytes, to) {
        fetch.left = 0;
        ended.push((request.job, Err(format!("there is no memory for it: {error}"))));
        return false;
    }
    if let Some(present) = &mut tract.present {
        present.insert(to..to + bytes.len() as u64);
    }
    chunk.state = State::Here;
    (fetch.progress, fetch.unknown) = (now, None);
    fetch.left -= 1;
    if fetch.left == 0 {
        ended.push((request.job, Ok(())));
    }
    true
}
