"""Every port is there in both: what a flow or the API is given is one state, or one deployment."""

from pathlib import Path

import pytest

from countermark.aws.stores import Stores
from countermark.domain.stores import Ports
from countermark.flows.curate import Curator
from countermark.local.state import LocalState
from tests.callers import CALLER

NAMES = [name for name, value in vars(Ports).items() if isinstance(value, property)]


def of_stores(stores: Stores) -> Curator:
    """Not called: mypy checks that the stores on AWS are ports."""
    return Curator.of(stores, caller=CALLER, now_s=1)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_and_a_deployment_have_every_port(name: str, tmp_path: Path) -> None:
    assert hasattr(Stores, name)
    with LocalState.open(tmp_path / "state") as state:
        assert getattr(state, name) is getattr(state, name), "it is made once"


def test_what_is_made_of_a_state_uses_its_own_ports(tmp_path: Path) -> None:
    with LocalState.open(tmp_path / "state") as state:
        curator = Curator.of(state, caller=CALLER, now_s=1)
        assert curator.banks is state.banks
        assert curator.collaborations is state.collaborations
        assert curator.publisher is state.publisher
