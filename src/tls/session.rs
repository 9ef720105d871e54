//! One side of a TLS connection, without its socket.
//!
//! What arrived goes into `room`, what is to be sent is taken from `outgoing`, and between the two `advance` turns
//! records into plain bytes. rustls is lent these buffers: it works on all the records that have arrived at once, and
//! what it seals leaves from where it has put it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::AlertDescription;
use rustls::CommonState;
use rustls::Error as Rustls;
use rustls::HandshakeKind;
use rustls::ProtocolVersion;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;

use crate::error::Error;
use crate::frame::buffer::Buffer;
use crate::frame::buffer::LARGE_ROOM;
use crate::frame::buffer::RECORD_ROOM;
use crate::frame::buffer::keep_freed_memory;
use crate::tls::certificate::Description;
use crate::tls::config::ClientConfig;
use crate::tls::config::ServerConfig;
use crate::tls::expiry;
use crate::tls::failure;
use crate::tls::failure::unusable;
use crate::tls::identity::take_asked_for;
use crate::tls::sessions::Server;
use crate::tls::wire::Problem;
use crate::tls::wire::SMALL_ROOM;
use crate::tls::wire::Wire;
use crate::tls::wire::Wish;

pub struct Session {
    side: Side,
    wire: Wire,
    /// The last arrival filled its room: more is coming.
    is_bulk: bool,
    /// Something has arrived since the handshake.
    has_heard: bool,
    /// Data was sealed.
    has_spoken: bool,
    /// Whom the client has asked for.
    server_name: Option<String>,
}

enum Side {
    Client(Box<UnbufferedClientConnection>, Asked),
    /// With the Unix second at which the client's certificates end.
    Server(Box<UnbufferedServerConnection>, Option<u64>),
}

/// Whom a client has asked.
struct Asked {
    server: Arc<Server>,
    /// The handshake is complete.
    is_settled: bool,
}

impl Drop for Asked {
    /// A server that does not complete a handshake may not be what it was: nothing of old sessions is offered to it again.
    fn drop(&mut self) {
        if !self.is_settled {
            self.server.forget();
        }
    }
}

/// The most that is encrypted at once: what it becomes fits into `LARGE_ROOM`.
pub const MOST: usize = 4 * RECORD;

/// Bytes of one record at most (RFC 8446, section 5.1).
pub const RECORD: usize = 16 * 1024;

/// The name as TLS knows it, if a certificate could cover it.
fn server_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        unusable(format!("'{name}' is no name that a certificate could cover (sni may give one)"))
    })
}

pub fn check_name(name: &str) -> Result<(), Error> {
    server_name(name).map(drop)
}

/// The name that a certificate of `host` covers: without what only belongs to addresses, and the root's dot.
pub fn covered_name(host: &str) -> String {
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let name = name.split('%').next().unwrap_or_default();
    match (name.strip_prefix("unix:"), name.strip_suffix('.')) {
        // Nobody verifies it: the script would have been told to give a name.
        (Some(_), _) => Ipv4Addr::LOCALHOST.to_string(),
        (None, Some(name)) => name.into(),
        (None, None) => name.into(),
    }
}

impl Session {
    /// Asks the server at `address` for TLS; `name` is what its certificate has to cover.
    pub fn client(config: &ClientConfig, name: &str, address: &str) -> Result<Self, Error> {
        let server = config.server(address, server_name(name)?);
        let client = UnbufferedClientConnection::new(Arc::clone(&server.config), server.name());
        let asked = Asked { server, is_settled: false };
        let client = client.map_err(|error| failure::error(&error, "server"))?;
        Ok(Self { server_name: Some(name.into()), ..Self::of(Side::Client(Box::new(client), asked)) })
    }

    /// Answers a client that asks for TLS.
    pub fn server(config: &ServerConfig) -> Result<Self, Error> {
        let server = UnbufferedServerConnection::new(config.shared());
        let server = server.map_err(|error| failure::error(&error, "client"))?;
        Ok(Self::of(Side::Server(Box::new(server), None)))
    }

    fn of(side: Side) -> Self {
        Self {
            side,
            wire: Wire::default(),
            is_bulk: false,
            has_heard: false,
            has_spoken: false,
            server_name: None,
        }
    }

