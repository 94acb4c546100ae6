"""The null of the model: training on labels that belong to other places."""

import dataclasses

from src.core.evaluation.permutation import permute_roles
from src.population.data.stage_inputs import Split


def permuted(split: Split, seed: int, draw: int) -> Split:
    """`split` with the growth rates of training and validation rows moved between places; as it is for draw 0.

    A function of (seed, draw), the same permutation that ridge is fitted on. Test rows keep their labels, and `facts`
    keep the mean and standard deviation of the true labels.
    """
    if not draw:
        return split
    rows = split.samples
    columns = (rows[name].to_numpy() for name in ("growth_rate", "place", "year", "role"))
    return dataclasses.replace(split, samples=rows.assign(growth_rate=permute_roles(*columns, seed, draw)))
