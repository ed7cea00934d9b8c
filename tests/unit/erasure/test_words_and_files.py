"""A person is found in bytes however they are written, and only they are overwritten."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adaptd.daemon.domain.words import json_strings, matcher_of
from adaptd.daemon.erasure.leftovers import lost_snapshots, remove_run, remove_tree
from adaptd.daemon.erasure.outside import beyond_reach
from adaptd.daemon.erasure.search import BLOCK_BYTES, blot, clear_home, search_folder
from adaptd.daemon.erasure.spool_files import clear_spool
from adaptd.daemon.training.job import LOCK_FILE

ADA = matcher_of({"id-1234"}, "ada")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"user":"ada"}', True),
        (b"request of ada: hello", True),
        (b"Canada is not a person", False),
        (b"ada_2 and 7ada", False),
        (b'{"id":"id-1234"', True),
        (b'{"id":"id-12345"}', False),
        (b"", False),
        (None, False),
    ],
)
def test_an_identifier_is_found_as_a_word_and_an_id_as_a_whole(
    content: bytes | None, found: bool
) -> None:
    assert ADA.finds(content) is found


@pytest.mark.parametrize("name", ["zoë", 'z"x', "a\\b", "a+b.c"])
def test_an_identifier_is_found_as_json_writes_it(name: str) -> None:
    matcher = matcher_of((), name)
    for written in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        assert matcher.finds(written.encode())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"user":"ada\\u002Btest@example.com"}', True),
        (b'{"text":"mail of ada\\u002btest@example.com, yesterday\\n"}', True),
        (b'{"user":"ada-test@example.com\\n"}', False),
        (b'{"conversation":"c1"}', True),
        (b'{"c1": "conversation", "of": "c12"}', False),
        (b'{"interaction": "chat 17 of bob"}', True),
        (b'{"interaction":"\\u0063hat 17 of bob"}', True),
        (b'{"interaction":"dGVzdA=="}', True),
    ],
)
def test_any_id_and_any_spelling_of_json_is_found(content: bytes, found: bool) -> None:
    matcher = matcher_of({"c1", "chat 17 of bob", "dGVzdA=="}, "ada+test@example.com")
    assert matcher.finds(content) is found


@pytest.mark.parametrize("unit", [b'\\"', b'"', b'"\\', b'"\\"', b"\\", b'"\n'])
def test_hostile_quotes_are_gone_through_once(unit: bytes) -> None:
    """The square of this length would take hours."""
    content = unit * 500_000 + b'"c1"'
    assert not matcher_of({"ada"}, "ada").finds(content)
    assert sum(1 for _ in json_strings(content)) < len(content)


def test_a_name_in_a_string_that_was_cut_is_found() -> None:
    matcher = matcher_of(set(), "ada+b")
    assert matcher.finds(b'{"user":"ada\\u002bb')
    assert matcher.finds(b'{"user":"ada\\u002bb\\')


def test_lines_of_a_log_are_overwritten_in_place(tmp_path: Path) -> None:
    log = tmp_path / "vllm.log"
    log.write_bytes(b"began\nada said x\n" + b"y" * BLOCK_BYTES + b"\nand ada again\nend")
    size = log.stat().st_size

    assert blot(log, ADA) == 2

    content = log.read_bytes()
    assert len(content) == size
    assert content.startswith(b"began\n**********\nyyy")
    assert content.endswith(b"\n*************\nend")


def test_a_word_across_two_blocks_is_found(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * (BLOCK_BYTES - 3) + b" ada\n")
    assert blot(log, ADA) == 1


def test_files_that_are_no_logs_are_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of ada")
    (tmp_path / "skipped.txt").write_text("of ada")

    found = clear_home(tmp_path, ADA, skip=frozenset([tmp_path / "skipped.txt"]))

    assert found.places == [str(tmp_path / "notes.txt")]
    assert (tmp_path / "notes.txt").read_text() == "of ada"


def test_an_operators_files_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "golden.jsonl").write_text("{}\n{}\nada\n")
    assert search_folder(tmp_path, ADA) == [f"{tmp_path / 'golden.jsonl'}:3"]


def test_what_a_gateway_sent_is_overwritten_and_what_it_holds_is_waited_for(tmp_path: Path) -> None:
    lines = b'{"user":"ada"}\n{"user":"eve"}\n{"user":"ada"}\n'
    (tmp_path / "000000000003.ndjson").write_bytes(lines)
    (tmp_path / "position.json").write_text('{"segment": 3, "offset": 30}')

    assert clear_spool(tmp_path, ADA)  # no gateway runs: nobody will send the rest

    content = (tmp_path / "000000000003.ndjson").read_bytes()
    assert content == b'**************\n{"user":"eve"}\n**************\n'
    assert clear_spool(tmp_path / "none", ADA)


def test_what_a_running_gateway_still_has_to_send_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "000000000003.ndjson").write_bytes(b'{"user":"ada"}\n{"user":"ada"}\n')
    (tmp_path / "position.json").write_text('{"segment": 3, "offset": 15}')
    hold = "import fcntl,sys; f=open('lock','w'); fcntl.lockf(f,fcntl.LOCK_EX); print(1,flush=True)"
    command = [sys.executable, "-c", f"{hold}; sys.stdin.read()"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as gateway:
        assert gateway.stdout is not None
        gateway.stdout.readline()

        assert not clear_spool(tmp_path, ADA)

    assert (tmp_path / "000000000003.ndjson").read_bytes().endswith(b'*\n{"user":"ada"}\n')


def test_a_run_is_removed_once_its_trainer_is_gone(tmp_path: Path) -> None:
    run = tmp_path / "run-1"
    (run / "checkpoints").mkdir(parents=True)
    (run / LOCK_FILE).touch()
    assert remove_run(run)
    assert not run.exists()
    assert remove_run(run)


def test_sealed_directories_are_removed(tmp_path: Path) -> None:
    sealed = tmp_path / "version"
    (sealed / "inner").mkdir(parents=True)
    (sealed / "inner" / "probes.json").touch()
    (sealed / "inner").chmod(0o555)
    sealed.chmod(0o555)
    remove_tree(sealed)
    assert not sealed.exists()


def test_snapshots_that_nobody_knows_are_lost_unless_they_are_being_built(tmp_path: Path) -> None:
    for name in ("snapshot-run-1", "snapshot-run-2", "snapshot-run-3"):
        (tmp_path / name).mkdir()
    found = lost_snapshots(tmp_path, {"snapshot-run-1"}, {"run-2"})
    assert [path.name for path in found] == ["snapshot-run-3"]


def test_what_is_beyond_reach_is_told_with_what_to_do() -> None:
    ranges = [{"topic": "t", "partition": 2, "first_offset": 4, "last_offset": 9, "events": 3}]
    told = beyond_reach(
        {
            "kafka": ranges,
            "golden": ["g.jsonl:7"],
            "versions": ["a@v1-11111111"],
            "replaced": ["store.duckdb.replaced-1"],
        }
    )

    where = [place.where for place in told]
    assert where[:2] == ["Kafka t/2", "g.jsonl:7"]
    assert '"offset":10' in told[0].remedy
    assert {"backups", "vLLM", "exported adapters"} <= set(where)
