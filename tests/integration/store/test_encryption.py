"""An encrypted store: whose key, what leaves no plaintext anywhere, and what is refused."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adaptd.daemon.store.database.database import Connection, Database
from adaptd.daemon.store.database.encryption import StoreKey, is_encrypted, read_key
from adaptd.daemon.store.database.opening import open_store
from adaptd.daemon.store.database.rekey import rekey_store
from adaptd.daemon.wire.errors import RefusedError, SettingsError, StoreError
from tests.support.commands import run_command
from tests.support.event_samples import a_correction, an_interaction
from tests.support.ingesting import Ingesting

KEY, OTHER = StoreKey("Kd93hs.ra0" * 4), StoreKey("Zq77mw.xx1" * 4)
MARKER = b"planted-marker"


def key_file(path: Path, text: str = KEY.secret, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def found_in(folder: Path) -> list[str]:
    """Files that hold the marker, whatever they are called."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.name for path in files if MARKER in path.read_bytes())


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def marked(path: Path, key: StoreKey | None) -> Database:
    """A store with the marker in rows, in its log and in a table spilled to temporary files."""
    database = Database.open(path, key=key, memory_limit="24MB", threads=1)
    ingesting = Ingesting(database)
    await ingesting.add(
        an_interaction(id="i1", user=MARKER.decode()),
        a_correction("i1", MARKER.decode()),
        b"{" + MARKER,
    )
    return database


def spill(cursor: Connection) -> None:
    cursor.execute(
        "CREATE TEMP TABLE wide AS "
        "SELECT 'planted-marker' || hash(i) || repeat(md5(i::VARCHAR), 4) AS text "
        "FROM range(300000) r(i)"
    )


@pytest.mark.parametrize("key", [KEY, None], ids=["encrypted", "plain"])
async def test_no_file_of_an_encrypted_store_holds_plaintext(
    tmp_path: Path, key: StoreKey | None
) -> None:
    database = await marked(tmp_path / "s.duckdb", key)
    database.write_now(spill)
    spilled = names_in(tmp_path / "s.duckdb.tmp")
    assert spilled, "the test has to reach temporary files"
    assert (tmp_path / "s.duckdb.wal").stat().st_size > 0
    open_files = found_in(tmp_path)
    database.close()
    closed_files = found_in(tmp_path)

    if key is None:  # else this test proves nothing
        assert {"s.duckdb.wal", spilled[0]} <= set(open_files)
        assert closed_files == ["s.duckdb"]
    else:
        assert (open_files, closed_files) == ([], [])


async def test_an_encrypted_store_survives_a_kill_and_is_read_with_its_key(tmp_path: Path) -> None:
    database = await marked(tmp_path / "s.duckdb", KEY)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("s.duckdb", "s.duckdb.wal"):
        shutil.copy(tmp_path / name, killed / name)  # as a kill would leave them
    database.close()

    again = Database.open(killed / "s.duckdb", key=KEY)
    assert (await Ingesting(again).reads.counts()).interactions == 1
    again.close()


@pytest.mark.parametrize(
    ("stored", "given", "words"),
    [
        (KEY, OTHER, "encrypted with another key"),
        (KEY, None, "no key is set"),
        (None, KEY, "adaptd store rekey"),
    ],
)
async def test_a_key_that_does_not_fit_is_refused_and_the_file_untouched(
    tmp_path: Path, stored: StoreKey | None, given: StoreKey | None, words: str
) -> None:
    path = tmp_path / "s.duckdb"
    Database.open(path, key=stored).close()
    before = path.read_bytes()

    with pytest.raises(SettingsError, match=words) as refusal:
        Database.open(path, key=given)

    assert path.read_bytes() == before
    assert KEY.secret not in str(refusal.value)
    assert OTHER.secret not in str(refusal.value)


