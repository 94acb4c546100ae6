"""The classes of the map: values of the raster, names in English and Chinese, and colours.

The value of a class is its place in `CLASSES`. Which minerals there are, and in which order, `minerals.py` says.
"""

from src.minerals.mapping.minerals import MINERALS, NAMES

CLASSES = ("background", *NAMES)
NO_DATA = 255
COLOURS = {
    "background": (217, 217, 217), "alunite": (215, 48, 39), "kaolinite": (69, 117, 180), "muscovite": (255, 217, 47),
    "montmorillonite": (166, 86, 40), "buddingtonite": (231, 41, 138), "calcite": (128, 205, 193),
    "chlorite": (27, 120, 55), "epidote": (166, 217, 106),
}  # fmt: skip


def both_languages() -> list[str]:
    """Names of the classes in English and Chinese, background first."""
    chinese = ("背景", *(mineral.chinese for mineral in MINERALS))
    return [f"{name} {other}" for name, other in zip(CLASSES, chinese, strict=True)]
