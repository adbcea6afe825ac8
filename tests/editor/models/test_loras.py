"""LoRAs of other people's scripts do what they do in diffusers, and the base's weights are only read."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from livedrag.editor import Diffusion, Drag, DragSession, DragSettings, ModelError, Point, SettingsError
from livedrag.editor.cli import main
from livedrag.editor.model_options import parse_lora
from tests.checkpoints import original_unet_name
from tests.pipelines import write_pipeline

RANK = 3
Folder = Callable[[int | str], Path]
Loaded = Callable[[int | str], Diffusion]
Pairs = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    @cache
    def make(version: int | str) -> Path:
        return write_pipeline(tmp_path_factory.mktemp("tiny") / f"little-{version}", version=version)

    return make


@pytest.fixture(scope="module")
def loaded(folder: Folder) -> Loaded:
    return cache(lambda version: Diffusion.load(str(folder(version)), device="cpu"))


UNET_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def random_pairs(network: nn.Module, endings: tuple[str, ...], seed: int) -> Pairs:
    """Down and up for every layer whose name ends so, large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, layer in network.named_modules():
        if name.endswith(endings) and isinstance(layer, (nn.Linear, nn.Conv2d)):
            out, given, *kernel = layer.weight.shape
            down = torch.randn(RANK, given, *kernel, generator=generator) * 0.1
            up = torch.randn(out, RANK, *(1 for _ in kernel), generator=generator) * 0.1
            pairs[name] = down, up
    assert pairs
    return pairs


def with_prefix(name: str) -> str:
    """As transformers named a text encoder's layers when LoRAs were trained on it."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


def kohya(model: Diffusion, folder: Path, *, alpha: float | None = 1.5) -> dict[str, Tensor]:
    """As kohya's scripts write it: 1.x and 2.x by diffusers' layers, XL by the original ones, dots as underscores."""
    found: dict[str, Tensor] = {}

    def put(name: str, down: Tensor, up: Tensor) -> None:
        found[f"{name}.lora_down.weight"], found[f"{name}.lora_up.weight"] = down, up
        if alpha is not None:
            found[f"{name}.alpha"] = torch.tensor(alpha)

    xl = model.text_encoder_2 is not None
    for name, pair in random_pairs(model.unet, (*UNET_LAYERS, "conv1", "time_emb_proj"), 1).items():
        layer = original_unet_name(f"{name}.weight", folder).removesuffix(".weight") if xl else name
        put(f"lora_unet_{layer.replace('.', '_')}", *pair)
    for name, pair in random_pairs(model.text_encoder, TEXT_LAYERS, 2).items():
        put(f"lora_te{'1' if xl else ''}_{with_prefix(name).replace('.', '_')}", *pair)
    if model.text_encoder_2 is not None:
        for name, pair in random_pairs(model.text_encoder_2, TEXT_LAYERS, 3).items():
            put(f"lora_te2_{with_prefix(name).replace('.', '_')}", *pair)
    return found


def diffusers(model: Diffusion, folder: Path) -> dict[str, Tensor]:
    """As diffusers' training scripts write it."""
    found: dict[str, Tensor] = {}
    for name, (down, up) in random_pairs(model.unet, UNET_LAYERS, 1).items():
        found |= {f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up}
    texts = {"text_encoder": model.text_encoder, "text_encoder_2": model.text_encoder_2}
    for network, encoder in texts.items():
        if encoder is not None:
            for name, (down, up) in random_pairs(encoder, TEXT_LAYERS, 2).items():
                layer = f"{network}.{with_prefix(name)}.lora_linear_layer"
                found |= {f"{layer}.down.weight": down, f"{layer}.up.weight": up}
    return found


def peft(model: Diffusion, folder: Path) -> dict[str, Tensor]:
    """As PEFT names it, which diffusers writes too."""
    renamed = {".lora.down": ".lora_A", ".lora.up": ".lora_B"}
    unet = {name: tensor for name, tensor in diffusers(model, folder).items() if name.startswith("unet.")}
    return {
        next(name.replace(old, new) for old, new in renamed.items() if old in name): tensor
        for name, tensor in unet.items()
    }


FORMATS = {"kohya": kohya, "diffusers": diffusers, "peft": peft}


