"""Words of a trained model about tiles that no stage cut: those of a scene, one of them, or a PNG."""

import re
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from src.core.stage.errors import DataError, ParamsError
from src.minerals.data import band_table, conversations, cube_store
from src.minerals.data.conversations import QUESTIONS, TASKS
from src.minerals.data.cube_files import Cube
from src.minerals.data.samples import TileImages
from src.minerals.models import answering, model_folder
from src.minerals.models.model_inputs import CubeTiles, PngTile

LONGEST = 256  # tokens of an answer; that of a task has at most about 120 in Qwen's vocabulary
NEAR_NM = 0.5  # of a cube's band to the model's, which was standardised by its own mean


class TileModel:
    """The model in `folder` with everything that minerals.json says of its tiles; raises what `model_folder.load` does.

    Attributes:
        settings: contents of minerals.json.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.model, self.tokenizer, self.settings = model_folder.load(folder)

    def check_language(self, language: str) -> None:
        """Raise ParamsError where the model was not trained in this language."""
        if language not in self.settings.languages:
            raise ParamsError(
                f"--language: found {language}, expected one that the model in {self.folder} was trained in: "
                + ", ".join(self.settings.languages)
            )

    def warning(self, path: Path) -> str:
        """One sentence where the cube or PNG in `path` is of other origin than the scenes of the training, else ""."""
        settings, (name, at) = self.settings, (Path(path).stem, Path(path).parent)
        if Path(path).suffix.lower() == ".png":  # the tiles stage names them <scene>_<top>_<left>
            same = re.sub(r"_\d{4,}_\d{4,}$", "", name) in settings.scenes
        else:
            simulated = cube_store.read_about(at)["simulated"]
            same = simulated == settings.simulated and (simulated or name in settings.scenes)
        if same:
            return ""
        names, kind = settings.scenes, "simulated" if settings.simulated else "measured"
        listed = ", ".join(names) if len(names) < 4 else f"{names[0]} to {names[-1]}"
        return (
            f"the model in {self.folder} was trained on {len(names)} {kind} scene{'s' if len(names) > 1 else ''} "
            f"({listed}) alone, so its words about {Path(path).name} are untested"
        )

    def not_known(self, question: str) -> str:
        """Lines that say so and list what can be asked, where the model does not know the question, else "".

        A pretrained model understands free wording; a tiny one knows the questions of its training, and would answer
        one of these whatever is asked.
        """
        languages = self.settings.languages
        if self.settings.pretrained or conversations.known(question, languages):
            return ""
        return conversations.unknown(question, languages)

    def tiles_of(self, cube: Cube, filled: np.ndarray) -> CubeTiles:
        """The tiles of an opened cube as the model reads them.

        Args:
            filled: (B,) bool, bands that hold values.

        Raises:
            DataError: the cube has not the model's bands.
        """
        usable = filled & cube.bands.good
        bands = self._composite(cube, usable) if self.settings.input == "rgb" else self._same_bands(cube, usable)
        return CubeTiles(cube, filled, bands, self.settings.tile_px, np.array(self.settings.stretch))

    def _composite(self, cube: Cube, usable: np.ndarray) -> list[int]:
        """Positions of red, green and blue."""
        try:
            return band_table.composite_bands(cube.bands.wavelengths, usable, self.settings.composite)
        except DataError as error:
            raise DataError(
                f"{cube.path}: {error}. The model in {self.folder} reads this composite: use a cube that has it"
            ) from error

    def _same_bands(self, cube: Cube, usable: np.ndarray) -> list[int]:
        """Position of each band of the model."""
        nm, wanted = cube.bands.wavelengths, np.array(self.settings.wavelengths)
        distance = np.where(usable, np.abs(nm - wanted[:, None]), np.inf)  # (C, B)
        if (far := np.flatnonzero(distance.min(1) > NEAR_NM)).size:
            missing = wanted[far[0]]
            near = nm[np.abs(nm - missing).argmin()]
            there = abs(near - missing) <= NEAR_NM
            why = "is bad by the file's own list, or has no values" if there else "is the nearest"
            raise DataError(
                f"{cube.path}: wavelength: found no usable band within {NEAR_NM:g} nm of {missing:.2f} nm "
                f"({near:.2f} nm {why}), expected all {len(wanted)} bands of the model in {self.folder} ({len(far)} "
                "are missing); train a model on scenes of this sensor. One of input rgb reads three bands of any "
                "sensor, but its words are untested on ground that it was not trained on"
            )
        return distance.argmin(1).tolist()

    def tile_of(
        self, cube: Cube, filled: np.ndarray, corner: tuple[int, int], min_valid_ratio: float
    ) -> tuple[CubeTiles, tuple[int, int]]:
        """`tiles_of`, and the one at `corner` (top, left) among them.

        Raises:
            DataError: the cube has not the model's bands, or the tile too little data.
            ParamsError: the tile does not lie in the scene.
        """
        side, (top, left), (lines, samples, _) = self.settings.tile_px, corner, cube.shape
        if not (0 <= top <= lines - side and 0 <= left <= samples - side):
            raise ParamsError(
                f"--tile: found {top} {left}, expected first line and sample of a tile of {side} px within the "
                f"{lines} lines and {samples} samples of {cube.path}"
            )
        tiles = self.tiles_of(cube, filled)
        valid = tiles.reflectance(corner)[1].mean()
        if valid < min_valid_ratio:
            raise DataError(
                f"{cube.path}: tile {top} {left}: found data in {valid:.0%} of its pixels, expected "
                f"{min_valid_ratio:.0%} or more (tiles.min_valid_ratio); choose another --tile"
            )
        return tiles, corner

    def png_tile(self, path: Path) -> tuple[PngTile, str]:
        """A PNG as the model reads it, and the tile's name; raises DataError for a model of all bands, and what
        `PngTile` does."""
        if self.settings.input != "rgb":
            raise DataError(
                f"{path}: found a picture, expected the {len(self.settings.wavelengths)} bands that the model in "
                f"{self.folder} reads; use --cube and --tile, or a model of input rgb"
            )
        return PngTile(path, self.settings.tile_px), path.name

    def _answerer(self, tiles: CubeTiles | PngTile) -> answering.Answerer:
        statistics = {"mean": np.array(self.settings.mean), "sd": np.array(self.settings.sd)}
        images = TileImages(self.settings.input, tiles, statistics, self.settings.model_px)
        return answering.Answerer(self.model, self.tokenizer, images)

    def converse(self, tiles: CubeTiles | PngTile, tile: object, questions: Iterable[str]) -> None:
        """Print the answer to each question about one tile, or to stderr that it is not known; no question knows of
        those before it."""
        answerer = self._answerer(tiles)
        for question in questions:
            if said := self.not_known(question):
                print(said, file=sys.stderr, flush=True)
                continue
            question = conversations.known(question, self.settings.languages) or question
            print(answerer.answer([_item(tile, question)], [tile], LONGEST, "answer")[0], flush=True)

    def answer_scene(self, tiles: CubeTiles, corners: list[tuple[int, int]], language: str) -> pd.DataFrame:
        """Answers to the first question of each task about each tile.

        Args:
            corners: top and left of the tiles, in order.

        Returns:
            A row an answer: tile_row, tile_column (from 0), top, left (px), task, text, altered (bool), minerals
            (names, or none), warning; None where the answer does not parse or its task does not ask.
        """
        parts = [answering.table([], [])]
        with tqdm(total=len(corners), desc="words", unit="tile") as progress:
            for _, row in groupby(corners, key=lambda corner: corner[0]):
                row = list(row)
                items = [_item(tile, QUESTIONS[task, language][0], task, language) for tile in row for task in TASKS]
                answerer = self._answerer(tiles)  # a new one each row, because it holds the tiles that it has read
                shown = [item["tile"] for item in items]
                parts.append(answering.table(items, answerer.answer(items, shown, LONGEST, "answers")))
                progress.update(len(row))
        table = pd.concat(parts[1:] or parts, ignore_index=True)
        top, left = np.array(table["tile"].tolist(), int).reshape(-1, 2).T
        # The last row and column may begin before a multiple of a tile: they end at the scene's edge.
        places = {"tile_row": -(-top // tiles.side), "tile_column": -(-left // tiles.side), "top": top, "left": left}
        listed = [None if names is None else "; ".join(sorted(names)) or "none" for names in table["minerals"]]
        words = pd.DataFrame(places).join(table[["task", "text", "altered"]])
        return words.assign(minerals=listed, warning=self.warning(tiles.cube.path))

    def summarise(self, answers: pd.DataFrame, language: str, path: Path) -> dict:
        """Numbers of tiles that the words call altered, and of those whose answer is in no form of the task; and the
        warning about the cube in `path`."""
        said = answers.loc[answers["task"] == TASKS[0], "altered"].tolist()
        return {
            "model": self.folder.name, "input": self.settings.input, "language": language,
            "altered": said.count(True), "not_readable": said.count(None), "warning": self.warning(path),
        }  # fmt: skip


def _item(tile: object, question: str, task: str = "", language: str = "") -> dict:
    """A question about a tile in the form of the annotations."""
    turn = {"from": "human", "value": f"{conversations.IMAGE}\n{question}"}
    return {"id": "", "tile": tile, "task": task, "language": language, "conversations": [turn]}
