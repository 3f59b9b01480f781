"""The extension for the vPDQ signal type, which compares videos by the PDQ hashes of their frames.

To add it, run `countermark config extensions add countermark.extensions.vpdq`. Its signals and matches are the same as
those of `threatexchange.extensions.vpdq.manifest`, which it replaces. Hashing needs the extra `vpdq`.
"""

from countermark.extensions import Manifest
from countermark.signals.vpdq import VPDQ

COUNTERMARK_MANIFEST = Manifest(signal_types=(VPDQ,))
