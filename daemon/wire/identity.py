"""Names chosen by callers, made safe to store beside those of other tenants."""

import hashlib

MAX_NAME = 128  # letters of an id in an event


def own_name(tenant: str, name: str) -> str:
    """Qualify a tenant's name as `tenant:name`, which no other tenant can choose.

    The same name gives the same result; one that gets too long ends in a hash of all of it.
    """
    # A tenant's name holds no colon, so the first colon always divides.
    whole = f"{tenant}:{name}"
    if len(whole) <= MAX_NAME:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return f"{whole[: MAX_NAME - 33]}~{digest}"
