"""Folders that are refused before a weight is read, and the error when the hub cannot be reached."""

import hashlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from huggingface_hub import constants

from src.core.models import hub
from src.core.stage.errors import DataError
from tests import qwen_folders
from tests.qwen_folders import change_config

NAME = "Qwen/Qwen2.5-VL-7B-Instruct"
ADVICE = rf"{NAME}: found neither a folder .* run `hf download {NAME} --local-dir DIR`.* set `backbone` to it"


@pytest.fixture
def folder(tmp_path):
    return qwen_folders.write(tmp_path / "model", "qwen2_5_vl", shards=3)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("layout", ["published", "new"])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("family", qwen_folders.FAMILIES)
def test_whole_folders_pass(family, shards, layout, tmp_path):
    qwen_folders.write(tmp_path, family, shards=shards, layout=layout)
    assert hub.fetch(str(tmp_path)) == tmp_path
    assert hub.check_config(tmp_path)["model_type"] == family
    hub.check_weights(tmp_path)


@pytest.mark.parametrize("source", ["/nowhere/model", "models/a/b", "./model", "Qwen2.5-VL", "../a/b"])
def test_what_is_neither_folder_nor_hub_id_is_not_looked_up(source):
    with pytest.raises(DataError, match=r"no such folder; set `backbone` to a folder, a hub id"):
        hub.fetch(source)


def test_offline_mode_says_how_to_use_a_folder(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=ADVICE):
        hub.fetch(NAME)


def test_an_unreachable_hub_says_how_to_use_a_folder(cache, monkeypatch):
    def refuse(*args, **kwargs):
        raise httpx2.ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(httpx2.Client, "send", refuse)
    with pytest.raises(DataError, match=ADVICE) as raised:
        hub.fetch(NAME)
    assert "Name or service not known" in str(raised.value)


