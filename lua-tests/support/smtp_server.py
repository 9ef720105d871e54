"""A mail server for specs. What it is sent goes to a file of its folder before it says so; XTLS tells what its TLS is.

Usage: python3 smtp_server.py HOST PORT [CERTIFICATE KEY]     without the two it has no STARTTLS
"""

import asyncio
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

host, port, *certificate = sys.argv[1:]


class Keeper:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        name = f"mail-{self.count}"
        with open(name, "wb") as file:
            file.write(f"{envelope.mail_from} {' '.join(envelope.rcpt_tos)}\n".encode())
            file.write(envelope.content)
        return f"250 kept as {name}"


class Server(SMTP):
    async def smtp_XTLS(self, arg):
        tls = self.session.ssl and self.session.ssl["ssl_object"]
        await self.push(f"250 {tls.version()} {tls.cipher()[0]} {tls.session_reused}" if tls else "250 none")


def authenticate(server, session, envelope, mechanism, data):
    success = mechanism == "PLAIN" and (data.login, data.password) == (b"ann", b"secret \xc3\xa9")
    return AuthResult(success=success, handled=False)


async def main():
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
    keeper = Keeper()
    server = await asyncio.get_running_loop().create_server(
        lambda: Server(keeper, hostname="mail.example", tls_context=context, authenticator=authenticate), host, port)
    await server.serve_forever()


asyncio.run(main())
