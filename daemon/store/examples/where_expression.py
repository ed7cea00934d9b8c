"""Is a policy's `where` one plain expression over the example's columns? Runs in the sandbox child.

DuckDB's own parser decides (`json_serialize_sql`), so that what is checked is what will run.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb

TIME_COLUMNS = ("current_timestamp", "current_date")  # given as columns, both mean `as_of`
_SHAPE = "SELECT 1 FROM examples WHERE (\n{}\n)"  # the line break ends a trailing comment
_PURE = """
SELECT function_name FROM duckdb_functions() GROUP BY function_name
HAVING bool_and(function_type = 'scalar' AND stability = 'CONSISTENT')
"""
_REFUSED_CLASSES = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "DEFAULT": "DEFAULT",
    "POSITIONAL_REFERENCE": "a column by position",
}
# DuckDB calls them consistent, but they look at the machine, the session or its clock.
_REFUSED_FUNCTIONS = frozenset(
    {
        "age",
        "current_localtime",
        "current_localtimestamp",
        "current_setting",
        "error",
        "getbit_unsafe",
        "getenv",
        "getvariable",
        "in_search_path",
        "json_execute_serialized_sql",
        "json_serialize_plan",
        "parse_duckdb_log_message",
        "query",
        "query_table",
        "sleep_ms",
        "version",
        "write_log",
    }
)
# They mean the session or its clock wherever no column has their name; a lambda may not bind them.
_SESSION_WORDS = frozenset(
    {
        "current_catalog",
        "current_role",
        "current_schema",
        "current_time",
        "current_user",
        "localtime",
        "localtimestamp",
        "session_user",
        "user",
    }
)
_ALLOWED_MACROS = frozenset(
    {
        "array_append",
        "array_prepend",
        "array_reverse",
        "array_to_string",
        "date_add",
        "days_in_month",
        "fdiv",
        "fmod",
        "json",
        "list_any_value",
        "list_append",
        "list_avg",
        "list_bool_and",
        "list_bool_or",
        "list_count",
        "list_first",
        "list_last",
        "list_max",
        "list_median",
        "list_min",
        "list_mode",
        "list_prepend",
        "list_reverse",
        "list_sum",
        "map_contains_entry",
        "map_contains_value",
        "nullif",
        "split_part",
    }
)


class Refused(Exception):  # noqa: N818 - a verdict, told to the parent
    """What is wrong with the expression, and what to write instead."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


def check_expression(
    connection: duckdb.DuckDBPyConnection, where: str, columns: Sequence[str]
) -> None:
    """Refuse everything but one expression over `columns`, constants and pure functions.

    Raises:
        Refused: with the problem and the remedy.
    """
    tree = _parse(connection, where)
    plain = _parse(connection, "true")
    condition, _ = tree.pop("where_clause", None), plain.pop("where_clause")
    if _without_places(tree) != _without_places(plain):
        raise Refused("it is more than one expression", "Write one condition, as after WHERE")
    names = {column.casefold() for column in columns} | set(TIME_COLUMNS)
    names |= _lambda_names(condition) - _SESSION_WORDS
    allowed = allowed_functions(connection)
    for node in _nodes(condition):
        _check_node(node, names, allowed)


def _parse(connection: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    row = connection.execute("SELECT json_serialize_sql(?)", [_SHAPE.format(where)]).fetchone()
    answer: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if answer["error"]:
        raise Refused(f"it is not SQL ({answer.get('error_message', '')})", "Write one condition")
    if len(answer["statements"]) != 1:
        raise Refused("it is more than one statement", "Write one condition without semicolons")
    return answer["statements"][0]["node"]


def _without_places(value: Any) -> Any:
    """The tree without where in the text each part stood."""
    if isinstance(value, Mapping):
        return {k: _without_places(v) for k, v in value.items() if k != "query_location"}
    return [_without_places(part) for part in value] if isinstance(value, list) else value


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "class" in value:
            yield value
        for part in value.values():
            yield from _nodes(part)
    elif isinstance(value, list):
        for part in value:
            yield from _nodes(part)


def _lambda_names(condition: Any) -> set[str]:
    """Names bound by `x -> …` and `lambda x: …` anywhere in the expression."""
    return {
        name.casefold()
        for node in _nodes(condition)
        if node["class"] == "LAMBDA"
        for bound in _nodes(node["lhs"])
        for name in bound.get("column_names", ())
    }


def _check_node(node: Mapping[str, Any], names: set[str], allowed: frozenset[str]) -> None:
    kind = node["class"]
    if kind in _REFUSED_CLASSES:
        raise Refused(f"it holds {_REFUSED_CLASSES[kind]}", "Use columns, constants and functions")
    if kind == "COLUMN_REF" and node["column_names"][0].casefold() not in names:
        column = ".".join(node["column_names"])
        raise Refused(f"there is no column {column}", "Columns: " + ", ".join(sorted(names)))
    if kind == "FUNCTION":
        name = node["function_name"].casefold()
        qualified = bool(node.get("schema") or node.get("catalog"))
        if name not in allowed and (qualified or name != "now"):  # plain now() is the sandbox's own
            raise Refused(f"the function {name} is not allowed", "Use pure functions and now()")


def allowed_functions(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """The pure functions: DuckDB says so of every form of one, and we do not know better."""
    found = connection.execute(_PURE).fetchall()
    return (frozenset(name for (name,) in found) - _REFUSED_FUNCTIONS) | _ALLOWED_MACROS
