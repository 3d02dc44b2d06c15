//! Which deaths by SIGKILL were the kernel's, for want of memory.
//!
//! The memory control group of this process, in which its workers are too, counts the processes that the OOM killer has
//! ended: `oom_kill` in `memory.events` (version 2) or in `memory.oom_control` (version 1). It does not say which ones. So a
//! death by a SIGKILL that we did not send is the kernel's if a kill has been counted lately for which there is no other
//! death: each explains one.

use std::path::{Path, PathBuf};
use std::{fs, io};

use headrace_protocol::broker::Shortage;

/// For how long a kill may explain a death, at least; a process with very much memory takes its time to end. Twice as long
/// at most.
const KILL_NS: u64 = 10_000_000_000;

/// Counts kills.
#[derive(Debug)]
pub(super) struct OomWatch {
    group: Option<Group>,
    /// Kills that are explained, or too old to explain anything.
    past: u64,
    /// All of them at the last look, and when the next one is due.
    seen: u64,
    look_ns: u64,
}

impl OomWatch {
    /// Looks after the control group of this process.
    pub(super) fn of_this_process() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::new(Group::find(&groups, Path::new("/sys/fs/cgroup")))
    }

    fn new(group: Option<Group>) -> Self {
        let past = group.as_ref().and_then(Group::kills).unwrap_or(0);
        OomWatch { group, past, seen: past, look_ns: 0 }
    }

    /// Forgets old kills. To be called often; it looks seldom.
    #[inline]
    pub(super) fn age(&mut self, now_ns: u64) {
        if now_ns >= self.look_ns {
            self.look_ns = now_ns + KILL_NS;
            self.past = self.past.max(self.seen);
            self.seen = self.group.as_ref().and_then(Group::kills).unwrap_or(0);
        }
    }

    /// A process was killed by SIGKILL just now, and not by us. What is known of the want of memory, if that was why.
    pub(super) fn explain(&mut self, peak_bytes: Option<u64>) -> Option<Shortage> {
        let group = self.group.as_ref()?;
        if group.kills()? <= self.past {
            return None;
        }
        self.past += 1;
        Some(Shortage { limit: group.limit().unwrap_or(0), peak: peak_bytes.unwrap_or(0), others: group.processes() })
    }
}

/// A control group of either version.
#[derive(Debug)]
struct Group {
    /// Where the hierarchy is mounted.
    root: PathBuf,
    path: PathBuf,
    version: &'static Version,
}

#[derive(Debug)]
struct Version {
    /// The file with the line `oom_kill`.
    kills: &'static str,
    limit: &'static str,
}

const V1: Version = Version { kills: "memory.oom_control", limit: "memory.limit_in_bytes" };
const V2: Version = Version { kills: "memory.events", limit: "memory.max" };

impl Group {
    /// The group that counts, given the lines of `/proc/self/cgroup` and where hierarchies are mounted.
    fn find(groups: &str, mounts: &Path) -> Option<Self> {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let (root, version) = match controllers {
                "" => (mounts.to_owned(), &V2),
                _ if controllers.split(',').any(|name| name == "memory") => (mounts.join("memory"), &V1),
                _ => return None,
            };
            let path = root.join(path.trim_start_matches('/'));
            // In a container the path may be one of the host's, and the group's own files are at the root.
            [path, root.clone()].into_iter().map(|path| Group { root: root.clone(), path, version }).find(Group::counts)
        })
    }

    fn counts(&self) -> bool {
        self.kills().is_some()
    }

    fn kills(&self) -> Option<u64> {
        let text = self.read(&self.path, self.version.kills).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// The smallest limit of the group and those above it.
    fn limit(&self) -> Option<u64> {
        let groups = self.path.ancestors().take_while(|path| path.starts_with(&self.root));
        let limits = groups.filter_map(|path| self.read(path, self.version.limit).ok()?.trim().parse().ok());
        limits.min().filter(|limit| *limit < NO_LIMIT)
    }

    fn processes(&self) -> u32 {
        self.read(&self.path, "cgroup.procs").map_or(0, |text| text.lines().count() as u32)
    }

    fn read(&self, group: &Path, file: &str) -> io::Result<String> {
        fs::read_to_string(group.join(file))
    }
}

