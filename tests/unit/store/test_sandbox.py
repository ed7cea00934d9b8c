"""What a policy's expression may do, and what it may not, in the real child process."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daemon.store.sandbox import Sandbox, SandboxError

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
SANDBOX = Sandbox(memory_mb=256, cpu_s=4, wall_s=20)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.parquet"
    times = [datetime(2026, 2, day, tzinfo=UTC) for day in range(1, 29)]
    tags = [[("product", "cards" if day % 2 else "loans")] for day in range(1, 29)]
    table = pa.table(
        {
            "id": [f"i{day:02}" for day in range(1, 29)],
            "time": pa.array(times, pa.timestamp("us", "UTC")),
            "user": [f"u{day % 3}" for day in range(1, 29)],
            "tags": pa.array(tags, pa.map_(pa.string(), pa.string())),
        }
    )
    pq.write_table(table, path)
    return path


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("tags['product'] = 'cards' AND time > now() - INTERVAL 10 DAY", 4),
        ("time > current_timestamp - INTERVAL 10 DAY", 9),
        ("time::DATE > current_date - 10", 9),
        ("user IN ('u1', 'u2')", 19),
        ("lower(id) LIKE 'i0%' -- the first nine", 9),
        ("CASE WHEN user = 'u0' THEN false ELSE true END", 19),
        ("len(list_filter(['a', 'b'], x -> x = 'a')) = 1", 28),
        ("true", 28),
    ],
)
async def test_an_expression_selects_as_of_the_snapshots_time(
    examples: Path, where: str, count: int
) -> None:
    selected = await SANDBOX.select(examples, where, as_of=AS_OF)

    assert selected.num_rows == count
    assert selected.column("id").to_pylist() == sorted(selected.column("id").to_pylist())


@pytest.mark.parametrize(
    "where",
    [
        "id IN (SELECT id FROM examples)",
        "true) OR (SELECT true",
        "true) GROUP BY (id",
        "true) LIMIT (1",
        "true) UNION SELECT 1 FROM examples WHERE (true",
        "true; DROP TABLE examples",
        "true); COPY examples TO '/tmp/x' ; SELECT (1",
        "random() < 0.5",
        "uuid() IS NOT NULL",
        "gen_random_uuid() IS NOT NULL",
        "getenv('HOME') = '/'",
        "current_setting('memory_limit') = '1'",
        "localtimestamp > time",
        "today() > '2020-01-01'",
        "system.main.now() > time",
        "read_text('/etc/passwd') IS NOT NULL",
        "EXISTS (FROM read_csv('/etc/passwd'))",
        "EXISTS (FROM glob('/*'))",
        "row_number() OVER () = 1",
        "count(*) > 1",
        "nextval('s') > 1",
        "COLUMNS(*) IS NOT NULL",
        "no_such_column = 1",
        "no_such_function(id)",
        "file_row_number > 1",
        "id = $1",
        "id ===",
        "",
        "pragma_version()",
    ],
)
async def test_anything_but_one_pure_expression_is_refused(examples: Path, where: str) -> None:
    with pytest.raises(SandboxError):
        await SANDBOX.select(examples, where, as_of=AS_OF)


@pytest.mark.parametrize(
    "where",
    [
        "length(repeat('a', 4000000000)) > 1",
        "len(list_filter(range(200000000), x -> sqrt(x) > sin(x))) > 5",
    ],
)
async def test_too_much_memory_or_time_ends_the_child_only(examples: Path, where: str) -> None:
    with pytest.raises(SandboxError):
        await SANDBOX.select(examples, where, as_of=AS_OF)


async def test_the_wall_limit_kills(examples: Path) -> None:
    hurried = Sandbox(memory_mb=1024, cpu_s=60, wall_s=0.05)

    with pytest.raises(SandboxError, match="longer than"):
        await hurried.select(examples, "true", as_of=AS_OF)
