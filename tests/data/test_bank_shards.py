"""A bank made by several processes is the bank one process makes; killed runs go on; wrong folders are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from data_world import FakeClip, write_pictures
from processes import Python, wait_for

from ogenlib.data import FeatureBank, ImageSet, extract_shards, merge_shards
from ogenlib.data.bank import read_manifest
from ogenlib.utils.documents import write_document


def in_turn(clips: list[FakeClip], data: ImageSet, folder: Path, **options: Any) -> FeatureBank:
    """Every rank's work in one process: the last one first, so that rank 0 comes when all else is there.

    Rank 0 makes the plan before the others start, as its barrier would have it.
    """

    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    count = len(clips)
    with pytest.raises(Stop):
        extract_shards(clips[0], data, folder, rank=0, count=count, barrier=stop, **options)
    for rank in range(count - 1, 0, -1):
        waits = iter([None])  # passes the first barrier, stops at the second

        def barrier(waits: Any = waits) -> None:
            if next(waits, "done") == "done":
                raise Stop

        with pytest.raises(Stop):
            extract_shards(clips[rank], data, folder, rank=rank, count=count, barrier=barrier, **options)
    return extract_shards(clips[0], data, folder, rank=0, count=count, barrier=lambda: None, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_merged_bank_is_that_of_one_process(dtype: torch.dtype, pet_images: ImageSet, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"views": 3, "seed": 5, "dtype": dtype}
    alone = FeatureBank.extract(FakeClip(), pet_images, path=tmp_path / "alone.safetensors", **settings)
    clips = [FakeClip() for _ in range(4)]
    bank = in_turn(clips, pet_images, tmp_path / "bank", **settings)
    assert [sum(len(batch) for batch in clip.batches) for clip in clips] == [3 * n for n in (3, 4, 4, 4)]
    torch.testing.assert_close(bank.features, alone.features, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.01)
    assert torch.equal(bank.labels, alone.labels) and bank.features.dtype == dtype
    assert (bank.keys, bank.domains, bank.classnames) == (alone.keys, alone.domains, alone.classnames)
    assert bank.fingerprint == alone.fingerprint
    kept = sorted(p.name for p in (tmp_path / "bank").iterdir() if p.name != ".locks")
    assert kept == ["bank.safetensors", "manifest.json", "plan.json"]
    shards = read_manifest(tmp_path / "bank")["shards"]
    assert [shard["images"] for shard in shards] == [[0, 3], [3, 7], [7, 11], [11, 15]]
    assert FeatureBank.load(tmp_path / "bank", expect=alone.fingerprint).keys == alone.keys


def test_a_finished_folder_is_loaded_without_encoding(pet_images: ImageSet, tmp_path: Path) -> None:
    extract_shards(FakeClip(), pet_images, tmp_path / "bank")
    again = FakeClip()
    bank = extract_shards(again, pet_images, tmp_path / "bank")
    assert len(bank) == 15 and again.batches == []


def test_a_killed_run_goes_on_with_another_number_of_processes(pet_images: ImageSet, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Fragile(FakeClip):
        def encode_image(self, pixels: torch.Tensor, normalize: bool = True) -> torch.Tensor:
            if len(self.batches) == 4:
                raise Killed
            return super().encode_image(pixels, normalize)

    options: dict[str, Any] = {"batch_size": 1, "chunk_views": 2}
    with pytest.raises(Killed):
        in_turn([FakeClip(), Fragile()], pet_images, tmp_path / "bank", **options)
    with pytest.raises(FileNotFoundError, match=r"no manifest.json, so no finished bank; run the same"):
        FeatureBank.load(tmp_path / "bank")
    with pytest.raises(FileNotFoundError, match=r"2 of 2 shards .*shard-00000-of-00002"):
        merge_shards(tmp_path / "bank")
    alone = FakeClip()
    bank = extract_shards(alone, pet_images, tmp_path / "bank", **options)
    assert sum(len(batch) for batch in alone.batches) == 15 - 4  # two parts of two images were finished
    assert bank.keys == pet_images.keys


def test_skipped_images_of_all_shards_are_kept(pets: Path, pet_images: ImageSet, tmp_path: Path) -> None:
    for name in ("cat/01.png", "red fox/05.png"):
        (pets / name).write_bytes(b"broken")
    bank = in_turn([FakeClip(), FakeClip()], pet_images, tmp_path / "bank", skip_bad=True, keep_shards=True)
    assert [Path(s["file"]).name for s in bank.skipped] == ["01.png", "05.png"] and len(bank) == 13
    assert [s["skipped"] for s in read_manifest(tmp_path / "bank")["shards"]] == [1, 1]
    parts = [FeatureBank.load(path) for path in sorted((tmp_path / "bank").glob("shard-*"))]
    assert torch.equal(torch.cat([part.features for part in parts]), bank.features)


def test_features_are_mapped_from_the_file(pet_images: ImageSet, tmp_path: Path) -> None:
    bank = extract_shards(FakeClip(), pet_images, tmp_path / "bank")
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        pytest.skip("only Linux says what is mapped")
    ranges = [line.split()[0] for line in maps.read_text().splitlines() if line.endswith("bank/bank.safetensors")]
    bounds = [tuple(int(end, 16) for end in one.split("-")) for one in ranges]
    assert any(start <= bank.features.data_ptr() < stop for start, stop in bounds)


def test_other_settings_are_refused_or_overwritten(pet_images: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    extract_shards(FakeClip(), pet_images, folder)
    with pytest.raises(ValueError, match=r"backbone.weights_hash is"):
        extract_shards(FakeClip(weights=1), pet_images, folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(ValueError, match="views is 1, expected 2"):
        extract_shards(FakeClip(), pet_images, folder, views=2)
    assert extract_shards(FakeClip(), pet_images, folder, views=2, overwrite=True).features.shape[1] == 2


def test_bad_arguments_are_refused(pet_images: ImageSet, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rank is 2 of count 2 processes"):
        extract_shards(FakeClip(), pet_images, tmp_path / "bank", rank=2, count=2)
    with pytest.raises(ValueError, match="2 processes need barrier="):
        extract_shards(FakeClip(), pet_images, tmp_path / "bank", rank=0, count=2)
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is a file; shards need a folder"):
        extract_shards(FakeClip(), pet_images, tmp_path / "file")
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "manifest.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(ValueError, match="is not the manifest of a bank, of format"):
        FeatureBank.load(tmp_path / "bank")


EXTRACTS = """
import logging, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from data_world import FakeClip, folder_images
from ogenlib.data import FeatureBank, extract_shards
logging.basicConfig(format="%(message)s")

