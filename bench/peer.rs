//! The native side of the measurements: an echo server that is one epoll loop, a server over TLS, and load generators.
//!
//! ```text
//! bench-peer echo                            prints its port; echoes whatever comes on any connection
//! bench-peer load PORT CONNECTIONS SECONDS   each connection sends 64 bytes and waits for them to come back;
//!                                            prints round trips per second
//! bench-peer tls [tickets]                   see tls.rs
//! bench-peer load-tls JOB PORT CONNECTIONS SECONDS
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made has to end loudly"
)]

#[path = "peer/tls.rs"]
mod tls;

use std::env;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::time::Instant;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::unix::SourceFd;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    let seconds = |at: usize| Duration::from_secs_f64(words[at].parse().unwrap());
    match words[0].as_str() {
        "echo" => echo(),
        "load" => load(number(1) as u16, number(2), seconds(3)),
        "tls" => tls::serve(words.get(1).is_some_and(|word| word == "tickets")),
        "load-tls" => tls::load(&words[1], number(2) as u16, number(3), seconds(4)),
        other => panic!("{other}: no such job"),
    }
}

const LISTENER: Token = Token(usize::MAX);

fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut SourceFd(&listener.as_raw_fd()), LISTENER, Interest::READABLE).unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let mut connections: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut room = vec![0; 8192];
    loop {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    let token = Token(connections.len());
                    poll.registry()
                        .register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE)
                        .unwrap();
                    connections.push(Some(stream));
                }
            } else if let Some(stream) = &mut connections[event.token().0]
                && !echo_what_came(stream, &mut room)
            {
                connections[event.token().0] = None;
            }
        }
    }
}

/// `false` once the connection has ended.
fn echo_what_came(stream: &mut TcpStream, room: &mut [u8]) -> bool {
    loop {
        match stream.read(room) {
            Ok(0) => return false,
            Ok(count) => {
                stream.write_all(&room[..count]).unwrap();
                // A short read has taken all there was (epoll(7)).
                if count < room.len() {
                    return true;
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

const MESSAGE: [u8; 64] = [b'x'; 64];

fn load(port: u16, count: usize, time: Duration) {
    let mut poll = Poll::new().unwrap();
    let mut connections: Vec<(TcpStream, usize)> =
        (0..count).map(|at| (connect(port, &poll, Token(at)), 0)).collect();
    for (stream, _) in &mut connections {
        stream.write_all(&MESSAGE).unwrap();
    }
    let mut events = Events::with_capacity(1024);
    let mut trips = Count::new(time);
    loop {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            let (stream, got) = &mut connections[event.token().0];
            let mut room = [0; 256];
            match stream.read(&mut room) {
                Ok(0) => panic!("the server has closed a connection"),
                Ok(bytes) => *got += bytes,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(*got <= MESSAGE.len(), "more came back than was sent");
            if *got == MESSAGE.len() {
                *got = 0;
                trips.add_one();
                stream.write_all(&MESSAGE).unwrap();
            }
        }
        if let Some(Moment::Over { rate, .. }) = trips.moment() {
            println!("{rate:.0}");
            return;
        }
    }
}

fn connect(port: u16, poll: &Poll, token: Token) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), token, Interest::READABLE).unwrap();
    stream
}

/// What is done in a time that begins when a fifth of as much has gone by.
struct Count {
    time: Duration,
    warm: Instant,
    began: Option<Instant>,
    done: u64,
}

enum Moment {
    Begun,
    /// `rate` is what was done per second.
    Over {
        rate: f64,
        done: u64,
    },
}

impl Count {
    fn new(time: Duration) -> Self {
        Self { time, warm: Instant::now() + time / 5, began: None, done: 0 }
    }

    fn add_one(&mut self) {
        self.done += 1;
    }

    /// To be asked often; each is told once.
    fn moment(&mut self) -> Option<Moment> {
        let now = Instant::now();
        let Some(began) = self.began else {
            if now < self.warm {
                return None;
            }
            (self.began, self.done) = (Some(now), 0);
            return Some(Moment::Begun);
        };
        let passed = now - began;
        (passed >= self.time)
            .then(|| Moment::Over { rate: self.done as f64 / passed.as_secs_f64(), done: self.done })
    }
}
