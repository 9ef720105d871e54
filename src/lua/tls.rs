//! TLS: its options, parsed strictly into plain structs, the upgrade of a connection, and what there is to know of a
//! session.

use std::time::Duration;
use std::time::Instant;

use mlua::Integer;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::address::Address;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::each_option_under;
use crate::lua::args::type_name;
use crate::lua::args::unknown_option;
use crate::lua::connection::Connection;
use crate::lua::connection::Receiver;
use crate::lua::connection::query;
use crate::lua::connection::receiver;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Nothing;
use crate::lua::reply::Reply;
use crate::net::connection::Connection as Net;
use crate::options::Authorities;
use crate::options::ClientAuth;
use crate::options::HANDSHAKE_TIMEOUT;
use crate::options::Identity;
use crate::options::Pem;
use crate::options::Protocols;
use crate::options::TlsClientOptions;
use crate::options::TlsServerOptions;
use crate::options::UpgradeOptions;
use crate::options::UpgradeSide;
use crate::tls::certificate::Description;
use crate::tls::session;

/// Those of a client: under `tls` of connect, or of start_tls without the `tls.`.
pub const CLIENT: [&str; 8] = [
    "tls.alpn",
    "tls.ca_bundle",
    "tls.client_cert",
    "tls.client_key",
    "tls.crl",
    "tls.protocols",
    "tls.sni",
    "tls.verify",
];

/// Those of a server: under `tls` of listen, or of start_tls without the `tls.`.
pub const SERVER: [&str; 7] =
    ["tls.alpn", "tls.cert", "tls.client_auth", "tls.client_ca", "tls.key", "tls.protocols", "tls.sni"];

const PREFIX: &str = "tls.";

fn bare(name: &'static str) -> &'static str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

/// Adds to `core`: `start_tls`, `may_go_on`, and to its `plain` what there is to know of a session.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("start_tls", lua.create_function(start_tls)?)?;
    query(lua, core, "may_go_on", |it: &mut Connection| may_go_on(&it.net))?;
    let plain: Table = core.raw_get("plain")?;
    query(lua, &plain, "cipher", |it: &mut Connection| it.net.session()?.cipher())?;
    query(lua, &plain, "protocol", |it: &mut Connection| it.net.session()?.protocol())?;
    query(lua, &plain, "resumed", |it: &mut Connection| it.net.session()?.is_resumed())?;
    query(lua, &plain, "server_name", |it: &mut Connection| {
        it.net.session()?.server_name().map(str::to_owned)
    })?;
    told(lua, &plain, "alpn", |lua, net| {
        let alpn = net.session().and_then(|it| it.alpn());
        alpn.map(|name| lua.create_string(name).map(Value::String)).transpose()
    })?;
    told(lua, &plain, "peer_cert", |lua, net| {
        let certificate = net.session().and_then(|it| it.peer_certificate());
        certificate.map(|it| described(lua, it).map(Value::Table)).transpose()
    })
}

/// Registers a method that makes a value of Lua.
fn told(
    lua: &Lua,
    plain: &Table,
    name: &'static str,
    tell: impl Fn(&Lua, &Net) -> mlua::Result<Option<Value>> + 'static,
) -> mlua::Result<()> {
    let function = lua.create_function(move |lua, it: Receiver| match receiver(it) {
        Ok(it) => Ok(reply::done(tell(lua, &it.net)?)),
        Err(failure) => reply::failed(lua, failure, name, None),
    })?;
    plain.raw_set(name, function)
}

fn described(lua: &Lua, it: Description) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("subject", it.subject)?;
    table.raw_set("issuer", it.issuer)?;
    table.raw_set("serial", it.serial)?;
    table.raw_set("valid_from", it.valid_from)?;
    table.raw_set("valid_until", it.valid_until)?;
    table.raw_set("sans", it.names)?;
    table.raw_set("fingerprint", it.fingerprint)?;
    table.raw_set("der", lua.create_string(&it.der)?)?;
    Ok(table)
}

