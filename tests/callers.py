"""Who asks, in tests that are of something else."""

from countermark.domain.api_key import Role
from countermark.domain.caller import Caller

CALLER = Caller(key_id="tests", roles=frozenset(Role))
