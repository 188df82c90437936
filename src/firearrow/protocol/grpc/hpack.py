"""Header compression of HTTP/2 (RFC 7541): what requests need to be read, what responses need to be
written.

Reading keeps the peer's dynamic table. Writing uses literals and the static table only, so the
blocks of responses are constants.
"""

from __future__ import annotations

from typing import Final

from hpack.exceptions import HPACKDecodingError

from firearrow.protocol.grpc.huffman import decode_huffman

TABLE_BYTES_MAX: Final = 4096  # SETTINGS_HEADER_TABLE_SIZE, where we keep the default
_ENTRY_BYTES: Final = 32  # what an entry costs besides its name and value
_KNOWN_MAX: Final = 1024  # names, and texts by their Huffman code
_KNOWN_BYTES_MAX: Final = 128  # of one of them

Metadata = dict[str, str]

_STATIC_TEXT: Final = """\
:authority|:method GET|:method POST|:path /|:path /index.html|:scheme http|:scheme https|\
:status 200|:status 204|:status 206|:status 304|:status 400|:status 404|:status 500|\
accept-charset|accept-encoding gzip, deflate|accept-language|accept-ranges|accept|\
access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|\
content-encoding|content-language|content-length|content-location|content-range|content-type|\
cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|\
if-unmodified-since|last-modified|link|location|max-forwards|proxy-authenticate|\
proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|\
strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"""


def _static(text: str) -> tuple[str, str]:
    name, _, value = text.partition(" ")
    return name, value


STATIC: Final = tuple(map(_static, _STATIC_TEXT.split("|")))  # index 1 is the first
_FIRST_DYNAMIC: Final = len(STATIC) + 1
# By the byte that refers to them. Index 0 does not exist.
_BY_BYTE: Final = (None,) * 129 + STATIC
_BYTE_DYNAMIC: Final = 0x80 | _FIRST_DYNAMIC
_BYTE_LONG: Final = 0xFF
_REFERENCES: Final = bytes(range(0x80, _BYTE_LONG))
_RUNS_MAX: Final = 16  # a connection
# What stands for a pseudo header that a request cannot have, or has twice.
MALFORMED: Final = ":status"
_PSEUDO: Final = frozenset({":authority", ":method", ":path", ":scheme", MALFORMED})
_FORBIDDEN: Final = frozenset("\0\r\n")


class HeaderError(ValueError):
    """A header block that cannot be read: the connection's compression state is lost."""


