//! The methods of TLS: the upgrade of a connection, and what there is to know of a session.

use std::time::Duration;
use std::time::Instant;

use mlua::Integer;
use mlua::Lua;
use mlua::Table;
use mlua::Value;

use crate::address::Address;
use crate::lua::args::Misuse;
use crate::lua::args::Place;
use crate::lua::connection::Connection;
use crate::lua::connection::Receiver;
use crate::lua::connection::query;
use crate::lua::connection::receiver;
use crate::lua::policy;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Nothing;
use crate::lua::reply::Reply;
use crate::lua::tls_options;
use crate::net::connection::Connection as Net;
use crate::options::TlsClientOptions;
use crate::options::UpgradeOptions;
use crate::options::UpgradeSide;
use crate::tls::certificate::Description;

/// Adds to `core`: `start_tls`, `may_go_on`, and to its `plain` what there is to know of a session.
pub fn register(lua: &Lua, core: &Table) -> mlua::Result<()> {
    core.raw_set("start_tls", reply::function(lua, start_tls)?)?;
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
    let function = reply::function(lua, move |lua, it: Receiver| match receiver(it) {
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
    let both = receiver(it).and_then(|it| Ok((it, tls_options::upgrade(lua, Place::Argument(1), &options)?)));
    let (mut it, options) = match both {
        Ok(both) => both,
        Err(failure) => return reply::failed(lua, failure, OP, None),
    };
    let net = &mut it.net;
    let begun = match net.is_upgrading() {
        true => Ok(()),
        false if net.is_tls() && !net.is_closed() => Err(Misuse::secure().into()),
        false => begin(lua, net, &options),
    };
    match begun.and_then(|()| Ok(net.begin_handshake()?)) {
        Ok(None) => Ok(reply::done(Nothing::None)),
        Ok(Some((ticket, interest))) => {
            let expiry = net.reading.expiry(net.reading.timeout).earliest(net.handshake_deadline());
            Ok(reply::waiting(lua, interest, expiry, Value::Integer(ticket as Integer)))
        }
        Err(Failure::World(error)) => reply::failed_on(lua, error.without_written().into(), OP, &it),
        Err(failure) => reply::failed(lua, failure, OP, None),
    }
}

/// Whether an upgrade that has timed out was not given any time, as under another loop: it is called again then.
fn may_go_on(net: &Net) -> bool {
    net.is_upgrading()
        && net.reading.timeout == Some(Duration::ZERO)
        && !net.reading.deadline.earliest(net.handshake_deadline()).passed(Instant::now())
}

fn begin(lua: &Lua, net: &mut Net, options: &UpgradeOptions) -> Result<(), Failure> {
    options.files().try_for_each(|_| policy::of(lua).check_files())?;
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