/// Version 1 writes "no limit" as a number of this order.
const NO_LIMIT: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of files as the kernel shows them.
    struct Mounts(PathBuf);

    impl Mounts {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("headrace-oom-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Mounts(path)
        }

        fn write(&self, file: &str, text: &str) {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    impl Drop for Mounts {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const EVENTS: &str = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n";

    #[test]
    fn a_group_of_version_2_with_limits_above_it() {
        let mounts = Mounts::new("v2");
        mounts.write("user/job/memory.events", EVENTS);
        mounts.write("user/job/memory.max", "max\n");
        mounts.write("user/memory.max", "4294967296\n");
        mounts.write("memory.max", "8589934592\n");
        mounts.write("user/job/cgroup.procs", "17\n18\n19\n");
        let mut watch = OomWatch::new(Group::find("0::/user/job\n", &mounts.0));
        assert_eq!(watch.explain(None), None, "that kill was before our time");
        mounts.write("user/job/memory.events", &EVENTS.replace("oom_kill 1", "oom_kill 3"));
        let shortage = Shortage { limit: 4 << 30, peak: 5, others: 3 };
        assert_eq!(watch.explain(Some(5)), Some(shortage));
        assert_eq!(watch.explain(Some(5)), Some(shortage));
        assert_eq!(watch.explain(Some(5)), None, "two kills explain two deaths");
    }

    #[test]
    fn a_group_of_version_1_beside_a_hierarchy_of_version_2_without_memory() {
        let mounts = Mounts::new("v1");
        let control = |kills: u64| format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n");
        mounts.write("memory/job/memory.oom_control", &control(0));
        mounts.write("memory/job/memory.limit_in_bytes", "9223372036854771712\n");
        let groups = "0::/\n9:name=systemd:/\n4:memory:/job\n1:cpu,cpuacct:/\n";
        let mut watch = OomWatch::new(Group::find(groups, &mounts.0));
        mounts.write("memory/job/memory.oom_control", &control(1));
        assert_eq!(watch.explain(None), Some(Shortage::default()), "no limit, and nothing known");
    }

    #[test]
    fn in_a_container_the_root_is_the_own_group() {
        let mounts = Mounts::new("root");
        mounts.write("memory.events", EVENTS);
        let group = Group::find("0::/system.slice/docker-12.scope\n", &mounts.0).unwrap();
        assert_eq!((group.kills(), group.path), (Some(1), mounts.0.clone()));
    }

    #[test]
    fn kills_explain_no_death_long_after() {
        let mounts = Mounts::new("age");
        mounts.write("memory.events", EVENTS);
        let mut watch = OomWatch::new(Group::find("0::/\n", &mounts.0));
        mounts.write("memory.events", &EVENTS.replace("oom_kill 1", "oom_kill 3"));
        watch.age(1);
        watch.age(KILL_NS);
        assert!(watch.explain(None).is_some());
        watch.age(1 + KILL_NS);
        assert_eq!(watch.explain(None), None);
        mounts.write("memory.events", &EVENTS.replace("oom_kill 1", "oom_kill 4"));
        assert!(watch.explain(None).is_some());
    }

    #[test]
    fn without_a_group_that_counts_nothing_is_known() {
        let mounts = Mounts::new("none");
        mounts.write("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n");
        for groups in ["", "0::/\n", "4:memory:/\n", "nonsense"] {
            assert!(Group::find(groups, &mounts.0).is_none(), "{groups}");
        }
        assert_eq!(OomWatch::new(None).explain(None), None);
    }
}
