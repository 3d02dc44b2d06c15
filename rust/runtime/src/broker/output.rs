//! What a worker process writes to standard output and error, and which attempt wrote it.

use headrace_sys::poll::PollFd;
use headrace_sys::status_page::StatusPage;
use headrace_wire::MarkReader;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

/// Bytes read from a pipe at a time: what a full one holds.
const PIPE_BYTES: usize = 64 << 10;

/// An attempt as the status page names it.
type Attempt = (u32, u32);

/// The pipes of a process.
#[derive(Debug)]
pub(super) struct Output {
    pipes: [Pipe; 2],
    /// Pieces that it had written when the pipes were last read.
    writes: u64,
}

/// Standard output or error of a process.
#[derive(Debug)]
struct Pipe {
    stream: u8,
    /// `None` once it has ended.
    end: Option<OwnedFd>,
    marks: MarkReader,
    /// What was read and not handed over yet: the texts without marks, and whose they are.
    text: Vec<u8>,
    pieces: Vec<Piece>,
    /// Whether what was handed over last has no end of line.
    is_open: bool,
}

#[derive(Debug)]
struct Piece {
    number: u32,
    /// `None` if it had no mark.
    author: Option<Attempt>,
    place: Range<usize>,
}

impl Output {
    pub(super) fn new(stdout: OwnedFd, stderr: OwnedFd) -> Self {
        Output { pipes: [Pipe::new(1, stdout), Pipe::new(2, stderr)], writes: 0 }
    }

    pub(super) fn poll_fds(&self, fds: &mut Vec<PollFd>) {
        fds.extend(self.pipes.iter().filter_map(|pipe| pipe.end.as_ref()).map(|end| PollFd::input(end.as_raw_fd())));
    }

    /// Whether a task has written something that was not read. Holds for all that precedes a frame which has been received.
    #[inline]
    pub(super) fn is_behind(&self, page: &StatusPage) -> bool {
        page.writes() != self.writes
    }

    /// Reads for so many times what is there, and hands it over as (stream, text, author). What has no mark counts as written
    /// by the attempt that executes.
    pub(super) fn read(
        &mut self,
        page: &StatusPage,
        times_max: usize,
        mut give: impl FnMut(u8, &[u8], Option<Attempt>),
    ) {
        // First the count: what is written from now on may be read or not, and is counted then.
        self.writes = page.writes();
        let executing = page.executing();
        // What precedes a piece is in its pipe before that piece is. So if standard error has brought something, what
        // precedes it in standard output has come at the latest meanwhile; if not, everything is here.
        for _ in 0..times_max {
            let [stdout, stderr] = self.pipes.each_mut().map(Pipe::read);
            if stdout < PIPE_BYTES && stderr == 0 {
                break;
            }
        }
        self.hand_over(executing, &mut give);
    }

    /// The process has ended and everything was read: hands over what was held back, and nothing for the end of an open line.
    pub(super) fn finish(&mut self, page: &StatusPage, mut give: impl FnMut(u8, &[u8], Option<Attempt>)) {
        for pipe in &mut self.pipes {
            pipe.finish();
        }
        self.hand_over(page.executing(), &mut give);
        for pipe in self.pipes.iter_mut().filter(|pipe| pipe.is_open) {
            pipe.is_open = false;
            give(pipe.stream, b"", None);
        }
    }

    /// Hands over what both pipes brought, in the order of the writes as far as it is known, those of one author together.
    fn hand_over(&mut self, executing: Option<Attempt>, give: &mut impl FnMut(u8, &[u8], Option<Attempt>)) {
        let [mut stdout, mut stderr] = self.pipes.each_mut().map(|pipe| pipe.take_pieces().into_iter().peekable());
        let mut open: Option<(usize, Option<Attempt>, Range<usize>)> = None;
        loop {
            let is_first = match (stdout.peek(), stderr.peek()) {
                (Some(out), Some(err)) => out.number <= err.number,
                (out, _) => out.is_some(),
            };
            let (pipe, next) = if is_first { (0, stdout.next()) } else { (1, stderr.next()) };
            if let (Some((of, author, place)), Some(piece)) = (&mut open, &next)
                && (*of, *author) == (pipe, piece.author.or(executing))
            {
                place.end = piece.place.end;
                continue;
            }
            if let Some((of, author, place)) = open.take() {
                self.pipes[of].give(place, author, give);
            }
            let Some(piece) = next else { break };
            open = Some((pipe, piece.author.or(executing), piece.place));
        }
        self.pipes.iter_mut().for_each(|pipe| pipe.text.clear());
    }
}

impl Pipe {
    fn new(stream: u8, end: OwnedFd) -> Self {
        let (text, pieces) = (Vec::new(), Vec::new());
        Pipe { stream, end: Some(end), marks: MarkReader::default(), text, pieces, is_open: false }
    }

    /// Reads once; how much that was.
    fn read(&mut self) -> usize {
        let mut buffer = [0; PIPE_BYTES];
        let Some(end) = &self.end else { return 0 };
        let Ok(len) = rustix::io::read(end, &mut buffer) else { return 0 }; // nothing there for now
        match len {
            0 => self.end = None,
            _ => self.take(|marks, add| marks.push(&buffer[..len], add)),
        }
        len
    }

