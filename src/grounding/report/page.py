"""The page reports/grounding/index.html: is the image truer, and was radar used? Controls, calibration, data."""

import json
import shutil
from pathlib import Path

import pandas as pd

from src.core.report import html_page
from src.core.report.html_page import Figure, Section, Table, cell, cell_interval
from src.grounding.data.scene_store import ROLES
from src.grounding.data.sensors import OPTICAL_BANDS
from src.grounding.evaluation.calibration import COVERAGE
from src.grounding.evaluation.predictors import COMPARISONS, MAIN, PREDICTORS, TITLES, Comparison
from src.grounding.params import Params
from src.grounding.report import panels

SIMULATED = (
    "The scenes are simulated: they show what the method can do with radar that its makers understand, and say nothing "
    "of real ground."
)
SYNTHETIC = "The first guess is made from the true image by a declared degradation; no other method made it."
RADAR = (f"{MAIN}-shuffled_sar", f"{MAIN}-no_sar_network")
KINDS = {"blur_px": "blur", "noise": "noise", "haze": "haze", "holes": "holes"}
REFERENCES = {"truth": "the true image", "noise": "noise", "flat": "the same value everywhere"}
TRAININGS = {
    "pretrain": "generator", "ground": "its grounding by LoRA", "controls/no_sar_pretrain": "generator without radar",
    "controls/no_sar_ground": "its LoRA", "controls/regression_unet": "regression U-Net",
}  # fmt: skip
AUDIT = {
    "scenes": "scenes", "blocks": "spatial blocks", "scenes_in_two_roles": "scenes in two roles",
    "scenes_without_place": "scenes whose place is unknown", "overlaps_between_roles": "overlaps between roles",
    "copies_between_roles": "copies of an image between roles",
    "common_pixels_between_roles": "pairs of scenes of two roles that share many pixels",
    "overlaps_within_roles": "overlaps within a role", "copies_within_roles": "copies within a role",
    "nearest_km": "least distance of centres, km",
}  # fmt: skip
TRUTH = {"psnr": ("PSNR, dB", 2), "degraded_psnr": ("degraded pixels", 2), "missing_psnr": ("in holes", 2),
         "ssim": ("SSIM", 3)}  # fmt: skip
COLOUR = {"mae": ("MAE", 4), "rmse": ("RMSE", 4), "sam_deg": ("spectral angle, °", 2), "ndvi_mae": ("NDVI, MAE", 3)}
AGREEMENT = {"agreement": ("agreement", 3), "seed_agreement": ("the seed document's", 3)}
PAIRED = {"psnr": ("PSNR, dB", 2), "degraded_psnr": ("degraded pixels", 2), "missing_psnr": ("in holes", 2),
          "ssim": ("SSIM", 2), "agreement": ("agreement", 2)}  # fmt: skip


def verdict(scores: dict) -> str:
    """Plain sentences on the four questions: truer, radar, adaptation, regression."""
    pairs = scores["paired"]
    if all(pair["psnr_low"] is None for pair in pairs.values()):
        gain = cell(pairs[f"{MAIN}-opt_v2"]["psnr"])
        return (
            f"No verdict: {scores['data']['blocks']} blocks of test scenes allow no interval. PSNR of the refined "
            f"image minus that of the first guess is {gain} dB on average."
        )
    truer, adapted, regression = (pairs[f"{MAIN}-{theirs}"] for theirs in ("opt_v2", "no_lora", "regression_unet"))
    least = next(one.least for one in COMPARISONS if one.theirs == "opt_v2")
    said = _word(truer, "makes the first guess truer", "makes the first guess less true",
                 "is not shown to make the first guess truer")  # fmt: skip
    return " ".join([
        f"The generator {said}: {_gain(truer)} of PSNR, where {least:g} dB were asked for.",
        radar_verdict(*(pairs[key] for key in RADAR)),
        f"Adaptation by LoRA {_word(adapted, 'pays', 'does harm', 'is not shown to pay')}: {_gain(adapted)}.",
        f"The generator {_word(regression, 'is truer than', 'is less true than', 'cannot be told from')} a plain "
        f"regression U-Net with the same inputs: {_gain(regression)}.",
    ])  # fmt: skip


def radar_verdict(shuffled: dict, without: dict) -> str:
    """One sentence: radar is used where both differences in PSNR lie above 0 with their intervals."""
    used = all(pair["psnr_low"] is not None and pair["psnr_low"] > 0 for pair in (shuffled, without))
    return (
        f"Radar is {'used' if used else 'not shown to be used'}: the image's PSNR minus that of the same generator "
        f"with the radar image of another scene is {_gain(shuffled)}, and minus that of a network of equal size that "
        f"never sees radar {_gain(without)}."
    )


