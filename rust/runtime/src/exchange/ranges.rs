//! Which bytes of a segment are there.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges that do not touch.
#[derive(Debug, Default)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && before_end >= start
        {
            (start, end) = (before, end.max(before_end));
        }
        while let Some((&next, &next_end)) = self.0.range(start..=end).next() {
            self.0.remove(&next);
            end = end.max(next_end);
        }
        self.0.insert(start, end);
    }

    /// Takes a range away.
    pub(super) fn remove(&mut self, range: Range<u64>) {
        let touched: Vec<(u64, u64)> = self.0.range(..range.end).rev().map(|(start, end)| (*start, *end)).collect();
        for (start, end) in touched.into_iter().take_while(|(_, end)| *end > range.start) {
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
    }

    /// Whether all of a range is there.
    pub(super) fn contain(&self, range: &Range<u64>) -> bool {
        self.0.range(..=range.start).next_back().is_some_and(|(_, end)| *end >= range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_part() {
        let mut ranges = Ranges::default();
        for range in [10..20, 30..40, 50..60] {
            ranges.insert(range);
        }
        assert!(ranges.contain(&(10..20)) && !ranges.contain(&(10..21)) && !ranges.contain(&(20..30)));
        ranges.insert(20..30);
        assert!(ranges.contain(&(10..40)));
        ranges.insert(5..100);
        assert!(ranges.contain(&(5..100)));
        ranges.remove(20..30);
        assert!(ranges.contain(&(5..20)) && ranges.contain(&(30..100)) && !ranges.contain(&(19..21)));
        ranges.remove(0..200);
        assert!(!ranges.contain(&(5..6)));
    }
}
