from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lorax.adapter import Adapter, BaseHint
from lorax.archs import by_name
from lorax.formats import copy_sidecars, output_metadata, read_adapter, write_adapter
from lorax.formats.reading import base_hint
from lorax.layers import LayerId
from lorax.version import VERSION
from tests.formats.made import layer_shapes, random_factors

TRAINED = {
    "ss_output_name": "old name",
    "ss_sd_model_name": "old base.safetensors",
    "ss_sd_model_hash": "11111111",
    "ss_new_sd_model_hash": "1" * 64,
    "ss_network_module": "lycoris.kohya",
    "ss_network_dim": "8",
    "ss_network_alpha": "4",
    "ss_network_args": '{"algo": "loha"}',
    "ss_tag_frequency": '{"a": {"b": 1}}',
    "ss_dataset_dirs": "{}",
    "ss_bucket_info": "{}",
    "ss_clip_skip": "2",
    "ss_training_comment": "hello",
    "sshs_model_hash": "2" * 64,
    "sshs_legacy_hash": "22222222",
    "modelspec.trigger_phrase": "a word",
    "modelspec.thumbnail": "data:image/jpeg;base64,AAAA",
    "modelspec.hash_sha256": "0x33",
    "modelspec.architecture": "wrong",
    "ssmd_cover_images": "[]",
    "ot_config": "{}",
}
TARGET = BaseHint(sha256="4" * 64, autov1="44444444")


def adapter(name: str = "sd1") -> Adapter:
    return Adapter("mine", None, "kohya", by_name(name), {}, metadata=TRAINED, base=base_hint(TRAINED))


def made(name: str = "sd1", ranks: dict[LayerId, int] | None = None, **more: object) -> dict[str, str]:
    layer = next(iter(layer_shapes(name, "to_q")))
    ranks = ranks or {layer: 8}
    return output_metadata(
        adapter(name), "new base", TARGET, by_name(name), "mine-new", ranks, {"method": "auto"}, date="2030-01-02", **more
    )


def test_what_loaders_act_on_is_the_targets() -> None:
    metadata = made()
    assert (
        metadata.items()
        >= {
            "ss_base_model_version": "sd_v1",
            "ss_v2": "False",
            "ss_output_name": "mine-new",
            "ss_sd_model_name": "new base",
            "ss_sd_model_hash": "44444444",
            "ss_new_sd_model_hash": "4" * 64,
            "ss_network_module": "networks.lora",
            "ss_network_dim": "8",
            "ss_network_alpha": "8",
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.implementation": "diffusers",
            "modelspec.title": "mine-new",
            "modelspec.resolution": "512x512",
            "modelspec.date": "2030-01-02",
            "modelspec.prediction_type": "epsilon",
            "modelspec.merged_from": "mine",
        }.items()
    )
    assert "ss_network_args" not in metadata
    assert all(isinstance(value, str) for value in metadata.values())


def test_training_tags_stay_and_stale_facts_go() -> None:
    metadata = made()
    kept = ("ss_tag_frequency", "ss_dataset_dirs", "ss_bucket_info", "ss_clip_skip", "modelspec.trigger_phrase", "modelspec.thumbnail")
    assert all(metadata[key] == TRAINED[key] for key in (*kept, "ssmd_cover_images"))
    assert not {"sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256"} & metadata.keys()
    assert metadata["ss_training_comment"] == f"carried from 'mine' to new base by LoRA-X {VERSION}, without training; hello"
    without = output_metadata(adapter(), "folder", None, by_name("sd1"), "x", {}, {})
    assert not {"ss_sd_model_hash", "ss_new_sd_model_hash", "lorax.target_base_sha256"} & without.keys()


