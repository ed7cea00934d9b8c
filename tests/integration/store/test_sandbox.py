"""What a policy's expression may do, and what it may not, in the real child process."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptd.daemon.store.examples.sandbox import Sandbox, SandboxError
from tests.support.waiting import LIMIT_S

AS_OF = datetime(2026, 3, 1, 12, tzinfo=UTC)
# A slow machine needs seconds of its processor before it comes to an expression at all.
SANDBOX = Sandbox(memory_mb=256, cpu_s=20, wall_s=LIMIT_S)
NOTE = "a text that no log may show"


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
            "request": [NOTE] * 28,
            "tags": pa.array(tags, pa.map_(pa.string(), pa.string())),
            "corrections": [["x"] if day > 20 else [] for day in range(1, 29)],
            "ratings": [["x"] if day == 1 else [] for day in range(1, 29)],
        }
    )
    pq.write_table(table, path)
    return path


@pytest.fixture
def no_examples(examples: Path) -> Path:
    empty = pq.read_table(examples).slice(0, 0)
    pq.write_table(empty, examples)
    return examples


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("tags['product'] = 'cards' AND time > now() - INTERVAL 10 DAY", 4),
        ("time > current_timestamp - INTERVAL 10 DAY", 9),
        ("time::DATE > current_date - 10", 9),
        ("lower(id) LIKE 'i0%' /* the first */ -- nine", 9),
        ("len(list_filter(['a', 'b'], x -> x = 'a')) = 1 AND user IN ('u1', 'u2')", 19),
    ],
)
async def test_an_expression_selects_as_of_the_snapshots_time(
    examples: Path, where: str, count: int
) -> None:
    selected = await SANDBOX.select(examples, where, as_of=AS_OF)

    assert selected.num_rows == count
    assert selected.column("id").to_pylist() == sorted(selected.column("id").to_pylist())


async def test_only_judged_examples_are_given_where_asked(examples: Path) -> None:
    selected = await SANDBOX.select(examples, "true", as_of=AS_OF, judged_only=True)
    assert selected.num_rows == 9


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("id IN (SELECT id FROM examples)", "it holds a subquery"),
        ("true; DROP TABLE examples", "it is not SQL"),
        ("id", "it gives VARCHAR, not true or false"),
        ("user > 3", "Binder Error: Cannot compare values of type VARCHAR"),
        ("request::INTEGER > 3", "it fails on some example (Conversion Error)"),
    ],
)
async def test_a_refusal_says_what_is_wrong_and_quotes_no_example(
    examples: Path, where: str, said: str
) -> None:
    with pytest.raises(SandboxError) as refused:
        await SANDBOX.select(examples, where, as_of=AS_OF)
    assert refused.value.problem.startswith(said)
    assert NOTE not in str(refused.value)


async def test_without_examples_the_mistake_is_told_in_full(no_examples: Path) -> None:
    with pytest.raises(SandboxError, match=r"no column usr\. Columns: corr"):
        await SANDBOX.check(no_examples, "usr = 'u1'", as_of=AS_OF)
    with pytest.raises(SandboxError, match="Could not convert string 'many'"):
        await SANDBOX.check(no_examples, "'many'::INTEGER > 3", as_of=AS_OF)
    await SANDBOX.check(no_examples, "tags['product'] = 'cards'", as_of=AS_OF)


def _tenfold(times: int) -> str:
    text = "'a'"
    for _ in range(times):
        text = f"replace({text}, 'a', 'aaaaaaaaaa')"
    return f"length({text}) > 1"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (_tenfold(10), "it (took more than 1 s of processor time|needs too much memory)"),
        ("length(lpad(id, 2000000000, 'x')) > 1", "it (took more than 1 s|needs too much memory)"),
    ],
)
async def test_too_much_memory_or_time_ends_the_child_only(
    examples: Path, where: str, said: str
) -> None:
    bounded = Sandbox(memory_mb=256, cpu_s=1, wall_s=LIMIT_S)
    with pytest.raises(SandboxError, match=said):
        await bounded.select(examples, where, as_of=AS_OF)


async def test_the_wall_limit_kills(examples: Path) -> None:
    hurried = Sandbox(memory_mb=1024, cpu_s=60, wall_s=0.05)

    with pytest.raises(SandboxError, match="longer than"):
        await hurried.select(examples, "true", as_of=AS_OF)


async def test_more_examples_than_fit_are_refused_however_small_their_file(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    repeated = pa.table(
        {"id": [f"i{n:05}" for n in range(20_000)], "request": ["the same again " * 10] * 20_000}
    )
    pq.write_table(repeated, path, compression="zstd")
    assert path.stat().st_size < 1 << 20

    with pytest.raises(SandboxError, match="it holds for more than 1 MiB of examples"):
        await Sandbox(memory_mb=256, result_mb=1).select(path, "true", as_of=AS_OF)
    fits = await Sandbox(memory_mb=256, result_mb=1).select(path, "id < 'i03000'", as_of=AS_OF)
    assert fits.num_rows == 3000
