"""The import of files, line by line: in every format, once each, resumed where it stopped."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import pyarrow as pa

from adaptd.consumers.decoding.decode import Record, Sender, decode
from adaptd.consumers.decoding.json_events import (
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    UnreadableError,
    decode_json,
)
from adaptd.consumers.doors.import_options import ImportOptions, ImportStep
from adaptd.consumers.doors.langfuse import score_events
from adaptd.consumers.doors.openai_chat import chat_events
from adaptd.daemon.domain.ingest import Decoded, LogRange, Span, addresses_of
from adaptd.daemon.domain.ports import EventSink
from adaptd.daemon.wire.errors import RefusedError, TooLargeError
from adaptd.daemon.wire.nesting import nests_deeper
from adaptd.daemon.wire.tokens import Principal

MAX_LINE_BYTES = MAX_EVENT_BYTES
MAX_STEP_LINES = 10_000
_FIRST_LINE = 1
_DIGEST_LETTERS = 64


class RefusedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that cannot be used, or one event of it (`index` counts within the line)."""

    line: int
    reason: str
    detail: str
    index: int = 0


class ImportedLines(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of some lines. Everything before `next_line` is stored."""

    next_line: int
    interactions: int = 0
    feedback: int = 0
    duplicates: int = 0
    refused: list[RefusedLine] = []


class FileImporter:
    """Stores the lines of files, in order, as a client sends them."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink

    async def position(self, digest: str, options: ImportOptions) -> ImportedLines:
        """Return how far the file with this SHA-256 is stored under these options.

        Raises:
            RefusedError: the options do not fit the format.
        """
        check_options(options)
        source, place = _source_of(digest), options.place
        await self._sink.pin(source, {place: LogRange(None, _FIRST_LINE, 0)})
        stored = await self._sink.offsets(source)
        return ImportedLines(next_line=stored[place].next_offset)

    async def take(
        self, digest: str, step: ImportStep, lines: Sequence[bytes], principal: Principal
    ) -> ImportedLines:
        """Store lines. Safe to repeat: those stored before are passed over.

        Raises:
            RefusedError: lines in between were left out.
            TooLargeError: there are too many lines at once.
            StoreError: nothing is stored.
        """
        if len(lines) > MAX_STEP_LINES:
            raise TooLargeError("import", f"{len(lines)} lines at once", "Send it in parts")
        next_line = (await self.position(digest, step.options)).next_line
        if step.start > next_line:
            remedy = f"Send the lines from {next_line} on"
            raise RefusedError("import", f"line {step.start} is not the next one", remedy)
        skipped = next_line - step.start
        return await self._store_lines(digest, step.options, next_line, lines[skipped:], principal)

    async def _store_lines(
        self,
        digest: str,
        options: ImportOptions,
        start: int,
        lines: Sequence[bytes],
        principal: Principal,
    ) -> ImportedLines:
        if not lines:
            return ImportedLines(next_line=start)
        sender = import_sender(principal.id, options)
        decoded = await asyncio.to_thread(
            read_lines, lines, options, start=start, source=_source_of(digest), sender=sender
        )
        written = await self._sink.write(decoded)
        return ImportedLines(
            next_line=start + len(lines),
            interactions=written.interactions,
            feedback=written.feedback,
            duplicates=len(written.duplicates),
            refused=refused_lines(decoded),
        )


def import_sender(principal: str | None, options: ImportOptions) -> Sender:
    """Return the sender of imported lines: any source of feedback, but nothing is trusted."""
    # An operator may import what reviewers and agents said. The guard counts only trusted events.
    return Sender(
        trusted=False,
        principal=principal,
        sources=None,
        stamps_tenant=options.tenant is not None,
        tenant=options.tenant,
    )


def read_lines(
    lines: Sequence[bytes], options: ImportOptions, *, start: int, source: str, sender: Sender
) -> Decoded:
    """Decode lines. A dead letter keeps its line as it was in the file."""
    place = options.place
    originals = {number: line for number, line in enumerate(lines, start) if line.strip()}
    records = []
    for number, line in originals.items():
        value, why = _convert_line(line, options)
        records.append(Record(value, place.topic, place.number, number, why or sender, None))
    span = Span(place, start, start + len(lines))
    decoded = decode(records, source=source, spans=[span])
    return replace(decoded, dead_letters=_with_lines(decoded.dead_letters, originals))


def refused_lines(decoded: Decoded) -> list[RefusedLine]:
    """List the dead letters by line and by event within the line."""
    letters = decoded.dead_letters
    reasons, details = letters["reason"].to_pylist(), letters["detail"].to_pylist()
    found = [
        RefusedLine(line=address.position, index=address.index, reason=reason, detail=detail)
        for address, reason, detail in zip(addresses_of(letters), reasons, details, strict=True)
    ]
    return sorted(found, key=lambda refused: (refused.line, refused.index))


def _convert_line(line: bytes, options: ImportOptions) -> tuple[bytes, UnreadableError | None]:
    """Return the line as a message of adaptd's events, or the line and why it is none."""
    if options.format == "adaptd":
        return line, None
    try:
        if len(line) > MAX_LINE_BYTES:
            raise UnreadableError("too_large", f"more than {MAX_LINE_BYTES} bytes")
        found = decode_json(line)
        if nests_deeper(found, MAX_DEPTH):
            raise UnreadableError("too_deep", f"nested more than {MAX_DEPTH} levels")
        read = chat_events if options.format == "openai" else score_events
        events = read(found, options)
    except UnreadableError as why:
        return line, why
    return b'{"batch":[' + b",".join(events) + b"]}", None


def check_options(options: ImportOptions) -> None:
    """Raise RefusedError where a format lacks an option, or another format's option is given."""
    if options.format == "openai" and options.model is None:
        raise RefusedError("import", "chat lines do not say which alias answered", "Give --model")
    foreign = {
        "openai": bool(options.reviewer or options.model),
        "langfuse": bool(options.ratings or options.by != "trace"),
    }
    for name, given in foreign.items():
        if given and options.format != name:
            raise RefusedError("import", f"an option of format {name} is given", "Leave it out")


def _with_lines(letters: pa.Table, originals: Mapping[int, bytes]) -> pa.Table:
    lines = [originals[position] for position in letters["position"].to_pylist()]
    column = letters.schema.get_field_index("bytes")
    return letters.set_column(column, "bytes", pa.array(lines, pa.binary()))


def _source_of(digest: str) -> str:
    if len(digest) != _DIGEST_LETTERS or not set(digest) <= set("0123456789abcdef"):
        raise RefusedError("import", "a file is named by its SHA-256", "Use `adaptd import`")
    return f"import:{digest}"
