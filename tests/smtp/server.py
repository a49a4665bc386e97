"""A mail server that keeps what it hears: one file a mail, in the folder named on the command line.

It says its port on the first line of its standard output, and ends with its standard input. Where a file called `password` stands in
the folder, nobody is let in without what it holds at that moment; a file called `refused` tells that somebody was not. A word behind the
folder asks for TLS, under the certificate `server.pem` with the key `server.key` there: `smtps` from the first byte on, `starttls` when the
caller says so, and nothing is taken before he has.
"""

import asyncio
import itertools
import pathlib
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

folder = pathlib.Path(sys.argv[1])
numbers = itertools.count()
password = folder / "password"
way = sys.argv[2] if len(sys.argv) > 2 else None


class Keep:
    async def handle_DATA(self, server, session, envelope):
        part = folder / f"{next(numbers):06}.part"
        part.write_bytes(envelope.content)
        part.rename(part.with_suffix(".eml"))
        return "250 kept"


def authenticate(server, session, envelope, mechanism, told):
    success = told.password == password.read_bytes()
    if not success:
        (folder / "refused").touch()
    return AuthResult(success=success, handled=False)


def sealed():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def smtp():
    wanted = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False} if password.exists() else {}
    if way == "starttls":
        wanted |= {"tls_context": sealed(), "require_starttls": True}
    return SMTP(Keep(), hostname="post.example.com", **wanted)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(smtp, "127.0.0.1", 0, ssl=sealed() if way == "smtps" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
