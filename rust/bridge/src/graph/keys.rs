//! Keys: `name-index` unless a task was given its own; unique within a graph.
use super::GraphData;

/// Splits `name-index`, if it is written as the default key of a task would be.
fn parse_default(key: &str) -> Option<(&str, u32)> {
    let (name, digits) = key.rsplit_once('-')?;
    let index: u32 = digits.parse().ok()?;
    (digits.len() == 1 || !digits.starts_with(['0', '+'])).then_some((name, index))
}

impl GraphData {
    /// The key of a task.
    pub(crate) fn key_of(&self, index: u32) -> String {
        match self.columns.own_key(index) {
            Some(key) => key.to_string(),
            None => format!("{}-{index}", self.name_of(index)),
        }
    }

    /// The task with this key.
    pub(crate) fn index_of(&mut self, key: &str) -> Option<u32> {
        self.columns.by_own_key(key).or_else(|| {
            let (name, index) = parse_default(key)?;
            let exists = (index as usize) < self.columns.len() && self.columns.own_key(index).is_none();
            (exists && self.name_of(index) == name).then_some(index)
        })
    }

    fn name_of(&self, index: u32) -> &str {
        &self.functions.table[self.columns.task_function[index as usize] as usize].name
    }

    /// Whether the next tasks, from `first` to `end`, may all go by their default keys; the answer is a key that is
    /// taken.
    pub(super) fn default_key_taken(&self, function: u32, first: usize, end: usize) -> Option<String> {
        let name = &self.functions.table[function as usize].name;
        let mut taken: Vec<_> = self.reserved.range(first as u32..end as u32).collect();
        taken.retain(|(_, reserved)| reserved.contains(name));
        taken.first().map(|(index, _)| format!("{name}-{index}"))
    }

    /// Gives the task that was appended last its own key, which was seen to be free.
    pub(super) fn name_last(&mut self, key: &str) {
        if let Some((name, index)) = parse_default(key)
            && index as usize >= self.columns.len()
        {
            self.reserved.entry(index).or_default().push(name.into());
        }
        self.columns.name_last(key);
    }
}

#[cfg(test)]
mod tests {
    use super::parse_default;

    #[test]
    fn only_what_a_default_key_looks_like_is_parsed_as_one() {
        assert_eq!(parse_default("load-12"), Some(("load", 12)));
        assert_eq!(parse_default("a-b-0"), Some(("a-b", 0)));
        for other in ["load", "load-", "load-01", "load-+1", "load-99999999999", "load-x"] {
            assert_eq!(parse_default(other), None, "{other}");
        }
    }
}
