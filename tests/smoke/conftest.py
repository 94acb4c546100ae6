"""The studies and the models that the population tests share, for the runs end to end."""

from argparse import Namespace

import pytest

from tests.population.conftest import hub, study, trained, wide  # noqa: F401


@pytest.fixture(scope="session")
def ready(study, trained) -> Namespace:  # noqa: F811
    """`study` and `trained`: the inputs of every stage."""
    return Namespace(study=study, trained=trained)
