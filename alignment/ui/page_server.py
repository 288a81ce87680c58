"""The server of `align ui`: static files, and the state of runs as JSON. It reads runs and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from alignment.report.page import ASSETS as SHARED_ASSETS
from alignment.ui import run_views
from alignment.ui.access import AccessControl
from alignment.ui.chat_models import ChatModels, ChatRequest
from alignment.ui.run_library import OpenRun, RunLibrary
from alignment.ui.run_views import NotThere, Query

PORT = 8712
BODY_BYTES = 4 << 20
"""Maximum size of a request's body."""
ASSETS = Path(__file__).parent / "assets"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
View = Callable[[OpenRun, Query], dict[str, Any]]
VIEWS: Mapping[str, View] = {
    "overview": run_views.overview,
    "curves": run_views.curves,
    "data": run_views.data,
    "models": run_views.models,
    "rollouts": run_views.rollouts,
    "rollout": run_views.rollout,
    "completions": run_views.completions,
    "completion": run_views.completion,
    "log": run_views.log,
}
"""Last part of the address -> the function that computes the answer."""


def asset_files() -> dict[str, Path]:
    """Return the files that the server may send, by their names. No other path is ever opened."""
    folders = (SHARED_ASSETS, ASSETS)
    return {path.name: path for folder in folders for path in folder.iterdir() if path.suffix in _TYPES}


class PageEndpoints:
    """The functions that answer requests."""

    def __init__(self, library: RunLibrary, chat_models: ChatModels) -> None:
        self.library = library
        self.chat_models = chat_models
        self.assets = asset_files()

    async def page(self, request: Request) -> Response:
        """Answer `GET /`."""
        return self._asset(request, "index.html")

    async def asset(self, request: Request) -> Response:
        """Answer `GET /assets/NAME`."""
        return self._asset(request, request.path_params["name"])

    def _asset(self, request: Request, name: str) -> Response:
        path = self.assets.get(name)
        if path is None:
            return JSONResponse({"error": "there is no such file"}, 404)
        return _unless_known(request, path.read_bytes(), f"{_TYPES[path.suffix]}; charset=utf-8")

    async def runs(self, request: Request) -> Response:
        """Answer `GET /api/runs`."""
        return _json(request, await asyncio.to_thread(lambda: run_views.run_list(self.library.runs())))

    async def chat(self, request: Request) -> Response:
        """Answer `POST /api/runs/RUN/chat` with the reply of one of the run's models."""
        try:
            body = await _body(request)
            asked = ChatRequest.model_validate_json(body)
            opened = await asyncio.to_thread(lambda: self.library.runs().get(request.path_params["run"]))
            models = (await asyncio.to_thread(opened.read)).models() if opened is not None else {}
            if asked.model not in models:
                raise NotThere(f"the run has no model {asked.model[:80]!r}")
            answer = await asyncio.to_thread(self.chat_models.reply, models[asked.model], asked)
        except NotThere as error:
            return JSONResponse({"error": str(error)}, 404)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, item["loc"])) or "body" for item in error.errors()[:5])
            return JSONResponse({"error": f"the request is malformed: {places}"}, 400)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(answer, 500 if "error" in answer else 200)

    async def view(self, request: Request) -> Response:
        """Answer `GET /api/runs/RUN/VIEW`."""
        compute = VIEWS.get(request.path_params["view"])
        try:
            opened = await asyncio.to_thread(lambda: self.library.runs().get(request.path_params["run"]))
            if opened is None or compute is None:
                raise NotThere("there is no such run" if opened is None else "there is no such view")
            return _json(request, await asyncio.to_thread(_compute, compute, opened, Query(request.query_params)))
        except NotThere as error:
            return JSONResponse({"error": str(error)}, 404)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)


async def _body(request: Request) -> bytes:
    """Return the body of a request. Raises ValueError if it is too large."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            raise ValueError(f"the body may have at most {BODY_BYTES:,} bytes")
    return bytes(data)


def _compute(view: View, opened: OpenRun, query: Query) -> dict[str, Any]:
    with opened.lock:
        return view(opened, query)


def _json(request: Request, value: dict[str, Any]) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return _unless_known(request, body.encode("utf-8", "replace"), "application/json")


def _unless_known(request: Request, body: bytes, media_type: str) -> Response:
    """Return the body, or status 304 if the browser has the same body already."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, media_type=media_type, headers={"ETag": tag})


def application(library: RunLibrary, *, host: str = "127.0.0.1", token: str | None = None) -> Starlette:
    """Return the server as an ASGI application.

    Args:
        library: the runs.
        host: the address on which the server listens, for the check of Host headers.
        token: token that requests need. None is only allowed on the loopback address.
    """
    chat_models = ChatModels()
    endpoints = PageEndpoints(library, chat_models)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async def unload() -> None:
            while True:
                await asyncio.sleep(30)
                await asyncio.to_thread(chat_models.unload_idle)

        unloading = asyncio.create_task(unload())
        yield
        unloading.cancel()
        await asyncio.to_thread(chat_models.close)

    routes = [
        Route("/", endpoints.page),
        Route("/assets/{name}", endpoints.asset),
        Route("/api/runs", endpoints.runs),
        Route("/api/runs/{run}/chat", endpoints.chat, methods=["POST"]),
        Route("/api/runs/{run}/{view}", endpoints.view),
    ]
    return Starlette(routes=routes, lifespan=lifespan, middleware=[Middleware(AccessControl, host=host, token=token)])