@pytest.fixture(autouse=True)
def without_warnings() -> Iterator[None]:
    """diffusers' own loading of LoRAs, which is compared with, warns of what others will change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def assert_as_in_diffusers(model: Diffusion, folder: Path, file: Path, weight: float) -> None:
    """The same embedding and the same noise as diffusers' pipeline with the same file."""
    kind = StableDiffusionPipeline if model.text_encoder_2 is None else StableDiffusionXLPipeline
    options = {} if model.text_encoder_2 is None else {"add_watermarker": False}
    pipeline = kind.from_pretrained(folder, safety_checker=None, **options)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="style")
    pipeline.set_adapters(["style"], [weight])
    changed = model.with_loras([(file, weight)])
    assert changed.name == f"{folder.name} + {file.stem} {weight:g}"
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, mine = model.embed_prompt("a red cat"), changed.embed_prompt("a red cat")
    with torch.no_grad():
        if model.text_encoder_2 is None:
            words, _ = pipeline.encode_prompt("a red cat", "cpu", 1, do_classifier_free_guidance=False)
            theirs, conditions = words, {}
        else:
            words, _, pooled, _ = pipeline.encode_prompt("a red cat", device="cpu", do_classifier_free_guidance=False)
            theirs = torch.cat([words, nn.functional.pad(pooled, (0, words.shape[2] - pooled.shape[1]))[:, None]], 1)
            size = torch.tensor([[128.0, 128, 0, 0, 128, 128]]).expand(2, -1)
            conditions = {"text_embeds": pooled.expand(2, -1), "time_ids": size}
        noise = pipeline.unet(latent, 500, words.expand(2, -1, -1), added_cond_kwargs=conditions).sample
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-4)
    assert torch.allclose(changed.predict(latent, 500, mine).noise, noise, rtol=0, atol=1e-4)
    assert not torch.allclose(model.predict(latent, 500, plain).noise, noise, rtol=0, atol=1e-2), "it changes something"


@pytest.mark.parametrize("version", [1, 2, "xl"])
@pytest.mark.parametrize("layout", FORMATS)
def test_every_format_does_what_it_does_in_diffusers(
    folder: Folder, loaded: Loaded, layout: str, version: int | str, tmp_path: Path
) -> None:
    model, file = loaded(version), tmp_path / "style.safetensors"
    save_file(FORMATS[layout](model, folder(version)), file, {"format": "pt"})
    assert_as_in_diffusers(model, folder(version), file, 0.7)


def test_alpha_from_pefts_configuration(folder: Folder, loaded: Loaded, tmp_path: Path) -> None:
    file, metadata = tmp_path / "style.safetensors", {"unet.r": RANK, "unet.lora_alpha": 2 * RANK}
    metadata |= {"unet.target_modules": ["to_q"], "unet.rank_pattern": {}, "unet.alpha_pattern": {}}  # type: ignore[dict-item]
    save_file(peft(loaded(1), folder(1)), file, {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)})
    twice = loaded(1).with_loras([(file, 1.0)])
    save_file(peft(loaded(1), folder(1)), file)
    once = loaded(1).with_loras([(file, 2.0)])
    latent, text = torch.randn(1, 4, 16, 16), loaded(1).embed_prompt("")
    assert torch.allclose(twice.predict(latent, 9, text).noise, once.predict(latent, 9, text).noise, atol=1e-5)


def test_several_at_once_and_the_base_is_only_read(folder: Folder, loaded: Loaded, tmp_path: Path) -> None:
    """Models with other LoRAs take turns on the same networks."""
    model = loaded(1)
    networks = (model.unet, model.text_encoder, model.vae)

    def fingerprint() -> str:
        digest = hashlib.sha256()
        for network in networks:
            for parameter in network.parameters():
                digest.update(parameter.detach().numpy().tobytes())
        return digest.hexdigest()

    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file(kohya(model, folder(1)), first)
    save_file(peft(model, folder(1)), second)
    latent, before = torch.randn(1, 4, 16, 16), fingerprint()

    def noise(each: Diffusion) -> Tensor:
        return each.predict(latent, 500, each.embed_prompt("a red cat")).noise

    plain = noise(model)
    one, two, both = (
        model.with_loras(each) for each in ([(first, 1.0)], [(second, 0.5)], [(first, 1.0), (second, 0.5)])
    )
    assert both.name == "little-1 + first 1 + second 0.5"
    assert both.unet is model.unet
    wanted = [noise(each) for each in (one, two, both)]
    assert len({tuple(each.flatten()[:4].tolist()) for each in (plain, *wanted)}) == 4
    for _ in range(2):
        assert torch.equal(noise(model), plain)
        for each, expected in zip((one, two, both), wanted, strict=True):
            assert torch.equal(noise(each), expected)
    assert torch.equal(noise(both.with_loras([(first, 1.0)])), wanted[0]), "the new ones replace the old ones"
    assert torch.equal(noise(both.with_loras([])), plain)
    assert fingerprint() == before
    assert not any(parameter.requires_grad for network in networks for parameter in network.parameters())