/// Step: while it waits, `more` is the ticket of a write that comes first. It is called again to go on with an upgrade
/// that has had no time.
fn start_tls(lua: &Lua, (it, options): (Receiver, Value)) -> mlua::Result<Reply<Nothing>> {
    const OP: &str = "start_tls";
    let both = receiver(it).and_then(|it| Ok((it, upgrade(lua, Place::Argument(1), &options)?)));
    let (mut it, options) = match both {
        Ok(both) => both,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let net = &mut it.net;
    let begun = match net.is_upgrading() {
        true => Ok(()),
        false if net.is_tls() && !net.is_closed() => Err(Misuse::secure().into()),
        false => begin(net, &options),
    };
    match begun.and_then(|()| Ok(net.begin_handshake()?)) {
        Ok(None) => Ok(reply::done(Nothing::None)),
        Ok(Some((ticket, interest))) => {
            let expiry = net.reading.expiry(net.reading.timeout).earliest(net.handshake_deadline());
            Ok(reply::waiting(lua, interest, expiry, Value::Integer(ticket as Integer)))
        }
        Err(Failure::World(error)) => {
            reply::failed(lua, error.without_written().into(), OP, Some(net.peer()))
        }
        Err(failure) => reply::failed(lua, failure, OP, None),
    }
}

/// Whether an upgrade that has timed out was not given any time, as under another loop: it is called again then.
fn may_go_on(net: &Net) -> bool {
    net.is_upgrading()
        && net.reading.timeout == Some(Duration::ZERO)
        && !net.reading.deadline.earliest(net.handshake_deadline()).passed(Instant::now())
}

fn begin(net: &mut Net, options: &UpgradeOptions) -> Result<(), Failure> {
    if let UpgradeSide::Client(TlsClientOptions { verify: true, sni: None, .. }) = &options.tls
        && matches!(net.ends().remote, Address::Unix(_))
        && !net.is_closed()
    {
        return Err(Place::Option("sni")
            .misuse("a unix path is no name that a certificate could cover")
            .into());
    }
    Ok(net.start_tls(options)?)
}

/// What is said of unix paths.
pub const NAMELESS: &str = "a unix path is no name that a certificate could cover: give tls.sni";

/// What people write who know other libraries, and what they mean.
const CLIENT_MEANT: [(&str, &str); 11] = [
    ("ca", "ca_bundle"),
    ("ca_file", "ca_bundle"),
    ("cafile", "ca_bundle"),
    ("cert", "client_cert"),
    ("certificate", "client_cert"),
    ("host", "sni"),
    ("hostname", "sni"),
    ("key", "client_key"),
    ("server_name", "sni"),
    ("servername", "sni"),
    ("verify_mode", "verify"),
];

const SERVER_MEANT: [(&str, &str); 5] = [
    ("ca", "client_ca"),
    ("ca_bundle", "client_ca"),
    ("ca_file", "client_ca"),
    ("cafile", "client_ca"),
    ("certificate", "cert"),
];

/// Nobody means anything else by it.
const NO_LISTS: &str = "revocation lists are for clients only";

/// `known` words that are near are found elsewhere; these are not.
fn check_meant(table: &Table, prefix: &str, meant: &[(&str, &str)]) -> Result<(), Misuse> {
    let beside = match prefix.is_empty() {
        true => [
            ("timeout", "did you mean 'handshake_timeout'?"),
            ("tls", "TLS options stand in this table itself"),
        ],
        false => [
            ("timeout", "did you mean 'timeout', beside 'tls'?"),
            (
                "handshake_timeout",
                "did you mean 'handshake_timeout', or a connect's 'timeout', beside 'tls'?",
            ),
        ],
    };
    let meant = meant.iter().map(|(wrong, right)| (*wrong, format!("did you mean '{prefix}{right}'?")));
    for (wrong, hint) in meant.chain(beside.map(|(wrong, hint)| (wrong, hint.into()))) {
        if table.raw_get::<Value>(wrong).is_ok_and(|value| !value.is_nil()) {
            return Err(Place::Option(&format!("{prefix}{wrong}")).misuse(hint));
        }
    }
    Ok(())
}

/// The argument of start_tls: nil or a table.
fn upgrade(lua: &Lua, place: Place<'_>, value: &Value) -> Result<UpgradeOptions, Misuse> {
    let mut handshake_timeout = Some(HANDSHAKE_TIMEOUT);
    let mut own = |name: &'static str, value: &Value| match name {
        "handshake_timeout" => {
            handshake_timeout = Place::Option(name).seconds(lua, value)?;
            Ok(true)
        }
        name => Ok(name == "server"),
    };
    let tls = match value {
        Value::Nil => UpgradeSide::Client(TlsClientOptions::default()),
        Value::Table(table) if is_server(table)? => {
            UpgradeSide::Server(server_table(lua, table, "", place, &mut own)?)
        }
        Value::Table(table) => UpgradeSide::Client(client_table(lua, table, "", &mut own)?),
        other => return Err(place.expected("table (TLS options)", other)),
    };
    Ok(UpgradeOptions { tls, handshake_timeout })
}

