//! The other side of the specs and of the demo: a process that plays a script of actions, one connection at a
//! time. It knows nothing of the module.
//!
//! ```text
//! peer [--tls NAME | --tls12 NAME] [--ipv6 | --unix PATH | --silent] ACTION...
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
//! cut            close without TLS's closing alert
//! goodbye        send that alert, and nothing else
//! trickle MS HEX send one TLS record, its bytes MS apart
//! wire HEX       send bytes that did not go through TLS
//! ```
//!
//! With `--tls`, `accept` also shakes hands, with the certificate of that name (tools/certificates.sh), and what follows
//! goes through TLS, at most of version 1.2 with `--tls12`.
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
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
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
    let tls = tls(&mut words);
    let listener = listen(&mut words);
    let mut play = Play { listener, tls, connection: None };
    while play.run(&words) {}
}

fn tls(words: &mut Vec<String>) -> Option<Arc<ServerConfig>> {
    let versions = match words.first()?.as_str() {
        "--tls" => rustls::ALL_VERSIONS,
        "--tls12" => &[&rustls::version::TLS12][..],
        _ => return None,
    };
    let name = words.drain(..2).next_back().unwrap();
    let file = |kind: &str| format!("build/certificates/{name}.{kind}");
    let chain = CertificateDer::pem_file_iter(file("pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(file("key")).unwrap();
    let builder = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
    Some(Arc::new(builder.with_single_cert(chain, key).unwrap()))
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
    tls: Option<Arc<ServerConfig>>,
    connection: Option<Connection>,
}

/// What an action reads from and writes to.
struct Connection {
    socket: Socket,
    tls: Option<ServerConnection>,
}

impl Connection {
    /// A client that does not like what it sees is no fault of the script.
    fn new(mut socket: Socket, config: Option<&Arc<ServerConfig>>) -> Self {
        // What was sent has left when the next action begins: a reset would take back what still waits for an
        // acknowledgement (RFC 896). A unix socket has no such option.
        let _ = socket.set_tcp_nodelay(true);
        let mut tls = config.map(|config| ServerConnection::new(Arc::clone(config)).unwrap());
        if let Some(tls) = &mut tls {
            let _ = tls.complete_io(&mut socket);
            // A failure is told to the client.
            let _ = tls.write_tls(&mut socket);
        }
        Self { socket, tls }
    }

    fn say_goodbye(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
    }

    /// One TLS record, byte by byte.
    fn trickle(&mut self, pause: Duration, bytes: &[u8]) {
        let mut record = Vec::new();
        let tls = self.tls.as_mut().expect("trickle needs --tls");
        tls.writer().write_all(bytes).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut record).unwrap();
        }
        for byte in record {
            let _ = self.socket.write_all(&[byte]);
            thread::sleep(pause);
        }
    }
}

impl Read for Connection {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.socket).read(room),
            None => self.socket.read(room),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.socket).write(bytes),
            None => self.socket.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(tls, &mut self.socket).flush(),
            None => Ok(()),
        }
    }
}

impl Play {
    /// `true`: once more from the first action on.
    fn run(&mut self, words: &[String]) -> bool {
        let mut words = words.iter();
        while let Some(action) = words.next() {
            let mut word = || words.next().unwrap_or_else(|| panic!("{action}: a word is missing"));
            match action.as_str() {
                "accept" => {
                    let socket = self.listener.accept().unwrap().0;
                    self.connection = Some(Connection::new(socket, self.tls.as_ref()));
                }
                "send" => self.send(&from_hex(word())),
                "urgent" => drop(self.connection().socket.send_out_of_band(&from_hex(word()))),
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
                "shutdown" => {
                    self.connection().say_goodbye();
                    // The client may have reset it.
                    let _ = self.connection().socket.shutdown(std::net::Shutdown::Write);
                }
                "close" => {
                    self.connection().say_goodbye();
                    self.connection = None;
                }
                "cut" => self.connection = None,
                "goodbye" => self.connection().say_goodbye(),
                "trickle" => {
                    let (pause, bytes) = (Duration::from_millis(number(word())), from_hex(word()));
                    self.connection().trickle(pause, &bytes);
                }
                "wire" => drop(self.connection().socket.write_all(&from_hex(word()))),
                "reset" => {
                    self.connection().socket.set_linger(Some(Duration::ZERO)).unwrap();
                    self.connection = None;
                }
                "stall" => stall(),
                "again" => return true,
                other => panic!("no action is called {other}"),
            }
        }
        false
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("accept comes first")
    }

    /// A peer that has gone is no fault of the script.
    fn send(&mut self, bytes: &[u8]) {
        let connection = self.connection();
        let _ = connection.write_all(bytes).and_then(|()| connection.flush());
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
