"""`adaptd import`: events from a file of JSON lines."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from adaptd.consumers.doors.import_options import Format, ImportOptions, ImportStep, Rating
from adaptd.daemon.commands.bar import Bar
from adaptd.daemon.commands.client import connect
from adaptd.daemon.commands.errors import MisuseError
from adaptd.daemon.commands.output import AsJson, print_json, say
from adaptd.daemon.wire.errors import RefusedError
from adaptd.daemon.wire.files import open_regular

_STEP_BYTES = 4 << 20
_STEP_LINES = 5_000
_BLOCK_BYTES = 1 << 20
_SHOWN = 20
_KEPT = 1_000  # refused lines told in JSON; the counts are of all

Lines = tuple[int, list[bytes], int]  # number of the first, lines, bytes read so far


def register(app: typer.Typer) -> None:
    app.command("import")(import_file)


def import_file(  # noqa: PLR0913 - every format has its own
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A plain file of JSON lines.")
    ],
    *,
    format_: Annotated[
        str, typer.Option("--format", help="adaptd, openai or langfuse.")
    ] = "adaptd",
    model: Annotated[str | None, typer.Option(help="openai: the alias that answered.")] = None,
    reviewed_by: Annotated[
        str | None,
        typer.Option(help="openai: each last answer is also a correction by this reviewer."),
    ] = None,
    rating: Annotated[
        list[str] | None,
        typer.Option(help="langfuse: a score that is a rating, NAME or NAME=MIN:MAX; repeatable."),
    ] = None,
    by: Annotated[
        str, typer.Option(help="langfuse: which id is the interaction's, trace or observation.")
    ] = "trace",
    tenant: Annotated[str | None, typer.Option(help="Put on every event.")] = None,
    time: Annotated[
        str | None, typer.Option(help="For lines without one. Default: the file's own time.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be refused; needs no daemon.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Store the events of a file: adaptd's own, OpenAI chat lines, or Langfuse's score export.

    Safe to repeat, and to go on with after Ctrl-C: what is stored already is not stored twice,
    however long ago. Lines that cannot be used become dead letters. Imported events can train but
    never count for the guard of a rollout. --dry-run exits 1 where a line would be refused.

    Example: adaptd import chats.jsonl --format openai --model support --reviewed-by ada
    """
    given: dict[str, Any] = {
        "format": format_,
        "model": model,
        "reviewer": reviewed_by,
        "ratings": [_read_rating(text) for text in rating or []],
        "by": by,
        "tenant": tenant,
        "time": time or datetime.fromtimestamp(int(file.stat().st_mtime), UTC).isoformat(),
    }
    options = _read_options(given)
    report = _Report(file, options.format)
    try:
        if dry_run:
            _try_lines(file, options, report)
        else:
            _send_lines(file, options, report)
    except KeyboardInterrupt:
        if not dry_run:
            say(f"stopped after line {report.lines}; the same command goes on from there")
        raise
    report.print(as_json=as_json, dry_run=dry_run)
    if dry_run and report.refused:
        raise typer.Exit(1)


class _Report:
    """Results of the lines so far."""

    def __init__(self, file: Path, format_: Format) -> None:
        self._told: dict[str, Any] = {"file": str(file), "format": format_}
        self.lines = 0  # up to which line
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.refusals: list[dict[str, Any]] = []

    @property
    def refused(self) -> int:
        return self.reasons.total()

    def add(self, done: dict[str, Any]) -> None:
        self.lines = done["next_line"] - 1
        for name in ("interactions", "feedback", "duplicates"):
            self.counts[name] += done[name]
        self.reasons.update(refusal["reason"] for refusal in done["refused"])
        self.refusals += done["refused"][: _KEPT - len(self.refusals)]

    def print(self, *, as_json: bool, dry_run: bool) -> None:
        """Refused lines on stdout, one a line; the rest in words."""
        would = "would be " if dry_run else ""
        counts = {"lines": self.lines, **self.counts, "refused": self.refused}
        if as_json:
            told = {"dry_run": dry_run, **counts, "reasons": self.reasons}
            print_json(self._told | told | {"refusals": self.refusals})
        else:
            for refusal in self.refusals[: None if dry_run else _SHOWN]:
                fields = (refusal["line"], refusal["reason"], refusal["detail"])
                typer.echo("\t".join(str(field).replace("\t", " ") for field in fields))
        if dry_run:
            counts.pop("duplicates", None)
        say(", ".join(f"{count} {name}" for name, count in counts.items()))
        for reason, count in self.reasons.most_common():
            say(f"{count} {would}refused: {reason}")


