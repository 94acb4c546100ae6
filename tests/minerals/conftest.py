"""Scenes and the command that is run on them."""

from pathlib import Path

import numpy as np
import pytest

from src.minerals import predict
from tests.minerals.cubes import scene, write_envi

PLACE = ["UTM", 1, 1, 494000, 4156000, 15, 15, 11, "North", "WGS-84"]


@pytest.fixture(scope="session")
def cubes(tmp_path_factory):
    """Folder of three scenes that lie apart, as float32 without scale, -1 where there is no data."""
    folder = tmp_path_factory.mktemp("cubes")
    for number in range(3):
        place = [*PLACE[:3], PLACE[3] + 9000 * (number - 1), *PLACE[4:]]  # s1 lies at PLACE
        header = {"reflectance_scale_factor": None, "data_ignore_value": -1, "map_info": place}
        write_envi(folder, f"s{number}", scene(number), dtype=np.float32, **header)
    return folder


@pytest.fixture(scope="session")
def params_yaml(tmp_path_factory):
    """The pipeline's params with tiles of 32 px and no truth."""
    text = Path("pipelines/minerals/params.yaml").read_text(encoding="utf-8")
    for old, new in (("tile_px: 64", "tile_px: 32"), ("truth: truth ", "truth: ")):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def stages(cubes, params_yaml, tmp_path_factory):
    """Outputs of the stages up to `tiles`, of the three scenes."""
    from tests.minerals import trained  # imports torch and transformers, which few tests need

    return trained.run_stages(cubes, params_yaml, tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="session")
def models(stages, tmp_path_factory):
    """Folder with an untrained model of each input."""
    from tests.minerals import trained

    return trained.write_models(stages, tmp_path_factory.mktemp("models"))


@pytest.fixture
def call(params_yaml, tmp_path):
    """`call("--cube", path, ...)` runs the command in-process, a cube into out/; returns that folder.

    With `asked` it is about a question, and no folder is named.
    """

    def call(*options, out=tmp_path / "out", asked=False):
        options = [str(option) for option in options]
        if "--cube" in options and "--out" not in options and not asked:
            options += ["--out", str(out)]
        if "--params" not in options:
            options += ["--params", str(params_yaml)]
        predict.command(predict.PARSER.parse_args(options))
        return out

    return call
