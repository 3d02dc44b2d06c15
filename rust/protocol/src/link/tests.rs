//! Links told as stories, and thrown into a network that does everything wrong.

use super::{End, Event, Limits, Link, Listener};
use proptest::prelude::*;
use std::collections::BTreeMap;

const ROUTE: u64 = 5;
const MS: u64 = 1_000_000;

/// Two ends and what is between them.
struct Story {
    link: Link,
    listener: Listener,
    now_ns: u64,
    /// What the listener's side heard, and how sessions ended.
    heard: Vec<Vec<u8>>,
    ended: Vec<End>,
    session: u64,
}

impl Story {
    fn new(limits: Limits) -> Self {
        let (link, listener) = (Link::dial(limits, 77, 0), Listener::new(limits, 1_000));
        Story { link, listener, now_ns: 0, heard: Vec::new(), ended: Vec::new(), session: 1_000 }
    }

    /// One whose session is open.
    fn open() -> Self {
        let mut story = Story::new(Limits::default());
        story.exchange();
        assert_eq!((story.up(), story.down()), (vec![], vec![]));
        story
    }

    /// Packets that the dialer sends now.
    fn up(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.link.poll_packet(self.now_ns)).collect()
    }

    /// Packets that the listener sends now.
    fn down(&mut self) -> Vec<Vec<u8>> {
        let packets = std::iter::from_fn(|| self.listener.poll_packet(self.now_ns));
        packets.map(|(route, packet)| (route == ROUTE).then_some(packet).expect("there is one route")).collect()
    }

    fn arrive_up(&mut self, packet: &[u8]) {
        self.listener.handle_packet(ROUTE, packet, self.now_ns);
        self.listen();
    }

    fn listen(&mut self) {
        while let Some(event) = self.listener.poll_event() {
            match event {
                Event::Frame { frame, .. } => self.heard.push(frame),
                Event::Ended { end, .. } => self.ended.push(end),
            }
        }
    }

    fn arrive_down(&mut self, packet: &[u8]) {
        self.link.handle_packet(packet, self.now_ns);
    }

    /// Lets everything arrive until nobody has anything to say.
    fn exchange(&mut self) {
        loop {
            let (up, down) = (self.up(), self.down());
            if up.is_empty() && down.is_empty() {
                return;
            }
            up.iter().for_each(|packet| self.arrive_up(packet));
            down.iter().for_each(|packet| self.arrive_down(packet));
        }
    }

    fn pass(&mut self, ns: u64) {
        self.now_ns += ns;
        self.link.handle_timeout(self.now_ns);
        self.listener.handle_timeout(self.now_ns);
        self.listen();
    }

    fn frames_down(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.link.poll_frame()).collect()
    }
}

