use std::{fs::File, thread};

use super::*;
use crate::datapath::helper::{starter::pair, worker::serve};

/// What a worker says to these bytes, and how often it looked anything up for them.
fn said_to(bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> (Answer, usize) {
    let (agent, worker) = pair().unwrap();
    let looking = thread::spawn(move || {
        let looked = std::cell::Cell::new(0);
        serve(worker.as_fd(), |_| {
            looked.set(looked.get() + 1);
            Ok(Answer::Socket(File::open("/dev/null")?.into()))
        })
        .unwrap();
        looked.get()
    });
    send(agent.as_fd(), bytes, descriptors).unwrap();
    let answer = receive(agent.as_fd(), RecvFlags::empty()).unwrap();
    drop(agent);
    (Answer::read(answer).unwrap(), looking.join().unwrap())
}

#[test]
fn a_question_is_answered_with_one_descriptor() {
    let question = Question::behind(7, 0).unwrap();
    for question in [
        question,
        Question::of(7).unwrap(),
        Question::runs(7).unwrap(),
    ] {
        assert_eq!(Question::parse(&question.bytes()), Some(question));
    }
    let (answer, looked) = said_to(&question.bytes(), &[]);
    assert!(matches!(answer, Answer::Socket(_)), "{answer:?}");
    assert_eq!(looked, 1);
}

#[test]
fn whatever_is_no_question_is_refused_and_nothing_is_looked_up_for_it() {
    let question = Question::behind(7, 3).unwrap().bytes();
    let long = [&question[..], &[0]].concat();
    let longest = vec![1; 1 << 16];
    let asked = |kind: u8, index: u32, number: i32| {
        [&[kind][..], &index.to_ne_bytes(), &number.to_ne_bytes()].concat()
    };
    let others: [&[u8]; 16] = [
        &question[..8],
        &[0],
        &long,
        &longest,
        b"/proc/1/ns/net",
        &asked(0, 0, 3),
        &asked(0, u32::MAX, 3),
        &asked(0, 1 << 31, 3),
        &asked(0, 7, -1),
        &asked(1, 0, 0),
        &asked(1, 1 << 31, 0),
        &asked(1, 7, 1),
        &asked(2, 0, 0),
        &asked(2, 1 << 31, 0),
        &asked(2, 7, 1),
        &asked(3, 7, 0),
    ];
    for bytes in others {
        let (answer, looked) = said_to(bytes, &[]);
        assert!(
            matches!(answer, Answer::Refused(_)),
            "{bytes:?}: {answer:?}"
        );
        assert_eq!(looked, 0, "{bytes:?}");
    }
    let file = File::open("/dev/null").unwrap();
    let (answer, looked) = said_to(&question, &[file.as_fd()]);
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    assert_eq!(looked, 0);
}

#[test]
fn an_answer_has_a_descriptor_or_a_reason() {
    let descriptor = || OwnedFd::from(File::open("/dev/null").unwrap());
    let read = |bytes: &[u8], count: usize| {
        Answer::read(Message {
            bytes: bytes.to_vec(),
            descriptors: (0..count).map(|_| descriptor()).collect(),
        })
    };
    assert!(matches!(read(&[SOCKET], 1), Ok(Answer::Socket(_))));
    let namespace = read(&[NAMESPACE], 2);
    assert!(matches!(namespace, Ok(Answer::Namespace { .. })));
    assert!(matches!(read(b"\x03/bin/a", 0), Ok(Answer::File(path)) if path == b"/bin/a"));
    assert!(matches!(read(b"\x01no", 0), Ok(Answer::Refused(why)) if why == "no"));
    for (bytes, count) in [
        (&[SOCKET][..], 0),
        (&[SOCKET], 2),
        (&[SOCKET, 0], 1),
        (&[REFUSED], 1),
        (&[NAMESPACE], 0),
        (&[NAMESPACE], 1),
        (&[FILE], 1),
        (&[4], 0),
        (&[], 0),
    ] {
        let garbled = matches!(read(bytes, count), Err(TalkError::Garbled));
        assert!(garbled, "{bytes:?} {count}");
    }
}

#[test]
fn a_long_reason_is_cut() {
    let (agent, worker) = pair().unwrap();
    let why = "x".repeat(LONGEST * 2);
    Answer::Refused(why).send(worker.as_fd()).unwrap();
    let message = receive(agent.as_fd(), RecvFlags::empty()).unwrap();
    assert_eq!(message.bytes.len(), LONGEST);
}

#[test]
fn an_end_that_has_gone_is_told_from_one_that_is_late() {
    let (agent, worker) = pair().unwrap();
    let late = receive(agent.as_fd(), RecvFlags::DONTWAIT);
    assert!(matches!(late, Err(TalkError::Late)), "{late:?}");
    drop(worker);
    let gone = receive(agent.as_fd(), RecvFlags::DONTWAIT);
    assert!(matches!(gone, Err(TalkError::Gone)), "{gone:?}");
    let gone = send(agent.as_fd(), &[1], &[]);
    assert!(matches!(gone, Err(TalkError::Gone)), "{gone:?}");
}
