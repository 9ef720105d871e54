//! The records of a session in both directions: rustls is lent the buffers, and asked to work until it has done what it
//! can.

use std::ops::Deref;

use rustls::CommonState;
use rustls::Error as Rustls;
use rustls::client::ClientConnectionData;
use rustls::client::UnbufferedClientConnection;
use rustls::server::ServerConnectionData;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::unbuffered::EncodeError;
use rustls::unbuffered::EncodeTlsData;
use rustls::unbuffered::EncryptError;
use rustls::unbuffered::UnbufferedStatus;
use rustls::unbuffered::WriteTraffic;

use crate::error::Error;
use crate::frame::buffer::Buffer;
use crate::frame::buffer::LARGE_ROOM;
use crate::frame::buffer::RECORD_ROOM;
use crate::tls::session::RECORD;

/// Both directions of the wire.
#[derive(Default)]
pub struct Wire {
    pub incoming: Buffer,
    pub outgoing: Buffer,
    /// The peer's closing alert has come: nothing follows it.
    pub peer_has_closed: bool,
}

/// What to do once data may be sent.
pub enum Wish<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    CloseNotify,
}

/// Room for what is small; rustls says if it needs more.
pub const SMALL_ROOM: usize = 2048;

/// What both sides have in common and rustls has no name for.
pub trait Records: Deref<Target: Deref<Target = CommonState>> {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

pub enum Problem {
    Tls(Rustls),
    Ours(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Ours(error)
    }
}

impl Wire {
    pub fn work<R: Records>(
        &mut self,
        records: &mut R,
        plain: &mut Buffer,
        wish: Wish<'_>,
    ) -> Result<(), Problem> {
        loop {
            let status = records.process(self.incoming.bytes_mut());
            let mut discard = status.discard;
            let is_over = match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(Problem::Tls)?;
                        plain.append(record.payload)?;
                        discard += record.discard;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.outgoing)?;
                    false
                }
                // It leaves from `outgoing`, in its turn.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_has_closed = true;
                    false
                }
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    fulfil(wish, &mut traffic, &mut self.outgoing)?;
                    self.incoming.consume(discard);
                    return Ok(());
                }
                // It would be lost.
                Ok(_) if matches!(wish, Wish::Encrypt(data) if !data.is_empty()) => {
                    return Err(Problem::Tls(Rustls::EncryptError));
                }
                Ok(_) => true,
                Err(error) => {
                    self.take_alert(records);
                    return Err(Problem::Tls(error));
                }
            };
            self.incoming.consume(discard);
            if is_over {
                return Ok(());
            }
        }
    }

    /// What rustls wants to tell the peer of an error. It must not be asked for more: it would work on the
    /// same records.
    fn take_alert<R: Records>(&mut self, records: &mut R) {
        while records.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) =
                records.process(self.incoming.bytes_mut()).state
            else {
                return;
            };
            if encode(&mut data, &mut self.outgoing).is_err() {
                return;
            }
        }
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, outgoing: &mut Buffer) -> Result<(), Problem> {
    let mut wanted = SMALL_ROOM;
    loop {
        match data.encode(outgoing.room(wanted)?) {
            Ok(count) => {
                outgoing.arrived(count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(it)) => wanted = it.required_size,
            Err(EncodeError::AlreadyEncoded) => return Ok(()),
        }
    }
}

fn fulfil<D>(
    wish: Wish<'_>,
    traffic: &mut WriteTraffic<'_, D>,
    outgoing: &mut Buffer,
) -> Result<(), Problem> {
    let mut wanted = match &wish {
        Wish::Nothing => return Ok(()),
        Wish::Encrypt(data) if data.len() >= RECORD => LARGE_ROOM,
        Wish::Encrypt(_) => RECORD_ROOM,
        Wish::CloseNotify => SMALL_ROOM,
    };
    loop {
        let room = outgoing.room(wanted)?;
        let done = match &wish {
            Wish::Encrypt(data) => traffic.encrypt(data, room),
            _ => traffic.queue_close_notify(room),
        };
        match done {
            Ok(count) => {
                outgoing.arrived(count);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(it)) => wanted = it.required_size,
            Err(EncryptError::EncryptExhausted) => return Err(Problem::Tls(Rustls::EncryptError)),
        }
    }
}