def test_nothing_is_downloaded_or_installed(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.duckdb", key=KEY)
    asked = "SELECT name, value FROM duckdb_settings() WHERE name LIKE 'auto%extensions'"
    settings = dict(database.write_now(lambda c: c.execute(asked).fetchall()))
    loaded = database.write_now(
        lambda c: c.execute(
            "SELECT installed FROM duckdb_extensions() WHERE extension_name = 'httpfs' AND loaded"
        ).fetchall()
    )
    database.close()
    assert set(settings.values()) == {"false"}
    assert loaded == [(False,)], "loaded from its package, not from a home folder"


def test_the_network_stays_shut(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "s.duckdb", key=KEY)
    with pytest.raises(Exception, match="disabled"):
        database.write_now(lambda c: c.execute("FROM read_text('https://127.0.0.1:1/x')"))
    database.close()


def test_a_key_comes_from_a_file_a_command_or_a_variable(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", KEY.secret + "\n")
    assert read_key(path=path, environment={}) == StoreKey(KEY.secret.strip())
    assert read_key(path=None, command=["cat", str(path)], environment={}) == read_key(
        path=path, environment={}
    )
    given = {"ADAPTD_STORE_KEY": KEY.secret}
    assert read_key(path=None, environment=given) == read_key(path=path, environment={})
    assert read_key(path=None, environment={}) is None
    assert KEY.secret not in repr(KEY)


def test_a_key_that_cannot_be_used_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = key_file(tmp_path / "key")
    short, open_to_all = key_file(tmp_path / "short", "hunter2"), key_file(tmp_path / "open")
    open_to_all.chmod(0o640)
    wrong = [
        {"path": path, "environment": {"ADAPTD_STORE_KEY": KEY.secret}},
        {"path": short, "environment": {}},
        {"path": open_to_all, "environment": {}},
        {"path": tmp_path / "absent", "environment": {}},
        {"path": None, "command": ["false"], "environment": {}},
        {"path": None, "command": ["/no/such/program"], "environment": {}},
        {"path": None, "command": ["true"], "environment": {}},
        {"path": None, "command": ["a\0b"], "environment": {}},
    ]
    for arguments in wrong:
        with pytest.raises(SettingsError) as refusal:
            read_key(**arguments)
        assert "hunter2" not in str(refusal.value)
        assert KEY.secret not in str(refusal.value)


async def test_a_store_is_encrypted_rekeyed_and_decrypted_in_place(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    (await marked(path, None)).close()
    for old, new in [(None, KEY), (KEY, OTHER), (OTHER, None)]:
        rekey_store(path, old=old, new=new)
        assert is_encrypted(path) is (new is not None)
        assert found_in(tmp_path) == ([] if new else ["s.duckdb"])
        assert names_in(tmp_path) == ["s.duckdb"]
        database = Database.open(path, key=new)
        assert (await Ingesting(database).reads.counts()).dead_letters == 1
        database.close()


async def test_a_killed_rekeying_or_restore_leaves_nothing_behind_an_open_store(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.duckdb"
    (await marked(path, KEY)).close()
    for name in (".s.duckdb.rekey", ".s.duckdb.restoring", "s.duckdb.rewritten"):
        for left in (name, f"{name}.wal"):
            (tmp_path / left).write_bytes(MARKER)
        (tmp_path / f"{name}.tmp").mkdir()
        (tmp_path / f"{name}.tmp" / "spilt").write_bytes(MARKER)

    with pytest.raises(SettingsError):
        Database.open(path, key=OTHER)
    assert len(found_in(tmp_path)) == 9  # whoever has not the store touches nothing
    Database.open(path, key=KEY).close()

    assert found_in(tmp_path) == []
    assert names_in(tmp_path) == ["s.duckdb"]


_OPENING = "from adaptd.daemon.store.database.database import Database; Database.open(path)"
_REKEYING = """from pathlib import Path
from adaptd.daemon.store.database.encryption import StoreKey
from adaptd.daemon.store.database.rekey import rekey_store
rekey_store(Path(path), old=None, new=StoreKey("another" * 9))"""


@pytest.mark.parametrize("code", [_OPENING, _REKEYING], ids=["opening", "rekeying"])
async def test_a_rekeying_under_way_keeps_others_out_and_its_copy_stays(
    tmp_path: Path, code: str
) -> None:
    path = tmp_path / "s.duckdb"
    (await marked(path, None)).close()
    copy = tmp_path / ".s.duckdb.rekey"
    held = open_store(path)  # as the rekeying holds it
    copy.write_bytes(b"half")
    command = [sys.executable, "-c", f"import sys; path = sys.argv[1]\n{code}", str(path)]

    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)

    held.close()
    assert "another process has the store open" in done.stderr
    assert copy.read_bytes() == b"half"


async def test_what_rekeying_did_is_told_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await marked(tmp_path / "store.duckdb", None)).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTD_HOME", str(tmp_path))
    monkeypatch.setenv("ADAPTD_STORE_KEY", KEY.secret)

    done = run_command("store", "rekey", "--json")

    assert done.code == 0, done.err
    assert done.data == {"store": str(tmp_path / "store.duckdb"), "encrypted": True}


async def test_rekeying_is_refused_where_it_makes_no_sense_or_the_store_is_in_use(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s.duckdb"
    with pytest.raises(RefusedError, match="no store"):
        rekey_store(path, old=None, new=KEY)
    database = await marked(path, KEY)
    with pytest.raises(RefusedError, match="already"):
        rekey_store(path, old=KEY, new=KEY)
    with pytest.raises((SettingsError, StoreError)):
        rekey_store(path, old=OTHER, new=None)
    database.close()
    before = path.read_bytes()
    with pytest.raises(SettingsError, match="another key"):
        rekey_store(path, old=OTHER, new=None)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["s.duckdb"]


def test_what_is_no_store_is_not_rekeyed(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    path.write_text("notes")
    for new in (KEY, None):
        with pytest.raises(RefusedError, match="it is no store"):
            rekey_store(path, old=None, new=new)
    assert path.read_text() == "notes"


def test_memory_that_is_no_size_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"store_memory.*banana"):
        open_store(tmp_path / "s.duckdb", memory_limit="banana")
