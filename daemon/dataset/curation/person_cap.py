"""The cap on examples of one person, in number and as a share of what is kept."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence

from adaptd.daemon.dataset.curation.step import Curated
from adaptd.daemon.dataset.example import Example
from adaptd.daemon.policy.model import Select


class PersonCap:
    """Keeps the newest examples of each person. Nobody gives one prompt twice at this point.

    The share counts what is left once equal prompts are settled.
    """

    name = "person_cap"

    def apply(self, examples: Sequence[Example], policy: Select) -> Curated:
        by_author: dict[str, list[Example]] = defaultdict(list)
        for example in examples:
            by_author[example.author].append(example)
        places: dict[str, int] = {}
        for mine in by_author.values():
            for place, example in enumerate(reversed(mine), 1):
                places[example.prompt] = min(place, places.get(example.prompt, place))
        longest = max(map(len, by_author.values()), default=1)
        most = min(policy.caps.per_user, longest)
        most = fair_cap(list(places.values()), policy.caps.per_user_share, most=most)
        kept = [example for mine in by_author.values() for example in mine[-most:]]
        return Curated(kept, {"over_cap": len(examples) - len(kept)})


def fair_cap(places: Sequence[int], share: float, *, most: int) -> int:
    """Return the most examples, up to `most`, that one person may have: `share` of what is kept.

    `places` has one number for each prompt: the lowest place it has in anybody's own list, newest
    first from 1. So many prompts are kept under a cap as lie within it, however they are settled.
    That number never falls by what one person adds, so nobody can lower the cap of the others. With
    too few prompts for a share the cap is 1: one example is always allowed.
    """
    ordered = sorted(places)
    # 1e-9: shares such as 0.1 are not exact in binary.
    while most > 1 and most > share * bisect_right(ordered, most) + 1e-9:
        most -= 1
    return max(1, most)
