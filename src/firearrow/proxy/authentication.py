"""Who calls, by the signature in a call's metadata (``DefaultAuthenticationContextBuilder``).

    x-mq-date-time  any text, which is what is signed; nobody compares it with a clock
    authorization   MQv2-HMAC-SHA1 Credential=<user>[/...], SignedHeaders=..., Signature=<hex>

The signature is HMAC-SHA1 of that text, with the user's secret as its key. A signature that was
overheard can be used again: only TLS keeps it private.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from typing import Final

from firearrow.model.clock import Clock
from firearrow.protocol.grpc.calls import Call
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.proxy.refusal import Refusal

log = logging.getLogger(__name__)

LOG_S: Final = 60.0  # between two lines about refused calls


class Authenticator:
    """Checks calls against users and their secrets."""

    def __init__(self, users: Mapping[str, str], clock: Clock) -> None:
        self._users = {user: secret.encode() for user, secret in users.items()}
        self._clock = clock
        self._refused = 0
        self._said_s = -LOG_S

    def check(self, call: Call) -> None:
        """Let a call of a known user pass.

        Raises:
            Refusal: UNAUTHORIZED; who must not learn what was wrong of user and signature.
        """
        user, signature = _credential(call.metadata.get("authorization", ""))
        signed = call.metadata.get("x-mq-date-time", "")
        secret = self._users.get(user)
        # Also for a user who is not there, so that the time that it takes tells nothing.
        wanted = hmac.digest(secret or b"nobody", signed.encode(), "sha1")
        right = hmac.compare_digest(wanted, signature)
        if secret is None or not right or not signed:
            self._note(call, user)
            raise Refusal(v2.UNAUTHORIZED, "the call is not signed, or not by a user known here")

    def _note(self, call: Call, user: str) -> None:
        self._refused += 1
        now_s = self._clock.monotonic()
        if now_s - self._said_s >= LOG_S:
            self._said_s = now_s
            log.warning(
                "refused %d gRPC calls without a right signature so far, now one of user %r from "
                "%s:%d: see the access key and secret key of that client, and grpcUsersFile",
                self._refused,
                user,
                *call.remote,
            )


def _credential(header: str) -> tuple[str, bytes]:
    """User and signature of an ``authorization`` header; empty where there is none."""
    _, _, rest = header.partition(" ")
    fields = {}
    for piece in rest.split(","):
        name, _, value = piece.strip().partition("=")
        fields[name] = value
    user = fields.get("Credential", "").split("/")[0]
    try:
        return user, bytes.fromhex(fields.get("Signature", ""))
    except ValueError:
        return user, b""
