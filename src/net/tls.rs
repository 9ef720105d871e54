//! A connection's TLS: how it begins, its handshake, and what is to be known of it.

use std::time::Duration;
use std::time::Instant;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Stage;
use crate::frame::buffer::Buffer;
use crate::net::connection::Connection;
use crate::net::connection::Ticket;
use crate::net::reading::Search;
use crate::net::stream::Stream;
use crate::options::UpgradeOptions;
use crate::options::UpgradeSide;
use crate::step::Interest;
use crate::step::Step;
use crate::tls::config::ClientConfig;
use crate::tls::config::ServerConfig;
use crate::tls::session::Session;
use crate::tls::session::covered_name;

impl Connection {
    /// From now on everything goes through TLS. `None`: its handshake may take as long as it likes.
    pub fn secure(&mut self, session: Session, handshake_timeout: Option<Duration>) {
        if let Some(stream) = &mut self.stream {
            stream.secure(session, handshake_timeout);
            self.is_tls = true;
        }
    }

    /// From now on everything goes through TLS, on a connection that was in the clear. What had arrived and was not read is
    /// taken as TLS: plaintext that somebody slipped in must not look as if it had come through TLS (CVE-2011-0411).
    pub fn start_tls(&mut self, options: &UpgradeOptions) -> Result<(), Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        if stream.socket().is_none() {
            return Err(Error::new(Kind::System, "standard input is no socket"));
        }
        stream.check_output()?;
        if !self.outbox.is_empty() {
            return Err(Error::new(Kind::Busy, "another task is writing to this connection"));
        }
        let session = match &options.tls {
            UpgradeSide::Client(tls) => {
                let name = tls.sni.clone().unwrap_or_else(|| self.ends.host());
                let address = self.ends.remote.to_string();
                Session::client(&ClientConfig::of(tls)?, &covered_name(&name), &address)
            }
            UpgradeSide::Server(tls) => Session::server(&ServerConfig::of(tls)?),
        };
        let mut session = session.map_err(|error| error.with_stage(Stage::Handshake))?;
        session.take_in(self.buffer.bytes())?;
        self.buffer = Buffer::default();
        self.search = Search::None;
        stream.upgrade(session, Deadline::after(Instant::now(), options.handshake_timeout));
        self.is_tls = true;
        Ok(())
    }

    /// A write of nothing before all others, which is done when TLS's handshake is. `None` if that is so.
    pub fn begin_handshake(&mut self) -> Result<Option<(Ticket, Interest)>, Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        if !stream.is_handshaking() {
            // Or it has failed.
            return stream.check_handshake().map(|()| None);
        }
        let ticket = self.outbox.push_first();
        Ok(match self.continue_write(ticket, &mut false)? {
            Step::Ready(_) => None,
            Step::Wait(interest) => Some((ticket, interest)),
        })
    }

    /// Whether it was in the clear, and its handshake is under way.
    pub fn is_upgrading(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_upgrading)
    }

    /// TLS's, as long as it is open.
    pub fn session(&self) -> Option<&Session> {
        self.stream.as_ref().and_then(Stream::session)
    }

    /// Also once closed.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub fn is_handshaking(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_handshaking)
    }

    /// When TLS's handshake has to be done; never, if none is under way.
    pub fn handshake_deadline(&self) -> Deadline {
        self.stream.as_ref().map_or(Deadline::NEVER, Stream::handshake_deadline)
    }

    /// Whether bytes that were sealed have still to leave.
    pub fn has_unsent(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::has_unsent)
    }
}
