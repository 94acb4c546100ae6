from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader

from src.core.data.embedding_store import EmbeddingStore, EmbeddingWriter
from src.core.stage.errors import DataError, ParamsError
from src.species.data.batches import BUFFERS, Loader, Observations

COUNT = 20
LANGUAGE_ROWS = [-1 if row % 5 == 3 else row for row in range(COUNT)]
VISION_ROWS = [0 if row == 7 else -1 for row in range(COUNT)]
MODALITIES = ["language", "vision"]
IDS = ["1007_0", "1000_0", "1003_0"]  # rows 7, 0 and 3, which has no language


def make_index(**columns):
    rows = np.arange(COUNT)
    return pd.DataFrame(
        {
            "id": [f"{1000 + row}_0" for row in rows],
            "lat": 28.0 + rows / 100,
            "lon": -81.0 - rows / 100,
            "first_day": 14_610 + rows,  # 2010-01-01 is day 14610
            "species": [("Quercus nigra", "Ardea alba", "Pinus elliottii")[row % 3] for row in rows],
            "language_row": LANGUAGE_ROWS,
            "vision_row": VISION_ROWS,
        }
        | columns
    )


def open_store(folder, **columns):
    writer = EmbeddingWriter(folder, {"language": (COUNT, 4), "vision": (1, 2, 3)})
    writer.array("language")[:] = np.arange(1, 1 + 4 * COUNT).reshape(COUNT, 4)
    writer.array("vision")[:] = np.arange(1, 7).reshape(1, 2, 3)
    writer.finish(make_index(**columns), {})
    return EmbeddingStore.open(folder)


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def identity(batch):
    return batch


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


def test_a_batch_holds_what_the_index_says_in_the_order_of_the_ids(store):
    loader = Loader(store)
    assert loader.classes == ["Ardea alba", "Pinus elliottii", "Quercus nigra"]
    batch = loader.get_batch(IDS, MODALITIES)
    assert batch["species"].tolist() == [0, 2, 2]
    assert batch["timestamp"].tolist() == [1_262_304_000 + 86_400 * row for row in (7, 0, 3)]
    assert batch["location"].dtype == torch.float64
    np.testing.assert_allclose(batch["location"], [[28.07, -81.07], [28.0, -81.0], [28.03, -81.03]])
    assert batch["language"].dtype == batch["vision"].dtype == torch.float16
    assert batch["language"].tolist() == [[29, 30, 31, 32], [1, 2, 3, 4], [0, 0, 0, 0]]
    assert batch["language_present"].tolist() == [True, True, False]
    assert batch["vision"][0].tolist() == [[1, 2, 3], [4, 5, 6]] and not batch["vision"][1:].any()
    assert batch["vision_present"].tolist() == [True, False, False]


def test_a_batch_holds_no_modality_that_was_not_asked_for(store):
    assert set(Loader(store).get_batch(IDS, [])) == {"species", "location", "timestamp"}
    assert Loader(store).get_batch([], ["language"])["language"].shape == (0, 4)


def test_species_that_are_not_among_the_classes_have_no_number(store):
    assert Loader(store, ["Quercus nigra", "Ardea alba"]).get_batch(IDS, [])["species"].tolist() == [1, 0, 0]
    assert Loader(store, ["Pinus elliottii"]).get_batch(IDS, [])["species"].tolist() == [-1, -1, -1]


def test_memory_is_used_again_when_nobody_holds_the_batch(store):
    loader = Loader(store)
    batch = loader.get_batch(IDS, ["language"])
    first = batch["language"].data_ptr()
    del batch
    batch = loader.get_batch(["1001_0", "1003_0"], ["language"])  # a smaller batch fits too, and 0 is written again
    assert batch["language"].data_ptr() == first
    assert batch["language"].tolist() == [[5, 6, 7, 8], [0, 0, 0, 0]]


@pytest.mark.parametrize("held", [lambda batch: batch["language"], lambda batch: batch["language"][1:].numpy()])
def test_memory_that_somebody_holds_is_not_written(store, held):
    """Through a view, or an array of a tensor that is gone, as well."""
    loader = Loader(store)
    kept = [held(loader.get_batch(["1001_0", f"{1000 + row}_0"], ["language"])) for row in range(2 * BUFFERS)]
    for row, values in enumerate(kept):
        wanted = [loader.store.read("language", [at])[0].tolist() for at in (1, row)]
        assert values.tolist() == wanted[-len(values) :]


def test_memory_does_not_grow_with_batches_that_were_held(store):
    loader = Loader(store)
    held = [loader.read([row], ["language"]) for row in range(COUNT)]
    del held
    for count in (1, 5, 3, COUNT, 2):
        loader.read(np.arange(count), ["language"])
    assert len(loader._buffers["language"]) <= BUFFERS


def test_unknown_ids_and_modalities_are_named(store):
    loader = Loader(store)
    with pytest.raises(DataError, match=r"'9_9'.*expected an id"):
        loader.get_batch(["1000_0", "9_9"], ["language"])
    with pytest.raises(ParamsError, match=r"'sound'.*language, vision"):
        loader.get_batch(["1000_0"], ["sound"])


def test_one_id_of_two_observations_is_refused(tmp_path):
    store = open_store(tmp_path / "store", id=["1_0"] * 2 + [f"{row}_1" for row in range(COUNT - 2)])
    with pytest.raises(DataError, match=r"id: found 1_0 twice"):
        Loader(store)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_batches_do_not_depend_on_workers(store, context):
    loader = Loader(store)
    rows = np.random.default_rng(0).permutation(COUNT)
    expected = [loader.read(rows[start : start + 6], MODALITIES) for start in range(0, COUNT, 6)]
    loader.get_batch(IDS, MODALITIES)  # its buffers are there before the workers are
    for workers in (0, 2):
        batches = list(
            DataLoader(
                Observations(partial(loader.read, modalities=MODALITIES), rows),
                batch_size=6,
                collate_fn=identity,
                num_workers=workers,
                multiprocessing_context=context if workers else None,
            )
        )
        assert len(batches) == len(expected) == 4
        for batch, wanted in zip(batches, expected, strict=True):
            assert_same(batch, wanted)


def test_batches_survive_a_trainer_that_draws_ahead(store):
    """accelerate draws batch k + 1 before it gives out batch k."""
    data = Observations(partial(Loader(store).read, modalities=["language"]), range(COUNT))
    drawn = prepare_data_loader(DataLoader(data, batch_size=8, collate_fn=identity), put_on_device=False)
    rows = torch.cat([batch["language"][:, 0].clone() for batch in drawn])
    assert rows.tolist() == [0 if row < 0 else 1 + 4 * row for row in LANGUAGE_ROWS]


def test_one_item_is_a_batch_of_one(store):
    data = Observations(partial(Loader(store).read, modalities=["language"]), [7, 0])
    assert len(data) == 2
    assert data[1]["language"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_on_a_gpu_stay_what_they_are(store):
    loader = Loader(store)
    batches = [loader.get_batch([f"{1000 + row}_0"], MODALITIES, "cuda") for row in range(COUNT)]
    for row, batch in enumerate(batches):
        assert all(values.device.type == "cuda" for values in batch.values())
        assert_same({name: values.cpu() for name, values in batch.items()}, loader.read([row], MODALITIES))
