"""A mail server that keeps what it hears: one file a mail, in the folder named on the command line.

It says its port on the first line of its standard output, and ends with its standard input. Where a file called `password` stands in
the folder, nobody is let in without what it holds at that moment; a file called `refused` tells that somebody was not.
"""

import asyncio
import itertools
import pathlib
import sys

from aiosmtpd.smtp import SMTP, AuthResult

folder = pathlib.Path(sys.argv[1])
numbers = itertools.count()
password = folder / "password"


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


def smtp():
    wanted = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
    return SMTP(Keep(), hostname="post.example.com", **(wanted if password.exists() else {}))


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(smtp, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
