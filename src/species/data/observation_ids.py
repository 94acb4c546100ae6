"""Observation ids: `{gbif_id}_{image_index}`, one for each image of a GBIF record (DeepEarth's form)."""

import re

import pandas as pd

from src.core.stage.errors import DataError

SHOWN = 5  # of a list in a message
OBSERVATION_ID = re.compile(r"(0|[1-9][0-9]{0,18})_(0|[1-9][0-9]{0,5})")


def make_ids(gbif_ids: pd.Series, image_indices: pd.Series) -> pd.Series:
    """The id of each image of a record, "4171912265_1" for example."""
    return gbif_ids.astype("str") + "_" + image_indices.astype("str")


def parse_id(observation_id: str, where: str = "observation id") -> tuple[int, int]:
    """(gbif_id, image_index) of an id; `where` is how an error begins.

    Raises:
        DataError: it has another form, or leading zeros, so that two ids would mean one image.
    """
    match = OBSERVATION_ID.fullmatch(observation_id)
    if match is None:
        raise DataError(
            f"{where}: found {observation_id!r}, expected {{gbif_id}}_{{image_index}} such as 4171912265_1; rename it"
        )
    return int(match[1]), int(match[2])


def some(items: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
