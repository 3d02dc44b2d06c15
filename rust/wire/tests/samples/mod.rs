//! One message of every type, with every field different from its default.

use headrace_wire::*;

/// The messages, each with the name of its golden frame.
pub(crate) fn samples() -> Vec<(&'static str, Message<'static>)> {
    vec![
        ("hello", Message::Hello(hello())),
        ("welcome", Message::Welcome(welcome())),
        ("goodbye", Message::Goodbye(Goodbye { reason: GoodbyeReason::WorkersFailed as u8, text: "no worker lives" })),
        ("heartbeat", Message::Heartbeat(Heartbeat { number: 7, finished: 5_000_000_000 })),
        ("submit", Message::Submit(submit())),
        ("results", Message::Results(results())),
        ("hold", Message::Hold(Hold { run: 3, add: words(&[1, 2]), remove: words(&[0]), release_run: true })),
        ("cancel", Message::Cancel(Cancel { run: 3, whole: false, index: words(&[0, 65_536]), spare_leased: true })),
        ("query", Message::Query(Query { run: 3, number: 9 })),
        ("state", Message::State(state())),
        (
            "log",
            Message::Log(Log {
                worker: 1,
                stream: 2,
                text: b"half past four\n",
                run: 3,
                index: 70_000,
                attempt: 2,
                before: 5_000_000_000,
            }),
        ),
        ("lease", Message::Lease(lease())),
        ("report", Message::Report(report())),
        ("recall", Message::Recall(Recall { task: words(&[40, 41]), attempt: words(&[1, 300]), fetch: words(&[12]) })),
        ("revoke", Message::Revoke(Revoke { task: words(&[40]), attempt: words(&[2]) })),
        ("forget", Message::Forget(Forget { dead: words(&[5, 6, 7]) })),
        ("put", Message::Put(Put { index: 3, value: b"\x03\x07" })),
        ("want", Message::Want(Want { bytes: 200_000_000 })),
        ("withdraw", Message::Withdraw(Withdraw { bytes: 200_000_000 })),
        ("lack", Message::Lack(Lack { segment: 9 })),
        (
            "release",
            Message::Release(Release { segment: words(&[1, 2]), offset: words(&[0, 4096]), citations: words(&[1, 3]) }),
        ),
        ("released", Message::Released(Released { segment: words(&[1, 2]), offset: words(&[0, 4096]) })),
        ("give_back", Message::GiveBack(GiveBack { segment: words(&[9, 10]), pages: words(&[0, 256]), urgency: 1 })),
        ("moved", Message::Moved(Moved { run: 3, index: words(&[7, 300]), values: blobs(&[2, 0], b"\x03\x07") })),
        ("death", Message::Death(death())),
        ("policy", Message::Policy(policy())),
        (
            "overrun",
            Message::Overrun(Overrun {
                queued: true,
                worker: 1,
                attempt: 2,
                limit_ms: 60_000,
                failures: 1,
                key: "fit-7",
            }),
        ),
        ("overdue", Message::Overdue(Overdue { task: 40, attempt: 300 })),
        (
            "waiting",
            Message::Waiting(Waiting { task: 40, attempt: 300, waits: true, run: 2, index: WHOLE_RUN, helps: true }),
        ),
        ("standstill", Message::Standstill(Standstill { task: 40, attempt: 300, text: "it waits for tag 'db'" })),
        ("why", Message::Why(Why { number: 5, run: 3, index: 70_000, key: "merge-3", stacks: true })),
        ("because", Message::Because(because())),
        (
            "order",
            Message::Order(Order {
                kind: OrderKind::Interrupt as u8,
                worker: 3,
                incarnation: 0,
                task: 40,
                attempt: 300,
            }),
        ),
        (
            "event",
            Message::Event(Event {
                kind: EventKind::Exited as u8,
                worker: 3,
                incarnation: 70_000,
                number: -1_i32 as u32,
                task: 40,
                attempt: 300,
                text: b"last words",
            }),
        ),
        (
            "estate",
            Message::Estate(Estate {
                kind: EstateKind::Refused as u8,
                worker: 3,
                segment: 70_000,
                bytes: 1 << 33,
                text: "no room",
            }),
        ),
        (
            "transfer",
            Message::Transfer(Transfer {
                job: 300,
                endpoint: "tcp://10.0.0.2:40000",
                key: "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
                from_segment: words(&[3, 70_000]),
                from_offset: words(&[0, 1]),
                to_segment: words(&[4, 4]),
                to_offset: words(&[0, 16_384]),
                length: words(&[16_384, 1]),
            }),
        ),
        ("neighbour", Message::Neighbour(Neighbour { key: "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", left: true })),
    ]
}

fn words(words: &'static [u32]) -> U32s<'static> {
    U32s::Words(words)
}

fn blobs(lens: &'static [u32], bytes: &'static [u8]) -> Blobs<'static> {
    Blobs { lens: words(lens), bytes }
}

fn hello() -> Hello<'static> {
    Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Worker,
        version: "0.1.0",
        python: "3.11.7",
        features: 1 << 63,
        worker: 200,
        incarnation: 0x0123_4567_89ab_cdef,
        pid: 70_000,
    }
}

fn welcome() -> Welcome<'static> {
    Welcome { protocol: PROTOCOL_VERSION, version: "0.1.0", features: 2, session: 17, result_bytes_max: 64 << 20 }
}

