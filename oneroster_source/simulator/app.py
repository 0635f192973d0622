"""The API itself: what is answered where, when nothing goes wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oneroster_source.simulator.attributes import COLLECTIONS
from oneroster_source.simulator.filters import BadQuery
from oneroster_source.simulator.front import form_credentials
from oneroster_source.simulator.options import read_options
from oneroster_source.simulator.school import School
from oneroster_source.simulator.tokens import basic_credentials, bearer_token, form_decoded

PREFIX = "/api/ims/oneroster/v1p1/school"
OAUTH = "/oauth/token"


def api(
    schools: Sequence[School], base_url: Callable[[], str], failed: Callable[[Exception], None]
) -> Starlette:
    """The app. `failed` is told of exceptions that are bugs, or come from tests' hooks."""

    async def unexpected(request: Request, error: Exception) -> Response:
        failed(error)
        return refusal(500, "server_error", "An unexpected error; see Simulator.errors")

    def guarded(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                response: Response = await endpoint(request)
            except Exception as error:  # noqa: BLE001 - told to the test
                return await unexpected(request, error)
            return response

        return answer

    routes = [
        Route(f"{PREFIX}/auth/token", guarded(partial(_token, schools)), methods=["POST"]),
        Route(OAUTH, guarded(partial(_oauth_token, schools)), methods=["POST"]),
        Route(f"{PREFIX}/version", guarded(_version)),
        Route(f"{PREFIX}/auth/version", guarded(_version)),
        *(
            Route(f"{PREFIX}/{name}", guarded(partial(_collection, name, base_url)))
            for name in COLLECTIONS
        ),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


def refusal(status: int, error: str, description: str, **headers: str) -> Response:
    """An error as JSON. Nothing of the Authorization header may be in it."""
    body = orjson.dumps({"error": error, "error_description": description})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(body, status, named, media_type="application/json")


async def _collection(name: str, base_url: Callable[[], str], request: Request) -> Response:
    school: School | None = request.state.school
    token = bearer_token(request.headers.get("authorization", ""))
    if school is None or token is None or not school.tokens.admit(token):
        description = "The bearer token is missing, unknown or has expired"
        return refusal(401, "invalid_token", description, www_authenticate="Bearer")
    if name in school.forbidden:
        return refusal(403, "forbidden", f"The caller is not authorised to access {name}")
    try:
        options = read_options(name, request.query_params, school.quirks)
    except BadQuery as error:
        return refusal(400, "invalid_request", str(error))
    page = school.page(name, options, base_url())
    headers = {} if page.total is None else {"X-Total-Count": page.total}
    return Response(page.body, headers=headers, media_type="application/json")


async def _token(schools: Sequence[School], request: Request) -> Response:
    credentials = basic_credentials(request.headers.get("authorization", ""))
    if credentials is None:
        return _invalid_client()
    school = next((s for s in schools if s.admits(credentials)), None)
    return _invalid_client() if school is None else _granted(school)


async def _oauth_token(schools: Sequence[School], request: Request) -> Response:
    """Plain OAuth2 client credentials, RFC 6749 section 4.4, as other providers have it."""
    body = await request.body()
    form = dict(parse_qsl(body.decode("utf-8", "replace")))
    if form.get("grant_type") != "client_credentials":
        return refusal(400, "unsupported_grant_type", "grant_type must be client_credentials")
    credentials = basic_credentials(request.headers.get("authorization", ""))
    if credentials is None:
        credentials = form_credentials(body)
    for text in (credentials, form_decoded(credentials)):
        for school in schools:
            if school.admits(text):
                return _granted(school, **{k: v for k, v in form.items() if k == "scope"})
    return _invalid_client()


def _granted(school: School, **more: str) -> Response:
    life = school.token_life
    answer = {
        "access_token": school.tokens.issue(life, school.token_uses),
        "token_type": "Bearer",
        "expires_in": int(life) if float(life).is_integer() else life,
    }
    answer |= more | school.token_answer
    return Response(orjson.dumps(answer), media_type="application/json")


def _invalid_client() -> Response:
    description = "Request contains an invalid client ID or secret"
    return refusal(401, "invalid_client", description, www_authenticate="Basic")


async def _version(request: Request) -> Response:
    version = {"version": "1.1", "name": "OneRoster simulator"}
    return Response(orjson.dumps(version), media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(getattr(error, "headers", None) or {})
    response = refusal(status, "invalid_request", f"{request.method} is not answered at this path")
    response.headers.update(headers)
    return response
