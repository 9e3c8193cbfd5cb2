"""What a browser may ask of the server."""

import asyncio

import pytest

from genseg_mm.app import limits
from genseg_mm.app.guard import COOKIE, Guard, is_allowed, visitor_of

OURS = [(b'host', b'localhost:7860')]


def ask(
    path: str, headers: list = OURS, body: tuple[bytes, ...] = (), local_only: bool = True
) -> tuple[int, dict, list]:
    """Status, headers and the bodies that the application saw."""
    seen, sent = [], []
    parts = [dict(type='http.request', body=part, more_body=True) for part in body]

    async def app(scope: dict, receive: object, send: object) -> None:
        seen.extend([await receive() for _ in body])
        await send(dict(type='http.response.start', status=200, headers=[]))
        await send(dict(type='http.response.body', body=b''))

    async def receive() -> dict:
        return parts.pop(0)

    async def send(message: dict) -> None:
        sent.append(message)

    scope = dict(type='http', path=path, headers=headers)
    asyncio.run(Guard(app, local_only)(scope, receive, send))
    return sent[0]['status'], {name.decode(): value.decode() for name, value in sent[0]['headers']}, seen


@pytest.mark.parametrize(
    'path',
    [
        '/gradio_api/file=/etc/passwd', '/gradio_api/file=../../setup.py', '/file=/etc/passwd', '/gradio_api/upload',
        '/gradio_api/file/etc/passwd', '/assets/../../../setup.py', '/static/..\\..\\x', '/assets//etc/passwd',
        '/gradio_api/proxy=http://elsewhere', '/monitoring', '/gradio_api/component_server', '/docs', '/openapi.json',
        '/gradio_api/stream/a/1/2/playlist-file', '/gradio_api/run-history/connect', '/gradio_api/heartbeat/../upload',
    ],
)  # fmt: skip
def test_other_addresses_are_refused(path: str) -> None:
    assert not is_allowed(path)
    status, headers, _ = ask(path)
    assert status == 404 and headers['x-content-type-options'] == 'nosniff'


def test_the_page_is_served_with_a_secret_for_the_browser() -> None:
    status, headers, _ = ask('/')
    assert status == 200 and "default-src 'self'" in headers['content-security-policy']
    name, _, rest = headers['set-cookie'].partition('=')
    secret = visitor_of(headers['set-cookie'].partition(';')[0])
    assert name == COOKIE and len(secret) >= 32 and 'HttpOnly' in rest and 'SameSite=Lax' in rest
    cookie = (b'cookie', f'{COOKIE}={secret}'.encode())
    assert 'set-cookie' not in ask('/', [*OURS, cookie])[1]  # kept
    assert ask('/')[1]['set-cookie'] != headers['set-cookie']
    assert visitor_of(f'{COOKIE}=short') is None and visitor_of('') is None and visitor_of('a=b; \x00') is None


@pytest.mark.parametrize('host', [b'elsewhere.example', b'localhost.elsewhere.example:7860', b''])
def test_a_name_that_leads_here_is_refused(host: bytes) -> None:
    assert ask('/', [(b'host', host)])[0] == 403
    assert ask('/', [(b'host', host)], local_only=False)[0] == 200


def test_large_bodies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, 'MAX_BODY', 10)
    place = '/gradio_api/run/predict'
    assert ask(place, [*OURS, (b'content-length', b'11')])[0] == 413
    assert ask(place, [*OURS, (b'content-length', b'-1')])[0] == 413
    _, _, seen = ask(place, body=(b'12345', b'12345', b'1'))  # whatever a header says
    assert [own['type'] for own in seen] == ['http.request', 'http.request', 'http.disconnect']
