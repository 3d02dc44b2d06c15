//! Starting processes, and learning how they end.

mod support;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use headrace_sys::memfd::create_constant;
use headrace_sys::pidfd::{ExitStatus, PidFd, Signal};
use headrace_sys::poll::{self, PollFd};
use headrace_sys::signals::block_all;
use headrace_sys::spawn::{CONTROL_FD, Child, INHERITED_FD, INHERITED_MAX, Spawn, take_inherited};
use headrace_sys::status_page::StatusPage;
use headrace_sys::threads::spawn_native;
use headrace_sys::zmq::Router;
use support::*;

/// Says to a copy of this test program what it is there for.
const PART: &str = "HEADRACE_TEST_PART";

fn shell(script: &str, inherit: &[BorrowedFd<'_>]) -> Child {
    let args = [OsString::from("-c"), OsString::from(script)];
    let env = [(OsString::from("PATH"), OsString::from("/usr/bin:/bin"))];
    Spawn { program: Path::new("/bin/sh"), args: &args, env: &env, inherit }.start().unwrap()
}

/// Starts this test program again to play one part: the test function `name`, which does so if it finds `PART`.
fn copy_of_this_program(name: &str, part: &str, inherit: &[BorrowedFd<'_>]) -> Child {
    let args = ["--exact", name, "--nocapture"].map(OsString::from);
    let env: Vec<_> = std::env::vars_os().chain([(PART.into(), part.into())]).collect();
    Spawn { program: &std::env::current_exe().unwrap(), args: &args, env: &env, inherit }.start().unwrap()
}

#[test]
fn output_and_exit_code_arrive() {
    let mut child = shell("echo out; echo err >&2; exit 7", &[]);
    assert_eq!(read_all(&child.stdout), "out\n");
    assert_eq!(read_all(&child.stderr), "err\n");
    assert_eq!(end_of(&mut child.process), ExitStatus::Exited { code: 7 });
    assert_eq!(child.process.try_wait().unwrap(), Some(ExitStatus::Exited { code: 7 }), "the answer stays");
    child.process.send_signal(Signal::KILL).unwrap();
}

#[test]
fn a_death_by_signal_tells_the_signal() {
    let mut child = shell("kill -SEGV $$", &[]);
    assert_eq!(end_of(&mut child.process), ExitStatus::Signaled { signal: 11 });
    let mut child = shell("exec sleep 1000", &[]);
    assert_eq!(child.process.try_wait().unwrap(), None);
    child.process.send_signal(Signal::KILL).unwrap();
    assert_eq!(end_of(&mut child.process), ExitStatus::Signaled { signal: 9 });
}

#[test]
fn the_peak_of_memory_is_the_childs_own_or_nothing() {
    let mut small = shell("exit 0", &[]);
    end_of(&mut small.process);
    assert_eq!(small.process.peak_bytes(), None, "this program takes more than a shell");
    const MIB: u64 = 1 << 20;
    let mut large = shell("x=$(head -c 67108864 /dev/zero | tr '\\0' x); exit 0", &[]);
    end_of(&mut large.process);
    let peak = large.process.peak_bytes().expect("the shell holds 64 MiB");
    assert!((64 * MIB..1024 * MIB).contains(&peak), "{peak}");
}

#[test]
fn the_processor_time_of_a_child_grows_while_it_computes() {
    let mut idle = shell("exec sleep 1000", &[]);
    let mut busy = shell("while :; do :; done", &[]);
    let until = Instant::now() + std::time::Duration::from_secs(20);
    while busy.process.cpu_ns().expect("it lives") < 100_000_000 {
        assert!(Instant::now() < until, "it does not compute");
    }
    assert!(idle.process.cpu_ns().expect("it lives") < 50_000_000);
    for child in [&mut idle, &mut busy] {
        child.process.send_signal(Signal::KILL).unwrap();
        end_of(&mut child.process);
        assert_eq!(child.process.cpu_ns(), None);
    }
}

#[test]
fn a_program_that_cannot_run_is_named() {
    for (program, kind) in
        [("/nowhere/python", io::ErrorKind::NotFound), ("/etc/passwd", io::ErrorKind::PermissionDenied)]
    {
        let error = Spawn { program: Path::new(program), args: &[], env: &[], inherit: &[] }.start().unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(&format!("cannot execute {program}")), "{error}");
    }
    let zero = [OsString::from("a\0b")];
    let error = Spawn { program: Path::new("/bin/sh"), args: &zero, env: &[], inherit: &[] }.start().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn the_environment_and_the_arguments_are_those_given() {
    let env = [("B", "2 = two"), ("A", "")].map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let mut child = Spawn { program: Path::new("/usr/bin/env"), args: &[], env: &env, inherit: &[] }.start().unwrap();
    assert_eq!(read_all(&child.stdout), "B=2 = two\nA=\n");
    assert_eq!(end_of(&mut child.process), ExitStatus::Exited { code: 0 });
    let args = ["-c", "echo \"$0|$1|$#\"", "zero", "one with spaces", ""].map(OsString::from);
    let child = Spawn { program: Path::new("/bin/sh"), args: &args, env: &[], inherit: &[] }.start().unwrap();
    assert_eq!(read_all(&child.stdout), "zero|one with spaces|2\n");
}

#[test]
fn a_child_has_the_descriptors_given_and_no_others() {
    let descriptors_of = |script: &str, inherit: &[BorrowedFd<'_>]| {
        let mut child = shell(script, inherit);
        await_input(child.stdout.as_raw_fd(), Instant::now() + LONG);
        let listed = std::fs::read_dir(format!("/proc/{}/fd", child.process.pid())).unwrap();
        let mut numbers: Vec<i32> =
            listed.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        child.process.send_signal(Signal::KILL).unwrap();
        end_of(&mut child.process);
        numbers
    };
    let stop = "echo; kill -STOP $$";
    assert_eq!(descriptors_of(stop, &[]), [0, 1, 2, CONTROL_FD]);

    // In this order, most sources lie where another one goes.
    let memory: Vec<_> =
        (0..INHERITED_MAX).map(|i| create_constant("test", format!("{i}\n").as_bytes()).unwrap()).collect();
    let inherit: Vec<_> = memory.iter().rev().map(AsFd::as_fd).collect();
    let child = shell("for fd in 4 5 6 7 8 9 10 11 12 13 14 15; do cat /proc/$$/fd/$fd; done", &inherit);
    let expected: Vec<_> = (0..INHERITED_MAX).rev().map(|i| i.to_string()).collect();
    assert_eq!(read_all(&child.stdout).lines().collect::<Vec<_>>(), expected);
    assert_eq!(descriptors_of(stop, &inherit), Vec::from_iter(0..INHERITED_FD + INHERITED_MAX as i32));

    let too_many = vec![memory[0].as_fd(); INHERITED_MAX + 1];
    let error = Spawn { program: Path::new("/bin/sh"), args: &[], env: &[], inherit: &too_many }.start().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_child_begins_with_no_signal_blocked_or_ignored_and_nothing_to_read() {
    let child = {
        let _blocked = block_all();
        shell("cat; exec cat /proc/self/status", &[])
    };
    let status = read_all(&child.stdout);
    assert_eq!(status_mask(&status, "SigBlk:"), 0);
    assert_eq!(status_mask(&status, "SigIgn:") & ALL_SIGNALS, 0, "also SIGPIPE, which this program ignores");
}

#[test]
fn a_child_leads_its_own_session() {
    let child = shell(
        "read -r pid name state parent group session rest < /proc/$$/stat; echo $pid $parent $group $session",
        &[],
    );
    let pid = child.process.pid();
    assert_eq!(read_all(&child.stdout), format!("{pid} {} {pid} {pid}\n", std::process::id()));
}

#[test]
fn the_control_socket_ends_with_either_side() {
    let mut child = shell("cat <&3; echo end", &[]);
    rustix::io::write(&child.control, b"word\n").unwrap();
    let Child { control, stdout, .. } = child;
    drop(control);
    assert_eq!(read_all(&stdout), "word\nend\n");
    assert_eq!(end_of(&mut child.process), ExitStatus::Exited { code: 0 });

    let child = shell("exit", &[]);
    let mut fds = [PollFd::input(child.control.as_raw_fd())];
    poll::wait(&mut fds, Some(LONG)).unwrap();
    assert!(fds[0].hung_up());
    assert_eq!(rustix::io::read(&child.control, &mut [0; 8]), Ok(0));
}

#[test]
fn a_child_dies_with_the_thread_that_started_it() {
    let mut child = spawn_native("starter", || shell("exec sleep 1000", &[])).unwrap().join().unwrap();
    assert_eq!(end_of(&mut child.process), ExitStatus::Signaled { signal: 9 });
}

#[test]
fn a_child_dies_with_its_parent() {
    if std::env::var_os(PART).is_some() {
        let child = shell("exec sleep 1000", &[]);
        eprintln!("grandchild {}", child.process.pid());
        await_input(child.process.fd(), Instant::now() + LONG);
        return;
    }
    let mut parent = copy_of_this_program("a_child_dies_with_its_parent", "parent", &[]);
    let line = read_line(&parent.stderr);
    let grandchild = PidFd::open(line.strip_prefix("grandchild ").unwrap().parse().unwrap()).unwrap();
    parent.process.send_signal(Signal::KILL).unwrap();
    assert_eq!(end_of(&mut parent.process), ExitStatus::Signaled { signal: 9 });
    await_input(grandchild.fd(), Instant::now() + LONG);
}

#[test]
fn what_a_child_leaves_behind_can_be_ended() {
    let mut child = shell("sleep 1000 & echo $!; kill -KILL $$", &[]);
    let stray = PidFd::open(read_line(&child.stdout).parse().unwrap()).unwrap();
    await_input(child.process.fd(), Instant::now() + LONG);
    assert_eq!(poll::wait(&mut [PollFd::input(stray.fd())], Some(std::time::Duration::ZERO)).unwrap(), 0);
    child.process.send_signal_to_group(Signal::KILL).unwrap();
    assert_eq!(end_of(&mut child.process), ExitStatus::Signaled { signal: 9 });
    await_input(stray.fd(), Instant::now() + LONG);
    child.process.send_signal_to_group(Signal::KILL).unwrap();
}

#[test]
fn what_a_child_leaves_behind_ends_with_the_answer_that_it_ended() {
    let mut child = shell("sleep 1000 > /dev/null 2>&1 & echo $!", &[]);
    let stray = PidFd::open(read_all(&child.stdout).trim().parse().unwrap()).unwrap();
    await_input(child.process.fd(), Instant::now() + LONG);
    assert_eq!(child.process.try_wait_with_group().unwrap(), Some(ExitStatus::Exited { code: 0 }));
    await_input(stray.fd(), Instant::now() + LONG);
}

#[test]
fn a_status_that_somebody_else_collected_is_unknown() {
    let mut child = shell("exit 3", &[]);
    await_input(child.process.fd(), Instant::now() + LONG);
    // SAFETY: collects a child; a null pointer asks for no status.
    unsafe { libc::waitpid(child.process.pid() as i32, std::ptr::null_mut(), 0) };
    assert_eq!(child.process.try_wait().unwrap(), Some(ExitStatus::Unknown));
}

#[test]
fn a_status_page_outlives_its_worker() {
    if std::env::var_os(PART).is_some() {
        let page = StatusPage::attach(take_inherited(INHERITED_FD).unwrap()).unwrap();
        let control = take_inherited(CONTROL_FD).unwrap();
        assert!(take_inherited(CONTROL_FD).is_err(), "once only");
        assert!(take_inherited(1).is_err() && take_inherited(INHERITED_FD + 1).is_err());
        page.beat();
        page.set_executing(41, 2);
        rustix::io::write(&control, b"ready").unwrap();
        rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    }
    let page = StatusPage::create().unwrap();
    let mut child = copy_of_this_program("a_status_page_outlives_its_worker", "worker", &[page.as_fd()]);
    assert_eq!(end_of(&mut child.process), ExitStatus::Signaled { signal: 9 }, "{}", read_all(&child.stderr));
    let mut message = [0; 8];
    assert_eq!(rustix::io::read(&child.control, &mut message), Ok(5));
    assert_eq!((page.executing(), page.beats()), (Some((41, 2)), 1));
}

#[test]
fn frames_cross_processes() {
    if let Some(endpoint) = std::env::var_os(PART) {
        let mut dealer = connected(&context(), endpoint.to_str().unwrap(), b"w1");
        dealer.send(&mut b"hello".to_vec()).unwrap();
        loop {
            let frame = dealer_recv(&mut dealer);
            if frame.is_empty() {
                return;
            }
            until("room", || dealer.send(&mut frame.to_vec()).ok());
        }
    }
    let (context, endpoint) = (context(), endpoint());
    let mut router = Router::bind(&context, &endpoint).unwrap();
    let mut child = copy_of_this_program("frames_cross_processes", &endpoint, &[]);
    let (peer, hello) = router_recv(&mut router);
    assert_eq!((&*peer, &*hello), (&b"w1"[..], &b"hello"[..]));
    for len in [1, 1000, 100_000, 5_000_000] {
        let bytes: Vec<u8> = (0..len).map(|i: u32| (i % 251) as u8).collect();
        router.send(&peer, &mut bytes.clone()).unwrap();
        assert!(*router_recv(&mut router).1 == *bytes);
    }
    router.send(&peer, &mut Vec::new()).unwrap();
    assert_eq!(end_of(&mut child.process), ExitStatus::Exited { code: 0 });
}
