"""The small study with numeric columns beside its labels, as preprocess and split leave `data.covariates`."""

import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd

from src.population.data import prediction_tasks

GDP = {"data.covariates": ["gdp"], "data.covariate_lag": 0}  # params of `with_gdp`


def with_columns(study: Namespace, folder: Path, **columns) -> Namespace:
    """`study` with a split below `folder` whose samples have these columns, by sample number."""
    split = shutil.copytree(study.split, folder / "split")
    samples = pd.read_parquet(split / prediction_tasks.SAMPLES).sort_values("sample", ignore_index=True)
    samples.assign(**columns).to_parquet(split / prediction_tasks.SAMPLES, index=False)
    return Namespace(**vars(study) | {"split": split})


def gdp(count: int) -> np.ndarray:
    """Made-up products of `count` places: whole and broken numbers of different lengths."""
    return np.random.default_rng(0).integers(1, 4000, count) * np.resize([1.0, 0.25, 100.0], count)


def with_gdp(study: Namespace, folder: Path) -> Namespace:
    """`with_columns` of one column gdp."""
    return with_columns(study, folder, gdp=gdp(len(pd.read_parquet(study.split / prediction_tasks.SAMPLES))))