    /// Where the next records are to be put.
    pub fn room(&mut self) -> Result<&mut [u8], Error> {
        let incoming = &mut self.wire.incoming;
        let wanted = if self.is_bulk { LARGE_ROOM } else { RECORD_ROOM };
        incoming.room(wanted.saturating_sub(incoming.len()).max(SMALL_ROOM))
    }

    /// These bytes had arrived before.
    pub fn take_in(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.wire.incoming.append(bytes)
    }

    /// The first `count` bytes of the last `room` have arrived; `is_full` if that was all of it.
    pub fn arrived(&mut self, count: usize, is_full: bool) {
        self.wire.incoming.arrived(count);
        if is_full && !self.is_bulk {
            keep_freed_memory();
        }
        self.is_bulk = is_full;
        self.has_heard |= !self.is_handshaking();
    }

    /// Turns every whole record that has arrived into bytes of `plain`, and says in `outgoing` what TLS has to say.
    /// After an error nothing can follow but what is then in `outgoing`.
    pub fn advance(&mut self, plain: &mut Buffer) -> Result<(), Error> {
        self.work(plain, Wish::Nothing)
    }

    /// Seals `data`, at most `MOST` bytes, into `outgoing`.
    pub fn encrypt(&mut self, data: &[u8], plain: &mut Buffer) -> Result<(), Error> {
        debug_assert!(data.len() <= MOST);
        self.has_spoken |= !data.is_empty();
        self.work(plain, Wish::Encrypt(data))
    }

    /// Tells the peer that nothing more will be sent (RFC 8446, section 6.1).
    pub fn close(&mut self, plain: &mut Buffer) -> Result<(), Error> {
        self.work(plain, Wish::CloseNotify)
    }

    /// What is to be sent.
    pub fn outgoing(&self) -> &[u8] {
        self.wire.outgoing.bytes()
    }

    pub fn sent(&mut self, count: usize) {
        self.wire.outgoing.consume(count);
        self.wire.outgoing.release_if_empty();
    }

    /// Nobody will take what is to be sent.
    pub fn forget_outgoing(&mut self) {
        self.wire.outgoing = Buffer::default();
    }

    pub fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    pub fn peer_has_closed(&self) -> bool {
        self.wire.peer_has_closed
    }

    /// Whether part of a record has arrived.
    pub fn has_unread(&self) -> bool {
        self.wire.incoming.len() > 0
    }

    /// Whether the server's session tickets are still to come to a client that has sent data: TLS 1.3 sends
    /// them after the handshake (RFC 8446, section 4.6.1), and a socket that was closed answers them with a
    /// reset, which takes away what is on its way.
    pub fn awaits_tickets(&self) -> bool {
        let is_client = matches!(self.side, Side::Client(..));
        is_client
            && self.has_spoken
            && !self.has_heard
            && self.state().protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }

