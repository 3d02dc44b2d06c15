use std::os::unix::fs::FileExt;

use headrace_sys::zmq::find_candidates;

use super::*;

fn exchange() -> Exchange {
    Exchange::start(&Library::open(&find_candidates()).unwrap(), "127.0.0.1").unwrap()
}

fn segment(contents: &[u8]) -> Arc<File> {
    let bytes = (contents.len() as u64).next_multiple_of(4_096);
    let file = File::from(headrace_sys::segment::create(bytes).unwrap());
    file.write_all_at(contents, 0).unwrap();
    Arc::new(file)
}

fn contents(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn introduce(exchanges: &[&Exchange]) {
    for one in exchanges {
        exchanges.iter().for_each(|other| one.introduce(&other.key, false));
    }
}

fn wait(exchange: &Exchange) -> Copied {
    for _ in 0..200 {
        if let Some(copied) = exchange.poll() {
            return copied;
        }
        let _ = poll::wait(&mut [PollFd::input(exchange.fd())], Some(Duration::from_millis(100)));
    }
    panic!("nothing was copied");
}

fn copy(number: u64, from: &Exchange, source: u32, target: u32, bytes: u64) -> CopyJob {
    let parts = vec![CopyPart { from: (source, 0), to: (target, 0), bytes }];
    CopyJob { number, endpoint: from.endpoint.clone(), key: from.key.clone(), parts }
}

#[test]
fn bytes_go_from_machine_to_machine_and_on_from_there() {
    let (first, second, third) = (exchange(), exchange(), exchange());
    introduce(&[&first, &second, &third]);
    let long: Vec<u8> = (0..5_000_064_u32).map(|byte| (byte * 7) as u8).collect();
    first.enter(1, segment(&long), false);
    let (here, there) = (segment(&vec![0; long.len()]), segment(&vec![0; long.len()]));
    second.enter(2, Arc::clone(&here), true);
    third.enter(3, Arc::clone(&there), true);
    // The last one asks before the one in the middle has anything.
    third.copy(copy(7, &second, 2, 3, 5_000_064));
    second.copy(copy(6, &first, 1, 2, 5_000_064));
    assert!(matches!(wait(&second), Copied { job: 6, outcome: Ok(()) }));
    assert!(matches!(wait(&third), Copied { job: 7, outcome: Ok(()) }));
    assert!(contents(&here, long.len()) == long && contents(&there, long.len()) == long);
}

#[test]
fn a_copy_goes_on_from_another_source() {
    let (first, second, third) = (exchange(), exchange(), exchange());
    introduce(&[&first, &second, &third]);
    let long: Vec<u8> = (0..3_000_000_u32).map(|byte| byte as u8).collect();
    second.enter(2, segment(&long), false);
    let target = segment(&vec![0; long.len()]);
    third.enter(3, Arc::clone(&target), true);
    third.copy(copy(1, &first, 9, 3, 2_999_936));
    let Copied { job: 1, outcome: Err(text) } = wait(&third) else { panic!("there is no such segment") };
    assert!(text.contains("its source is gone"), "{text}");
    third.copy(copy(1, &second, 2, 3, 2_999_936));
    assert!(matches!(wait(&third), Copied { job: 1, outcome: Ok(()) }));
    assert!(contents(&target, 2_999_936) == long[..2_999_936]);
}

#[test]
fn a_stranger_gets_nothing_and_a_copy_can_be_given_up() {
    let (first, second) = (exchange(), exchange());
    first.enter(1, segment(b"secret"), false);
    second.enter(2, segment(&[0; 64]), true);
    second.copy(copy(1, &first, 1, 2, 64));
    second.copy(CopyJob { parts: Vec::new(), ..copy(1, &first, 1, 2, 64) });
    let Copied { job: 1, outcome: Err(text) } = wait(&second) else { panic!("it was not let in") };
    assert_eq!(text, "it was given up");
    first.introduce(&second.key, false);
    second.copy(copy(2, &first, 1, 2, 64));
    assert!(matches!(wait(&second), Copied { job: 2, outcome: Ok(()) }));
}