def _send_lines(file: Path, options: ImportOptions, report: _Report) -> None:
    client = connect()
    size, digest = file.stat().st_size, _digest_file(file)
    path = f"/v1/ingest/imports/{digest}"
    done = client.send(path, _make_step(1, options), waiting=_tell_wait)
    start = done["next_line"]
    if start > 1:
        say(f"lines before {start} were imported before")
    report.add(done)
    seen = hashlib.sha256()
    with Bar("import", total=size) as bar:
        for first, lines, read in _read_steps(file, seen):
            skipped = min(len(lines), max(0, start - first))
            if lines[skipped:]:
                body = b"\n".join([_make_step(first + skipped, options), *lines[skipped:]])
                report.add(client.send(path, body, waiting=_tell_wait))
            bar.tell(read, f"{report.lines} lines, {report.refused} refused")
    if seen.hexdigest() != digest:
        remedy = "Import it again once nothing writes to it any more"
        raise RefusedError(str(file), "it was changed while it was imported", remedy)


def _tell_wait(problem: str) -> None:
    say(f"waiting: {problem}")


def _try_lines(file: Path, options: ImportOptions, report: _Report) -> None:
    """The same reading, here: nothing is stored, so copies of stored events are not known."""
    from adaptd.consumers.doors import file_import as importing  # noqa: PLC0415 - heavy

    importing.check_options(options)
    sender = importing.import_sender(None, options)
    with Bar("dry run", total=file.stat().st_size) as bar:
        for first, lines, read in _read_steps(file, hashlib.sha256()):
            decoded = importing.read_lines(
                lines, options, start=first, source="import:dry-run", sender=sender
            )
            found = importing.ImportedLines(
                next_line=first + len(lines),
                interactions=decoded.interactions.num_rows,
                feedback=decoded.feedback.num_rows,
                refused=importing.refused_lines(decoded),
            )
            report.add(msgspec.to_builtins(found))
            bar.tell(read, f"{report.lines} lines, {report.refused} refused")


def _read_steps(file: Path, seen: Any) -> Iterator[Lines]:
    """The file in parts of bounded size. Of a line that is too long only its beginning is kept."""
    first, lines, size, read = 1, [], 0, 0
    with open_regular(file) as opened:
        for line, length in _read_lines(opened, seen):
            read += length
            lines.append(line)
            size += len(line)
            if size >= _STEP_BYTES or len(lines) >= _STEP_LINES:
                yield first, lines, read
                first, lines, size = first + len(lines), [], 0
    if lines:
        yield first, lines, read


def _read_lines(opened: Any, seen: Any) -> Iterator[tuple[bytes, int]]:
    """Each line without its end, and how many bytes of the file it took."""
    from adaptd.consumers.decoding.json_events import MAX_EVENT_BYTES  # noqa: PLC0415 - heavy

    while line := opened.readline(MAX_EVENT_BYTES + 2):
        seen.update(line)
        length, end = len(line), line.endswith(b"\n")
        while not end and (rest := opened.readline(_BLOCK_BYTES)):
            seen.update(rest)
            length, end = length + len(rest), rest.endswith(b"\n")
        yield line.rstrip(b"\r\n"), length


def _digest_file(file: Path) -> str:
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _make_step(start: int, options: ImportOptions) -> bytes:
    return msgspec.json.encode(ImportStep(start=start, options=options))


def _read_options(given: dict[str, Any]) -> ImportOptions:
    try:
        return msgspec.convert(given, ImportOptions)
    except msgspec.ValidationError as error:
        raise MisuseError("import", str(error), "See `adaptd import --help`") from error


def _read_rating(text: str) -> Rating:
    name, _, scale = text.partition("=")
    if not scale:
        return Rating(name=name)
    low, _, high = scale.partition(":")
    try:
        return Rating(name=name, low=float(low), high=float(high))
    except ValueError as error:
        raise MisuseError("--rating", f"{text!r} has no scale", "Write NAME=0:1") from error
