"""Refine optical images of any size with a grounded generator and the radar images of the same places.

    python -m src.grounding.infer --sar s1.tif --optical v2.tif --model models/grounding/ground --out refined
    python -m src.grounding.infer --input-dir tiles --model models/grounding/ground --out refined

A pair is two GeoTIFF of one grid: radar VV and VH, and a first guess with B02, B03, B04 and B08, found by the bands'
names. What their numbers mean is declared by the params (`data.sar`, `data.optical`) or by options. The radar image is
clipped as it was in training. Pixels that are no data, NaN, or 0 in every band of the first guess are filled; where the
radar image has none, and where no window has any first guess, the result is NaN.

Writes opt_v3.tif, the mean of --samples drawn images, and spread.tif, their standard deviation (not with --samples 1):
cloud-optimised GeoTIFF of four bands, float32 reflectance, NaN where there is no data. Beside them summary.json, and
preview.safetensors for `visualise`. Windows overlap and are blended; strips of them are read and written one after
another, so that memory grows with the raster's width alone. The same command gives the same bytes.

--input-dir takes a folder of pairs <scene>_s1.tif and <scene>_s2.tif, or of NPZ tiles with s1_vv, s1_vh and opt_v2.
With --first-guess, first guesses are <scene>.tif or <scene>.npz there, and `visualise` shows the optical images in the
folder as truth. Each scene gets a folder of its name in --out; scenes that fail are listed in failed.csv, and the
exit code is then 65, or 74 where a file could not be read or written.
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.stage import files, run
from src.core.stage import params as params_file
from src.core.stage.errors import BandwiseError, DataError, ParamsError, StorageError, spelled
from src.core.stage.params import spelling
from src.grounding.inference import images, results
from src.grounding.inference.images import Files, Opened, Physical
from src.grounding.params import Data, Params

FAILED = "failed.csv"


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected at least 1")
    return int(text)


PARSER = run.command_line("grounding.infer", __doc__)
SOURCE = PARSER.add_mutually_exclusive_group(required=True)
SOURCE.add_argument("--sar", type=Path, help="radar image, GeoTIFF; with --optical")
SOURCE.add_argument("--input-dir", type=Path, help="folder of pairs or NPZ tiles")
PARSER.add_argument("--optical", type=Path, help="first guess of the optical image, GeoTIFF; with --sar")
PARSER.add_argument("--first-guess", type=Path, help="folder of first guesses; with --input-dir")
PARSER.add_argument("--model", type=Path, required=True, help="folder that ground or pretrain wrote")
PARSER.add_argument("--out", type=Path, required=True, help="folder to write")
PARSER.add_argument("--samples", type=_positive, default=8, help="images drawn, whose spread is told; default: 8")
PARSER.add_argument("--seed", type=int, default=0, help="of the noise; default: 0")
PARSER.add_argument(
    "--params",
    type=Path,
    default=Path("pipelines/grounding/params.yaml"),
    help="default: pipelines/grounding/params.yaml",
)
PARSER.add_argument("--sar-scale", choices=("dB", "linear"), help="of the radar numbers; default: data.sar.scale")
PARSER.add_argument("--sar-bands", nargs="+", help="names of all bands of the radar file; default: data.sar.bands")
PARSER.add_argument("--scale", type=float, help="number of a reflectance of 1; default: data.optical.scale")
PARSER.add_argument("--offset", type=float, help="added before scaling; default: data.optical.offset")
PARSER.add_argument("--bands", nargs="+", help="names of all bands of the optical file; default: data.optical.bands")


class Refiner:
    """A model folder, ready to refine scenes."""

    def __init__(self, model: Path, params: Params, data: Data, samples: int, seed: int):
        # Imported here: torch and diffusers, which --help does without.
        import torch

        from src.grounding.models import denoiser, whole_scene

        run.set_threads(params.threads)
        self.network, self.facts = denoiser.load(model)
        self.side, self.overlap = self.network.tile_px, params.infer.overlap_px
        if self.overlap >= self.side:
            raise ParamsError(
                f"`overlap_px`: found {self.overlap}, expected less than the model's window of {self.side} px; lower it"
            )
        self.data, self.samples, self.seed, self.scenes = data, samples, seed, whole_scene
        self.network.to("cuda" if torch.cuda.is_available() else "cpu")
        self.refine = whole_scene.refiner(self.network, self.facts["steps"])

    def warnings(self) -> list[str]:
        """Sentences about how the scenes differ from those of training."""
        found, trained, ours = [], self.facts["sar"], self.data.sar
        if self.facts["simulated"]:
            found.append("the model was trained on simulated scenes; what it adds to real ones is not shown to be true")
        if self.facts["opt_v2"] == "synthetic":
            found.append("the first guesses it learned from were made by degrading the truth; others may differ")
        for key in ("product", "coefficient"):
            if (here := getattr(ours, key)) != trained[key]:
                found.append(f"data.sar.{key}: the radar image is {here}, the model was trained on {trained[key]}")
        return found

    def write(self, scene: Files, out: Path) -> dict:
        """Refine one scene into the folder `out`; returns its summary.

        Raises:
            ParamsError: `out` holds something else.
            DataError, StorageError: as `images.opened` and `images.measured`.
        """
        require_own(out, results.WRITTEN)
        with images.opened(scene, self.data, self.side) as opened:
            physical = images.measured(opened, self.data, self.facts["sar"]["clip_db"])
            with files.complete_folder(out) as folder:
                counts = self._rasters(opened, physical, folder)
                shown = {"sar": physical.sar, "first_guess": physical.optical, "truth": physical.truth}
                results.write_preview(folder, {name: image.values for name, image in shown.items() if image})
                summary = {
                    "scene": scene.name, "sar": scene.sar.name, "optical": scene.optical.name,
                    "shape": [opened.pair.height, opened.pair.width], "samples": self.samples, "seed": self.seed,
                    "steps": self.facts["steps"], "overlap_px": self.overlap,
                    "filled_share": counts["filled"] / max(counts["refined"], 1),
                    "no_data_share": 1 - counts["refined"] / (opened.pair.height * opened.pair.width),
                    "flags": [*physical.sar.flags, *physical.optical.flags], "warnings": self.warnings(),
                }  # fmt: skip
                files.write_json(folder / results.SUMMARY, summary)
        return summary

    def _rasters(self, opened: Opened, physical: Physical, folder: Path) -> dict[str, int]:
        """Write refined image and spread; returns how many pixels were refined, and filled among them."""
        pair, filled = opened.pair, []
        windows = self.scenes.grid(pair.height, pair.width, self.side, self.overlap)

        def read(top: int, height: int):
            sar, seen = images.radar_db(opened.sar.rows(top, height), physical)
            guess, known = images.reflectance(opened.optical.rows(top, height), physical)
            filled.append((top, ~known))
            return self.scenes.Strip(sar, guess, ~known, seen)

        tags = {"samples": self.samples, "seed": self.seed, "steps": self.facts["steps"]}
        counts, top = {"refined": 0, "filled": 0}, 0
        with ExitStack() as stack:
            mean = results.cloud_optimised(folder / results.REFINED, pair, "mean of the samples", tags)
            mean, spread = stack.enter_context(mean), None
            if self.samples > 1:
                spread = results.cloud_optimised(folder / results.SPREAD, pair, "standard deviation of samples", tags)
                spread = stack.enter_context(spread)
            strips = self.scenes.refine_rows(read, windows, self.refine, self.samples, self.seed)
            for drawn in tqdm(strips, pair.name, len(windows.tops), leave=False, unit="strip"):
                mean.write(drawn.mean(0))
                if spread:
                    spread.write(drawn.std(0, ddof=1))
                known = np.isfinite(drawn[0, 0])
                first, holes = filled.pop()
                counts["refined"] += int(known.sum())
                counts["filled"] += int((known & holes[top - first : top - first + len(known)]).sum())
                top += len(known)
        return counts


def require_own(out: Path, written: set[str]) -> None:
    """Raise ParamsError where a folder that is to be replaced holds something that this command did not write."""
    others = sorted({path.name for path in out.iterdir()} - written) if out.is_dir() else []
    if others:
        raise ParamsError(f"--out: found {out} with {others[0]} in it, expected a new or empty folder; name another")


def say(summary: dict, out: Path) -> None:
    """Print one line about a refined scene, and a line for each of its flags."""
    name = summary["scene"] or summary["optical"]
    height, width = summary["shape"]
    print(
        f"{name}: {height} x {width} px, {summary['filled_share']:.1%} of refined pixels had no first guess, "
        f"{summary['no_data_share']:.1%} no data; wrote {out}"
    )
    meanings = {
        "vh_above_vv": "VH exceeds VV almost everywhere: the bands may be swapped",
        "offset_suspect": "dark pixels near 0.1: the offset that is declared may be wrong",
    }
    for flag in summary["flags"]:
        print(f"{name}: warning, {flag}: {meanings[flag]}")


def refine_folder(refiner: Refiner, scenes: list[Files], out: Path) -> None:
    """Refine each scene into a folder below `out`.

    Raises:
        DataError, StorageError: at the end, where scenes failed; StorageError where one of them could not be read or
            written.
    """
    failed = []
    for scene in scenes:
        try:
            say(refiner.write(scene, out / scene.name), out / scene.name)
        except (BandwiseError, OSError) as error:
            code = error.exit_code if isinstance(error, BandwiseError) else StorageError.exit_code
            failed.append({"scene": scene.name, "exit_code": code, "message": str(error)})
    (out / FAILED).unlink(missing_ok=True)
    if not failed:
        return
    table = pd.DataFrame(failed)
    with files.complete_file(out / FAILED) as aside:
        table.to_csv(aside, index=False, lineterminator="\n")
    kind = StorageError if (table["exit_code"] == StorageError.exit_code).any() else DataError
    listed = "\n".join(f"  {row['scene']}: {row['message']}" for row in failed)
    raise kind(f"{len(failed)} of {len(scenes)} scenes failed, listed in {out / FAILED}:\n{listed}")


def check_options(given: argparse.Namespace) -> None:
    """Raise ParamsError for options that do not go together, or a number that is none."""
    if given.sar and not given.optical:
        raise ParamsError("--optical: missing; name the first guess that belongs to --sar")
    for name in ("optical",) if given.input_dir else ("first_guess",):
        if getattr(given, name):
            other = "--input-dir" if given.input_dir else "--sar"
            raise ParamsError(f"--{name.replace('_', '-')}: not used with {other}; leave it out")
    if given.scale is not None and not given.scale > 0:
        raise ParamsError(f"--scale: found {given.scale:g}, expected a number above 0, such as 10000")
    if given.seed < 0:
        raise ParamsError(f"--seed: found {given.seed}, expected 0 or more")
    if given.out.is_file():
        raise ParamsError(f"--out: found the file {given.out}, expected the name of a folder; name another")


def declared(given: argparse.Namespace, params: Params) -> Data:
    """Section `data` of the params with the command line's units."""
    data = params.data
    optical = {key: getattr(given, key) for key in ("scale", "offset", "bands") if getattr(given, key) is not None}
    sar = {"scale": given.sar_scale, "bands": given.sar_bands}
    sar = {key: value for key, value in sar.items() if value is not None}
    return data.model_copy(
        update={"sar": data.sar.model_copy(update=sar), "optical": data.optical.model_copy(update=optical)}
    )


@spelled(spelling(Params))
def command(given: argparse.Namespace) -> None:
    """Run a parsed command line."""
    check_options(given)
    params = params_file.read(given.params, Params)
    if given.input_dir:
        for folder, option in ((given.input_dir, "--input-dir"), (given.first_guess, "--first-guess")):
            if folder and not folder.is_dir():
                raise StorageError(f"{folder}: no such folder; correct {option}")
        scenes = images.find(given.input_dir, given.first_guess)
    refiner = Refiner(given.model, params, declared(given, params), given.samples, given.seed)
    for warning in refiner.warnings():
        print(f"grounding.infer: warning: {warning}")
    if given.input_dir:
        refine_folder(refiner, scenes, given.out)
    else:
        say(refiner.write(Files("", given.sar, given.optical), given.out), given.out)


if __name__ == "__main__":
    given = PARSER.parse_args()
    run.finish(lambda: command(given), "grounding.infer")
