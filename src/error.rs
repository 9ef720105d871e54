//! What the outside world can do to an operation: one kind, one sentence, and where it applies the stage,
//! the system's error number, the malformed input and the bytes already written.
//!
//! Misuse by a script is not here: it never gets below the Lua floor.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A failure caused by the outside world. One pointer wide, because every read returns it.
#[derive(Clone, Debug, PartialEq)]
pub struct Error(Box<Parts>);

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    kind: Kind,
    message: Cow<'static, str>,
    stage: Option<Stage>,
    errno: Option<i32>,
    data: Option<Vec<u8>>,
    written: Option<usize>,
    alert: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self(Box::new(Parts {
            kind,
            message,
            stage: None,
            errno: None,
            data: None,
            written: None,
            alert: None,
        }))
    }

    /// The error of an established connection. `ETIMEDOUT` there means that the peer stopped answering.
    pub fn from_io(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => Kind::Reset,
            other => Kind::of_io(other),
        };
        Self::of_system(kind, error)
    }

    /// The error of anything that has no kinds of its own: listening, UDP, files and pipes.
    pub fn from_system(error: &io::Error) -> Self {
        Self::of_system(Kind::of_io(error.kind()), error)
    }

    /// The error of an attempt to connect. `ETIMEDOUT` there means that the system gave up: the caller's own
    /// time has not run out.
    pub fn from_connect(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => Kind::Unreachable,
            // A unix socket's path that does not exist: nobody listens there.
            io::ErrorKind::NotFound => Kind::Refused,
            other => Kind::of_io(other),
        };
        Self::of_system(kind, error).with_stage(Stage::Connect)
    }

    /// The error of a file; `doing` is put before the system's words.
    pub fn from_file(doing: &str, error: &io::Error) -> Self {
        let mut it = Self::of_system(Kind::System, error);
        it.0.message = format!("{doing}: {}", it.0.message).into();
        it
    }

    /// The system's words for a failure of a known kind.
    pub fn of_system(kind: Kind, error: &io::Error) -> Self {
        let mut it = Self::new(kind, system_message(error));
        it.0.errno = error.raw_os_error();
        it
    }

    /// In words that tell more than the system's.
    pub fn saying(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = message.into();
        self
    }

    /// With a way out.
    pub fn hinting(mut self, hint: impl fmt::Display) -> Self {
        self.0.message = format!("{}; {hint}", self.0.message).into();
        self
    }

    /// This side closed the connection, or ended the direction that the operation needs.
    pub fn closed_here() -> Self {
        Self::new(Kind::Closed, "the connection is closed")
    }

    pub fn out_of_memory() -> Self {
        Self::new(Kind::System, "out of memory")
    }

    pub fn with_stage(mut self, stage: Stage) -> Self {
        self.0.stage = Some(stage);
        self
    }

    pub fn with_alert(mut self, alert: String) -> Self {
        self.0.alert = Some(alert);
        self
    }

    pub fn with_data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.0.data = Some(data.into());
        self
    }

    /// The error of a write that did not begin says so, too.
    pub fn of_write(self) -> Self {
        if self.written().is_some() { self } else { self.with_written(0) }
    }

    /// The error of what is no write.
    pub fn without_written(mut self) -> Self {
        self.0.written = None;
        self
    }

    pub fn with_written(mut self, written: usize) -> Self {
        self.0.written = Some(written);
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn stage(&self) -> Option<Stage> {
        self.0.stage
    }

    /// The number that the operating system gave, where the failure came from it.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The name of the TLS alert with which the peer broke off (RFC 8446, section 6).
    pub fn alert(&self) -> Option<&str> {
        self.0.alert.as_deref()
    }

    /// Input that arrived whole, turned out malformed, and has been consumed.
    pub fn data(&self) -> Option<&[u8]> {
        self.0.data.as_deref()
    }

    /// Bytes already sent by a write that failed.
    pub fn written(&self) -> Option<usize> {
        self.0.written
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

/// The closed list of failures that scripts compare with; the names are public.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    AddressInUse,
    Busy,
    Cancelled,
    Certificate,
    Closed,
    Denied,
    Json,
    Refused,
    Reset,
    Resolve,
    System,
    Timeout,
    Tls,
    TooLarge,
    Truncated,
    Unreachable,
}

impl Kind {
    /// Every kind's public name.
    pub const NAMES: [&str; 16] = [
        "address_in_use",
        "busy",
        "cancelled",
        "certificate",
        "closed",
        "denied",
        "json",
        "refused",
        "reset",
        "resolve",
        "system",
        "timeout",
        "tls",
        "too_large",
        "truncated",
        "unreachable",
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::AddressInUse => "address_in_use",
            Kind::Busy => "busy",
            Kind::Cancelled => "cancelled",
            Kind::Certificate => "certificate",
            Kind::Closed => "closed",
            Kind::Denied => "denied",
            Kind::Json => "json",
            Kind::Refused => "refused",
            Kind::Reset => "reset",
            Kind::Resolve => "resolve",
            Kind::System => "system",
            Kind::Timeout => "timeout",
            Kind::Tls => "tls",
            Kind::TooLarge => "too_large",
            Kind::Truncated => "truncated",
            Kind::Unreachable => "unreachable",
        }
    }

    /// Whether it is what an operation comes to whose peer leaves.
    pub fn is_leave(self) -> bool {
        matches!(self, Kind::Closed | Kind::Reset | Kind::Truncated)
    }

    fn of_io(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::AddrInUse => Kind::AddressInUse,
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {
                Kind::Reset
            }
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable => Kind::Unreachable,
            _ => Kind::System,
        }
    }
}

/// How far a connect had come. The handshake of an accepted connection is a stage, too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    Resolve,
    Connect,
    Handshake,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Resolve => "resolve",
            Stage::Connect => "connect",
            Stage::Handshake => "handshake",
        }
    }
}

/// The system's words without std's ` (os error 111)`, lower-case as all texts here are.
fn system_message(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_with_an_error_stays_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn every_kind_is_a_listed_name() {
        for kind in
            [Kind::Closed, Kind::Json, Kind::Timeout, Kind::TooLarge, Kind::AddressInUse, Kind::Truncated]
        {
            assert!(Kind::NAMES.contains(&kind.name()));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn system_errors_get_their_kind_and_a_lower_case_text() {
        let cases = [(111, Kind::Refused), (104, Kind::Reset), (32, Kind::Reset), (101, Kind::Unreachable)];
        for (errno, kind) in cases {
            assert_eq!(Error::from_io(&io::Error::from_raw_os_error(errno)).kind(), kind);
        }
        let refused = Error::from_io(&io::Error::from_raw_os_error(111));
        assert_eq!((refused.message(), refused.errno()), ("connection refused", Some(111)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_system_timeout_is_never_the_callers_timeout() {
        let gave_up = io::Error::from_raw_os_error(110);
        assert_eq!(Error::from_io(&gave_up).kind(), Kind::Reset);
        assert_eq!(Error::from_connect(&gave_up).kind(), Kind::Unreachable);
        assert_eq!(Error::from_connect(&gave_up).stage(), Some(Stage::Connect));
    }
}
