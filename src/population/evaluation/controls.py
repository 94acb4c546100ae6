"""Controls: predictions from a wrong tile, a blank one, or none.

A model that uses its tile scores lower on each of them. The score that is left comes from the prompt, the covariates
or the mean of the training labels.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from src.core.data.tile_store import Store
from src.population.data.prediction_tasks import place_names
from src.population.models.inference import Reader, parsed
from src.population.models.model_folder import load_for_use
from src.population.params import Evaluate


def control_predictions(folder: Path, store: Store, rows: pd.DataFrame, evaluate: Evaluate, seed: int) -> pd.DataFrame:
    """Predictions of the model in `folder` for label rows with the wrong image, in their order.

    Returns:
        Columns head_ and text_ (‰ per year, text NaN where unparsable) of
        swapped: tiles exchanged between places within each year, NaN where a year has one place alone;
        blank: every pixel masked, so that the model sees the training mean of all bands;
        prompt_only: no image in the prompt. An anchored head's ridge says the training mean in the last two.
    """
    model, tokenizer, settings = load_for_use(folder)
    reader = partial(Reader, model, tokenizer, settings, store, evaluate.batch_size)
    readers = {"swapped": reader("tile"), "blank": reader("blank"), "prompt_only": reader("none")}

    def read(part: pd.DataFrame, control: str) -> pd.DataFrame:
        head, answers = readers[control].head(part), readers[control].greedy(part)
        return pd.DataFrame({f"head_{control}": head, f"text_{control}": parsed(answers, settings.language)})

    # Without a tile, rows differ by what else the model reads, which often is nothing.
    columns = readers["swapped"].prompter.read(rows)
    kinds = rows.groupby(columns, sort=False).ngroup().to_numpy() if columns else np.zeros(len(rows), int)
    first = rows.iloc[np.unique(kinds, return_index=True)[1]]
    without = [read(first, control).iloc[kinds].reset_index(drop=True) for control in ("blank", "prompt_only")]

    donors = swapped_tiles(rows, seed)
    paired = np.flatnonzero(donors >= 0)
    swapped = pd.DataFrame(columns=["head_swapped", "text_swapped"], dtype=np.float64)
    if len(paired):
        swapped = read(rows.iloc[paired].assign(tile=donors[paired]), "swapped").set_axis(paired)
    return pd.concat([swapped.reindex(range(len(rows))), *without], axis=1)


def swapped_tiles(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """For each of `rows` (province, city, year, tile) the tile of another place in its year, -1 where there is none.

    Every place of a year gives its tile to one other (a single cycle), whatever the order of rows.
    """
    keys = pd.DataFrame({"place": place_names(rows), "year": rows.year, "tile": rows.tile})
    donors = pd.Series(-1, index=range(len(rows)))
    for year, part in keys.reset_index(drop=True).groupby("year"):
        part = part.sort_values("place")
        if part.place.nunique() > 1:
            order = part.iloc[np.random.default_rng([seed, int(year)]).permutation(len(part))]
            donors[order.index] = np.roll(order.tile.to_numpy(), 1)
    return donors.to_numpy()
