//! Whole lines out of the pieces in which a pipe delivers them.

/// Longest line that is kept together.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What a pipe has delivered since the last end of line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Adds a piece and returns the lines that are whole now.
    pub(super) fn push(&mut self, piece: &[u8]) -> Option<Vec<u8>> {
        self.rest.extend_from_slice(piece);
        let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.rest.len() > LINE_BYTES_MAX => return self.finish(),
            None => return None,
        };
        let tail = self.rest.split_off(end);
        Some(std::mem::replace(&mut self.rest, tail))
    }

    /// The last line, with the end that it lacks.
    pub(super) fn finish(&mut self) -> Option<Vec<u8>> {
        if self.rest.is_empty() {
            return None;
        }
        self.rest.push(b'\n');
        Some(std::mem::take(&mut self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_whole() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one"), None);
        assert_eq!(lines.push(b" line\ntwo\nthr").as_deref(), Some(&b"one line\ntwo\n"[..]));
        assert_eq!(lines.push(b"ee\n").as_deref(), Some(&b"three\n"[..]));
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn an_unfinished_line_is_finished_at_the_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"last words"), None);
        assert_eq!(lines.finish().as_deref(), Some(&b"last words\n"[..]));
    }

    #[test]
    fn an_endless_line_is_cut() {
        let mut lines = Lines::default();
        assert!(lines.push(&vec![b'x'; LINE_BYTES_MAX + 1]).is_some());
    }
}
