"""The networks: sizes, what masks keep out, losses by hand, and folders that say what they hold."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from src.core.stage.errors import DataError, StorageError
from src.species.models import networks
from src.species.models.networks import CrossModalAutoencoder, SpeciesClassifier, balanced_weights

CLASSES = ["Quercus alba", "Quercus nigra", "Pinus 'elliottii'"]


def statistics(**widths):
    generator = np.random.default_rng(0)
    return {name: (generator.normal(size=width), generator.uniform(1, 3, width)) for name, width in widths.items()}


def classifier(weights=None, hidden=4, **widths):
    torch.manual_seed(0)
    widths = widths or {"language": 6, "vision_pooled": 5}
    return SpeciesClassifier(statistics(**widths), dict.fromkeys(widths, 0.5), hidden, CLASSES, weights)


def batch(count=8, seed=0, **widths):
    generator = torch.Generator().manual_seed(seed)
    widths = widths or {"language": 6, "vision_pooled": 5}
    inputs = {name: torch.randn(count, width, generator=generator).half() for name, width in widths.items()}
    target = torch.randint(len(CLASSES), (count,), generator=generator)
    return inputs | {"present": torch.ones(count, len(widths), dtype=torch.bool), "target": target}


def autoencoder(contrastive=0.5, **widths):
    torch.manual_seed(0)
    return CrossModalAutoencoder(statistics(**(widths or {"language": 6, "vision_pooled": 5})), 4, contrastive, 0.07)


def test_sizes_are_those_of_the_seed_document():
    def sizes(**widths):
        blank = {name: (np.zeros(width), np.ones(width)) for name, width in widths.items()}
        model = SpeciesClassifier(blank, dict.fromkeys(widths, 0.2), 128, [str(number) for number in range(227)])
        return [tuple(p.shape) for p in model.parameters() if p.ndim == 2]

    assert sizes(language=7168) == [(128, 7168), (128, 128), (227, 128)]
    assert sizes(vision_pooled=1408) == [(128, 1408), (128, 128), (227, 128)]
    assert sizes(language=7168, vision_pooled=1408)[-1] == (227, 256)


def test_embeddings_are_standardised_by_the_training_rows():
    model, given = classifier(), batch()
    mean, sd = statistics(language=6, vision_pooled=5)["language"]
    found = model.standardise["language"](given["language"])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, (given["language"].float().numpy() - mean) / sd, rtol=1e-5, atol=1e-6)


def test_what_a_missing_embedding_holds_changes_nothing():
    model, given = classifier().eval(), batch()
    given["present"][:3, 1] = False
    other = given | {"vision_pooled": given["vision_pooled"].clone()}
    other["vision_pooled"][:4] = 7
    one, two = model(**given)["logits"], model(**other)["logits"]
    assert torch.equal(one[:3], two[:3]) and not torch.equal(one[3], two[3])
    # What the head sees of it are zeros.
    alone = functional.linear(
        model.trunks["language"](model.standardise["language"](given["language"])),
        model.head.weight[:, :4],
        model.head.bias,
    )
    torch.testing.assert_close(one[:3], alone[:3])
    assert not torch.allclose(one[3:], alone[3:])


def test_the_loss_is_a_weighted_mean_over_rows_in_training_and_plain_after_it():
    weights = np.array([0.5, 1.0, 4.0])
    given = batch()
    model, plain = classifier(weights), classifier()
    for trunk in (*model.trunks.values(), *plain.trunks.values()):
        for layer in trunk:
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
    logits = plain(**given)["logits"]
    each = functional.cross_entropy(logits, given["target"], reduction="none")
    torch.testing.assert_close(plain(**given)["loss"], each.mean())
    expected = (each * torch.tensor(weights)[given["target"]]).mean().float()
    torch.testing.assert_close(model(**given)["loss"], expected)
    torch.testing.assert_close(model.eval()(**given)["loss"], each.mean())
    assert "weights" not in model.state_dict()


def test_balanced_weights_by_hand():
    weights = balanced_weights(np.array([0, 0, 0, 2]), 4)
    np.testing.assert_allclose(weights, [4 / (2 * 3), 0, 4 / 2, 0])
    assert weights[[0, 0, 0, 2]].mean() == pytest.approx(1)


def test_reconstruction_reads_the_other_modality_alone():
    model, given = autoencoder().eval(), batch()
    inputs = {name: given[name] for name in ("language", "vision_pooled")}
    out = model(**inputs)
    predicted = model.predict("vision_pooled", inputs["vision_pooled"])
    expected = ((predicted - model.standardise["language"](inputs["language"])) ** 2).mean(1)
    torch.testing.assert_close(out["language_error"], expected)
    torch.testing.assert_close(
        out["loss"], (out["language_error"] + out["vision_pooled_error"] + 0.5 * out["contrastive"]).mean()
    )
    assert list(out) == ["loss", "contrastive", "language_error", "vision_pooled_error"]


def test_the_contrastive_term_by_hand():
    model = autoencoder()
    with torch.no_grad():
        model.log_scale.fill_(np.log(2.0))
    same = torch.eye(3, 4)
    # A row's own similarity is 2, the two others' 0.
    expected = np.log(np.exp(2) + 2) - 2
    np.testing.assert_allclose(model.forward_contrastive(5 * same, same).detach(), expected, rtol=1e-5)
    swapped = model.forward_contrastive(same, same[[1, 2, 0]])
    np.testing.assert_allclose(swapped.detach(), np.log(np.exp(2) + 2), rtol=1e-5)
    alike = model.forward_contrastive(torch.ones(3, 4), torch.ones(3, 4))
    np.testing.assert_allclose(alike.detach(), np.log(3), rtol=1e-5)
    with torch.no_grad():
        model.log_scale.fill_(50.0)  # it would overflow
    assert torch.isfinite(model.forward_contrastive(same, same)).all()


def test_shared_vectors_have_length_one_and_the_temperature_starts_where_it_should():
    model, given = autoencoder(), batch()
    for name in ("language", "vision_pooled"):
        torch.testing.assert_close(model.encode(name, given[name]).norm(dim=1), torch.ones(8))
    assert 1 / model.log_scale.exp().item() == pytest.approx(0.07)


@pytest.mark.parametrize("make", [classifier, autoencoder])
def test_a_folder_brings_the_model_back(tmp_path, make):
    model, given = make().eval(), batch()
    networks.save(model, tmp_path / "one")
    networks.save(model, tmp_path / "two")
    loaded = networks.load(tmp_path / "one")
    if make is autoencoder:
        given = {name: given[name] for name in ("language", "vision_pooled")}
    for name, value in model(**given).items():
        assert torch.equal(value, loaded(**given)[name])
    for name in (networks.WEIGHTS, networks.CONFIG):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_names_its_classes_in_order(tmp_path):
    networks.save(classifier(), tmp_path)
    config = json.loads((tmp_path / networks.CONFIG).read_text())
    assert config["id2label"] == {"0": CLASSES[0], "1": CLASSES[1], "2": CLASSES[2]}
    assert config["inputs"] == {"language": 6, "vision_pooled": 5} and config["architectures"] == ["SpeciesClassifier"]
    assert networks.load(tmp_path).classes == CLASSES


def test_a_folder_that_is_not_whole_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"config\.json"):
        networks.load(tmp_path)
    networks.save(classifier(), tmp_path)
    weights = tmp_path / networks.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4])
    with pytest.raises(DataError, match=r"model\.safetensors: found something that is not safetensors"):
        networks.load(tmp_path)
    weights.unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors"):
        networks.load(tmp_path)
    weights.write_bytes(whole)
    config = json.loads((tmp_path / networks.CONFIG).read_text())
    (tmp_path / networks.CONFIG).write_text(json.dumps(config | {"hidden": 5}))
    with pytest.raises(DataError, match="size mismatch"):
        networks.load(tmp_path)
    (tmp_path / networks.CONFIG).write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(DataError, match="found 'BertModel', expected SpeciesClassifier or"):
        networks.load(tmp_path)
