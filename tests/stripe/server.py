"""Something that speaks as Stripe does, on this machine alone: localstripe.

It says its port on the first line of its standard output, and ends with its standard input. Three things are otherwise than in
localstripe's own server: it is bound to loopback, it keeps nothing on disk, and payment intents are listed as Stripe lists them,
the newest first and from a given time on. It still ignores Idempotency-Key.
"""

import asyncio
import sys

from aiohttp import web
from localstripe import resources, server

resources.Store.dump_to_disk = lambda store: None


class Listed(resources.PaymentIntent):
    @classmethod
    def all(cls, url, created=None, **page):
        since = int((created or {}).get("gte", 0))
        found = super(resources.PaymentIntent, resources.PaymentIntent)._api_list_all(url, **page)
        found._list = [intent for intent in reversed(found._list) if intent.created >= since]
        return found


resources.PaymentIntent._api_list_all = Listed.all


async def main():
    runner = web.AppRunner(server.app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
