//! Which results a run keeps, in which order.

/// The keep set of a run.
pub(crate) struct Keep {
    indices: Vec<u32>,
    positions: Positions,
}

/// From the index of a task to its position in the set.
enum Positions {
    /// Consecutive tasks, in order: the sinks of most graphs.
    Row { first: u32 },
    /// Per task: one more than its position, or 0.
    Table(Vec<u32>),
}

impl Keep {
    /// A set of distinct indices.
    pub(crate) fn new(indices: Vec<u32>) -> Self {
        let first = indices.first().copied().unwrap_or(0);
        let is_row = indices.iter().enumerate().all(|(position, &index)| index == first.wrapping_add(position as u32));
        let positions = if is_row {
            Positions::Row { first }
        } else {
            let last = indices.iter().max().map_or(0, |&index| index as usize + 1);
            let mut table = vec![0; last];
            for (position, &index) in indices.iter().enumerate() {
                table[index as usize] = position as u32 + 1;
            }
            Positions::Table(table)
        };
        Self { indices, positions }
    }

    pub(crate) fn indices(&self) -> &[u32] {
        &self.indices
    }

    pub(crate) fn len(&self) -> usize {
        self.indices.len()
    }

    /// The index at a position.
    pub(crate) fn at(&self, position: usize) -> u32 {
        self.indices[position]
    }

    /// The position of an index, if it is in the set.
    #[inline]
    pub(crate) fn position(&self, index: u32) -> Option<usize> {
        match &self.positions {
            Positions::Row { first } => {
                let position = index.wrapping_sub(*first) as usize;
                (position < self.indices.len()).then_some(position)
            }
            Positions::Table(table) => (table.get(index as usize).copied()? as usize).checked_sub(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Keep;

    #[test]
    fn a_position_is_found_for_what_is_kept_and_for_nothing_else() {
        for indices in [vec![], vec![0], vec![3], vec![0, 1, 2], vec![5, 6], vec![2, 0], vec![1, 3, 7], vec![7, 8, 3]] {
            let keep = Keep::new(indices.clone());
            assert_eq!(keep.len(), indices.len());
            for index in 0..10 {
                let expected = indices.iter().position(|&kept| kept == index);
                assert_eq!(keep.position(index), expected, "{index} in {indices:?}");
            }
            assert!((0..indices.len()).all(|position| keep.at(position) == indices[position]));
        }
    }
}
