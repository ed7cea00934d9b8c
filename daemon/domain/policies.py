"""A stored policy version. No I/O.

It stands alone because adaptd.daemon.policy and adaptd.daemon.store may not import each other.
"""

from datetime import datetime

import msgspec


class StoredPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """One version of one alias's policy. The same text is the same version, whenever it comes back.

    `loaded_at` is when it was first seen, `applied_at` when it came into force last. `withdrawn_at`
    is set while no file names its alias.
    """

    model: str
    version: int
    sha256: str
    path: str
    yaml: str
    loaded_at: datetime
    applied_at: datetime
    withdrawn_at: datetime | None = None
