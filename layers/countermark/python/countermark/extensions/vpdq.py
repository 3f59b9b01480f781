"""The vPDQ signal type: videos by the PDQ hashes of their frames.

To add it, run `countermark config extensions add countermark.extensions.vpdq`. It replaces
`threatexchange.extensions.vpdq.manifest`, with the same signals and matches. Hashing needs the extra `vpdq`.
"""

from countermark.extensions import Manifest
from countermark.signals.vpdq import VPDQ

COUNTERMARK_MANIFEST = Manifest(signal_types=(VPDQ,))