    /// How errors call the other side.
    pub fn peer(&self) -> &'static str {
        match self.side {
            Side::Client(..) => "server",
            Side::Server(..) => "client",
        }
    }

    /// Whom the client has asked for: a name, or on its own side an address (RFC 6066, section 3).
    pub fn server_name(&self) -> Option<&str> {
        self.settled().and(self.server_name.as_deref())
    }

    /// The name that IANA gave to it. `None` during the handshake, as for all that follow.
    pub fn cipher(&self) -> Option<String> {
        let name = self.settled()?.negotiated_cipher_suite()?.suite().as_str()?;
        // rustls tells its versions apart.
        Some(name.replace("TLS13_", "TLS_"))
    }

    pub fn protocol(&self) -> Option<&'static str> {
        match self.settled()?.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            _ => Some("TLSv1.3"),
        }
    }

    /// What both sides have agreed to speak inside (RFC 7301).
    pub fn alpn(&self) -> Option<&[u8]> {
        self.settled()?.alpn_protocol()
    }

    /// Whether keys of an earlier session were used.
    pub fn is_resumed(&self) -> Option<bool> {
        self.settled()?.handshake_kind().map(|kind| kind == HandshakeKind::Resumed)
    }

    pub fn peer_certificate(&self) -> Option<Description> {
        Description::of(self.settled()?.peer_certificates()?.first()?)
    }

    /// What the handshake has brought, once it is done.
    fn settled(&self) -> Option<&CommonState> {
        Some(self.state()).filter(|state| !state.is_handshaking())
    }

    fn state(&self) -> &CommonState {
        match &self.side {
            Side::Client(it, _) => it,
            Side::Server(it, _) => it,
        }
    }

    fn work(&mut self, plain: &mut Buffer, wish: Wish<'_>) -> Result<(), Error> {
        let was_handshaking = self.is_handshaking();
        let worked = match &mut self.side {
            // rustls waits for more.
            _ if was_handshaking && is_goodbye(self.wire.incoming.bytes()) => {
                Err(Problem::Tls(Rustls::AlertReceived(AlertDescription::CloseNotify)))
            }
            Side::Client(it, asked) => {
                expiry::set_peer_end(None);
                let worked = self.wire.work(&mut **it, plain, wish);
                if let Some(end) = expiry::peer_end() {
                    asked.server.note_end(end);
                }
                asked.is_settled = !it.is_handshaking();
                worked
            }
            Side::Server(it, end) => {
                expiry::set_peer_end(*end);
                let worked = self.wire.work(&mut **it, plain, wish);
                *end = expiry::peer_end();
                self.server_name = take_asked_for().or(self.server_name.take());
                worked
            }
        };
        self.has_heard |= was_handshaking && !self.is_handshaking() && self.has_unread();
        // An idle connection costs no buffer.
        self.wire.incoming.release_if_empty();
        worked.map_err(|problem| {
            let error = match problem {
                Problem::Ours(error) => return error,
                Problem::Tls(error) => error,
            };
            let input = self.wire.incoming.bytes();
            let foreign = if was_handshaking { failure::foreign(&error, input, self.peer()) } else { None };
            foreign.unwrap_or_else(|| failure::error(&error, self.peer()))
        })
    }
}

