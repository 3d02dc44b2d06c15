//! Keys: `name-index` unless a task was given its own; unique within a graph.
use std::ops::Range;
use std::sync::Arc;

use super::GraphData;

/// Splits `name-index`, if it is written as the default key of a task would be.
fn parse_default(key: &str) -> Option<(&str, u32)> {
    let (name, digits) = key.rsplit_once('-')?;
    let index: u32 = digits.parse().ok()?;
    (digits.len() == 1 || !digits.starts_with(['0', '+'])).then_some((name, index))
}

impl GraphData {
    /// The key of a task. A node may be looked at before its task is there: while a mapping is read.
    pub(crate) fn key_of(&self, index: u32) -> String {
        if index as usize >= self.columns.len() {
            return format!("task {index} to come");
        }
        match self.columns.own_key(index) {
            Some(key) => key.to_string(),
            None => format!("{}-{}", self.name_of(index), index + self.key_shift),
        }
    }

    /// The task with this key.
    pub(crate) fn index_of(&mut self, key: &str) -> Option<u32> {
        self.columns.by_own_key(key).or_else(|| {
            // Where numbers are shifted, every task has a key of its own.
            let (name, index) = parse_default(key).filter(|_| self.key_shift == 0)?;
            let exists = (index as usize) < self.columns.len() && self.columns.own_key(index).is_none();
            (exists && self.name_of(index) == name).then_some(index)
        })
    }

    fn name_of(&self, index: u32) -> &str {
        &self.functions.table[self.columns.task_function[index as usize] as usize].name
    }

    /// A key among those that `count` tasks to come, from `first` on, would get by default, if one is taken.
    pub(super) fn default_key_taken(&mut self, function: u32, first: u32, count: usize) -> Option<String> {
        let name = Arc::clone(&self.functions.table[function as usize].name);
        if self.key_shift > 0 {
            let mut keys = (first..first + count as u32).map(|index| format!("{name}-{}", index + self.key_shift));
            return keys.find(|key| self.columns.by_own_key(key).is_some());
        }
        let mut reserved = self.reserved.range(first..first + count as u32);
        let taken = reserved.find(|(_, names)| names.contains(&name));
        taken.map(|(index, _)| format!("{name}-{index}"))
    }

    /// Whether this is the key that one of `count` tasks to come, from `first` on, would get by default.
    pub(super) fn is_default_key(&self, key: &str, function: u32, first: u32, count: usize) -> bool {
        let Some((name, number)) = parse_default(key) else { return false };
        let numbers = (first + self.key_shift)..(first + self.key_shift + count as u32);
        numbers.contains(&number) && name == &*self.functions.table[function as usize].name
    }

    /// Names the last tasks, which were seen to have free keys: many by default, one by the key of its options.
    #[inline]
    pub(super) fn name_all(&mut self, tasks: Range<u32>, key: Option<u32>) {
        if let Some(key) = key {
            let key = Arc::clone(&self.functions.keys[key as usize]);
            self.name(tasks.start, &key);
        } else if self.key_shift > 0 {
            for index in tasks {
                let key = format!("{}-{}", self.name_of(index), index + self.key_shift);
                self.columns.name(index, &key);
            }
        }
    }

    /// Gives a task, which must be the last, its own key, which was seen to be free.
    pub(super) fn name(&mut self, index: u32, key: &str) {
        if let Some((name, number)) = parse_default(key)
            && number as usize >= self.columns.len()
        {
            self.reserved.entry(number).or_default().push(name.into());
        }
        self.columns.name(index, key);
    }
}