def test_a_silent_hub_is_not_waited_for(cache, monkeypatch):
    """The hub's own client has no time limit when it asks what a repository holds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "ANSWER_TIME", 0.3)
        start = time.monotonic()
        with pytest.raises(DataError, match=ADVICE):
            hub.fetch(NAME)
        assert time.monotonic() - start < 5


@pytest.fixture
def local_hub(folder, cache, monkeypatch):
    """A server that answers for `folder` as the hub does; yields the list of files it was asked for."""
    commit, asked = "1" * 40, []
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "config.json").write_text("{}")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.partition("?")[0]
            if name.startswith(f"/api/models/{NAME}"):
                files = [{"rfilename": str(p.relative_to(folder))} for p in folder.rglob("*") if p.is_file()]
                content = json.dumps({"id": NAME, "sha": commit, "siblings": files}).encode()
            else:
                content = (folder / name.rpartition("/")[2]).read_bytes()
                asked.append(name.rpartition("/")[2])
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}", raising=False
    )
    yield asked
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_fetched_without_code_and_pickles(local_hub, folder, monkeypatch):
    small = hub.fetch(NAME, weights=False)
    assert not list(small.glob("*.safetensors"))
    assert hub.check_config(small)["model_type"] == "qwen2_5_vl"
    fetched = hub.fetch(NAME)
    hub.check_weights(fetched)
    expected = {path.name for path in folder.iterdir() if path.suffix in (".json", ".txt", ".jinja", ".safetensors")}
    assert {path.name for path in fetched.rglob("*")} == expected == set(local_hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(NAME) == fetched


def test_what_was_fetched_before_serves_without_network(cache, monkeypatch):
    commit = "0" * 40
    stored = cache / "models--Qwen--Qwen2.5-VL-7B-Instruct"
    qwen_folders.write(stored / "snapshots" / commit, "qwen2_5_vl")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.fetch(NAME) == stored / "snapshots" / commit
    assert hub.files_of(NAME) == [stored / "snapshots" / commit] and hub.files_of("tiny") == []


def test_a_folder_without_config_is_refused(folder):
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"config.json: no such file, expected a folder as Qwen2-VL"):
        hub.check_config(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not JSON"), ("", "not JSON"), ("\xff", "not JSON"), ("[1]", "found a JSON list, expected an object")],
)
def test_a_config_that_is_no_json_object_is_refused(folder, content, message):
    (folder / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=rf"config.json: found .*{message}|{message}"):
        hub.check_config(folder)


def test_an_endless_config_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(hub, "MAX_JSON", 100)
    with pytest.raises(DataError, match=r"config.json: found [\d,]+ bytes, expected at most 100"):
        hub.check_config(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_code_is_refused_wherever_a_config_names_it(folder, file):
    path = folder / file
    values = json.loads(path.read_text())
    values["vision_config"] = values.get("vision_config", {}) | {"deep": [{"auto_map": {"AutoModel": "evil.Model"}}]}
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=rf"{file}: found auto_map .*evil.Model.*remote code is never run"):
        hub.check_config(folder)


def test_quantised_weights_are_refused(folder):
    change_config(folder, quantization_config={"quant_method": "awq", "bits": 4})
    with pytest.raises(DataError, match=r"config.json: quantization_config: found .*awq.*without -AWQ"):
        hub.check_config(folder)


def test_a_config_that_points_at_other_weights_is_refused(folder):
    change_config(folder, transformers_weights="other.safetensors")
    with pytest.raises(DataError, match=r"transformers_weights: found other\.safetensors"):
        hub.check_config(folder)


def test_an_adapter_is_no_model(folder):
    """transformers would load the base that the adapter names, whatever that is."""
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "elsewhere"}))
    with pytest.raises(DataError, match=r"adapter_config.json: found a LoRA adapter, expected a whole model; merge"):
        hub.check_config(folder)


@pytest.mark.parametrize("suffix", hub.PICKLES)
def test_pickles_are_refused_by_name(folder, suffix):
    for path in folder.glob("model*"):
        path.unlink()
    (folder / f"weights{suffix}").write_bytes(b"never opened")
    with pytest.raises(DataError, match=rf"found weights\{suffix}, expected model.safetensors; .*convert"):
        hub.check_weights(folder)


def test_a_folder_without_weights_is_refused(folder):
    for path in folder.glob("model*"):
        path.unlink()
    with pytest.raises(DataError, match=r"found no weights, expected model\.safetensors or"):
        hub.check_weights(folder)


def test_missing_shards_are_named(folder):
    for shard in (1, 3):
        (folder / f"model-{shard:05}-of-00003.safetensors").unlink()
    message = r"2 of 3 shards are missing: model-00001-of-00003.safetensors, model-00003-of-00003.safetensors; copy"
    with pytest.raises(DataError, match=rf"model.safetensors.index.json: {message}"):
        hub.check_weights(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_shard_is_named(folder, keep):
    path = folder / "model-00002-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"model-00002-of-00003.safetensors: [\d,]+ bytes are no whole safetensors"):
        hub.check_weights(folder)


def test_a_shard_from_another_download_is_named(folder):
    (folder / "model-00001-of-00003.safetensors").replace(folder / "model-00002-of-00003.safetensors")
    qwen_folders.write(folder.parent / "other", "qwen2_5_vl", shards=3)
    (folder.parent / "other" / "model-00001-of-00003.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    with pytest.raises(DataError, match=r"model-00002-of-00003.safetensors: \d+ weights are missing .* promises"):
        hub.check_weights(folder)


@pytest.mark.parametrize("shard", ["../model.safetensors", "pytorch_model.bin", "/etc/x.safetensors"])
def test_shards_lie_beside_their_index(folder, shard):
    index = folder / hub.INDEX
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": shard}}))
    with pytest.raises(DataError, match=rf"weight_map: found '{shard}', expected names of .safetensors files"):
        hub.check_weights(folder)


@pytest.mark.parametrize("content", [{}, {"weight_map": {}}, {"weight_map": {"lm_head.weight": 3}}])
def test_an_index_without_files_is_refused(folder, content):
    (folder / hub.INDEX).write_text(json.dumps(content))
    with pytest.raises(DataError, match="weight_map: expected a file name for every weight"):
        hub.check_weights(folder)
