"""What a browser may ask of the server: only what the page needs, so that no file of it can be reached."""

import http.cookies
import secrets
from collections.abc import Callable
from typing import Any

from genseg_mm.app import limits

# Gradio has many more addresses, such as those of files (/gradio_api/file=...) and uploads: the page uses neither.
EXACT = frozenset(
    {
        '/', '/config', '/theme.css', '/manifest.json', '/favicon.ico', '/robots.txt', '/gradio_api/startup-events',
        '/gradio_api/queue/join', '/gradio_api/queue/data', '/gradio_api/run/predict', '/gradio_api/api/predict',
        '/gradio_api/cancel', '/gradio_api/reset', '/gradio_api/info', '/gradio_api/app_id',
    }
)  # fmt: skip
BELOW = ('/assets/', '/static/', '/svelte/', '/gradio_api/heartbeat/')
LOCAL = ('localhost', '127.0.0.1', '[::1]', '::1')
COOKIE = 'genseg_visitor'
HEADERS = (
    (b'x-content-type-options', b'nosniff'),
    (b'referrer-policy', b'no-referrer'),
    (
        b'content-security-policy',
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
        b"object-src 'none'; base-uri 'self'; form-action 'self'",
    ),
)


class Guard:
    """ASGI middleware: refuses other addresses, other hosts and large bodies; gives every browser a secret.

    Args:
        app: What is guarded.
        local_only: Whether only this machine's names are hosts: a site elsewhere whose name was made to lead here has
            another one.
    """

    def __init__(self, app: Callable, local_only: bool = True) -> None:
        self.app = app
        self.local_only = local_only

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self.app(scope, receive, send)
            return
        headers = dict(scope['headers'])
        host = headers.get(b'host', b'').decode('latin-1')
        path = scope['path']
        if self.local_only and _without_port(host) not in LOCAL:
            await _refuse(send, 403, 'this page is for this machine alone')
            return
        if not is_allowed(path):
            await _refuse(send, 404, 'there is nothing here')
            return
        length = headers.get(b'content-length', b'0')
        if not length.isdigit() or int(length) > limits.MAX_BODY:
            await _refuse(send, 413, f'expected at most {limits.MAX_BYTES // 2**20} MB')
            return
        received = 0
        started = False

        async def bounded() -> dict:
            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            if received > limits.MAX_BODY:
                return {'type': 'http.disconnect'}
            return message

        async def answer(message: dict) -> None:
            nonlocal started
            if message['type'] == 'http.response.start' and not started:
                started = True
                own = [*message.get('headers', ()), *HEADERS]
                if path == '/' and visitor_of(headers.get(b'cookie', b'').decode('latin-1')) is None:
                    value = f'{COOKIE}={secrets.token_urlsafe(24)}; Path=/; HttpOnly; SameSite=Lax'
                    own.append((b'set-cookie', value.encode()))
                message = {**message, 'headers': own}
            await send(message)

        await self.app(scope, bounded, answer)


def is_allowed(path: str) -> bool:
    """Whether the page needs an address."""
    plain = path.rstrip('/') or '/'
    return plain in EXACT or (path.startswith(BELOW) and '..' not in path and '\\' not in path and '//' not in path)


def visitor_of(cookie: str) -> str | None:
    """The secret of a browser in its header ``Cookie``, or None."""
    try:
        found = http.cookies.SimpleCookie(cookie).get(COOKIE)
    except http.cookies.CookieError:
        return None
    return found.value if found is not None and len(found.value) >= 32 else None


def _without_port(host: str) -> str:
    name, sign, port = host.rpartition(':')
    return name if sign and port.isdigit() else host


async def _refuse(send: Callable[[dict], Any], code: int, reason: str) -> None:
    body = (reason + '\n').encode()
    headers = [(b'content-type', b'text/plain; charset=utf-8'), (b'content-length', str(len(body)).encode()), *HEADERS]
    await send({'type': 'http.response.start', 'status': code, 'headers': headers})
    await send({'type': 'http.response.body', 'body': body})
