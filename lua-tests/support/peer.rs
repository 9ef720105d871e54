//! The other side of the specs and of the demo: a process that plays a script of actions, one connection at a
//! time. It knows nothing of the module.
//!
//! ```text
//! peer [--ipv6 | --unix PATH | --silent] ACTION...
//! peer --silent-dns ADDRESS
//!
//! accept         take the next connection        send HEX        write these bytes
//! urgent HEX     write urgent data
//! repeat N HEX   write these bytes N times       dribble MS HEX  write byte by byte, MS apart
//! read N         read exactly N bytes            drain           read to the end of the stream
//! skip N         as read, without telling
//! echo           send everything back            sleep MS        wait
//! shutdown       end the sending side            close           close in an orderly way
//! reset          close with a reset              stall           do nothing until killed
//! again          from the first action on, for the next connection
//! ```
//!
//! The first line it prints is its port and its process id; `read` and `drain` print how much came
//! on a line, and what came as it is.
//! `--silent` listens in such a way that a connection is neither accepted nor refused; `--silent-dns` takes
//! questions on UDP port 53 and never answers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a spec's script that cannot be played has to end loudly"
)]

use std::env;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process;
use std::thread;
use std::time::Duration;

use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;

/// Nothing a spec starts outlives it for long.
const LIFE: Duration = Duration::from_secs(60);

fn main() {
    thread::spawn(|| {
        thread::sleep(LIFE);
        eprintln!("peer: its time is up");
        process::exit(3);
    });
    let mut words: Vec<String> = env::args().skip(1).collect();
    if let [option, address] = &words[..]
        && option == "--silent-dns"
    {
        let _socket = UdpSocket::bind((address.as_str(), 53)).unwrap();
        println!("53 {}", process::id());
        stall();
    }
    let listener = listen(&mut words);
    let mut play = Play { listener, connection: None };
    while play.run(&words) {}
}

fn listen(words: &mut Vec<String>) -> Socket {
    let first = words.first().cloned().unwrap_or_default();
    let (domain, address, options): (Domain, SockAddr, usize) = match first.as_str() {
        "--ipv6" => (Domain::IPV6, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)).into(), 1),
        "--unix" => (Domain::UNIX, SockAddr::unix(PathBuf::from(&words[1])).unwrap(), 2),
        "--silent" => (Domain::IPV4, SocketAddr::from(([127, 0, 0, 1], 0)).into(), 1),
        _ => (Domain::IPV4, SocketAddr::from(([127, 0, 0, 1], 0)).into(), 0),
    };
    words.drain(..options);
    let listener = Socket::new(domain, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(if first == "--silent" { 0 } else { 128 }).unwrap();
    let bound = listener.local_addr().unwrap();
    let crowd: Vec<Socket> = (0..if first == "--silent" { 4 } else { 0 })
        .map(|_| {
            let client = Socket::new(domain, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&bound);
            client
        })
        .collect();
    println!("{} {}", bound.as_socket().map_or(0, |address| address.port()), process::id());
    if !crowd.is_empty() {
        stall();
    }
    listener
}

struct Play {
    listener: Socket,
    connection: Option<Socket>,
}

impl Play {
    /// `true`: once more from the first action on.
    fn run(&mut self, words: &[String]) -> bool {
        let mut words = words.iter();
        while let Some(action) = words.next() {
            let mut word = || words.next().unwrap_or_else(|| panic!("{action}: a word is missing"));
            match action.as_str() {
                "accept" => self.connection = Some(self.listener.accept().unwrap().0),
                "send" => self.send(&from_hex(word())),
                "urgent" => drop(self.connection().send_out_of_band(&from_hex(word()))),
                "repeat" => {
                    let (times, bytes) = (number(word()), from_hex(word()));
                    (0..times).for_each(|_| self.send(&bytes));
                }
                "dribble" => {
                    let (pause, bytes) = (Duration::from_millis(number(word())), from_hex(word()));
                    for byte in bytes {
                        self.send(&[byte]);
                        thread::sleep(pause);
                    }
                }
                "read" => {
                    let mut bytes = vec![0; number(word()) as usize];
                    self.connection().read_exact(&mut bytes).unwrap();
                    report(&bytes);
                }
                "skip" => {
                    let count = number(word());
                    std::io::copy(&mut self.connection().take(count), &mut std::io::sink()).unwrap();
                }
                "drain" => {
                    let mut bytes = Vec::new();
                    // A reset ends the stream too; what came before it is reported.
                    let _ = self.connection().read_to_end(&mut bytes);
                    report(&bytes);
                }
                "echo" => self.echo(),
                "sleep" => thread::sleep(Duration::from_millis(number(word()))),
                "shutdown" => self.connection().shutdown(std::net::Shutdown::Write).unwrap(),
                "close" => self.connection = None,
                "reset" => {
                    self.connection().set_linger(Some(Duration::ZERO)).unwrap();
                    self.connection = None;
                }
                "stall" => stall(),
                "again" => return true,
                other => panic!("no action is called {other}"),
            }
        }
        false
    }

    fn connection(&mut self) -> &mut Socket {
        self.connection.as_mut().expect("accept comes first")
    }

    /// A peer that has gone is no fault of the script.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.connection().write_all(bytes);
    }

    fn echo(&mut self) {
        let mut bytes = [0; 65536];
        while let Ok(count) = self.connection().read(&mut bytes) {
            if count == 0 || self.connection().write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    }
}

fn stall() {
    loop {
        thread::park();
    }
}

fn report(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", bytes.len()).and_then(|()| out.write_all(bytes)).and_then(|()| out.flush()).unwrap();
}

fn number(word: &str) -> u64 {
    word.parse().unwrap()
}

fn from_hex(word: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&word[at..at + 2], 16).unwrap();
    (0..word.len()).step_by(2).map(digits).collect()
}
