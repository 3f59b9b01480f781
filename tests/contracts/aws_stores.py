"""The ports over DynamoDB, S3 and their kin in moto: an `Opener` by the name of the port's fixture."""

from collections.abc import Mapping

from tests.contracts.ports import Opener

AWS: Mapping[str, Opener] = {}
