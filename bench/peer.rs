//! The native side of the measurements: an echo server that is one epoll loop, and a load generator.
//!
//! ```text
//! bench-peer echo                            prints its port; echoes whatever comes on any connection
//! bench-peer load PORT CONNECTIONS SECONDS   each connection sends 64 bytes and waits for them to come back;
//!                                            prints round trips per second
//! bench-peer tls                             prints its port; after the handshake, which is never a resumed one, a
//!                                            client asks by a line: `receive N` for N bytes, or `send N` to be told
//!                                            when N bytes have come
//! ```

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made has to end loudly"
)]

use std::env;
use std::io::BufRead;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use mio::Events;
use mio::Interest;
use mio::Poll;
use mio::Token;
use mio::unix::SourceFd;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::NoServerSessionStorage;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| words[at].parse::<usize>().unwrap();
    match words[0].as_str() {
        "echo" => echo(),
        "load" => load(number(1) as u16, number(2), Duration::from_secs_f64(words[3].parse().unwrap())),
        "tls" => tls(),
        other => panic!("{other}: no such job"),
    }
}

fn tls() {
    let chain = CertificateDer::pem_file_iter("build/certificates/server.pem").unwrap().map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_file("build/certificates/server.key").unwrap();
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain.collect(), key).unwrap();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    for socket in listener.incoming() {
        let (socket, config) = (socket.unwrap(), Arc::clone(&config));
        socket.set_nodelay(true).unwrap();
        // A client that has measured enough goes.
        thread::spawn(move || answer(StreamOwned::new(ServerConnection::new(config).unwrap(), socket)));
    }
}

fn answer(mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::with_capacity(1, &mut stream).read_line(&mut line)?;
    let mut bytes = vec![b'x'; 256 * 1024];
    match line.trim().split_once(' ') {
        Some(("receive", count)) => {
            let mut left: usize = count.parse().unwrap();
            while left > 0 {
                let count = left.min(bytes.len());
                stream.write_all(&bytes[..count])?;
                left -= count;
            }
        }
        Some((_, count)) => {
            let mut left: usize = count.parse().unwrap();
            while left > 0 {
                left -= stream.read(&mut bytes)?;
            }
            stream.write_all(b"ok")?;
        }
        None => {}
    }
    stream.conn.send_close_notify();
    stream.flush()
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
    let mut connections: Vec<(TcpStream, usize)> = (0..count)
        .map(|at| {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            poll.registry()
                .register(&mut SourceFd(&stream.as_raw_fd()), Token(at), Interest::READABLE)
                .unwrap();
            (stream, 0)
        })
        .collect();
    for (stream, _) in &mut connections {
        stream.write_all(&MESSAGE).unwrap();
    }
    let warm = Instant::now() + time / 5;
    let mut events = Events::with_capacity(1024);
    let mut began = None;
    let mut trips = 0_u64;
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
                trips += 1;
                stream.write_all(&MESSAGE).unwrap();
            }
        }
        let now = Instant::now();
        match began {
            None if now >= warm => (began, trips) = (Some(now), 0),
            Some(since) if now - since >= time => {
                println!("{:.0}", trips as f64 / (now - since).as_secs_f64());
                return;
            }
            _ => {}
        }
    }
}
