"""Ring 2: the indexes. They are exact, flat and immutable; the file is the data structure.

`segments` builds, merges and searches segments; `reader` serves the published index. `linear` is the
reference whose answers every other index must equal.
"""