/// Which side of TLS a table is for. A certificate alone leaves that open.
fn is_server(table: &Table) -> Result<bool, Misuse> {
    let get = |name| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
    let is_server = match get("server") {
        Value::Nil => false,
        value => Place::Option("server").boolean(&value)?,
    };
    for name in ["cert", "key"] {
        if !is_server && !get(name).is_nil() {
            let hint = "that is a server's: with server = true; a client's are client_cert and client_key";
            return Err(Place::Option(name).misuse(hint));
        }
    }
    Ok(is_server)
}

/// `true`, `false`, or a table. `false` contradicts connect_tls.
pub fn client(
    lua: &Lua,
    place: Place<'_>,
    value: &Value,
    is_demanded: bool,
) -> Result<Option<TlsClientOptions>, Misuse> {
    match value {
        Value::Boolean(true) => Ok(Some(TlsClientOptions::default())),
        Value::Boolean(false) if is_demanded => {
            Err(place.misuse("true or table expected, got false; connect is without TLS"))
        }
        Value::Boolean(false) => Ok(None),
        Value::Table(table) => client_table(lua, table, PREFIX, &mut |_, _| Ok(false)).map(Some),
        other => Err(place.expected("boolean or table (TLS options)", other)),
    }
}

/// Takes an option of another kind, and says whether it was one.
type Own<'a> = &'a mut dyn FnMut(&'static str, &Value) -> Result<bool, Misuse>;

/// The names of a table's options, as errors call them.
fn known(names: &[&'static str], prefix: &str) -> Vec<&'static str> {
    match prefix.is_empty() {
        false => names.to_vec(),
        true => {
            let own = ["handshake_timeout", "server"];
            let mut names: Vec<_> = names.iter().map(|name| bare(name)).chain(own).collect();
            names.sort_unstable();
            names
        }
    }
}

fn client_table(lua: &Lua, table: &Table, prefix: &str, own: Own<'_>) -> Result<TlsClientOptions, Misuse> {
    check_meant(table, prefix, &CLIENT_MEANT)?;
    let mut options = TlsClientOptions::default();
    let (mut cert, mut key) = (None, None);
    each_option_under(table, prefix, &known(&CLIENT, prefix), &[], |name, value| {
        let place = Place::Option(name);
        match bare(name) {
            "alpn" => options.alpn = alpn(lua, place, value)?,
            "ca_bundle" => options.ca_bundle = authorities(lua, place, value)?,
            "client_cert" => cert = Some(pem(lua, place, value)?),
            "client_key" => key = Some(pem(lua, place, value)?),
            "crl" => options.crl = Some(pem(lua, place, value)?),
            "protocols" => options.protocols = protocols(lua, place, value)?,
            "sni" => options.sni = Some(server_name(lua, place, value)?),
            "verify" => options.verify = place.boolean(value)?,
            _ => drop(own(name, value)?),
        }
        Ok(())
    })?;
    options.identity = match (cert, key) {
        (None, None) => None,
        (Some(cert), Some(key)) => {
            Some(Identity { cert, key, called: ("client_cert".into(), "client_key".into()) })
        }
        (Some(_), None) => return Err(lonely(prefix, "client_cert", "client_key")),
        (None, Some(_)) => return Err(lonely(prefix, "client_key", "client_cert")),
    };
    Ok(options)
}

fn lonely(prefix: &str, name: &str, missing: &str) -> Misuse {
    Place::Option(&format!("{prefix}{name}"))
        .misuse(format!("{missing} is missing: one does not work without the other"))
}

/// `false`, or a table with a certificate and its key.
pub fn server(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Option<TlsServerOptions>, Misuse> {
    match value {
        Value::Boolean(false) => Ok(None),
        Value::Table(table) => server_table(lua, table, PREFIX, place, &mut |_, _| Ok(false)).map(Some),
        other => Err(place.expected("table (cert and key)", other)),
    }
}

fn server_table(
    lua: &Lua,
    table: &Table,
    prefix: &str,
    whole: Place<'_>,
    own: Own<'_>,
) -> Result<TlsServerOptions, Misuse> {
    check_meant(table, prefix, &SERVER_MEANT)?;
    if !table.raw_get::<Value>("crl").unwrap_or(Value::Nil).is_nil() {
        return Err(Place::Option(&format!("{prefix}crl")).misuse(NO_LISTS));
    }
    let mut options = TlsServerOptions::default();
    let (mut cert, mut key) = (None, None);
    each_option_under(table, prefix, &known(&SERVER, prefix), &[], |name, value| {
        let place = Place::Option(name);
        match bare(name) {
            "alpn" => options.alpn = alpn(lua, place, value)?,
            "cert" => cert = Some(pem(lua, place, value)?),
            "client_auth" => options.client_auth = place.word(lua, value, &CLIENT_AUTH)?,
            "client_ca" => options.client_ca = Some(pem(lua, place, value)?),
            "key" => key = Some(pem(lua, place, value)?),
            "protocols" => options.protocols = protocols(lua, place, value)?,
            "sni" => options.names = names(lua, name, value)?,
            _ => drop(own(name, value)?),
        }
        Ok(())
    })?;
    options.identity = match (cert, key) {
        (Some(cert), Some(key)) => Some(Identity { cert, key, called: ("cert".into(), "key".into()) }),
        (None, None) if !options.names.is_empty() => None,
        (None, _) => return Err(whole.misuse("cert is missing: the path of a certificate, or PEM text")),
        (_, None) => {
            return Err(whole.misuse("key is missing: the path of the certificate's key, or PEM text"));
        }
    };
    if options.client_auth != ClientAuth::None && options.client_ca.is_none() {
        let place = format!("{prefix}client_auth");
        return Err(Place::Option(&place).misuse("client_ca is missing: whose certificates are taken"));
    }
    Ok(options)
}

const CLIENT_AUTH: [(&str, ClientAuth); 3] =
    [("none", ClientAuth::None), ("optional", ClientAuth::Optional), ("required", ClientAuth::Required)];

/// The map of a server's identities by name.
fn names(lua: &Lua, option: &str, value: &Value) -> Result<Vec<(String, Identity)>, Misuse> {
    let Value::Table(table) = value else {
        return Err(Place::Option(option).expected("table (names, each with cert and key)", value));
    };
    let mut names: Vec<(String, Identity)> = Vec::new();
    // It fails for want of memory only, see `each_option_under`.
    for (name, value) in table.pairs::<Value, Value>().flatten() {
        let written = Place::Option(option).text(lua, &name)?;
        let name = written.to_lowercase();
        // Clients ask without the root's dot (RFC 6066, section 3).
        let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
        let covered = name.strip_prefix("*.").unwrap_or(&name);
        if session::check_name(covered).is_err() || covered.parse::<std::net::IpAddr>().is_ok() {
            let problem = format!("name of a host, or '*.' and a name, expected, got '{written}'");
            return Err(Place::Option(option).misuse(problem));
        }
        if names.iter().any(|(known, _)| *known == name) {
            return Err(Place::Option(option).misuse(format!("'{name}' is there twice, in two spellings")));
        }
        names.push((name.clone(), identity(lua, &format!("{option}['{name}']"), &value)?));
    }
    // The same table is the same configuration.
    names.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(names)
}

fn identity(lua: &Lua, option: &str, value: &Value) -> Result<Identity, Misuse> {
    let Value::Table(table) = value else {
        return Err(Place::Option(option).expected("table (cert and key)", value));
    };
    let (mut cert, mut key) = (None, None);
    for (name, value) in table.pairs::<Value, Value>().flatten() {
        let name = name.to_string().unwrap_or_else(|_| type_name(&name).into());
        let option = format!("{option}.{name}");
        let place = match name.as_str() {
            "cert" => &mut cert,
            "key" => &mut key,
            _ => return Err(unknown_option(&option, &["cert", "key"], &[])),
        };
        *place = Some(pem(lua, Place::Option(&option), &value)?);
    }
    let called = option.strip_prefix(PREFIX).unwrap_or(option);
    match (cert, key) {
        (Some(cert), Some(key)) => {
            Ok(Identity { cert, key, called: (format!("{called}.cert"), format!("{called}.key")) })
        }
        _ => Err(Place::Option(option).misuse("both cert and key are needed")),
    }
}

fn server_name(lua: &Lua, place: Place<'_>, value: &Value) -> Result<String, Misuse> {
    let name = place.text(lua, value)?;
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    match session::check_name(bare) {
        Ok(()) => Ok(bare.into()),
        Err(_) => Err(place.misuse(format!("name of a host, or address, expected, got '{name}'"))),
    }
}

fn authorities(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Authorities, Misuse> {
    let pem = pem(lua, place, value)?;
    Ok(if pem == Pem::File("mozilla".into()) { Authorities::Mozilla } else { Authorities::Listed(pem) })
}

/// A path, or PEM itself, which no path looks like.
fn pem(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Pem, Misuse> {
    let text = place.string(lua, value)?;
    let text = text.as_bytes();
    if memchr::memmem::find(&text, b"-----BEGIN ").is_some() {
        return Ok(Pem::Text(text.to_vec()));
    }
    match String::from_utf8(text.to_vec()) {
        Ok(path) if path.is_empty() => Err(place.misuse("path or PEM text expected, got an empty string")),
        Ok(path) if path.contains('\0') => Err(place.misuse("path contains a zero byte")),
        Ok(path) => Ok(Pem::File(path.into())),
        Err(_) => Err(place.misuse("path is not UTF-8")),
    }
}

fn protocols(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Protocols, Misuse> {
    let mut protocols = Protocols { tls12: false, tls13: false };
    for value in list(place, value, "list of 'TLSv1.2' and 'TLSv1.3'")? {
        match place.word(lua, &value, &[("TLSv1.2", true), ("TLSv1.3", false)])? {
            true => protocols.tls12 = true,
            false => protocols.tls13 = true,
        }
    }
    match protocols {
        Protocols { tls12: false, tls13: false } => {
            Err(place.misuse("'TLSv1.2' or 'TLSv1.3' expected, got an empty list"))
        }
        protocols => Ok(protocols),
    }
}

/// Bytes of names with their lengths: the rest of a ClientHello of 64 KiB is for what else it says.
const MOST_ALPN: usize = 48 * 1024;

/// Each has at most 255 bytes (RFC 7301, section 3.1).
fn alpn(lua: &Lua, place: Place<'_>, value: &Value) -> Result<Vec<Vec<u8>>, Misuse> {
    let mut names = Vec::new();
    for value in list(place, value, "list of strings")? {
        let name = place.string(lua, &value)?.as_bytes().to_vec();
        if name.is_empty() || name.len() > 255 {
            return Err(
                place.misuse(format!("strings of 1 to 255 bytes expected, got one of {}", name.len()))
            );
        }
        names.push(name);
    }
    let bytes: usize = names.iter().map(|name| 1 + name.len()).sum();
    if bytes > MOST_ALPN {
        return Err(place.misuse(format!("too long for a ClientHello: {bytes} of at most {MOST_ALPN} bytes")));
    }
    Ok(names)
}

/// The values of a table whose keys are 1 to n.
fn list(place: Place<'_>, value: &Value, expected: &str) -> Result<Vec<Value>, Misuse> {
    let Value::Table(table) = value else { return Err(place.expected(expected, value)) };
    let values: Vec<Value> = table.sequence_values().flatten().collect();
    match table.pairs::<Value, Value>().count() == values.len() {
        true => Ok(values),
        false => Err(place.misuse(format!("{expected} expected, got other keys than 1 to {}", values.len()))),
    }
}
