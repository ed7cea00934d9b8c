"""The `adaptd` command where packages of an extra are not installed."""

import pytest

from tests.support.missing_packages import run_with_extras


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["status"], "daemon"),
        (["gateway", "state"], "daemon"),
        (["gateway", "run", "--config", "gateway.json"], "gateway"),
    ],
)
def test_the_base_install_names_the_extra_that_a_command_needs(
    words: list[str], extra: str
) -> None:
    code, said = run_with_extras(words=words)

    assert (code, said.count("\n")) == (1, 1)
    assert f"pip install 'adaptd[{extra}]'" in said


@pytest.mark.parametrize("extras", [(), ("gateway",)])
def test_the_demo_sends_to_a_checkout_where_its_packages_are_missing(
    extras: tuple[str, ...],
) -> None:
    code, said = run_with_extras(*extras, words=["demo"])

    assert (code, said.count("\n")) == (1, 1)
    assert "make demo" in said


def test_a_command_of_the_daemon_is_missing_beside_the_gateway_alone() -> None:
    code, said = run_with_extras("gateway", words=["gateway", "state"])

    assert code == 1
    assert "pip install 'adaptd[daemon]'" in said


def test_the_gateway_has_its_help_without_the_daemon() -> None:
    assert run_with_extras("gateway", words=["gateway", "run", "--help"]) == (0, "")