/// A closing alert in the clear (RFC 5246, section 7.2): type, version, length, level, description.
fn is_goodbye(input: &[u8]) -> bool {
    matches!(input, [21, 3, _, 0, 2, _, 0, ..])
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::error::Kind;
    use crate::options::Authorities;
    use crate::options::Identity;
    use crate::options::Pem;
    use crate::options::TlsClientOptions;
    use crate::options::TlsServerOptions;

    const FOLDER: &str = "build/certificates";

    fn file(name: &str) -> Pem {
        Pem::File(Path::new(FOLDER).join(name))
    }

    /// A client that trusts `ca` and asks for `sni`, and a server.
    fn pair(ca: &str, sni: &str) -> (Session, Session) {
        // No key is in the tree.
        assert!(Command::new("tools/certificates.sh").arg(FOLDER).status().unwrap().success());
        let options =
            TlsClientOptions { ca_bundle: Authorities::Listed(file(ca)), ..TlsClientOptions::default() };
        let client = Session::client(&ClientConfig::of(&options).unwrap(), sni, "here").unwrap();
        let (cert, key) = (file("server.pem"), file("server.key"));
        let identity = Some(Identity { cert, key, called: ("cert".into(), "key".into()) });
        let options = TlsServerOptions { identity, ..TlsServerOptions::default() };
        (client, Session::server(&ServerConfig::of(&options).unwrap()).unwrap())
    }

    /// Carries what one says to the other, `step` bytes at a time, and gives what that brought.
    fn carry(from: &mut Session, to: &mut Session, step: usize) -> Result<Vec<u8>, Error> {
        let mut plain = Buffer::default();
        while !from.outgoing().is_empty() {
            let room = to.room().unwrap();
            let count = from.outgoing().len().min(step).min(room.len());
            room[..count].copy_from_slice(&from.outgoing()[..count]);
            let is_full = count == room.len();
            from.sent(count);
            to.arrived(count, is_full);
            to.advance(&mut plain)?;
        }
        Ok(plain.bytes().to_vec())
    }

    fn shake(client: &mut Session, server: &mut Session, step: usize) -> Result<(), Error> {
        client.advance(&mut Buffer::default())?;
        while client.is_handshaking() || server.is_handshaking() {
            carry(client, server, step)?;
            carry(server, client, step)?;
        }
        Ok(())
    }

    #[test]
    fn what_is_sealed_arrives_however_it_is_cut() {
        for step in [1, 7, 1000, usize::MAX] {
            let (mut client, mut server) = pair("ca.pem", "localhost");
            shake(&mut client, &mut server, step).unwrap();
            let data: Vec<u8> = (0..MOST).map(|at| (at % 251) as u8).collect();
            client.encrypt(&data, &mut Buffer::default()).unwrap();
            client.encrypt(b"end", &mut Buffer::default()).unwrap();
            let got = carry(&mut client, &mut server, step).unwrap();
            assert_eq!(got, [&data[..], b"end"].concat(), "cut at {step}");
            assert!(!server.has_unread());
        }
    }

    #[test]
    fn the_closing_alert_ends_one_direction() {
        let (mut client, mut server) = pair("ca.pem", "127.0.0.1");
        shake(&mut client, &mut server, usize::MAX).unwrap();
        assert!(!server.peer_has_closed());
        client.close(&mut Buffer::default()).unwrap();
        carry(&mut client, &mut server, usize::MAX).unwrap();
        assert!(server.peer_has_closed() && !client.peer_has_closed());
        server.encrypt(b"still", &mut Buffer::default()).unwrap();
        assert_eq!(carry(&mut server, &mut client, usize::MAX).unwrap(), b"still");
    }

    #[test]
    fn a_refused_server_is_told_by_an_alert() {
        let (mut client, mut server) = pair("stranger-ca.pem", "localhost");
        let error = shake(&mut client, &mut server, usize::MAX).unwrap_err();
        assert_eq!(error.kind(), Kind::Certificate);
        assert!(error.message().contains("issuer is not trusted here: CN=Test Authority"), "{error}");
        let told = carry(&mut client, &mut server, usize::MAX).unwrap_err();
        assert_eq!((told.kind(), told.alert()), (Kind::Tls, Some("unknown_ca")));
    }

    #[test]
    fn a_change_of_one_bit_is_noticed() {
        let (mut client, mut server) = pair("ca.pem", "localhost");
        shake(&mut client, &mut server, usize::MAX).unwrap();
        client.encrypt(b"data", &mut Buffer::default()).unwrap();
        let mut record = client.outgoing().to_vec();
        *record.last_mut().unwrap() ^= 1;
        server.room().unwrap()[..record.len()].copy_from_slice(&record);
        server.arrived(record.len(), false);
        let mut plain = Buffer::default();
        assert_eq!(server.advance(&mut plain).unwrap_err().kind(), Kind::Tls);
        assert_eq!(plain.len(), 0);
    }

    #[test]
    fn the_second_session_of_the_same_options_is_resumed() {
        for is_first in [true, false] {
            let (mut client, mut server) = pair("ca.pem", "::1");
            assert_eq!((client.is_resumed(), client.cipher(), server.protocol()), (None, None, None));
            shake(&mut client, &mut server, usize::MAX).unwrap();
            carry(&mut server, &mut client, usize::MAX).unwrap();
            assert_eq!((client.is_resumed(), server.is_resumed()), (Some(!is_first), Some(!is_first)));
            assert_eq!((client.server_name(), server.server_name()), (Some("::1"), None));
            assert_eq!(server.protocol(), Some("TLSv1.3"));
            assert_eq!(client.peer_certificate().unwrap().subject, "CN=localhost");
        }
    }

    #[test]
    fn tickets_are_awaited_until_something_has_come() {
        let (mut client, mut server) = pair("ca.pem", "localhost");
        client.advance(&mut Buffer::default()).unwrap();
        while client.is_handshaking() {
            carry(&mut client, &mut server, usize::MAX).unwrap();
            carry(&mut server, &mut client, usize::MAX).unwrap();
        }
        assert!(!client.awaits_tickets(), "nothing can be lost yet");
        client.encrypt(b"data", &mut Buffer::default()).unwrap();
        assert!(client.awaits_tickets());
        carry(&mut client, &mut server, usize::MAX).unwrap();
        carry(&mut server, &mut client, usize::MAX).unwrap();
        assert!(!client.awaits_tickets() && !server.awaits_tickets());
    }
}
