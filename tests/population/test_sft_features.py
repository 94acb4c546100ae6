"""sft with a feature cache: the same weights whatever is in it, and nothing left behind."""

import os
import signal

import pytest
import torch

from src.core.models.feature_cache import FeatureCache
from src.core.stage.errors import Interrupted
from src.population import sft
from src.population.data import samples
from tests.population.conftest import contents, moved_groups, run_sft, weights_of

# Two frozen epochs, then one in which the encoder trains; 4 steps an epoch, a checkpoint every 3.
CHANGES = {"sft.epochs": 3, "sft.freeze_encoder_epochs": 2, "sft.head": "anchored"}
ALL = CHANGES | {"sft.feature_cache_gb": 1}


@pytest.fixture
def caches(monkeypatch):
    """Every cache that a run opens."""
    opened = []

    class Seen(FeatureCache):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            opened.append(self)

    monkeypatch.setattr(sft, "FeatureCache", Seen)
    return opened


@pytest.fixture(scope="module")
def kept(study, trained, tmp_path_factory):
    """Folder below which a run with a cache for everything ended."""
    folder = tmp_path_factory.mktemp("kept")
    run_sft(study, trained.pretrain, folder, ALL)
    return folder


def test_the_frozen_epochs_read_and_the_others_do_not(study, trained, split_of, kept, tmp_path, caches):
    """Training and validation see the same view twice."""
    run_sft(study, trained.pretrain, tmp_path, ALL | {"sft.augment": False})
    (cache,) = caches
    tiles = len(split_of.rows("train")) + len(split_of.rows("validation"))
    assert (cache.misses, cache.hits) == (tiles, tiles)
    assert not list((tmp_path / "checkpoints").iterdir()), "scratch is removed"


def test_a_cache_changes_no_weight_beyond_rounding(study, trained, kept, tmp_path):
    plain = weights_of(run_sft(study, trained.pretrain, tmp_path, CHANGES))
    found = weights_of(kept / "sft")
    assert moved_groups(weights_of(trained.pretrain), found) == {"encoder", "merger", "language"}
    for name, value in plain.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-4, msg=lambda text, at=name: f"{at}: {text}")


def test_a_small_cache_gives_the_same_bytes(study, trained, kept, tmp_path, caches):
    run_sft(study, trained.pretrain, tmp_path, CHANGES | {"sft.feature_cache_gb": 40_000 / 1e9})
    (cache,) = caches
    assert 0 < cache.capacity < 8 and cache.hits < cache.misses
    for part in ("sft", "plots/sft"):
        assert contents(tmp_path / part) == contents(kept / part)


@pytest.mark.parametrize("lost", [False, True], ids=["kept", "lost"])
def test_resumed_in_a_frozen_epoch_it_ends_with_the_same_bytes(
    study, trained, split_of, kept, tmp_path, monkeypatch, caches, lost
):
    """Whether the features of the stopped run are still there or not."""
    read, trained_on = samples.GrowthSamples.__getitems__, []

    def stopping(self, indices):
        trained_on.append(self.augment)
        if self.augment and sum(trained_on) == 7:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return read(self, indices)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(samples.GrowthSamples, "__getitems__", stopping)
        run_sft(study, trained.pretrain, tmp_path, ALL)
    (folder,) = (tmp_path / "checkpoints").glob("features-*")
    if lost:
        next(folder.iterdir()).unlink()
    run_sft(study, trained.pretrain, tmp_path, ALL)
    # The validation tiles were visited by the stopped run.
    assert len(caches) == 2 and (caches[1].hits >= len(split_of.rows("validation"))) == (not lost)
    assert contents(tmp_path / "sft") == contents(kept / "sft")
    assert not list((tmp_path / "checkpoints").iterdir())