def draw(plots: Path, scores: dict, found, store: Path) -> None:
    """The page's figures; `found` is `scored_scenes.Found`. The map of roles is the store's."""
    panels.draw_gains(plots / "gains.png", scores["paired"])
    panels.draw_panels(plots / "panels.png", found.shown)
    coverage = {level: scores["calibration"][name] for level, name in COVERAGE.items()}
    panels.draw_calibration(plots / "calibration.png", found.reliability, coverage)
    shutil.copyfile(store / "roles.png", plots / "roles.png")


def write(path: Path, scores: dict, rows: pd.DataFrame, params: Params, plots: Path, curves: Path) -> None:
    """The page with the figures of `plots` and those of the trainings below `curves`.

    Args:
        scores: contents of metrics/grounding.json.
        rows: one row a predictor and scene, for the errors of single bands.
    """
    lead = [verdict(scores)]
    lead += [SIMULATED] if scores["data"]["simulated"] else []
    lead += [SYNTHETIC] if scores["data"]["opt_v2"] == "synthetic" else []
    sections = [
        truth_section(scores, plots, params.evaluate.samples),
        radar_section(scores),
        Section("Scenes", [
            "The first test scenes by name. Error and spread have one scale: where the generator is unsure, it should "
            "be wrong."
        ], figures=[Figure(plots / "panels.png", "Radar, first guess, refined image, truth, error and spread")]),
        colour_section(scores, rows),
    ]  # fmt: skip
    if scores["kinds"]:
        sections.append(kinds_section(scores))
    sections += [
        calibration_section(scores["calibration"], plots),
        split_section(scores["audit"], plots),
        training_section(curves),
        Section("Parameters", [
            json.dumps(params.model_dump(exclude={"report_to", "checkpoint_root"}), ensure_ascii=False)
        ]),
    ]  # fmt: skip
    html_page.write(path, "Grounding: does radar make a refined optical image truer?", " ".join(lead), sections)


def truth_section(scores: dict, plots: Path, samples: int) -> Section:
    """Distance from the truth: predictors, and differences on the same scenes."""
    found = [(one, scores["paired"][one.key]) for one in COMPARISONS]
    claims = [[TITLES[one.theirs], one.claim, holds(one, pair)] for one, pair in found]
    differences = [[TITLES[one.theirs], *_cells(pair, PAIRED)] for one, pair in found]
    return Section(
        "Is the image truer?",
        [
            f"{scores['data']['scenes']} test scenes in {scores['data']['blocks']} spatial blocks; "
            "means over scenes, 95 % intervals over blocks. Of each generator the mean of "
            f"{samples} {'image' if samples == 1 else 'images'} is scored. PSNR of reflectance from 0 to 1; 3 dB more "
            "is half the squared error. Degraded pixels are those that the first guess lacks, or where it is off by "
            "0.05 or more: it is worst there by selection, so its own row is no fair one, and the other rows are. "
            "Holes are what it lacks.",
        ],
        [
            Table("Scores against the true image", ["", *(title for title, _ in TRUTH.values())],
                  _score_rows(scores, TRUTH), frozenset([0])),
            Table(f"What it means that the {TITLES[MAIN]} has a higher PSNR than another predictor",
                  ["compared with", "claim", "shown"], claims, words=3),
            Table(f"The {TITLES[MAIN]} minus another predictor, on the same scenes",
                  ["", *(title for title, _ in PAIRED.values())], differences),
        ],
        [Figure(plots / "gains.png", "Gain in PSNR; where the interval lies right of the dashed line it is shown")],
    )  # fmt: skip


def radar_section(scores: dict) -> Section:
    """Agreement with radar, beside that of images that no network made."""
    rows = _score_rows(scores, AGREEMENT)
    rows += [
        [title, *(cell(scores["references"][name][key], 3) for key in AGREEMENT)] for name, title in REFERENCES.items()
    ]
    return Section(
        "Does it agree with radar?",
        [
            "Agreement is the correlation of edges in the optical and the radar image, less that with the radar image "
            "of another scene: 0 where they have nothing in common. The seed document's cosine is high for images that "
            "have nothing in common, as noise and an image without any edge show (0.79 and 0.89 where the radar image "
            "is noise too); it stands here for comparison. Training rewards agreement, so that more of it is no "
            "success by itself: an image can agree with radar and be false.",
        ],
        [Table("Agreement of edges with the scene's radar image", ["", *(title for title, _ in AGREEMENT.values())],
               rows, frozenset([0]))],
    )  # fmt: skip


