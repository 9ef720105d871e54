//! The options of TLS, parsed strictly into plain structs: those under `tls` of connect and of listen, and those of
//! start_tls.

use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::args::did_you_mean;
use crate::lua::args::each_option_under;
use crate::lua::args::type_name;
use crate::lua::args::unknown_option;
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

const FOR_A_SERVER: &str =
    "that is a server's: with server = true; a client's are client_cert and client_key";

/// What to say of a name that is none of a client's options.
fn of_client(name: &str, prefix: &str) -> Option<String> {
    match name {
        "cert" | "key" if prefix.is_empty() => Some(FOR_A_SERVER.into()),
        _ => beside(name, prefix).or_else(|| meant(name, prefix, &CLIENT_MEANT)),
    }
}

fn of_server(name: &str, prefix: &str) -> Option<String> {
    match name {
        "crl" => Some("revocation lists are for clients only".into()),
        _ => beside(name, prefix).or_else(|| meant(name, prefix, &SERVER_MEANT)),
    }
}

fn meant(name: &str, prefix: &str, names: &[(&str, &str)]) -> Option<String> {
    let (_, right) = names.iter().find(|(wrong, _)| *wrong == name)?;
    Some(did_you_mean(&format!("{prefix}{right}")))
}

/// What stands beside `tls`, or in it.
fn beside(name: &str, prefix: &str) -> Option<String> {
    let hint = match (name, prefix.is_empty()) {
        ("timeout", true) => "did you mean 'handshake_timeout'?",
        ("tls", true) => "TLS options stand in this table itself",
        ("timeout", false) => "did you mean 'timeout', beside 'tls'?",
        ("handshake_timeout", false) => "that stands beside 'tls'; of connect it is 'timeout'",
        _ => return None,
    };
    Some(hint.into())
}

/// What is said of unix paths.
pub const NAMELESS: &str = "a unix path is no name that a certificate could cover: give tls.sni";

/// The argument of start_tls: nil or a table.
pub fn upgrade(lua: &Lua, place: Place<'_>, value: &Value) -> Result<UpgradeOptions, Misuse> {
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

fn is_server(table: &Table) -> Result<bool, Misuse> {
    let mut options = table.pairs::<Value, Value>().flatten();
    let server = options.find(|(name, _)| matches!(name, Value::String(name) if *name == "server"));
    server.map_or(Ok(false), |(_, value)| Place::Option("server").boolean(&value))
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
    let mut options = TlsClientOptions::default();
    let (mut cert, mut key) = (None, None);
    each_option_under(
        table,
        prefix,
        &known(&CLIENT, prefix),
        &|name| of_client(name, prefix),
        |name, value| {
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
        },
    )?;
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
    let mut options = TlsServerOptions::default();
    let (mut cert, mut key) = (None, None);
    each_option_under(
        table,
        prefix,
        &known(&SERVER, prefix),
        &|name| of_server(name, prefix),
        |name, value| {
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
        },
    )?;
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
            _ => return Err(unknown_option(&option, &["cert", "key"])),
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