QUICK = DragSettings(lora_steps=2, lora_lr=0.01, lora_batch=1, ddim_steps=3, max_iterations=2)
PICTURE = Image.effect_noise((96, 64), 60).convert("RGB")
DRAG = Drag(Point(20, 20), Point(60, 30))


def edited(session: DragSession) -> Image.Image:
    session.add_drag("0", DRAG)
    for stage in (session.prepare, session.drag, session.render):
        for _ in stage():
            pass
    result = session.result()
    session.close()
    return result


def test_the_pictures_own_lora_beside_them(folder: Folder, loaded: Loaded, tmp_path: Path) -> None:
    """Fitted next to them, and merged with them into copies of the weights: both ways give the same."""
    model, file = loaded(1), tmp_path / "style.safetensors"
    save_file(kohya(model, folder(1)), file)
    styled = model.with_loras([(file, 1.0)])
    latent, text = torch.randn(1, 4, 16, 16), styled.embed_prompt("a cat")
    plain = model.predict(latent, 500, text).noise
    sessions = [DragSession(each, PICTURE, prompt="a cat", settings=QUICK, seed=4) for each in (styled, model)]
    for steps in zip(*(session.prepare() for session in sessions), strict=True):
        assert len(steps) == 2  # in turns, on the same network
    lora = sessions[0]._state.preparation.lora
    with lora.active():
        merged = styled.predict(latent, 500, text).noise
    with lora.unmerged():
        beside = styled.predict(latent, 500, text).noise
    assert torch.allclose(merged, beside, rtol=0, atol=1e-4)
    assert not torch.allclose(merged, styled.predict(latent, 500, text).noise, rtol=0, atol=1e-4)
    for session in sessions:
        session.close()
    assert torch.equal(model.predict(latent, 500, text).noise, plain)
    results = [edited(DragSession(each, PICTURE, settings=QUICK, seed=4)) for each in (styled, model, styled)]
    assert results[0].tobytes() == results[2].tobytes() != results[1].tobytes()


