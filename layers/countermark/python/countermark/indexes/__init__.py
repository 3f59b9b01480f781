"""Ring 2: the indexes. Exact, flat, immutable: the file is the data structure.

`segments` builds, merges and searches; `reader` serves what is published. `linear` is the oracle that
every other index is held to.
"""
