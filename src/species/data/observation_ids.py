"""Observation ids: `{gbif_id}_{image_index}`, one for each image of a GBIF record (DeepEarth's form)."""

import re

from src.core.stage.errors import DataError

SHOWN = 5  # of a list in a message
OBSERVATION_ID = re.compile(r"([0-9]{1,19})_([0-9]{1,6})")


def make_id(gbif_id: int, image_index: int) -> str:
    """The id of a record's image, "4171912265_1" for example; raises ValueError below 0."""
    if gbif_id < 0 or image_index < 0:
        raise ValueError(f"gbif_id {gbif_id}, image_index {image_index}: expected no negative number")
    return f"{gbif_id}_{image_index}"


def parse_id(observation_id: str, where: str = "observation id") -> tuple[int, int]:
    """(gbif_id, image_index) of an id; `where` is how an error begins.

    Raises:
        DataError: it has another form, or leading zeros, so that two ids would mean one image.
    """
    match = OBSERVATION_ID.fullmatch(observation_id)
    if match is None or make_id(int(match[1]), int(match[2])) != observation_id:
        raise DataError(
            f"{where}: found {observation_id!r}, expected {{gbif_id}}_{{image_index}} such as 4171912265_1; rename it"
        )
    return int(match[1]), int(match[2])


def some(items: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
