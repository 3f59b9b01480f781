"""Run by the Python of the peer: what its vpdq extension says of videos, as JSON on standard input and output.

In come pairs of values, query and banked; out come for each the peer's comparison, and what its index finds.
"""

import json
import sys

from threatexchange.extensions.vpdq.vpdq import VPDQSignal  # type: ignore[import-not-found]  # in its own environment


def main() -> None:
    asked = json.load(sys.stdin)
    if isinstance(asked, str):
        json.dump({"value": VPDQSignal.hash_from_file(asked)}, sys.stdout)
        return
    answers = []
    for query, banked in asked["pairs"]:
        compared = VPDQSignal.compare_hash(query, banked)
        found = VPDQSignal.get_index_cls().build([(banked, "it")]).query(query)
        answers.append(
            {
                "matches": compared.match,
                "shown": compared.distance.pretty_str(),
                "found": [each.similarity_info.pretty_str() for each in found],
            }
        )
    json.dump({"examples": VPDQSignal.get_examples(), "answers": answers}, sys.stdout)


main()