    fn finish(&mut self) {
        self.take(|marks, add| marks.finish(add));
    }

    fn take(&mut self, read: impl FnOnce(&mut MarkReader, &mut dyn FnMut(Option<headrace_wire::Mark>, &[u8]))) {
        let Pipe { marks, text, pieces, .. } = self;
        read(marks, &mut |mark, bytes| {
            let start = text.len();
            text.extend_from_slice(bytes);
            let author = mark.map(|mark| (mark.task, mark.attempt));
            let number = mark.map_or(u32::MAX, |mark| mark.number);
            pieces.push(Piece { number, author, place: start..text.len() });
        });
    }

    /// The pieces that were read. What has no mark comes as late as may be: when somebody dies, that is what is said of it.
    fn take_pieces(&mut self) -> Vec<Piece> {
        let mut pieces = std::mem::take(&mut self.pieces);
        let mut next = u32::MAX;
        for piece in pieces.iter_mut().rev() {
            match piece.author {
                Some(_) => next = piece.number,
                None => piece.number = next,
            }
        }
        pieces
    }

    fn give(
        &mut self,
        place: Range<usize>,
        author: Option<Attempt>,
        give: &mut impl FnMut(u8, &[u8], Option<Attempt>),
    ) {
        let text = &self.text[place];
        self.is_open = text.last() != Some(&b'\n');
        give(self.stream, text, author);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headrace_wire::Mark;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::io::Write;

    type Said = (u8, String, Option<Attempt>);

    /// A worker's page and pipes, with both ends.
    struct Story {
        page: StatusPage,
        output: Output,
        ends: [std::fs::File; 2],
        number: u32,
    }

    impl Story {
        fn new() -> Self {
            let pipe = || pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
            let [(stdout, stdout_end), (stderr, stderr_end)] = [pipe(), pipe()];
            let page = StatusPage::create().unwrap();
            Story { page, output: Output::new(stdout, stderr), ends: [stdout_end.into(), stderr_end.into()], number: 0 }
        }

        fn write(&mut self, stream: u8, text: &str, author: Option<Attempt>) {
            let mut bytes = Vec::new();
            if let Some((task, attempt)) = author {
                self.number += 1;
                bytes.extend(Mark { task, attempt, number: self.number }.write(text.len() as u16));
            }
            bytes.extend(text.as_bytes());
            self.ends[usize::from(stream) - 1].write_all(&bytes).unwrap();
            if author.is_some() {
                self.page.note_write();
            }
        }

        fn read(&mut self) -> Vec<Said> {
            let mut said = Vec::new();
            let note = |stream, text: &[u8], by| said.push((stream, String::from_utf8_lossy(text).into_owned(), by));
            self.output.read(&self.page, 4, note);
            said
        }
    }

    fn said(stream: u8, text: &str, author: Option<Attempt>) -> Said {
        (stream, text.to_owned(), author)
    }

    #[test]
    fn both_streams_come_in_the_order_of_the_writes() {
        let mut story = Story::new();
        let (first, second) = (Some((0, 1)), Some((1, 1)));
        story.write(1, "one\n", first);
        story.write(2, "warning\n", first);
        story.write(1, "two\n", first);
        story.write(1, "three\n", first);
        story.write(1, "four\n", second);
        assert!(story.output.is_behind(&story.page));
        let expected = [
            said(1, "one\n", first),
            said(2, "warning\n", first),
            said(1, "two\nthree\n", first),
            said(1, "four\n", second),
        ];
        assert_eq!(story.read(), expected);
        assert!(!story.output.is_behind(&story.page));
        assert_eq!(story.read(), []);
    }

    #[test]
    fn what_is_said_of_a_death_comes_last() {
        let mut story = Story::new();
        let author = Some((3, 1));
        story.page.set_executing(3, 1);
        story.write(2, "killed\n", None);
        story.write(1, "alive\n", author);
        assert_eq!(story.read(), [said(1, "alive\n", author), said(2, "killed\n", author)]);
    }

    #[test]
    fn what_has_no_mark_is_the_executing_attempts() {
        let mut story = Story::new();
        story.write(1, "nobody's\n", None);
        assert_eq!(story.read(), [said(1, "nobody's\n", None)]);
        story.page.set_executing(7, 2);
        story.write(1, "before ", Some((7, 2)));
        story.write(1, "of a child ", None);
        story.write(1, "after\n", Some((7, 2)));
        assert_eq!(story.read(), [said(1, "before of a child after\n", Some((7, 2)))]);
    }

    #[test]
    fn an_open_line_ends_with_its_process() {
        let mut story = Story::new();
        story.write(2, "last words", Some((3, 1)));
        story.ends[0].write_all(b"\xffhr").unwrap();
        let mut texts = story.read();
        let note = |stream, text: &[u8], by| texts.push((stream, String::from_utf8_lossy(text).into_owned(), by));
        story.output.finish(&story.page, note);
        let texts: Vec<(u8, String)> = texts.into_iter().map(|(stream, text, _)| (stream, text)).collect();
        let expected = [(2, "last words"), (1, "\u{fffd}hr"), (1, ""), (2, "")];
        assert_eq!(texts, expected.map(|(stream, text)| (stream, text.to_owned())));
    }
}
