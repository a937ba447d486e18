"""HTTP to one destination: TLS that is verified, a secret from its file, short answers, no redirect.

In: a peer with a `url`. Out: status and body, or Transient and Permanent with a sentence for the person who must act.
Never follows a redirect, never uses a proxy or a password of the environment, never logs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx

from pacsnode.dimse.tls import Credentials
from pacsnode.errors import ConfigError, Permanent, Transient
from pacsnode.peers import Peer

LONGEST_ANSWER_BYTES: Final = 8 << 20
LONGEST_SECRET_BYTES: Final = 4096
TIMEOUTS: Final = httpx.Timeout(60.0, connect=10.0, read=300.0)

Body = bytes | Iterable[bytes]


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        with suppress(ValueError, RecursionError):
            return json.loads(self.body)
        return None

    def __str__(self) -> str:
        return f"HTTP {self.status} {httpx.codes.get_reason_phrase(self.status)}".rstrip()


class Refused(Permanent):
    """The server turned the request itself down, and would again: the instances in it are the reason."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"the peer refused it: {answer}")
        self.status = answer.status
        self.answer = answer


class Web:
    """One destination's connection, kept open until the end of the block. Raises ConfigError for its files."""

    def __init__(self, peer: Peer, credentials: Credentials) -> None:
        assert peer.url is not None
        self._peer = peer
        self._token = ""
        auth = httpx.BasicAuth(peer.user, _secret(peer)) if peer.user else None
        self._client = httpx.Client(
            auth=auth,
            verify=credentials.web_context(),
            timeout=TIMEOUTS,
            follow_redirects=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "pacsnode"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, parameters: Mapping[str, str] | None = None, accept: str = "application/json") -> Answer:
        """GET of a path below the peer's URL."""
        return self._asked("GET", path, {"Accept": accept}, None, parameters)

    def post(self, path: str, body: Body, headers: Mapping[str, str]) -> Answer:
        """POST to a path below the peer's URL; a body that is no bytes is read once, so it is sent once.

        Raises Refused for what the server does not want, Permanent where a person must act, Transient.
        """
        return self._asked("POST", path, headers, body, None)

    def _asked(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body | None,
        parameters: Mapping[str, str] | None,
    ) -> Answer:
        if self._peer.token_url and not self._token:
            self._token = self._new_token()
        bearer = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = self._client.build_request(
            method, f"{self._peer.url}{path}", headers={**headers, **bearer}, content=body, params=parameters
        )
        answer = self._exchanged(request)
        if answer.status == HTTPStatus.UNAUTHORIZED and self._token:
            self._token = ""  # it has run out, or was withdrawn: the next try asks for another
            raise Transient("the peer does not take our access token any more")
        return self._judged(answer)

    def _exchanged(self, request: httpx.Request) -> Answer:
        try:
            response = self._client.send(request, stream=True)
            try:
                return Answer(response.status_code, _read(response))
            finally:
                response.close()
        except httpx.TimeoutException:
            raise Transient(f"{request.url.host} does not answer in time") from None
        except httpx.TransportError as error:
            told = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in told:
                raise Permanent(f"the certificate of {request.url.host} is not believed: {told[-160:]}") from None
            raise Transient(f"no exchange with {request.url.host}: {told[:160]}") from None

    def _judged(self, answer: Answer) -> Answer:
        """Raises for what concerns the destination as a whole."""
        if answer.status < 300:
            return answer
        if answer.status < 400:
            raise Permanent(f"the peer redirects ({answer}); write the new place into `url:`")
        if answer.status in (401, 403):
            raise Permanent(f"the peer does not let us in ({answer}); look at its user or client and the secret")
        if answer.status in (404, 405):
            raise Permanent(f"the peer has nothing at this place ({answer}); look at `url:`")
        if answer.status in (408, 423, 425, 429) or answer.status >= 500:
            raise Transient(f"the peer cannot take it now ({answer})")
        raise Refused(answer)

    def _new_token(self) -> str:
        """OAuth 2.0 client credentials (RFC 6749 4.4), the client's secret as in its 2.3.1."""
        assert self._peer.token_url is not None
        assert self._peer.client_id is not None
        form = {"grant_type": "client_credentials"} | ({"scope": self._peer.scope} if self._peer.scope else {})
        auth = httpx.BasicAuth(self._peer.client_id, _secret(self._peer))
        request = self._client.build_request("POST", self._peer.token_url, data=form)
        request = next(auth.sync_auth_flow(request))
        answer = self._exchanged(request)
        said = answer.json()
        if answer.status >= 500:
            raise Transient(f"the token server cannot answer now ({answer})")
        token = said.get("access_token") if isinstance(said, dict) else None
        if answer.status != HTTPStatus.OK or not isinstance(token, str) or not token.isascii() or not token:
            raise Permanent(f"the token server gives no token ({answer}); look at client_id, scope and the secret")
        return token


def _read(response: httpx.Response) -> bytes:
    """The body as it came: what is compressed though we did not ask for it is nothing that we read."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Transient("the peer answers compressed, though it was not asked to")
    body = bytearray()
    for piece in response.iter_raw():
        body += piece
        if len(body) > LONGEST_ANSWER_BYTES:
            raise Transient(f"the peer's answer is longer than {LONGEST_ANSWER_BYTES >> 20} MB")
    return bytes(body)


def _secret(peer: Peer) -> str:
    """The first line of the peer's secret file. Raises ConfigError."""
    where = f"secret_file of peer {peer.name}"
    assert peer.secret_file is not None
    try:
        with Path(peer.secret_file).open("rb") as file:
            first = file.read(LONGEST_SECRET_BYTES).decode().partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError:
        raise ConfigError("its secret is not UTF-8", where=where) from None
    except OSError as error:
        raise ConfigError(f"{peer.secret_file} cannot be read: {error.strerror}", where=where) from None
    if not first:
        raise ConfigError(f"{peer.secret_file} is empty", where=where)
    return first