class Decoder:
    """Reads the header blocks of one connection, which refer to those before them."""

    __slots__ = ("_bytes", "_entries", "_limit", "_run", "_runs", "_sizes", "_steady")

    def __init__(self) -> None:
        self._entries: list[tuple[str, str]] = []  # the newest last
        self._sizes: list[int] = []
        self._bytes = 0
        self._limit = TABLE_BYTES_MAX
        # Most blocks begin with a run of references of a byte each, the same for all calls of a
        # method: the fields that it stands for, as long as the table stays as it is.
        self._runs: dict[bytes, list[tuple[str, str]]] = {}
        self._run = 0  # the last one's bytes, and fields
        self._steady = True  # the table is as it was before this block

    def decode(self, block: bytes) -> Metadata:
        """The fields of one block; of several with one name, the last.

        An entry that is referred to is not copied, so a block takes no more memory than its own
        bytes and the table.

        Raises:
            HeaderError: no header block.
        """
        try:
            return self._decode(block)
        except (IndexError, TypeError):
            raise HeaderError("a header block refers to what is not there") from None
        except HPACKDecodingError as error:
            raise HeaderError(str(error)) from None

    def _decode(self, block: bytes) -> Metadata:
        at = self._run
        known = self._runs.get(block[:at])
        if known is not None:
            fields = known.copy()
        else:
            at, fields, self._steady = 0, [], True
        add = fields.append
        entries, end = self._entries, len(block)
        while at < end:
            byte = block[at]
            if byte >= 0x80:
                at += 1
                if byte < _BYTE_DYNAMIC:
                    add(_BY_BYTE[byte])  # type: ignore[arg-type]  # None is no field for dict()
                elif byte < _BYTE_LONG:
                    add(entries[_BYTE_DYNAMIC - 1 - byte])
                else:
                    index, at = read_integer(block, at - 1, 0x7F)
                    add(self._entry(index))
            elif byte >= 0x40:
                field, size, at = self._literal(block, at, 0x3F)
                add(field)
                self._add(field, size)
            elif byte >= 0x20:
                if fields:
                    raise HeaderError("a table size stands behind header fields")
                at = self._resize(block, at)
            else:
                field, _, at = self._literal(block, at, 0x0F)
                add(field)
        if known is None and self._steady:
            self._learn(block, fields)
        metadata = dict(fields)
        if len(metadata) < len(fields) and _has_twice(fields):
            metadata[MALFORMED] = ""
        return metadata

    def _learn(self, block: bytes, fields: list[tuple[str, str]]) -> None:
        self._run = run = len(block) - len(block.lstrip(_REFERENCES))
        if len(self._runs) >= _RUNS_MAX:
            self._runs.clear()
        if run:
            self._runs[block[:run]] = fields[:run]

    def _changed(self) -> None:
        """The table is another one: references mean something else."""
        self._steady = False
        self._runs.clear()

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[tuple[str, str], int, int]:
        """A field, the bytes of its name and value, and where the next begins."""
        index = block[at] & mask
        at += 1
        if index == mask:
            index, at = read_integer(block, at - 1, mask)
        if index:
            name = self._entry(index)[0]
            size = len(name)
        else:
            raw, at = _string(block, at)
            size = len(raw)
            known = _names.get(raw)
            name = _new_name(raw) if known is None else known
        raw, at = _string(block, at)
        value = raw.decode("utf-8", "replace")
        if not value.isprintable() and not _FORBIDDEN.isdisjoint(value):
            raise HeaderError(f"the value of header {name} has a line end or NUL")
        return (name, value), size + len(raw), at

    def _entry(self, index: int) -> tuple[str, str]:
        if index < _FIRST_DYNAMIC:
            if index <= 0:
                raise HeaderError("a header block refers to entry 0")
            return STATIC[index - 1]
        return self._entries[_FIRST_DYNAMIC - 1 - index]

    def _add(self, field: tuple[str, str], size: int) -> None:
        self._changed()
        size += _ENTRY_BYTES
        self._entries.append(field)
        self._sizes.append(size)
        self._bytes += size
        if self._bytes > self._limit:
            self._evict()

    def _evict(self) -> None:
        gone = 0
        while self._bytes > self._limit:
            self._bytes -= self._sizes[gone]
            gone += 1
        del self._entries[:gone]
        del self._sizes[:gone]

    def _resize(self, block: bytes, at: int) -> int:
        limit, at = read_integer(block, at, 0x1F)
        if limit > TABLE_BYTES_MAX:
            raise HeaderError(f"a header table of {limit} bytes; the limit is {TABLE_BYTES_MAX}")
        self._changed()
        self._limit = limit
        self._evict()
        return at


def _has_twice(fields: list[tuple[str, str]]) -> bool:
    """Whether a pseudo header is there more than once; other fields may be."""
    pseudo = [name for name, _ in fields if name[0] == ":"]
    return len(pseudo) > len(set(pseudo))


_names: dict[bytes, str] = {}
_huffman: dict[bytes, bytes] = {}


def _new_name(raw: bytes) -> str:
    name = raw.decode("latin-1")
    if not name or name != name.lower():
        raise HeaderError(f"{name!r} is no name of a header field")
    if name[0] == ":" and name not in _PSEUDO:
        return MALFORMED
    if len(raw) <= _KNOWN_BYTES_MAX:
        if len(_names) >= _KNOWN_MAX:
            _names.clear()
        _names[raw] = name
    return name


def read_integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A number whose first byte has other bits beside the mask, and where the next thing begins."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise HeaderError("a number in a header block has too many bytes")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    first = block[at]
    size = first & 0x7F
    at += 1
    if size == 0x7F:
        size, at = read_integer(block, at - 1, 0x7F)
    stop = at + size
    raw = block[at:stop]
    if len(raw) < size:
        raise HeaderError("a header block ends in the middle of a text")
    if first < 0x80:
        return raw, stop
    plain = _huffman.get(raw)
    if plain is None:
        plain = decode_huffman(raw)
        if size <= _KNOWN_BYTES_MAX:
            if len(_huffman) >= _KNOWN_MAX:
                _huffman.clear()
            _huffman[raw] = plain
    return plain, stop


def encode(headers: list[tuple[str, str]]) -> bytes:
    """A block that changes no table: static entries where one fits, else literals."""
    block = bytearray()
    for field in headers:
        if field in STATIC:
            block.append(0x80 | STATIC.index(field) + 1)
            continue
        block.append(0)
        for text in field:
            raw = text.encode()
            _put_length(block, len(raw))
            block += raw
    return bytes(block)


def _put_length(block: bytearray, size: int) -> None:
    if size < 0x7F:
        block.append(size)
        return
    block.append(0x7F)
    size -= 0x7F
    while size >= 0x80:
        block.append(size & 0x7F | 0x80)
        size >>= 7
    block.append(size)