def test_a_snapshot_belongs_to_a_model_with_its_loras(folder: Folder, loaded: Loaded, tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    save_file(peft(loaded(1), folder(1)), file)
    styled = loaded(1).with_loras([(file, 0.5)])
    session = DragSession(styled, PICTURE, settings=QUICK)
    snapshot = session.snapshot()
    session.close()
    DragSession.restore(loaded(1).with_loras([(file, 0.5)]), PICTURE, snapshot).close()
    for other in (loaded(1), loaded(1).with_loras([(file, 0.6)])):
        with pytest.raises(Exception, match=r"of the model 'little-1 \+ style 0.5', not of"):
            DragSession.restore(other, PICTURE, snapshot)


def test_loras_that_do_not_fit(folder: Folder, loaded: Loaded, tmp_path: Path) -> None:
    model = loaded(1)
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora"
    whole = diffusers(model, folder(1))
    small = {"down.weight": torch.zeros(2, 32), "up.weight": torch.zeros(32, 2)}
    cases: dict[str, tuple[dict[str, Tensor], str]] = {
        "wide": (
            {f"{layer}.down.weight": torch.zeros(2, 640), f"{layer}.up.weight": torch.zeros(640, 2)},
            "is a LoRA for another model: its layer .* maps 640 to 640, that of this model 32 to 32",
        ),
        "deep": (
            {f"unet.down_blocks.7.to_q.lora.{side}": tensor for side, tensor in small.items()},
            "is a LoRA for another model: this model has no layer 'down_blocks.7.to_q'",
        ),
        "xl": (kohya(loaded("xl"), folder("xl")), "is a LoRA for another model"),
        "half": (
            {name: tensor for name, tensor in whole.items() if not name.endswith("up.weight")},
            "has only one half of the layer",
        ),
        "loha": ({"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, r"is a LyCORIS or DoRA file \(hada_w1_a\)"),
        **{
            kind: ({f"lora_unet_x.{tensor}": torch.zeros(2, 2)}, rf"is a LyCORIS or DoRA file \({tensor}\)")
            for kind, tensor in (("lokr", "lokr_w1"), ("oft", "oft_blocks"), ("dora", "dora_scale"))
        },
        "flux": (
            {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.zeros(2, 2)},
            "it is for FLUX, which is not supported: use Stable Diffusion 1.x",
        ),
        "odd": ({**whole, "unet.something": torch.zeros(2)}, "has a tensor that is not of a plain LoRA, 'something'"),
        "other": (
            {**whole, "prior.x.lora_A.weight": torch.zeros(2)},
            "has tensors of an unknown network, such as 'prior",
        ),
    }
    for name, (tensors, problem) in cases.items():
        file = tmp_path / f"{name}.safetensors"
        save_file(tensors, file)
        with pytest.raises(ModelError, match=rf"{name}.safetensors .*{problem}"):
            model.with_loras([(file, 1.0)])
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "odd.safetensors").read_bytes()[:-5])
    with pytest.raises(ModelError, match=r"cut.safetensors is damaged or incomplete"):
        model.with_loras([(cut, 1.0)])
    with pytest.raises(ModelError, match=r"there is no LoRA '.*nowhere': name a .safetensors file"):
        model.with_loras([(tmp_path / "nowhere", 1.0)])
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_lora_weights.bin").touch()
    with pytest.raises(ModelError, match=r"pytorch_lora_weights.bin is not opened, it may be an unsafe pickle"):
        model.with_loras([(tmp_path / "old", 1.0)])


def test_weights_on_the_command_line() -> None:
    assert parse_lora("style.safetensors") == ("style.safetensors", 1.0)
    assert parse_lora("a/style.safetensors:0.8") == ("a/style.safetensors", 0.8)
    assert parse_lora("style:-1") == ("style", -1.0)
    assert parse_lora("C:\\style") == ("C:\\style", 1.0)
    for text in ("style:11", "style:nan", "style:inf"):
        with pytest.raises(SettingsError, match="it must be -10 to 10"):
            parse_lora(text)


def test_on_the_command_line(
    folder: Folder, loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several LoRAs by name and path; the picture's own is written, and used the next time instead of fitting one."""
    (tmp_path / "loras").mkdir()
    save_file(kohya(loaded(1), folder(1)), tmp_path / "loras" / "ink.safetensors")
    save_file(peft(loaded(1), folder(1)), tmp_path / "loras" / "oil.safetensors")
    PICTURE.save(tmp_path / "in.png")
    common: list[Any] = [
        "edit", tmp_path / "in.png", "--drag", "20,20:60,30", "--model", folder(1), "--device", "cpu", "--json",
        "--set", "ddim_steps=3", "--set", "max_iterations=1", "--models", tmp_path, "--no-metadata",
        "--lora", "ink:0.8", "--lora", tmp_path / "loras" / "oil.safetensors",
    ]  # fmt: skip
    own, fitted = (
        tmp_path / "own.safetensors",
        ["--set", "lora_steps=1", "--set", "lora_batch=1", "--set", "lora_rank=4"],
    )
    assert main([*map(str, common), *fitted, "-o", f"{tmp_path}/a.png", "--save-lora", str(own)]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "little-1 + ink 0.8 + oil 1"
    assert main([*map(str, common), "-o", f"{tmp_path}/b.png", "--picture-lora", str(own)]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    capsys.readouterr()
    assert (
        main([*map(str, common), "-o", f"{tmp_path}/c.png", "--picture-lora", f"{tmp_path}/loras/ink.safetensors"]) == 2
    )
    assert "is not a picture's LoRA, which changes the UNet's attention alone; it changes" in capsys.readouterr().err
    assert main([*map(str, common), "-o", f"{tmp_path}/c.png", "--save-lora", f"{tmp_path}/own.bin"]) == 2
    assert "own.bin' must end in .safetensors" in capsys.readouterr().err
    assert main([*map(str, common), "-o", f"{tmp_path}/c.png", "--lora", "ikn"]) == 2
    assert "there is no 'ikn' in " in capsys.readouterr().err
