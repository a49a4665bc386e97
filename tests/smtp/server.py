"""A mail server that keeps what it hears: one file a mail, in the folder named on the command line.

It says its port on the first line of its standard output, and ends with its standard input.
"""

import asyncio
import itertools
import pathlib
import sys

from aiosmtpd.smtp import SMTP

folder = pathlib.Path(sys.argv[1])
numbers = itertools.count()


class Keep:
    async def handle_DATA(self, server, session, envelope):
        part = folder / f"{next(numbers):06}.part"
        part.write_bytes(envelope.content)
        part.rename(part.with_suffix(".eml"))
        return "250 kept"


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Keep(), hostname="post.example.com"), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main())
