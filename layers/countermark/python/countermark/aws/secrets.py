"""Credentials of exchanges in Secrets Manager.

Each deployment has one secret: a JSON object that maps the kinds of exchanges to their credentials. The deployment
creates the secret, so no function needs the permission to create or list secrets. Only the functions that fetch are
allowed to read the secret, and only the functions that curate are allowed to set it.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from countermark.aws.errors import code, translate_errors
from countermark.aws.retry import attempts
from countermark.errors import InvalidInput

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

MAX_SECRET_BYTES = 64 * 1024
"""The maximum size of a secret, in bytes. Source: "AWS Secrets Manager quotas"."""

CURRENT_STAGE = "AWSCURRENT"

PENDING_STAGE = "countermark-pending"
"""The label of a version that is not current yet. Secrets Manager can remove a version without a label at any time."""


class SecretsManagerStore:
    """The credentials of a deployment. The secret must already contain a JSON object."""

    def __init__(self, client: "SecretsManagerClient", secret_id: str) -> None:
        self._client = client
        self._secret_id = secret_id

    def credentials(self, kind: str) -> Mapping[str, str] | None:
        return self._read()[0].get(kind)

    def set_credentials(self, kind: str, credentials: Mapping[str, str] | None) -> None:
        """Set the credentials of one kind of exchange.

        Another call can set the credentials of another kind at the same time. Both changes are then stored.

        Raises:
            InvalidInput: All credentials together are too large for one secret.
        """
        for _ in attempts("setting credentials"):
            credentials_by_kind, version = self._read()
            if credentials_by_kind.get(kind) == credentials:
                return
            changed = {name: value for name, value in credentials_by_kind.items() if name != kind}
            if credentials is not None:
                changed[kind] = dict(credentials)
            if self._replace(version, changed):
                return

    def _read(self) -> tuple[dict[str, dict[str, str]], str]:
        """Return the credentials by kind, and the version of the secret."""
        with translate_errors("Secrets Manager"):
            answer = self._client.get_secret_value(SecretId=self._secret_id, VersionStage=CURRENT_STAGE)
        return json.loads(answer["SecretString"]), answer["VersionId"]

    def _replace(self, version: str, credentials_by_kind: Mapping[str, Mapping[str, str]]) -> bool:
        """Replace the credentials if `version` is still the current version of the secret.

        Return whether they were replaced.
        """
        text = json.dumps(credentials_by_kind, sort_keys=True)
        if len(text.encode()) > MAX_SECRET_BYTES:
            raise InvalidInput(f"all credentials together can have at most {MAX_SECRET_BYTES} bytes")
        with translate_errors("Secrets Manager"):
            pending = self._client.put_secret_value(
                SecretId=self._secret_id, SecretString=text, VersionStages=[PENDING_STAGE]
            )["VersionId"]
            try:
                self._client.update_secret_version_stage(
                    SecretId=self._secret_id,
                    VersionStage=CURRENT_STAGE,
                    RemoveFromVersionId=version,
                    MoveToVersionId=pending,
                )
            except ClientError as error:
                if code(error) == "InvalidParameterException":
                    return False
                raise
        return True
