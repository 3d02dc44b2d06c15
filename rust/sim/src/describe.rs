//! Frames in words, for traces.

use headrace_wire::{Message, U32s, Verdict};

pub(crate) fn describe(frame: &[u8]) -> String {
    let Ok(message) = Message::decode(frame) else { return "a broken frame".to_owned() };
    let name = message.name();
    let pairs = |a: U32s<'_>, b: U32s<'_>| {
        let words: Vec<String> = a.iter().zip(b.iter()).map(|(a, b)| format!("{a}#{b}")).collect();
        words.join(" ")
    };
    let list = |column: U32s<'_>| column.iter().map(|word| word.to_string()).collect::<Vec<_>>().join(" ");
    let words = match message {
        Message::Lease(lease) => {
            let mut deps = lease.deps.iter();
            let lease_words = |at: usize| {
                let inputs: Vec<String> =
                    deps.by_ref().take(lease.dep_counts.at(at) as usize).map(|dep| dep.to_string()).collect();
                let flags = ["", "r", "h", "rh"][usize::from(lease.flags[at])];
                format!("{}#{}{flags}({})", lease.task.at(at), lease.attempt.at(at), inputs.join(","))
            };
            let leases: Vec<String> = (0..lease.task.len()).map(lease_words).collect();
            format!("{}; values {}; dead {}", leases.join(" "), list(lease.value_task), list(lease.dead))
        }
        Message::Report(report) => {
            let entries =
                report.task.iter().zip(report.attempt.iter()).zip(report.verdict).zip(report.values.lens.iter());
            let entry = |(((task, attempt), verdict), len): (((u32, u32), &u8), u32)| {
                let verdict = Verdict::try_from(*verdict).map(|verdict| format!("{verdict:?}"));
                format!("{task}#{attempt} {}[{len}]", verdict.unwrap_or_default())
            };
            entries.map(entry).collect::<Vec<_>>().join(", ")
        }
        Message::Recall(recall) => format!("{}; fetch {}", pairs(recall.task, recall.attempt), list(recall.fetch)),
        Message::Revoke(revoke) => pairs(revoke.task, revoke.attempt),
        Message::Forget(forget) => list(forget.dead),
        Message::Results(results) => {
            format!(
                "run {} of {}{}",
                list(results.index),
                results.run,
                if results.finished { ", its last" } else { "" }
            )
        }
        Message::Moved(moved) => format!("run {}: {}", moved.run, list(moved.index)),
        Message::Release(release) => pairs(release.segment, release.offset),
        Message::Released(released) => pairs(released.segment, released.offset),
        Message::GiveBack(given) => pairs(given.segment, given.pages),
        Message::Hold(hold) => format!(
            "run {}: +{} -{}{}",
            hold.run,
            list(hold.add),
            list(hold.remove),
            if hold.release_run { ", released" } else { "" }
        ),
        Message::Cancel(cancel) => format!("run {}: {}", cancel.run, list(cancel.index)),
        Message::Submit(submit) => {
            format!(
                "run {} from {}: {} tasks, keep {}",
                submit.run,
                submit.first,
                submit.dep_counts.len(),
                list(submit.keep)
            )
        }
        Message::Goodbye(goodbye) => goodbye.text.to_owned(),
        Message::Want(want) => format!("{} bytes", want.bytes),
        _ => String::new(),
    };
    format!("{name} {words}")
}
