"""The minerals of the map: class numbers, names, and the absorption features that tell them.

The form is Tetracorder's (Clark and others 2003, JGR 108, 5131): the shape of a feature below a straight continuum is
fitted to a library spectrum, and further absorptions, measured and not fitted, must be there or must be missing. Where
the features lie is said by Clark and others (1990, JGR 95, 12653) and Hunt (1977, Geophysics 42, 501). All wavelengths
are in nm. No window touches the bands of water vapour (1350-1450 and 1790-1990 nm).
"""

from dataclasses import dataclass

Interval = tuple[float, float]  # nm, both ends included


@dataclass(frozen=True)
class Feature:
    """An absorption between two shoulders, fitted to the library's; `weight` is its part in fit and depth."""

    left: Interval
    right: Interval
    weight: float = 1.0


@dataclass(frozen=True)
class Absorption:
    """An absorption that is measured: 1 - the mean of `centre` below the straight continuum between the shoulders."""

    name: str
    left: Interval
    centre: Interval
    right: Interval


OH_1480 = Absorption("OH at 1480 nm", (1456, 1468), (1472, 1502), (1540, 1560))  # alunite, alone among the eight
# Cellulose and serpentine absorb here too.
NH4_2110 = Absorption("ammonium or cellulose at 2110 nm", (2030, 2060), (2105, 2130), (2148, 2166))
FE_OH_2250 = Absorption("Fe-OH at 2250 nm", (2190, 2223), (2243, 2263), (2285, 2315))  # chlorite and epidote
AL_OH_2350 = Absorption("Al-OH at 2350 nm", (2275, 2312), (2338, 2358), (2387, 2415))  # the second band of white mica
# Opal still absorbs where clay no longer does.
SILICA_2285 = Absorption("silica at 2285 nm", (2130, 2152), (2276, 2294), (2362, 2382))
FE2_1000 = Absorption("ferrous iron at 1000 nm", (735, 785), (1000, 1150), (1675, 1725))
CHLOROPHYLL_680 = Absorption("chlorophyll at 680 nm", (540, 560), (660, 690), (740, 770))


@dataclass(frozen=True)
class Mineral:
    """One class of the map.

    Attributes:
        copper: alteration around porphyry copper brings it.
        features: what is fitted; shoulders and weights.
        deepest: where the first feature must be deepest, nm.
        ratios: absorptions, and the least and the greatest ratio of their depth to that of the first feature. Ratios
            hold at any abundance; where two minerals are told apart by one, it has one bound for both.
    """

    name: str
    chinese: str
    copper: bool
    features: tuple[Feature, ...]
    deepest: Interval
    ratios: tuple[tuple[Absorption, float, float], ...] = ()


ANY = float("inf")
MINERALS = (
    Mineral("alunite", "明矾石", True, (Feature((2025, 2075), (2235, 2260)),), (2155, 2190), ((OH_1480, 0.1, ANY),)),
    Mineral(
        "kaolinite", "高岭石", True, (Feature((2070, 2115), (2240, 2270)),), (2188, 2219),
        ((OH_1480, -ANY, 0.1), (AL_OH_2350, -ANY, 0.22)),
    ),
    Mineral(
        "muscovite", "白云母", True,
        (Feature((2125, 2158), (2265, 2295), 0.75), Feature((2275, 2312), (2387, 2415), 0.25)), (2188, 2226),
        ((AL_OH_2350, 0.22, ANY), (FE_OH_2250, -ANY, 0.5), (OH_1480, -ANY, 0.1)),
    ),
    Mineral(
        "montmorillonite", "蒙脱石", True, (Feature((2120, 2155), (2255, 2287)),), (2196, 2228),
        ((AL_OH_2350, -ANY, 0.22), (SILICA_2285, -ANY, 0.3), (OH_1480, -ANY, 0.1)),
    ),
    Mineral(
        "buddingtonite", "铵长石", False, (Feature((2010, 2045), (2277, 2306)),), (2095, 2150),
        ((NH4_2110, 0.2, ANY), (AL_OH_2350, -ANY, 0.22)),
    ),
    Mineral(
        "calcite", "方解石", False, (Feature((2178, 2208), (2377, 2406)),), (2323, 2355),
        ((AL_OH_2350, 0.25, ANY), (FE_OH_2250, -ANY, 0.12), (FE2_1000, -ANY, 0.5), (NH4_2110, -ANY, 0.15),
         (CHLOROPHYLL_680, -ANY, 4)),
    ),
    Mineral(
        "chlorite", "绿泥石", True, (Feature((2175, 2200), (2410, 2445)),), (2315, 2368),
        ((FE_OH_2250, 0.2, ANY), (AL_OH_2350, 0.2, ANY), (NH4_2110, -ANY, 0.1), (CHLOROPHYLL_680, -ANY, 4)),
    ),
    Mineral(
        "epidote", "绿帘石", True,
        (Feature((2190, 2230), (2410, 2445), 0.9), Feature((2190, 2225), (2268, 2290), 0.1)), (2322, 2352),
        ((FE_OH_2250, 0.08, 0.2), (NH4_2110, -ANY, 0.1), (CHLOROPHYLL_680, -ANY, 4)),
    ),
)  # fmt: skip
NAMES = tuple(mineral.name for mineral in MINERALS)
BACKGROUND = 0  # class of "none of these"; mineral i of MINERALS is class i + 1