fn frame(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn frames_go_both_ways_and_acknowledgements_ride_along() {
    let mut story = Story::open();
    story.link.send(frame("one"));
    story.listener.send(story.session, frame("eins"));
    let (up, down) = (story.up(), story.down());
    assert_eq!((up.len(), down.len()), (1, 1));
    story.arrive_up(&up[0]);
    story.arrive_down(&down[0]);
    assert_eq!(story.heard, [frame("one")]);
    assert_eq!(story.frames_down(), [frame("eins")]);
    story.link.send(frame("two"));
    let up = story.up();
    assert_eq!(up.len(), 1, "the acknowledgement is in it");
    story.arrive_up(&up[0]);
    assert_eq!(story.listener.statistics().unacknowledged_bytes, 0);
    assert_eq!(story.down().len(), 1, "nothing rides, so it goes alone");
}

#[test]
fn frames_given_before_the_session_is_open_wait_for_it() {
    let mut story = Story::new(Limits::default());
    story.link.send(frame("early"));
    assert_eq!(story.heard, [] as [Vec<u8>; 0]);
    story.exchange();
    assert_eq!(story.heard, [frame("early")]);
}

#[test]
fn l1_a_frame_that_overtakes_waits_and_one_that_comes_twice_is_dropped() {
    let mut story = Story::open();
    ["a", "b", "c"].into_iter().for_each(|text| story.link.send(frame(text)));
    let up = story.up();
    [&up[2], &up[1], &up[2]].into_iter().for_each(|packet| story.arrive_up(packet));
    assert_eq!(story.heard, [] as [Vec<u8>; 0]);
    [&up[0], &up[1], &up[0]].into_iter().for_each(|packet| story.arrive_up(packet));
    assert_eq!(story.heard, ["a", "b", "c"].map(frame));
    assert_eq!(story.listener.statistics().doubled, 3);
}

#[test]
fn l2_a_frame_that_was_not_handed_out_is_not_acknowledged() {
    let mut story = Story::open();
    story.listener.send(story.session, frame("a"));
    let down = story.down();
    story.arrive_down(&down[0]);
    let up = story.up();
    assert_eq!(up.len(), 1);
    story.arrive_up(&up[0]);
    assert_eq!(story.listener.statistics().unacknowledged_bytes, 1);
    assert_eq!(story.frames_down(), [frame("a")]);
    story.pass(1_000 * MS); // A question, which is answered.
    story.exchange();
    assert_eq!(story.listener.statistics().unacknowledged_bytes, 0);
    assert_eq!(story.listener.statistics().resent, 0, "it was there, as far as the listener knows");
}

#[test]
fn l3_a_lost_frame_comes_again_and_only_that() {
    let mut story = Story::open();
    ["a", "b", "c"].into_iter().for_each(|text| story.link.send(frame(text)));
    let up = story.up();
    [&up[0], &up[2]].into_iter().for_each(|packet| story.arrive_up(packet));
    let down = story.down();
    down.iter().for_each(|packet| story.arrive_down(packet));
    story.pass(199 * MS);
    assert_eq!(story.up(), [] as [Vec<u8>; 0]);
    story.pass(MS);
    let again = story.up();
    assert_eq!(again.len(), 1, "c is there");
    story.pass(399 * MS);
    assert_eq!(story.up(), [] as [Vec<u8>; 0], "twice as long now");
    story.pass(MS);
    let again = story.up();
    assert_eq!(again.len(), 1);
    story.arrive_up(&again[0]);
    assert_eq!(story.heard, ["a", "b", "c"].map(frame));
    story.exchange();
    assert_eq!(story.link.statistics().unacknowledged_bytes, 0);
}

#[test]
fn l3_a_lost_acknowledgement_is_said_again() {
    let mut story = Story::open();
    story.link.send(frame("a"));
    let up = story.up();
    story.arrive_up(&up[0]);
    assert_eq!(story.down().len(), 1); // Lost.
    story.pass(200 * MS);
    story.exchange();
    assert_eq!(story.heard, [frame("a")]);
    assert_eq!((story.link.statistics().resent, story.link.statistics().unacknowledged_bytes), (1, 0));
}

#[test]
fn l4_no_more_than_a_window_is_under_way_except_one_long_frame() {
    let limits = Limits { window_bytes: 2 * 70, ..Limits::default() };
    let mut story = Story::new(limits);
    story.exchange();
    [4, 4, 4, 50, 4].into_iter().for_each(|len| story.link.send(vec![len; len.into()]));
    let sizes = |packets: &[Vec<u8>]| packets.iter().map(|packet| packet.len() - 34).collect::<Vec<_>>();
    let up = story.up();
    assert_eq!(sizes(&up), [4, 4]);
    story.arrive_up(&up[0]);
    let down = story.down();
    down.iter().for_each(|packet| story.arrive_down(packet));
    let more = story.up();
    assert_eq!(sizes(&more), [4]);
    [&up[1], &more[0]].into_iter().for_each(|packet| story.arrive_up(packet));
    let down = story.down();
    down.iter().for_each(|packet| story.arrive_down(packet));
    assert_eq!(sizes(&story.up()), [50]);
    story.pass(200 * MS);
    story.exchange();
    assert_eq!(story.heard.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 4, 50, 4]);
}

#[test]
fn l4_what_does_not_fit_beyond_a_gap_comes_again() {
    let mut story = Story::new(Limits::default());
    story.listener = Listener::new(Limits { window_bytes: 200, ..Limits::default() }, 1_000);
    story.exchange();
    for len in [10, 60, 60] {
        story.link.send(vec![len; len.into()]);
    }
    let up = story.up();
    [&up[1], &up[2]].into_iter().for_each(|packet| story.arrive_up(packet));
    assert_eq!(story.listener.statistics().overflowed, 1, "the sender has a larger window");
    story.down().clear(); // Nobody hears of it.
    story.pass(200 * MS);
    story.exchange();
    assert_eq!(story.heard.iter().map(Vec::len).collect::<Vec<_>>(), [10, 60, 60]);
}