class Waits(FakeClip):
    def encode_image(self, pixels, normalize=True):
        if not self.batches and sys.argv[4] == "first":
            Path("at it").touch()
            while not Path("go on").exists():
                time.sleep(0.01)
        return super().encode_image(pixels, normalize)

clip, data = Waits(), folder_images(Path(sys.argv[2]))
if sys.argv[3].endswith(".safetensors"):
    bank = FeatureBank.extract(clip, data, path=sys.argv[3], chunk_views=4)
else:
    bank = extract_shards(clip, data, sys.argv[3], chunk_views=4)
print(len(bank), len(clip.batches))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bank.safetensors", "bank"])
def test_of_two_processes_the_second_waits_and_loads(name: str, pets: Path, tmp_path: Path) -> None:
    def start(which: str) -> Python:
        arguments = [str(Path(__file__).parent), str(pets), str(tmp_path / name), which]
        return Python("-c", EXTRACTS, *arguments, folder=tmp_path)

    first = start("first")
    wait_for((tmp_path / "at it").exists, first)
    second = start("second")
    wait_for(lambda: second.err.read_text().endswith("\n"), second)
    assert f"another process writes {tmp_path / name}; waiting" in second.err.read_text()
    (tmp_path / "go on").touch()
    assert first.wait() == 0 and first.out.read_text() == "15 4\n", first.said()
    assert second.wait() == 0 and second.out.read_text() == "15 0\n", second.said()


def test_a_plan_or_manifest_that_was_changed_is_refused(pet_images: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    extract_shards(FakeClip(), pet_images, folder)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace('"rows": 15', '"rows": 14', 1))
    with pytest.raises(ValueError, match=r"manifest.json was changed after it was written"):
        FeatureBank.load(folder)
    (folder / "manifest.json").unlink()
    write_document(folder / "plan.json", {**json.loads((folder / "plan.json").read_text()), "bounds": [0, 99]})
    with pytest.raises(ValueError, match=r"plan.json: is for 99 items, not 15"):
        extract_shards(FakeClip(), pet_images, folder)
    for bounds in ([0], [0, 7, 7, 15], [3, 15]):
        write_document(folder / "plan.json", {**json.loads((folder / "plan.json").read_text()), "bounds": bounds})
        with pytest.raises(ValueError, match=r"plan.json .*bounds are not rising"):
            extract_shards(FakeClip(), pet_images, folder)
    assert len(extract_shards(FakeClip(), pet_images, folder, overwrite=True)) == 15


def test_a_manifest_belongs_to_its_bank(pet_images: ImageSet, tmp_path: Path) -> None:
    folder = tmp_path / "bank"
    extract_shards(FakeClip(), pet_images, folder)
    FeatureBank.extract(FakeClip(weights=1), pet_images).save(folder / "bank.safetensors")
    with pytest.raises(ValueError, match=r"bank.safetensors is not the file that .*manifest.json"):
        FeatureBank.load(folder)
    write_document(folder / "manifest.json", {**json.loads((folder / "manifest.json").read_text()), "digest": None})
    with pytest.raises(ValueError, match=r"bank.safetensors is not the bank that .*manifest.json"):
        FeatureBank.load(folder)


def test_overwriting_follows_no_link_out_of_the_folder(pet_images: ImageSet, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "shard-00000-of-00001.safetensors.partial").symlink_to(outside)
    extract_shards(FakeClip(), pet_images, tmp_path / "bank", overwrite=True)
    assert (outside / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_torchrun_extracts_with_two_processes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", {"bird": 3, "boat": 4}, side=8)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "ogenlib"]
    arguments = ["extract", "--dataset", str(tmp_path / "pictures"), "--out", str(tmp_path / "out"), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr
    bank = FeatureBank.load(tmp_path / "out" / "train")
    assert len(read_manifest(tmp_path / "out" / "train")["shards"]) == 2
    assert len(bank) == 5 and bank.classnames == ("bird", "boat")
