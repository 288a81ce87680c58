"""Who may use the live page: checks of the Host and Origin headers, the token, and headers that bind the browser.

A page of another site can send requests to a server on the loopback address, and with DNS rebinding also read the
answers, under a host name of its own. Requests are therefore answered only if the Host header names this server. If the
server listens on another address than loopback, a token is required.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import MutableMapping
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from alignment.listening import is_loopback

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)  # fmt: skip
"""The Content-Security-Policy: only files of this server, no inline scripts or styles, and no text parsed as HTML."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def new_token() -> str:
    """Return a random token that a URL can contain."""
    return secrets.token_urlsafe(24)


class AccessControl:
    """ASGI middleware that refuses requests of other sites and requests without the token."""

    def __init__(self, application: ASGIApp, *, host: str, token: str | None) -> None:
        """Prepare the checks.

        Args:
            application: answers the requests that are allowed.
            host: the address on which the server listens.
            token: the token. With None, no token is needed; this is only allowed on the loopback address.
        """
        if token is None and not is_loopback(host):
            raise ValueError(f"to listen on {host}, a token is needed")
        self.application = application
        self.token = token
        # Behind 0.0.0.0 the names of this machine are unknown. The token then protects: a page under a rebound name has
        # neither the token nor the cookie, which belongs to the name under which the token was given.
        self.names = None if host in ("0.0.0.0", "::") else LOOPBACK_NAMES | {host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self.application
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not passed on."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.names is not None and _host_name(host) not in self.names:
            return PlainTextResponse("this server does not answer to this host name\n", 421)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return PlainTextResponse("requests from other sites are refused\n", 403)
        if scope["method"] not in ("GET", "HEAD"):
            if origin is None or headers.get("sec-fetch-site", "same-origin") != "same-origin":
                return PlainTextResponse("requests from other sites are refused\n", 403)
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return PlainTextResponse("the body must be JSON\n", 415)
        return None if self.token is None else self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Return None if the request has the token. A token in the URL is moved to a cookie, so that it does not stay
        in the address bar and the history.
        """
        assert self.token is not None
        cookie = f"align-ui-{hashlib.sha256(self.token.encode()).hexdigest()[:8]}"
        for given in parse_qs(scope["query_string"].decode("latin-1")).get("token", []):
            if scope["path"] == "/" and _equal(given, self.token):
                redirect = RedirectResponse("/", 303)
                redirect.set_cookie(cookie, self.token, httponly=True, samesite="strict")
                return redirect
        cookies: SimpleCookie = SimpleCookie(headers.get("cookie", ""))
        if cookie in cookies and _equal(cookies[cookie].value, self.token):
            return None
        if _equal(headers.get("authorization", ""), f"Bearer {self.token}"):
            return None
        return PlainTextResponse("open the address that `align ui` printed: it contains a token\n", 401)


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _host_name(host: str) -> str | None:
    """Return the name in a Host header without the port, in lower case. Ports may differ behind a tunnel."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