#[test]
fn l5_late_copies_of_packets_begin_nothing() {
    let mut story = Story::new(Limits::default());
    let open = story.up();
    story.arrive_up(&open[0]);
    let accept = story.down();
    story.arrive_down(&accept[0]);
    story.link.send(frame("a"));
    let data = story.up();
    data.iter().for_each(|packet| story.arrive_up(packet));
    assert_eq!(story.heard, [frame("a")]);
    story.listener.forget(story.session);
    // Everything comes once more, after the session has gone.
    open.iter().chain(&data).for_each(|packet| story.arrive_up(packet));
    assert_eq!(story.heard, [frame("a")], "and no more");
    assert_eq!(story.listener.sessions(), 1, "one that nobody confirms");
    let down = story.down();
    down.iter().for_each(|packet| story.arrive_down(packet));
    for _ in 0..11 {
        story.pass(1_000 * MS);
        story.down().clear();
    }
    assert_eq!((story.listener.sessions(), story.ended.len()), (0, 0), "nobody has heard of it");
}

#[test]
fn l6_whoever_comes_back_goes_on_on_another_route() {
    let mut story = Story::open();
    story.link.send(frame("a"));
    story.up().clear(); // A partition.
    story.pass(5_000 * MS);
    story.up().iter().for_each(|packet| story.listener.handle_packet(ROUTE + 1, packet, story.now_ns));
    story.listen();
    assert_eq!(story.heard, [frame("a")]);
    let answer = story.listener.poll_packet(story.now_ns).expect("an acknowledgement");
    assert_eq!(answer.0, ROUTE + 1);
}

#[test]
fn l6_whoever_comes_back_too_late_is_told_so() {
    let mut story = Story::open();
    story.listener.forget(story.session);
    story.link.send(frame("a"));
    story.exchange();
    assert_eq!(story.link.ended(), Some(End::Over));
    assert_eq!(story.heard, [] as [Vec<u8>; 0]);
    story.pass(60_000 * MS);
    assert_eq!((story.up(), story.link.next_timeout_ns()), (vec![], None), "it says nothing any more");
}

#[test]
fn l7_silence_ends_a_session_after_questions_and_not_after_time() {
    let mut story = Story::open();
    for question in 1..=10 {
        story.pass(100_000 * MS); // As if the process had been stopped.
        assert_eq!(story.link.ended(), None, "question {question}");
        story.up().clear();
        story.down().clear();
    }
    story.pass(1_000 * MS);
    assert_eq!((story.link.ended(), story.ended.as_slice()), (Some(End::Silent), &[End::Silent][..]));
    story.down().clear();
    assert_eq!(story.listener.sessions(), 0);
}

#[test]
fn l7_an_idle_session_lives() {
    let mut story = Story::open();
    for _ in 0..100 {
        story.pass(1_000 * MS);
        story.exchange();
    }
    assert_eq!((story.link.ended(), story.ended.len()), (None, 0));
}

#[test]
fn l9_a_closed_session_ends_when_everything_has_arrived() {
    let mut story = Story::open();
    story.listener.send(story.session, frame("goodbye"));
    story.listener.close(story.session);
    story.listener.send(story.session, frame("too late"));
    story.down().clear(); // Lost.
    assert_eq!(story.ended, []);
    story.pass(200 * MS);
    let down = story.down();
    story.arrive_down(&down[0]);
    assert_eq!(story.frames_down(), [frame("goodbye")]);
    story.exchange();
    assert_eq!(story.ended, [End::Closed]);
    assert_eq!((story.link.ended(), story.listener.sessions()), (Some(End::Over), 0));
}