/// Tasks 2 and 3 of run 3: one of `load`, one of `merge` that takes the first task, an earlier one and one of run 1.
fn submit() -> Submit<'static> {
    Submit {
        run: 3,
        first: 2,
        flags: SUBMIT_MORE,
        function_ids: words(&[8]),
        function_names: blobs(&[5], b"merge"),
        functions: blobs(&[3], &[0x80, 0x05, 0x2e]),
        function_map: words(&[4, 8]),
        task_function: words(&[0, 1]),
        dep_counts: words(&[0, 3]),
        deps: words(&[2, 1, EXTERNAL]),
        external_run: words(&[1]),
        external_index: words(&[6]),
        args: blobs(&[2, 4], &[0, 0, 1, 0, 13, 0]),
        task_options: words(&[1, 0]),
        priority: words(&[0, -5_i32 as u32]),
        worker: words(&[ANY_WORKER, 1]),
        key_index: words(&[3]),
        keys: blobs(&[8], "r\u{e9}sum\u{e9}".as_bytes()),
        keep: words(&[3]),
        policies: blobs(&[0, 3], &[0x93, 31, 0]),
        deadline_ms: 86_400_000,
        run_priority: -7,
        parent: 41,
        parent_attempt: 70_000,
    }
}

fn policy() -> Policy<'static> {
    Policy {
        retries: 3,
        flags: POLICY_RETRY_ON,
        backoff_ms: 500,
        backoff_max_ms: 60_000,
        timeout_ms: 5_000,
        queue_timeout_ms: 70_000,
        resources: blobs(&[3, 6], b"gpumemory"),
        amounts: &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        tags: blobs(&[2], b"db"),
    }
}

fn results() -> Results<'static> {
    Results {
        run: 3,
        finished: true,
        index: words(&[0, 1, 2, 3, 4, 5]),
        outcome: &[0, 1, 2, 3, 4, 5],
        values: blobs(&[2, 3, 8, 1, 2, 7], b"\x03\x2a\x80\x05\x2e\x03\0\0\0\x01\0\0\0\x01\x9f\x1erefused"),
        ended: 6,
    }
}

fn state() -> State<'static> {
    State {
        run: 3,
        number: 9,
        waiting: 1,
        ready: 2,
        leased: 3,
        done: 10_000_000_000,
        failed: 4,
        skipped: 5,
        cancelled: 6,
        first_lease_ns: 41_000,
        elapsed_ns: 1_700_000_000,
        worker: words(&[0, 1]),
        worker_pid: words(&[70_000, 0]),
        worker_finished: words(&[600, 601]),
        worker_busy_ms: words(&[1_500, 1_499]),
        lease_frames: 70,
        report_frames: 71,
        stale_reports: 1,
        recalls: 2,
        worker_deaths: 3,
        bytes_held: 65_535,
        tasks_held: 65_536,
        store_limit: 8 << 30,
        store_owned: 96 << 20,
        store_peak: 128 << 20,
        store_mapped: 64 << 20,
        store_inline: 70_000,
        store_spilled: 1 << 30,
        largest: blobs(&[6, 6], b"load-3load-4"),
        largest_bytes: &[0, 0, 0, 12, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        retries: 8,
        timeouts: 300,
        oom_deaths: 1,
        blamed_deaths: 2,
        workers_retired: 12,
        things: blobs(&[7, 2], b"licensedb"),
        thing_tags: &[0, 1],
        thing_amounts: &[
            1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ],
    }
}

fn lease() -> Lease<'static> {
    Lease {
        frame: 77,
        dead: words(&[9]),
        function_ids: words(&[2]),
        function_names: blobs(&[3], b"add"),
        functions: blobs(&[3], &[0x80, 0x05, 0x2e]),
        value_task: words(&[12]),
        values: blobs(&[2], &[3, 42]),
        task: words(&[40, 41]),
        attempt: words(&[1, 300]),
        function: words(&[2, 2]),
        flags: &[LEASE_HOLD, LEASE_REPORT],
        index: words(&[0, 1]),
        dep_counts: words(&[1, 2]),
        deps: words(&[12, 40, 12]),
        args: blobs(&[3, 3], &[1, 0, 0, 2, 0, 0]),
        key_position: words(&[1]),
        keys: blobs(&[5], b"total"),
        timeout_ms: words(&[0, 5_000]),
        failures: words(&[2, 0]),
    }
}

fn report() -> Report<'static> {
    Report {
        task: words(&[40, 41, 42, 43, 44, 12]),
        attempt: words(&[1, 300, 1, 1, 1, 2]),
        verdict: &[0, 1, 2, 3, 4, 5],
        values: blobs(&[2, 0, 3, 0, 0, 2], &[3, 7, 0x80, 0x05, 0x2e, 3, 42]),
        timed_function: words(&[2]),
        timed_calls: words(&[3]),
        timed_ns: words(&[1_250]),
    }
}

fn because() -> Because<'static> {
    Because {
        number: 5,
        state: TaskPlace::Running as u8,
        worker: 1,
        pid: 70_000,
        attempt: 2,
        since_ms: 3_250,
        text: "'merge-3' runs in worker 1",
        stacks: "Current thread",
    }
}

fn death() -> Death<'static> {
    Death {
        worker: 1,
        pid: 70_001,
        signal: 9,
        exit_code: 0,
        attempts: 1,
        limit: 1,
        stderr: b"Segmentation fault\n",
        cause: DeathCause::OutOfMemory as u8,
        memory_limit: 1 << 32,
        memory_peak: 4_000_000_000,
        group_others: 14,
        workers: words(&[0, 1]),
        pids: words(&[70_000, 70_001]),
        signals: words(&[0, 9]),
        exit_codes: words(&[-1_i32 as u32, 0]),
        causes: &[0, 1],
        key: "fit-7",
    }
}