def colour_section(scores: dict, rows: pd.DataFrame) -> Section:
    """Errors of colour: of all bands, spectra and NDVI, and of each band."""
    means = rows.groupby("predictor")[[f"rmse_{band}" for band in OPTICAL_BANDS]].mean()
    bands = [
        [one.title, *(cell(means.loc[one.name, f"rmse_{band}"], 4) for band in OPTICAL_BANDS)] for one in PREDICTORS
    ]
    return Section(
        "Bands and colours",
        tables=[
            Table("Errors over all clear pixels: reflectance, angle between spectra, NDVI",
                  ["", *(title for title, _ in COLOUR.values())], _score_rows(scores, COLOUR), frozenset([0])),
            Table("RMSE of each band, reflectance", ["", *OPTICAL_BANDS], bands, frozenset([0])),
        ],
    )  # fmt: skip


def kinds_section(scores: dict) -> Section:
    """PSNR where the first guess has one fault alone."""
    kinds = scores["kinds"]
    shown = [one for one in PREDICTORS if all(one.name in found for found in kinds.values())]
    rows = [[one.title, *(cell(kinds[kind][one.name]) for kind in KINDS)] for one in shown]
    return Section(
        "One fault at a time",
        [
            "Each test scene is degraded anew by one kind alone, as strongly as in the test. No training saw such "
            "first guesses. Of the generator one image is scored, not the mean of several.",
        ],
        [Table("PSNR over all clear pixels, dB", ["", *KINDS.values()], rows, frozenset([0]))],
    )


def calibration_section(found: dict, plots: Path) -> Section:
    """Spread of samples against their error."""
    rows = [
        [f"share of errors within the {level:.0%} interval", cell(level), cell_interval(found, name)]
        for level, name in COVERAGE.items()
    ]
    rows.append(["RMSE of the mean", cell(found["expected_rmse"], 4), cell_interval(found, "rmse", 4)])
    return Section(
        "Does the generator know where it is wrong?",
        [
            f"Spread of {found['samples']} images of one scene against the error of their mean, pixel by pixel. If the "
            "truth were one more such image, both columns would be equal. Rank correlation of expected and actual "
            f"error: {cell_interval(found, 'spearman_r')}; 0 would be a spread that says nothing.",
        ],
        [Table("Spread of the images, and of their error", ["", "expected", "found"], rows)],
        [Figure(plots / "calibration.png", "Left: error by spread. Right: share of errors within intervals")],
    )


def split_section(audit: dict, plots: Path) -> Section:
    """Audit and map of roles."""

    def said(value: dict | float) -> str:
        if not isinstance(value, dict):
            return str(value)
        order = [name for name in ROLES if name in value] or list(value)
        return ", ".join(f"{'–' if value[name] is None else value[name]} {name.replace('_', ' to ')}" for name in order)

    return Section(
        "Split and audit",
        tables=[
            Table(
                "No scene of one role lies on, copies, or shares pixels with a scene of another",
                ["", "found"],
                [[title, said(audit[key])] for key, title in AUDIT.items()],
                words=2,
            )
        ],
        figures=[Figure(plots / "roles.png", "Roles of scenes")],
    )


def training_section(folder: Path) -> Section:
    """Curves of all trainings below `folder`."""
    return Section(
        "Training",
        [
            "Losses by epoch, and agreement of validation windows, which ends the grounding. The loss of the grounding "
            "is that of denoising plus its parts, each times its weight."
        ],
        figures=[Figure(folder / name / "curves.png", f"Training: {title}") for name, title in TRAININGS.items()],
    )


def holds(one: Comparison, pair: dict) -> str:
    """Answer to a comparison's claim: yes, no (the opposite is shown), or not shown."""
    if pair["psnr_low"] is None:
        return "no interval"
    if pair["psnr_low"] > 0:
        return "yes" if pair["psnr"] >= (one.least or 0) else f"less than {one.least:g} dB"
    return "no" if pair["psnr_high"] < 0 else "not shown"


def _word(pair: dict, above: str, below: str, neither: str) -> str:
    if pair["psnr_low"] is None or pair["psnr_low"] <= 0 <= pair["psnr_high"]:
        return neither
    return above if pair["psnr_low"] > 0 else below


def _gain(pair: dict) -> str:
    return f"{cell_interval(pair, 'psnr')} dB"


def _cells(score: dict, names: dict[str, tuple[str, int]]) -> list[str]:
    return [cell_interval(score, name, digits) for name, (_, digits) in names.items()]


def _score_rows(scores: dict, names: dict[str, tuple[str, int]]) -> list[list[str]]:
    return [[one.title, *_cells(scores[one.name]["test"], names)] for one in PREDICTORS]
