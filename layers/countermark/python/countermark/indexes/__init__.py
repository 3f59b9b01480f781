"""Ring 2: the indexes, which are exact, flat and immutable.

Exact means that a search finds every match. Flat means that keys are stored in arrays, not in a tree or graph. A
published index never changes. A reader uses a file's bytes as they are, without decoding them.

`segments` builds, merges and searches segments; `reader` serves the published index. `linear` is the
reference whose answers every other index must equal.
"""
