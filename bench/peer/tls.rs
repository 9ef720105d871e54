//! The measurements over TLS: a server for clients to measure, and the load for servers to bear.
//!
//! ```text
//! bench-peer tls [tickets]   prints its port; after the handshake, which is never a resumed one without `tickets`, a
//!                            client asks by a line: `receive N` for N bytes, or `send N` to be told when N bytes have
//!                            come
//! bench-peer load-tls JOB PORT CONNECTIONS SECONDS
//!                            each connection of TLS 1.3, with a full handshake, sends a line of 64 bytes and waits for
//!                            it to come back: `echo` again and again, `handshakes` once, and a new connection follows;
//!                            prints `begun` when the time begins, then lines per second and lines
//! ```

use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::Events;
use mio::Poll;
use mio::Token;
use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::HandshakeKind;
use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::SignatureScheme;
use rustls::StreamOwned;
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::server::NoServerSessionStorage;

use crate::Count;
use crate::Moment;
use crate::connect;

pub fn serve(tickets: bool) {
    let chain = CertificateDer::pem_file_iter("build/certificates/server.pem").unwrap().map(Result::unwrap);
    let key = PrivateKeyDer::from_pem_file("build/certificates/server.key").unwrap();
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain.collect(), key).unwrap();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if tickets {
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    } else {
        config.send_tls13_tickets = 0;
    }
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

fn answer(mut stream: StreamOwned<ServerConnection, TcpStream>) -> io::Result<()> {
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

pub fn load(job: &str, port: u16, count: usize, time: Duration) {
    let again = match job {
        "echo" => true,
        "handshakes" => false,
        other => panic!("{other}: no such job"),
    };
    let builder = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13]).dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let mut poll = Poll::new().unwrap();
    let mut clients: Vec<Client> =
        (0..count).map(|at| Client::new(port, &config, &poll, Token(at))).collect();
    let mut events = Events::with_capacity(1024);
    let mut lines = Count::new(time);
    loop {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            let client = &mut clients[event.token().0];
            if client.receive() {
                lines.add_one();
                if again {
                    client.send();
                } else {
                    client.say_goodbye();
                    *client = Client::new(port, &config, &poll, event.token());
                }
            }
        }
        match lines.moment() {
            Some(Moment::Begun) => println!("begun"),
            Some(Moment::Over { rate, done }) => {
                println!("{rate:.0} {done}");
                return;
            }
            None => {}
        }
    }
}

/// One that has sent a line, and waits for it to come back.
struct Client {
    socket: TcpStream,
    tls: ClientConnection,
    line: Vec<u8>,
}

impl Client {
    fn new(port: u16, config: &Arc<ClientConfig>, poll: &Poll, token: Token) -> Self {
        let socket = connect(port, poll, token);
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut client = Self { socket, tls, line: Vec::new() };
        client.send();
        client
    }

    /// Before the handshake is done, rustls keeps the line until it is.
    fn send(&mut self) {
        self.line.clear();
        self.tls.writer().write_all(&LINE).unwrap();
        self.flush();
    }

    /// Takes what has come, and answers what has to be answered; `true` once the line is whole.
    fn receive(&mut self) -> bool {
        let mut room = [0; 8192];
        loop {
            let count = match self.socket.read(&mut room) {
                Ok(0) => panic!("the server has closed a connection"),
                Ok(count) => count,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            };
            let mut arrived = &room[..count];
            while !arrived.is_empty() {
                self.tls.read_tls(&mut arrived).unwrap();
                let ready = self.tls.process_new_packets().unwrap().plaintext_bytes_to_read();
                let old = self.line.len();
                self.line.resize(old + ready, 0);
                self.tls.reader().read_exact(&mut self.line[old..]).unwrap();
            }
            // A short read has taken all there was (epoll(7)).
            if count < room.len() {
                break;
            }
        }
        self.flush();
        assert!(LINE.starts_with(&self.line), "what came back is not what was sent");
        let whole = self.line.len() == LINE.len();
        assert!(!whole || self.tls.handshake_kind() == Some(HandshakeKind::Full));
        whole
    }

    fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
        self.flush();
    }

    fn flush(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).unwrap();
        }
    }
}

const LINE: [u8; 64] = {
    let mut line = [b'x'; 64];
    line[63] = b'\n';
    line
};

/// Trusts every server: the load is to cost little beside what it is put on.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