@pytest.mark.parametrize(
    ("name", "version", "v2", "architecture"),
    [
        ("sd1", "sd_v1", "False", "stable-diffusion-v1/lora"),
        ("bk-sdm-small", "sd_v1", "False", "stable-diffusion-v1/lora"),
        ("sd2", "sd_v2", "True", "stable-diffusion-v2-512/lora"),
        ("sdxl", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
        ("ssd-1b", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_families(name: str, version: str, v2: str, architecture: str) -> None:
    metadata = made(name)
    assert (metadata["ss_base_model_version"], metadata["ss_v2"], metadata["modelspec.architecture"]) == (version, v2, architecture)


def test_velocity_prediction() -> None:
    assert made("sd2", prediction_type="v_prediction")["modelspec.architecture"] == "stable-diffusion-v2-768-v/lora"
    assert made("sd2", prediction_type="v_prediction")["ss_base_model_version"] == "sd_v2_v"
    assert made("sdxl", prediction_type="v_prediction")["ss_base_model_version"] == "sdxl_base_v1-0"
    assert made("sdxl", prediction_type="v_prediction")["modelspec.prediction_type"] == "v"


def test_ranks_that_differ_are_dynamic_and_kernels_have_their_own() -> None:
    q, proj = next(iter(layer_shapes("sd1", "to_q"))), next(iter(layer_shapes("sd1", "proj_in")))
    one, two = list(layer_shapes("sd1", "conv1"))[:2]
    metadata = made(ranks={q: 8, proj: 8, one: 4, two: 4})
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("8", "8")
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "4", "conv_alpha": "4"}
    metadata = made(ranks={q: 8, proj: 7, one: 4, two: 3})
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("Dynamic", "Dynamic")
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "Dynamic", "conv_alpha": "Dynamic"}


def test_provenance(tmp_path: Path) -> None:
    shapes = layer_shapes("sd1", "mid_block.attentions.0.proj_in")
    path = tmp_path / "mine.safetensors"
    write_adapter(path, random_factors(shapes), by_name("sd1"), shapes=shapes, metadata=TRAINED)
    source = read_adapter(path)
    assert not source.retargeted
    metadata = output_metadata(source, "new", TARGET, by_name("sd1"), "out", {}, {"k": "320"}, source_name="old", summary={"energy": "0.9"})
    assert {k: v for k, v in metadata.items() if k.startswith("lorax.")} == {
        "lorax.version": VERSION,
        "lorax.action": "transfer",
        "lorax.source_adapter": "mine",
        "lorax.source_adapter_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "lorax.source_base": "old",
        "lorax.target_base": "new",
        "lorax.target_base_sha256": "4" * 64,
        "lorax.settings": '{"k": "320"}',
        "lorax.report": '{"energy": "0.9"}',
    }
    assert replace(source, metadata=metadata).retargeted
    assert not replace(source, metadata={**metadata, "lorax.action": "export"}).retargeted


def test_base_hint_looks_at_the_new_hash_first() -> None:
    assert base_hint(TRAINED) == BaseHint("old base.safetensors", "1" * 64, "11111111")
    assert base_hint({**TRAINED, "lorax.base_name": "b", "lorax.base_digest": "d"}).name == "b"
    assert base_hint({"ss_sd_model_hash": "None"}) == BaseHint()


def test_version_is_that_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{VERSION}"' in text


def test_sidecars(tmp_path: Path) -> None:
    source, output = tmp_path / "a.safetensors", tmp_path / "b.v2.safetensors"
    (tmp_path / "a.json").write_text('{"activation text": "word"}')
    (tmp_path / "a.preview.png").write_bytes(b"picture")
    (tmp_path / "a.jpg").write_bytes(b"other picture")
    (tmp_path / "a.civitai.info").write_text("{}")
    assert {p.name for p in copy_sidecars(source, output)} == {"b.v2.json", "b.v2.preview.png"}
    assert (tmp_path / "b.v2.preview.png").read_bytes() == b"picture"
    (tmp_path / "b.v2.json").write_text("mine")
    assert copy_sidecars(source, output) == ()
    assert (tmp_path / "b.v2.json").read_text() == "mine"
    assert len(copy_sidecars(source, output, overwrite=True)) == 2
    assert copy_sidecars(source, source) == ()


def test_sidecars_of_other_programs_stay(tmp_path: Path) -> None:
    for text in ("[1]", "{broken", "\x00"):
        (tmp_path / "a.json").write_text(text)
        assert copy_sidecars(tmp_path / "a.safetensors", tmp_path / "b.safetensors") == ()
