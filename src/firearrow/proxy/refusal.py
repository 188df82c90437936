"""Refusals: a ``Code`` of the gRPC protocol with its text, and how remoting codes become one."""

from __future__ import annotations

from typing import Final

from firearrow.model import codes
from firearrow.protocol.grpc.pb import definition_pb2 as v2

# Remoting response code -> Code (``ResponseBuilder``); every other one is an internal error.
_FROM_REMOTING: Final = {
    codes.SUCCESS: v2.OK,
    codes.SYSTEM_BUSY: v2.TOO_MANY_REQUESTS,
    codes.REQUEST_CODE_NOT_SUPPORTED: v2.NOT_IMPLEMENTED,
    codes.TOPIC_NOT_EXIST: v2.TOPIC_NOT_FOUND,
    codes.SUBSCRIPTION_GROUP_NOT_EXIST: v2.CONSUMER_GROUP_NOT_FOUND,
    codes.SUBSCRIPTION_PARSE_FAILED: v2.ILLEGAL_FILTER_EXPRESSION,
    codes.FLUSH_DISK_TIMEOUT: v2.MASTER_PERSISTENCE_TIMEOUT,
    codes.FLUSH_SLAVE_TIMEOUT: v2.SLAVE_PERSISTENCE_TIMEOUT,
    codes.SLAVE_NOT_AVAILABLE: v2.HA_NOT_AVAILABLE,
    codes.LMQ_QUOTA_EXCEEDED: v2.LITE_TOPIC_QUOTA_EXCEEDED,
    codes.LITE_SUBSCRIPTION_QUOTA_EXCEEDED: v2.LITE_SUBSCRIPTION_QUOTA_EXCEEDED,
}


class Refusal(Exception):  # noqa: N818 - an answer, not a defect
    """The request is answered with this code and text."""

    def __init__(self, code: v2.Code.ValueType, text: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text or v2.Code.Name(code)

    @property
    def status(self) -> v2.Status:
        return status(self.code, self.text)


def status(code: v2.Code.ValueType = v2.OK, text: str = "") -> v2.Status:
    """A status; without a text the code's own name, since it must never be empty."""
    return v2.Status(code=code, message=text or v2.Code.Name(code))


OK: Final = status()  # to be copied, not changed


def of_remoting(code: int, remark: str | None) -> Refusal:
    """What a broker answered instead of success; -1 when it did not answer."""
    if code < 0:
        return Refusal(v2.PROXY_TIMEOUT, remark or "the broker does not answer")
    return Refusal(_FROM_REMOTING.get(code, v2.INTERNAL_SERVER_ERROR), remark or "")
