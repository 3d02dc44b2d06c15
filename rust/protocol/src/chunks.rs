//! A graph in parts: chunks that follow each other in one run.

use headrace_wire::{EXTERNAL, Message, SUBMIT_MORE, Submit, U32s};

/// Whether every task, counted from `first`, comes after its predecessors. So it is in every graph that was built task by
/// task, and only such a graph can be cut anywhere.
pub fn is_ordered(first: u32, dep_counts: U32s<'_>, deps: U32s<'_>) -> bool {
    let mut deps = deps.iter();
    (first..)
        .zip(dep_counts.iter())
        .all(|(index, count)| deps.by_ref().take(count as usize).all(|dep| dep & EXTERNAL != 0 || dep < index))
}

/// Encodes a graph as one frame, or as several whose arguments take at most `args_bytes_max` each; a single task may take
/// more. Whoever sends several sends all at once: what a later one needs could die before it arrives.
pub fn encode_chunks(submit: &Submit<'_>, args_bytes_max: usize, frames: &mut Vec<Vec<u8>>) {
    let mut bytes = 0;
    let overflows = |len: u32| {
        bytes += len as usize;
        bytes > args_bytes_max
    };
    let encoded = |submit: Submit<'_>| {
        let mut frame = Vec::new();
        Message::Submit(submit).encode(&mut frame);
        frame
    };
    let fitting = match submit.args.bytes.len() > args_bytes_max {
        true => submit.args.lens.iter().position(overflows).unwrap_or(submit.args.len()).max(1),
        false => submit.args.len(),
    };
    if fitting == submit.args.len() {
        return frames.push(encoded(submit.clone()));
    }
    let (mut keep_head, mut keep_tail) = (Vec::new(), Vec::new());
    let (head, tail) = split(submit, fitting, &mut keep_head, &mut keep_tail);
    frames.push(encoded(Submit { flags: head.flags | SUBMIT_MORE, ..head }));
    encode_chunks(&tail, args_bytes_max, frames);
}

/// The two parts of a chunk, each a chunk of its own.
pub(crate) fn split<'a>(
    submit: &Submit<'a>,
    tasks: usize,
    keep_head: &'a mut Vec<u32>,
    keep_tail: &'a mut Vec<u32>,
) -> (Submit<'a>, Submit<'a>) {
    let boundary = submit.first + tasks as u32;
    for index in submit.keep.iter() {
        if index < boundary { keep_head.push(index) } else { keep_tail.push(index) }
    }
    let per_task = |column: U32s<'a>| if column.is_empty() { (column, column) } else { column.split_at(tasks) };
    let (count_head, count_tail) = submit.dep_counts.split_at(tasks);
    let (deps_head, deps_tail) = submit.deps.split_at(count_head.iter().map(|count| count as usize).sum());
    let (function_head, function_tail) = per_task(submit.task_function);
    let (options_head, options_tail) = per_task(submit.task_options);
    let (args_head, args_tail) = submit.args.split_at(tasks);
    let keys_before = submit.key_index.iter().take_while(|index| *index < boundary).count();
    let (key_head, key_tail) = submit.key_index.split_at(keys_before);
    let (keys_head, keys_tail) = submit.keys.split_at(keys_before);
    let head = Submit {
        task_function: function_head,
        dep_counts: count_head,
        deps: deps_head,
        args: args_head,
        task_options: options_head,
        key_index: key_head,
        keys: keys_head,
        keep: U32s::Words(keep_head),
        ..submit.clone()
    };
    let tail = Submit {
        first: boundary,
        function_ids: U32s::default(),
        function_names: Default::default(),
        functions: Default::default(),
        task_function: function_tail,
        dep_counts: count_tail,
        deps: deps_tail,
        args: args_tail,
        task_options: options_tail,
        key_index: key_tail,
        keys: keys_tail,
        keep: U32s::Words(keep_tail),
        ..submit.clone()
    };
    (head, tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headrace_wire::BlobsBuf;

    #[test]
    fn a_large_graph_is_cut_between_tasks_and_loses_nothing() {
        let mut args = BlobsBuf::default();
        for len in [3, 9, 4, 1, 20, 2] {
            args.push(&vec![len; len.into()]);
        }
        let (counts, deps, functions, keep) = ([0, 1, 0, 2, 0, 1], [0, 1, 2, 4], [0; 6], [5, 0, 3]);
        let submit = Submit {
            run: 4,
            function_ids: [7][..].into(),
            function_names: headrace_wire::Blobs { lens: [1][..].into(), bytes: b"f" },
            functions: headrace_wire::Blobs { lens: [1][..].into(), bytes: b"p" },
            function_map: [7][..].into(),
            task_function: functions[..].into(),
            dep_counts: counts[..].into(),
            deps: deps[..].into(),
            args: args.as_blobs(),
            keep: keep[..].into(),
            ..Submit::default()
        };
        assert!(is_ordered(0, submit.dep_counts, submit.deps));
        let mut frames = Vec::new();
        encode_chunks(&submit, 10, &mut frames);
        let chunks: Vec<Submit<'_>> = frames
            .iter()
            .map(|frame| match Message::decode(frame) {
                Ok(Message::Submit(submit)) => submit,
                other => panic!("a chunk, not {other:?}"),
            })
            .collect();
        let rows: Vec<_> = chunks.iter().map(|chunk| (chunk.first, chunk.flags, chunk.args.len())).collect();
        assert_eq!(rows, [(0, 1, 1), (1, 1, 1), (2, 1, 2), (4, 1, 1), (5, 0, 1)]);
        let joined: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.args.bytes).copied().collect();
        assert_eq!(joined, args.bytes);
        assert_eq!(chunks.iter().flat_map(|chunk| chunk.deps.iter()).collect::<Vec<_>>(), deps);
        assert_eq!(chunks.iter().flat_map(|chunk| chunk.keep.iter()).collect::<Vec<_>>(), [0, 3, 5]);
        assert_eq!(chunks.iter().map(|chunk| chunk.function_ids.len()).sum::<usize>(), 1);
    }
}
