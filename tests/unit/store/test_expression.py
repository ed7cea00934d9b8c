"""One pure expression over the columns, and nothing else; and the lock behind the check."""

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptd.daemon.store.examples.sandbox_child import check_where, locked_connection
from adaptd.daemon.store.examples.where_expression import (
    Refused,
    allowed_functions,
    check_expression,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
COLUMNS = ("id", "time", "user", "tags", "request", "corrections")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    folder = tmp_path_factory.mktemp("locked")
    table = pa.table({name: [""] for name in ("id", "user", "request")})
    table = table.append_column("time", pa.array([NOW], pa.timestamp("us", "UTC")))
    tags = pa.array([[("product", "cards")]], pa.map_(pa.string(), pa.string()))
    table = table.append_column("tags", tags)
    said = pa.array([[{"origin": "agent"}]])
    pq.write_table(table.append_column("corrections", said), folder / "examples.parquet")
    job = {"memory_mb": 256, "as_of": "2026-03-01T12:00:00+00:00"}
    return locked_connection(job | {"examples": str(folder / "examples.parquet")})


@pytest.mark.parametrize(
    "where",
    [
        "true",
        "tags['product'] = 'cards' AND \"time\" > now() - INTERVAL 30 DAY",
        "user IS DISTINCT FROM 'agent-7' -- why",
        "request ->> '$.messages[0].role' = 'system'",
        "json_extract_string(request, '$.model') = 'x'",
        "corrections[-1].origin IN ('agent', 'reviewer')",
        "CASE WHEN user = 'u' THEN regexp_matches(id, 'a+') ELSE id ^@ 'b' END",
        "date_part('hour', \"time\") BETWEEN 8 AND 17",
        "coalesce(try_cast(id AS INTEGER), 0) > 1",
        "list_contains(['a'], user) AND NOT (id LIKE '%x')",
        "time > now() - to_days(30)",
    ],
)
def test_what_policies_need_is_allowed(locked: duckdb.DuckDBPyConnection, where: str) -> None:
    assert set(check_where(locked, where)) == set(COLUMNS)


REFUSED = r"""
1) OR (SELECT true
true) OR (SELECT true
true) GROUP BY (id
true) LIMIT (1
true) UNION SELECT 1 FROM examples WHERE (true
true) --
true /*
true; DROP TABLE examples
true; ATTACH '/tmp/x.db'; SELECT true
true); COPY examples TO '/tmp/x' ; SELECT (1
COPY examples TO '/tmp/x'
ATTACH '/tmp/x.db'
PRAGMA version
id IN (SELECT id FROM examples)
EXISTS (FROM read_csv('/etc/passwd'))
EXISTS (FROM glob('/*'))
(FROM examples LIMIT 1) IS NULL
id = ANY (SELECT 'x')
read_csv('/etc/passwd') IS NOT NULL
read_text('/etc/passwd') IS NOT NULL
glob('/*') IS NOT NULL
pragma_version()
duckdb_settings() IS NULL
row_number() OVER () = 1
count(*) > 1
sum(1) OVER () > 1
unnest([1]) = 1
random() < 0.5
uuid() IS NOT NULL
gen_random_uuid() IS NOT NULL
nextval('s') > 1
setseed(0.5) IS NULL
getenv('HOME') = '/'
current_setting('memory_limit') = '1'
getvariable('x') = 1
current_user = 'duckdb'
session_user = 'duckdb'
localtimestamp > time
localtime > '10:00'
current_time > '10:00'
today() > '2020-01-01'
get_current_timestamp() > time
transaction_timestamp() > time
current_localtimestamp() > time
age(time) > INTERVAL 1 DAY
ago(INTERVAL 1 DAY) < time
system.main.now() > time
list_filter([1], localtimestamp -> true) IS NULL OR localtimestamp > time
localtimestamp -> 'x' IS NULL OR localtimestamp > time
json_serialize_plan('FROM read_csv(''/etc/passwd'')') IS NOT NULL
json_execute_serialized_sql('x') IS NULL
pg_sleep(10) IS NULL
sleep_ms(10) IS NULL
write_log('x') IS NULL
error('x')
txid_current() > 1
COLUMNS(*) IS NOT NULL
examples.* IS NOT NULL
no_such_column = 1
information_schema.tables.table_name = 'x'
no_such_function(id)
file_row_number > 1
rowid = 1
id = $1
id = ?
#1 = 'x'
DEFAULT
id ===
id AS x
id, user
id FROM examples
"""


@pytest.mark.parametrize("where", ["", " ", "\0", *REFUSED.strip().split("\n")])
def test_anything_but_one_pure_expression_is_refused(
    locked: duckdb.DuckDBPyConnection, where: str
) -> None:
    with pytest.raises((Refused, duckdb.BinderException, duckdb.CatalogException)):
        check_where(locked, where)


@given(where=st.text(alphabet="id'\"()-/*;, \n$\\xtrue=1SELECT.", max_size=40))
def test_no_text_escapes_its_brackets(locked: duckdb.DuckDBPyConnection, where: str) -> None:
    """What passes the check is one condition: between brackets it can be negated as a whole."""
    try:
        check_expression(locked, where, COLUMNS)
    except Refused:
        return
    check_expression(locked, f"NOT (\n{where}\n)", COLUMNS)


def test_no_allowed_function_is_called_like_one_that_looks_around() -> None:
    """DuckDB's own word "consistent" is not to be trusted: current_setting() has it."""
    looks = re.compile(
        r"current|session|setting|variable|random|uuid|today|local|file|http|secret|env$|query|plan|"
        r"sleep|_log$|nextval|currval|version|txid|connection|database|schema|user|catalog|inet_|pg_"
    )
    harmless = {"parse_filename", "uuid_extract_timestamp", "uuid_extract_version"}
    with duckdb.connect() as connection:
        names = allowed_functions(connection)
        found = connection.execute("SELECT DISTINCT function_name FROM duckdb_functions()")
        there = {name for (name,) in found.fetchall()}
    assert len(names) > 300
    assert names <= there
    assert {name for name in names if looks.search(name)} <= harmless


@pytest.mark.parametrize(
    "statement",
    [
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/proc/self/environ')",
        "FROM read_parquet('/tmp/*.parquet')",
        "FROM glob('/*')",
        "COPY (SELECT 1) TO '/tmp/adaptd-escape'",
        "ATTACH '/tmp/adaptd-escape.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET memory_limit = '100GB'",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "SET allowed_directories = ['/']",
        "FROM read_csv('https://localhost/x.csv')",
        "CREATE SECRET (TYPE s3)",
        "EXPORT DATABASE '/tmp/adaptd-escape'",
    ],
)
def test_the_lock_holds_without_the_check(
    locked: duckdb.DuckDBPyConnection, statement: str
) -> None:
    with pytest.raises(duckdb.Error):
        locked.execute(statement)
    assert not Path("/tmp/adaptd-escape").exists()


def test_now_is_the_snapshots_time_in_utc(locked: duckdb.DuckDBPyConnection) -> None:
    said = "now()::VARCHAR, current_timestamp::VARCHAR, current_date::VARCHAR"
    row = locked.execute(f"SELECT {said} FROM examples").fetchone()
    assert row == ("2026-03-01 12:00:00+00", "2026-03-01 12:00:00+00", "2026-03-01")
