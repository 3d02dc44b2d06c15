//! The private directory: private, short, gone at the end, and cleaned up after who could not.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use headrace_runtime::run_dir::{ENDPOINT_NAME_BYTES_MAX, RunDir, RunDirError};
use headrace_sys::pidfd::{ExitStatus, Signal};
use headrace_sys::poll::{self, PollFd};
use headrace_sys::spawn::{Child, Spawn};

/// A base of this test's own.
struct Base(PathBuf);

impl Base {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hr-test-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn refusal(base: &Path) -> String {
    RunDir::create(Some(base)).unwrap_err().to_string()
}

#[test]
fn a_directory_is_private_and_gone_at_the_end() {
    let base = Base::new();
    let directory = RunDir::create(Some(&base.0)).unwrap();
    assert_eq!(directory.path().parent(), Some(&*base.0));
    assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
    let endpoint = directory.endpoint("broker");
    let socket = endpoint.strip_prefix("ipc://").unwrap();
    assert_eq!(Path::new(socket).parent(), Some(directory.path()));
    let _listener = UnixListener::bind(socket).unwrap();
    drop(directory);
    assert_eq!(base.entries(), 0);
}

#[test]
fn two_brokers_share_a_base_and_not_a_directory() {
    let base = Base::new();
    let one = RunDir::create(Some(&base.0)).unwrap();
    let two = RunDir::create(Some(&base.0)).unwrap();
    assert_ne!(one.path(), two.path());
    drop(one);
    assert!(two.path().join("lock").exists());
}

#[test]
fn what_others_left_behind_is_removed_and_nothing_else() {
    let base = Base::new();
    let living = RunDir::create(Some(&base.0)).unwrap();
    let stale = base.0.join("headrace-0123abcd");
    fs::create_dir(&stale).unwrap();
    fs::write(stale.join("lock"), "").unwrap();
    drop(UnixListener::bind(stale.join("broker")).unwrap());
    let unfinished = base.0.join("headrace-00000000");
    fs::create_dir(&unfinished).unwrap();
    let others =
        ["headrace-notes", "headrace-0123abcd-copy", "pulse", "headrace-0123abc"].map(|name| base.0.join(name));
    others.iter().for_each(|path| fs::create_dir(path).unwrap());
    // Without a lock file but with something in it: not known to be ours.
    let strange = base.0.join("headrace-ffffffff");
    fs::create_dir(&strange).unwrap();
    fs::write(strange.join("data"), "").unwrap();

    let _new = RunDir::create(Some(&base.0)).unwrap();
    assert!(!stale.exists() && !unfinished.exists());
    assert!(living.path().exists() && strange.join("data").exists() && others.iter().all(|path| path.exists()));
}

#[test]
fn a_link_that_is_called_like_a_run_directory_is_not_followed() {
    let (base, elsewhere) = (Base::new(), Base::new());
    for file in ["lock", "precious"] {
        fs::write(elsewhere.0.join(file), "").unwrap();
    }
    symlink(&elsewhere.0, base.0.join("headrace-0123abcd")).unwrap();
    let foreign = base.0.join("headrace-4567cdef");
    if rustix::process::geteuid().is_root() {
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("lock"), "").unwrap();
        std::os::unix::fs::chown(&foreign, Some(54_321), None).unwrap();
    }
    drop(RunDir::create(Some(&base.0)).unwrap());
    assert_eq!(elsewhere.entries(), 2);
    assert!(base.0.join("headrace-0123abcd").is_symlink());
    assert_eq!(foreign.join("lock").exists(), rustix::process::geteuid().is_root());
}

#[test]
fn brokers_that_start_and_stop_at_once_do_not_hurt_each_other() {
    let base = Base::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let directory = RunDir::create(Some(&base.0)).unwrap();
                    let socket = directory.path().join("broker");
                    fs::write(&socket, "").unwrap();
                    assert!(socket.exists() && directory.path().join("lock").exists());
                }
            });
        }
    });
    drop(RunDir::create(Some(&base.0)).unwrap());
    assert_eq!(base.entries(), 0);
}

#[test]
fn a_base_that_is_open_to_others_is_refused_with_the_remedy() {
    let base = Base::new();
    for mode in [0o755, 0o777, 0o710, 0o500] {
        fs::set_permissions(&base.0, fs::Permissions::from_mode(mode)).unwrap();
        let text = refusal(&base.0);
        for part in [&format!("mode {mode:04o}"), "0700", &format!("chmod 700 {}", base.0.display())] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert_eq!(base.entries(), 0, "and nothing was left in it");
}

#[test]
fn a_base_of_somebody_else_is_refused() {
    let base = Base::new();
    let foreign = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&base.0, Some(54_321), None).unwrap();
        base.0.clone()
    } else {
        PathBuf::from("/")
    };
    let error = RunDir::create(Some(&foreign)).unwrap_err();
    assert!(matches!(error, RunDirError::WrongOwner { .. }), "{error}");
    assert!(error.to_string().contains("XDG_RUNTIME_DIR"), "{error}");
}

#[test]
fn a_base_that_is_no_directory_is_refused() {
    let base = Base::new();
    let (file, link, missing) = (base.0.join("file"), base.0.join("link"), base.0.join("missing"));
    fs::write(&file, "").unwrap();
    symlink(&base.0, &link).unwrap();
    assert!(refusal(&file).contains("is a file"));
    assert!(refusal(&link).contains("is a symbolic link"));
    let text = refusal(&missing);
    assert!(text.contains("missing") && text.contains("No such file"), "{text}");
}

#[test]
fn the_path_of_a_socket_always_fits() {
    let base = Base::new();
    let mut path = base.0.clone();
    while path.as_os_str().len() < 60 {
        path.push("0123456");
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).unwrap();
    let directory = RunDir::create(Some(&path)).unwrap();
    let name = "n".repeat(ENDPOINT_NAME_BYTES_MAX);
    UnixListener::bind(directory.endpoint(&name).strip_prefix("ipc://").unwrap()).unwrap();

    path.push("too-much-for-a-socket");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let text = refusal(&path);
    assert!(text.contains(&format!("{} bytes", path.as_os_str().len())) && text.contains("at most"), "{text}");
}

/// Says to a copy of this test program that it shall make a directory where its environment says, tell where, and die.
const PART: &str = "HEADRACE_TEST_PART";

fn copy_of_this_program(runtime: &Path) -> Child {
    let args = ["--exact", "a_broker_that_was_killed_is_cleaned_up_after", "--nocapture"].map(OsString::from);
    let variables = [(PART, Path::new("1")), ("XDG_RUNTIME_DIR", runtime)];
    let env = variables.map(|(name, value)| (OsString::from(name), value.as_os_str().to_owned()));
    Spawn { program: &std::env::current_exe().unwrap(), args: &args, env: &env, inherit: &[] }.start().unwrap()
}

#[test]
fn a_broker_that_was_killed_is_cleaned_up_after() {
    if std::env::var_os(PART).is_some() {
        let directory = RunDir::create(None).unwrap();
        fs::write(directory.path().join("broker"), "").unwrap();
        rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    }
    let base = Base::new();
    let mut child = copy_of_this_program(&base.0);
    poll::wait(&mut [PollFd::input(child.process.fd())], Some(Duration::from_secs(30))).unwrap();
    assert_eq!(child.process.try_wait().unwrap(), Some(ExitStatus::Signaled { signal: 9 }));
    assert_eq!(base.entries(), 1, "XDG_RUNTIME_DIR is the base");
    drop(RunDir::create(Some(&base.0)).unwrap());
    assert_eq!(base.entries(), 0);
}
