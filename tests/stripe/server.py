"""Something that speaks as Stripe does, on this machine alone: localstripe.

It says its port on the first line of its standard output, and ends with its standard input. Three things are otherwise than in
localstripe's own server: it is bound to loopback, it keeps nothing on disk, and payment intents and refunds are listed as Stripe
lists them, the newest first and from a given time on. It still ignores Idempotency-Key, unless it is started with `--keys`.

With `--keys` one request has its effect once, as https://docs.stripe.com/api/idempotent_requests tells: told again it is answered
as it was, with another body it is refused, and while it is worked on it is not taken. Then calls can also be held in the middle:

    POST /_config/hold      from now on: of three new payments one does not arrive, and one has its effect and no answer; no capture
                            and no refund is answered
    GET  /_config/held      how many are held, by how far they have come
    POST /_config/answer    nothing more is held, and what has had its effect is answered
    POST /_config/arrive    what is still on its way arrives
"""

import asyncio
import sys

from aiohttp import web
from localstripe import resources, server

resources.Store.dump_to_disk = lambda store: None


def since(created, found):
    since = int((created or {}).get("gte", 0))
    found._list = [one for one in found._list if one.created >= since]
    return found


class Listed(resources.PaymentIntent):
    @classmethod
    def all(cls, url, created=None, **page):
        found = super(resources.PaymentIntent, resources.PaymentIntent)._api_list_all(url, **page)
        found._list.reverse()
        return since(created, found)


refunds = resources.Refund._api_list_all
resources.PaymentIntent._api_list_all = Listed.all
resources.Refund._api_list_all = lambda url, created=None, **page: since(created, refunds(url, **page))


class Keys:
    """What came of each key, and what is held."""

    def __init__(self):
        self.told = {}
        self.holds = False
        self.begin()

    def begin(self):
        self.new = 0
        self.held = {"coming": 0, "reserved": 0, "captured": 0, "refunded": 0}
        self.answers, self.arrivals = asyncio.Event(), asyncio.Event()

    async def serve(self, request, handler):
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or key is None:
            return await handler(request)
        asked = (request.path, await request.read())
        place, answers = self.place(request.path), self.answers
        if place == "coming":
            await self.hold(place, self.arrivals)
        response = await self.once(key, asked, handler, request)
        if place not in (None, "coming"):
            await self.hold(place, answers)
        return response

    def place(self, path):
        if not self.holds:
            return None
        if path.endswith("/capture"):
            return "captured"
        if path == "/v1/refunds":
            return "refunded"
        self.new += 1
        return ("coming", "reserved", None)[self.new % 3]

    async def hold(self, place, until):
        self.held[place] += 1
        await until.wait()

    async def once(self, key, asked, handler, request):
        if key in self.told:
            before, answer = self.told[key]
            if before != asked:
                return no(400, None)
            if answer is None:
                return no(409, "idempotency_key_in_use")
            status, body = answer
            headers = {"Idempotent-Replayed": "true", "Content-Type": "application/json"}
            return web.Response(status=status, body=body, headers=headers)
        self.told[key] = (asked, None)
        try:
            response = await handler(request)
        except BaseException:
            del self.told[key]
            raise
        self.told[key] = (asked, (response.status, response.body))
        return response

    async def asked_to_hold(self, request):
        self.begin()
        self.holds = True
        return web.json_response(self.held)

    async def asked_who_is_held(self, request):
        return web.json_response(self.held)

    async def asked_to_answer(self, request):
        self.holds = False
        self.answers.set()
        return web.json_response(self.held)

    async def asked_to_let_in(self, request):
        self.arrivals.set()
        return web.json_response(self.held)


def no(status, code):
    return web.json_response({"error": {"type": "idempotency_error", "code": code}}, status=status)


def know_keys():
    keys = Keys()

    @web.middleware
    async def by_key(request, handler):
        return await keys.serve(request, handler)

    server.app.middlewares.insert(0, by_key)
    server.app.router.add_post("/_config/hold", keys.asked_to_hold)
    server.app.router.add_get("/_config/held", keys.asked_who_is_held)
    server.app.router.add_post("/_config/answer", keys.asked_to_answer)
    server.app.router.add_post("/_config/arrive", keys.asked_to_let_in)


async def main():
    if "--keys" in sys.argv:
        know_keys()
    runner = web.AppRunner(server.app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
