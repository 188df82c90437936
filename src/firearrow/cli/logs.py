"""Log lines on standard error: for people, or one JSON object a line."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import datetime

import msgspec


class HumanFormatter(logging.Formatter):
    """``12:34:56.789 WARNING broker.members  text``."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006
        room = record.name.removeprefix("firearrow.")
        line = f"{when} {record.levelname:<7} {room}  {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """Keys: time (ISO 8601), level, room, text, and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone()
        line = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "room": record.name.removeprefix("firearrow."),
            "text": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(line).decode()


def set_up(style: str, level: str) -> None:
    """Send everything to standard error in one style."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else HumanFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
