"""A stopped or killed run of ingest goes on to the same bytes, and nothing is resumed that no longer fits."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from src.core.data.embedding_store import EmbeddingWriter
from src.core.stage.errors import DataError, StorageError
from src.core.stage.scratch import scratch_folder
from src.species import ingest
from src.species.data import embedding_files
from tests.pipelines import ROOT
from tests.species import data_root
from tests.species.data_root import (
    LANGUAGE,
    assert_nothing_left,
    contents,
    make_params,
    run,
    write_embeddings,
    write_table,
)

data = data_root.data


def test_a_stopped_run_goes_on_to_the_same_bytes(data, monkeypatch):
    monkeypatch.setattr(embedding_files, "CHUNK_BYTES", 3 * 4 * LANGUAGE[0])
    whole = contents(run(data, out="whole").folder)
    flushed = []
    flush = EmbeddingWriter.flush

    def full_disk(writer):
        flushed.append(writer)
        if len(flushed) == 3:
            raise OSError(28, "No space left on device")
        flush(writer)

    monkeypatch.setattr(EmbeddingWriter, "flush", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        run(data)
    assert not (data.root.parent / "store").exists()
    (scratch,) = (data.root.parent / "checkpoints").iterdir()
    assert len(list((scratch / "done").iterdir())) == 2
    written = []
    write = ingest.write_chunk
    monkeypatch.setattr(EmbeddingWriter, "flush", flush)
    monkeypatch.setattr(ingest, "write_chunk", lambda *given: (written.append(given[0].modality), write(*given)))
    assert contents(run(data).folder) == whole
    assert written == ["language", "language", "vision_pooled"]  # of four chunks and one


def test_nothing_is_resumed_after_a_source_or_its_arrays_changed(data, monkeypatch):
    params = make_params(data.root.parent)

    def folder():
        found, _ = embedding_files.find(data.root, params.data.modalities)
        facts = ingest.source_facts(params.data, data.root, found)
        return scratch_folder(params.checkpoint_root, "species.ingest", facts, [data.root / "observations.csv"])

    first = folder()
    assert folder() == first
    path = data.root / "embeddings" / "language.npy"
    os.utime(path, ns=(1, 1))
    second = folder()
    write_table(data.root, ["1,28,-81,,2021,Fictella audax,1"])
    assert len({first, second, folder()}) == 3

    write_table(data.root)
    whole = contents(run(data, out="whole").folder)
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingWriter, "finish", lambda *given: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StorageError):
            run(data)
    (scratch,) = (data.root.parent / "checkpoints").iterdir()
    (scratch / "store" / "language.npy").unlink()
    assert contents(run(data).folder) == whole


def test_a_source_that_changes_while_it_is_read_stops(data, monkeypatch):
    read = embedding_files.read

    def changing(source, chunk):
        os.utime(source.files[0], ns=(1, 1))
        return read(source, chunk)

    monkeypatch.setattr(embedding_files, "read", changing)
    with pytest.raises(DataError, match="data/embeddings: found files that changed while they were read"):
        run(data)
    assert_nothing_left(data)


PROGRAM = """
import sys
from argparse import Namespace
from pathlib import Path
from src.species import ingest
from src.species.data import embedding_files
from tests.species.data_root import make_params
embedding_files.CHUNK_BYTES = 1
folder = Path(sys.argv[1])
ingest.main(make_params(folder), Namespace(root=folder / "data"), Namespace(out=folder / sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(data):
    rows = [f"{number},28,-81,,2021-04-01,Fictella audax,1" for number in range(1, 401)]
    write_table(data.root, rows)
    shutil.rmtree(data.root / "embeddings")
    write_embeddings(data.root, language=400)

    def start(out: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", PROGRAM, str(data.root.parent), out], cwd=ROOT)

    assert start("whole").wait() == 0
    whole, checkpoints = contents(data.root.parent / "whole"), data.root.parent / "checkpoints"
    for marks in (20, 150, 300):
        process = start("store")
        while process.poll() is None and len(list(checkpoints.glob("*/done/*"))) < marks:
            time.sleep(0.01)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (data.root.parent / "store").exists()
    done = len(list(checkpoints.glob("*/done/*")))
    assert done >= 300
    assert start("store").wait() == 0
    assert contents(data.root.parent / "store") == whole
