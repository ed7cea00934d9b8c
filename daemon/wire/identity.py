"""Names that callers choose, made safe to keep beside those of other tenants."""

import hashlib

MAX_NAME = 128  # letters of an id in an event


def own_name(tenant: str, name: str) -> str:
    """A name of a tenant's choice that no other tenant can choose: `tenant:name`.

    The same name gives the same result; one that gets too long ends in a hash of all of it.
    Tenants hold no colon, so the first one always divides.
    """
    whole = f"{tenant}:{name}"
    if len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return f"{whole[: MAX_NAME - 33]}~{digest}"