#[test]
fn strangers_cost_little() {
    let mut listener = Listener::new(Limits::default(), 1);
    for token in 0..5_000 {
        let mut stranger = Link::dial(Limits::default(), token, 0);
        listener.handle_packet(token, &stranger.poll_packet(0).expect("OPEN"), 0);
        listener.handle_packet(token, b"rubbish", 0);
    }
    assert_eq!(listener.sessions(), 1_024);
    assert_eq!(listener.statistics().strange, 5_000);
    assert_eq!(listener.poll_event(), None);
}

#[test]
fn a_wrong_acknowledgement_is_ignored() {
    use super::packet::{Data, Packet};
    let mut story = Story::open();
    story.link.send(frame("a"));
    story.up().clear();
    let data = Data { session: 1_000, sequence: 0, taken: 9, here: 0, asks: false, frame: &[] };
    story.arrive_down(&Packet::Data(data).encode());
    assert_eq!(story.link.statistics().unacknowledged_bytes, 1);
    story.pass(200 * MS);
    story.exchange();
    assert_eq!(story.heard, [frame("a")]);
}

/// Packets between two ends, by the time of their arrival.
#[derive(Default)]
struct Network {
    packets: BTreeMap<(u64, u64), (bool, Vec<u8>)>,
    sent: u64,
}

impl Network {
    fn send(&mut self, now_ns: u64, up: bool, packet: &[u8], fates: &mut impl Iterator<Item = u8>) {
        let fate = fates.next().unwrap_or(u8::MAX);
        let copies = match fate {
            0..60 => 0,
            60..100 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late_ns = u64::from(fates.next().unwrap_or(1)).pow(2) * MS / 20;
            self.sent += 1;
            self.packets.insert((now_ns + late_ns, self.sent), (up, packet.to_vec()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the network does, and with whatever window, all frames arrive in order and once, and then all is quiet.
    #[test]
    fn everything_arrives_in_order_and_once(
        fates in proptest::collection::vec(any::<u8>(), 0..400),
        sizes_up in proptest::collection::vec(0..40_usize, 0..60),
        sizes_down in proptest::collection::vec(0..40_usize, 0..60),
        window_bytes in prop::sample::select(vec![1, 100, 300, 10_000]),
    ) {
        let limits = Limits { window_bytes, questions_max: 100, ..Limits::default() };
        let mut story = Story::new(limits);
        let mut network = Network::default();
        let mut fates = fates.into_iter();
        let frames = |sizes: &[usize], mark: u8| -> Vec<Vec<u8>> {
            sizes.iter().enumerate().map(|(at, size)| [&[mark, at as u8][..], &vec![7; *size]].concat()).collect()
        };
        let (up, down) = (frames(&sizes_up, b'u'), frames(&sizes_down, b'd'));
        let (mut to_send_up, mut to_send_down) = (up.iter(), down.iter());
        let mut got = Vec::new();
        while story.now_ns < 400_000 * MS {
            let before = story.now_ns;
            if let Some(frame) = to_send_up.next() {
                story.link.send(frame.clone());
            }
            // The listener cannot speak before the session is confirmed.
            if story.link.session != 0
                && let Some(frame) = to_send_down.next()
            {
                story.listener.send(story.session, frame.clone());
            }
            for packet in story.up() {
                network.send(before, true, &packet, &mut fates);
            }
            for packet in story.down() {
                network.send(before, false, &packet, &mut fates);
            }
            story.pass(20 * MS);
            while let Some(entry) = network.packets.first_entry().filter(|entry| entry.key().0 <= story.now_ns) {
                let (up, packet) = entry.remove();
                if up { story.arrive_up(&packet) } else { story.arrive_down(&packet) }
                got.extend(story.frames_down());
            }
            let all = story.heard.len() == up.len() && got.len() == down.len();
            let (link, listener) = (story.link.statistics(), story.listener.statistics());
            if all && link.unacknowledged_bytes + listener.unacknowledged_bytes == 0 && network.packets.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&story.heard, &up);
        prop_assert_eq!(&got, &down);
        prop_assert_eq!(story.link.ended(), None);
        prop_assert_eq!(story.ended.len(), 0);
        let overflowed = story.link.statistics().overflowed + story.listener.statistics().overflowed;
        prop_assert_eq!(overflowed, 0, "L4: what an honest sender has under way fits");
        prop_assert_eq!(story.listener.statistics().unacknowledged_bytes, 0);
    }
}
