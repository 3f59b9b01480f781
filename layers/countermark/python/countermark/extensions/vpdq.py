"""Videos by the PDQ hashes of their frames: `countermark config extensions add countermark.extensions.vpdq`.

It takes the place of `threatexchange.extensions.vpdq.manifest`, with the same signals and matches; hashing needs the
extra `vpdq`.
"""

from countermark.extensions import Manifest
from countermark.signals.vpdq import VPDQ

COUNTERMARK_MANIFEST = Manifest(signal_types=(VPDQ,))
