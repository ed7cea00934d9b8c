"""docs/policy-keys.md is made from the policy model."""

from adaptd.daemon.policy.reference import PAGE, reference_text


def test_the_page_is_current() -> None:
    remedy = "run `python -m adaptd.daemon.policy.reference`"
    assert PAGE.read_text("utf-8") == reference_text(), remedy
