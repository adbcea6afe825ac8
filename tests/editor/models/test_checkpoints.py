"""Single-file checkpoints in the original layout open as the diffusers folder with the same weights does, offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from livedrag.editor import Diffusion, ModelError
from livedrag.editor.models.checkpoints import CONFIGURATIONS
from livedrag.editor.models.references import BUILTIN, find_model
from livedrag.editor.settings import OFFICIAL
from tests.checkpoints import original_vae, write_checkpoint
from tests.pipelines import write_pipeline

Folder = Callable[[int | str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    @cache
    def make(version: int | str) -> Path:
        return write_pipeline(tmp_path_factory.mktemp("tiny") / f"little-{version}", version=version)

    return make


def assert_same(mine: Diffusion, theirs: Diffusion, tolerance: float = 0.0) -> None:
    """Every network gives the same, bit for bit."""
    latent, pixels = torch.randn(2, 4, 16, 16), torch.rand(1, 3, 64, 64) * 2 - 1
    text = theirs.embed_prompt("a red cat")
    assert text.abs().max() > 0
    for a, b in (
        (mine.embed_prompt("a red cat"), text),
        (mine.encode(pixels), theirs.encode(pixels)),
        (mine.decode(latent[:1]), theirs.decode(latent[:1])),
        (mine.predict(latent, 500, text).noise, theirs.predict(latent, 500, text).noise),
    ):
        assert torch.allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("version", [1, 2, "xl"])
def test_a_checkpoint_gives_what_its_diffusers_folder_gives(folder: Folder, version: int | str, tmp_path: Path) -> None:
    path = write_checkpoint(folder(version), tmp_path / "dream_v7.safetensors")
    opened = Diffusion.load(str(path), device="cpu", config=folder(version))
    assert opened.name == "dream_v7"
    assert opened.kind == ("stable-diffusion-xl" if version == "xl" else "stable-diffusion")
    assert (opened.native_side, opened.defaults) == (128, dict(OFFICIAL))
    assert_same(opened, Diffusion.load(str(folder(version)), device="cpu"))


@pytest.mark.parametrize("version", [1, "xl"])
def test_half_precision_and_no_autoencoder_inside(folder: Folder, version: int | str, tmp_path: Path) -> None:
    path = write_checkpoint(folder(version), tmp_path / "pruned-fp16.safetensors", dtype=torch.float16, vae=False)
    with pytest.raises(
        ModelError, match=r"pruned-fp16.safetensors has no autoencoder \(VAE\) inside: name one with --vae"
    ):
        find_model(str(path), config=folder(version))
    vae = tmp_path / "vae.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in original_vae(folder(version)).items()}, vae)
    opened = Diffusion.load(str(path), device="cpu", config=folder(version), vae=vae)
    assert opened.dtype == torch.float32
    assert_same(opened, Diffusion.load(str(folder(version)), device="cpu"), 5e-3)


PARAMETERS = {
    "1.x": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "2.x": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "xl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
}
"""As published with the models."""
CLASSES: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


@pytest.mark.parametrize("architecture", PARAMETERS)
def test_the_configurations_that_ship_are_of_the_published_networks(architecture: str) -> None:
    counted = {}
    with torch.device("meta"):
        for part in PARAMETERS[architecture]:
            place = CONFIGURATIONS / architecture / part
            network = (
                CLASSES[part](CLIPTextConfig.from_pretrained(place))
                if part.startswith("text")
                else CLASSES[part].from_config(CLASSES[part].load_config(place))
            )
            counted[part] = sum(parameter.numel() for parameter in network.parameters())
    assert counted == PARAMETERS[architecture]


def clip_vocabulary(folder: Path, tokens: dict[str, int]) -> Path:
    """A tokenizer in CLIP's own files: the letters and their merges, and these tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [("c", "a"), ("ca", "t</w>")]
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in pairs)]
    vocabulary = {**{word: 1 + index for index, word in enumerate(words)}, **tokens}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))
    return folder


CLIP = {"!": 0, "<|startoftext|>": 49406, "<|endoftext|>": 49407}


def test_without_a_tokenizer_it_is_refused_with_advice(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache_folder = write_checkpoint(folder("xl"), tmp_path / "dream.safetensors"), tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache_folder))
    with pytest.raises(ModelError, match=r"dream.safetensors can't be opened: CLIP's tokenizer .* --model-config DIR"):
        find_model(str(path))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError, match=r"nothing has no CLIP tokenizer; .* --model-config DIR"):
        find_model(str(path), config=tmp_path / "nothing")
    other = clip_vocabulary(cache_folder / "models--a--other" / "snapshots" / "1" / "tokenizer", {"!": 5})
    with pytest.raises(ModelError, match="can't ship with livedrag"):
        find_model(str(path))
    shutil.rmtree(other)
    cached = clip_vocabulary(cache_folder / "models--openai--clip" / "snapshots" / "2", CLIP)
    source = find_model(str(path))
    assert (source.parts["tokenizer"], source.parts["tokenizer_2"]) == (cached, cached)
    assert source.pad_tokens == {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}


@pytest.mark.parametrize(("version", "pad"), [(1, "<|endoftext|>"), (2, "!")])
def test_the_padding_that_the_model_was_trained_with(folder: Folder, version: int, pad: str, tmp_path: Path) -> None:
    path = write_checkpoint(folder(version), tmp_path / "dream.safetensors")
    config = clip_vocabulary(tmp_path / "clip", CLIP)
    assert find_model(str(path), config=config).pad_tokens == {"tokenizer": pad}
    assert find_model(str(path), config=folder(version)).pad_tokens == {}


def test_what_the_network_predicts(folder: Folder, tmp_path: Path) -> None:
    """The folder's schedule says, else the file's metadata or its marker, else what its kind usually predicts."""
    tokenizer = {"config": folder(2) / "tokenizer"}
    path = tmp_path / "dream.safetensors"

    def predicts(version: int | str, **written: Any) -> str:
        write_checkpoint(folder(version), path, **written)
        source = find_model(str(path), **tokenizer)
        schedule = json.loads((source.parts["scheduler"] / "scheduler_config.json").read_text())
        return source.prediction_type or schedule["prediction_type"]

    assert (predicts(1), predicts(2), predicts("xl")) == ("epsilon", "v_prediction", "epsilon")
    assert predicts(2, metadata={"modelspec.prediction_type": "epsilon"}) == "epsilon"
    assert predicts(1, metadata={"modelspec.predict_key": "v"}) == "v_prediction"
    assert predicts("xl", changes={"v_pred": torch.zeros(())}) == "v_prediction"
    write_checkpoint(folder(2), path)
    whole = Diffusion.load(str(path), device="cpu", config=folder(2))
    assert whole.schedule.prediction_type == "epsilon", "the folder's own schedule"


FIRST = "model.diffusion_model.input_blocks.0.0.weight"
NOT_USABLE: dict[str, tuple[int | str, dict[str, torch.Tensor | None], str]] = {
    "inpainting": (1, {FIRST: torch.zeros(16, 9, 3, 3)}, "it is an inpainting model"),
    "instructions": (1, {FIRST: torch.zeros(16, 8, 3, 3)}, "it is an instruction model"),
    "depth": (2, {FIRST: torch.zeros(16, 5, 3, 3)}, "it is a depth model"),
    "playground": ("xl", {"edm_mean": torch.zeros(4)}, "it is Playground 2.5"),
}


@pytest.mark.parametrize("what", NOT_USABLE)
def test_models_that_can_not_drag(folder: Folder, what: str, tmp_path: Path) -> None:
    version, changes, problem = NOT_USABLE[what]
    path = write_checkpoint(folder(version), tmp_path / "other.safetensors", changes=changes)
    with pytest.raises(ModelError, match=rf"other.safetensors can't be used: {problem}.*: use Stable Diffusion 1.x"):
        find_model(str(path), config=folder(version))


FOREIGN: dict[str, dict[str, tuple[int, ...]]] = {
    "FLUX": {"model.diffusion_model.double_blocks.0.img_attn.qkv.weight": (12, 4)},
    "Stable Diffusion 3": {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (12, 4)},
    "Stable Cascade": {"clip_txt_mapper.weight": (4, 4)},
    "refiner": {"conditioner.embedders.0.model.token_embedding.weight": (9, 4), FIRST: (16, 4, 3, 3)},
    "ControlNet": {"control_model.time_embed.0.weight": (4, 4)},
    "no known kind": {"layers.0.weight": (4, 4)},
    "UNet alone": {"down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)},
    "no text encoder": {FIRST: (16, 4, 3, 3)},
    "embedding": {"emb_params": (2, 768)},
}


@pytest.mark.parametrize("what", FOREIGN)
def test_other_files_are_named(what: str, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in FOREIGN[what].items()}, path)
    with pytest.raises(ModelError, match=rf"some.safetensors can't be used: .*{what}"):
        find_model(str(path))


def test_a_lora_or_a_vae_in_its_place(folder: Folder, tmp_path: Path) -> None:
    vae, lora = tmp_path / "vae.safetensors", tmp_path / "style.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in original_vae(folder(1)).items()}, vae)
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 4)}, lora)
    with pytest.raises(ModelError, match=r"vae.safetensors is a vae, not a checkpoint; use it with --vae"):
        find_model(str(vae))
    with pytest.raises(ModelError, match=r"style.safetensors is a lora, not a checkpoint; use it with --lora"):
        find_model(str(lora))


def test_damaged_files(folder: Folder, tmp_path: Path) -> None:
    whole = write_checkpoint(folder(1), tmp_path / "dream.safetensors").read_bytes()
    path = tmp_path / "damaged.safetensors"
    for data, problem in (
        (whole[:-100], "is damaged or incomplete: download the model again"),
        (whole[:1000], "is damaged or incomplete: download the model again"),
        (b"PK\x03\x04" + whole[4:], "is not a safetensors|is damaged or incomplete"),
        (b"", "is empty"),
        (b"PK\x03\x04" + whole, "is a pickle, whatever its name says: .* weights_only=True"),
        (b"\x80\x02}q\x00" + whole, "is a pickle, whatever its name says"),
        (b"<!doctype html>" + bytes(100), "is not a safetensors file"),
        (b"\xff\xd8\xff\xe0" + bytes(4), "is not a safetensors file"),
        (bytes(12), "is not a safetensors file"),
        ((20).to_bytes(8, "little") + b'{"a": {"shape": [1]}}', "is not a safetensors file"),
        ((9000).to_bytes(8, "little") + b'{"a":' * 1800, "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=f"damaged.safetensors {problem}"):
            find_model(str(path), config=folder(1))
    pickle = tmp_path / "dream.ckpt"
    pickle.write_bytes(whole)
    with pytest.raises(
        ModelError, match=r"dream.ckpt is not opened, it may be an unsafe pickle: convert to safetensors with"
    ):
        find_model(str(pickle), config=folder(1))


def test_tensors_that_are_missing_or_do_not_fit(folder: Folder, tmp_path: Path) -> None:
    name = "model.diffusion_model.middle_block.0.out_layers.3.weight"
    text = "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    path = write_checkpoint(folder(1), tmp_path / "dream.safetensors", changes={text: None})
    with pytest.raises(ModelError, match=r"lacks 1 tensor of the text_encoder \('encoder.layers.0.mlp.fc1.weight'\)"):
        Diffusion.load(str(path), device="cpu", config=folder(1))
    write_checkpoint(folder(1), path, changes={name: None})
    with pytest.raises(
        ModelError, match=r"dream.safetensors lacks tensors of the unet: it is of another model, or damaged"
    ):
        Diffusion.load(str(path), device="cpu", config=folder(1))
    write_checkpoint(folder(1), path)
    with pytest.raises(ModelError, match=r"dream.safetensors can't be opened"):
        Diffusion.load(str(path), device="cpu", config=folder(2))


def test_another_autoencoder(folder: Folder, tmp_path: Path) -> None:
    """As a folder, as a file in the original layout, and as diffusers' own file."""
    other = write_pipeline(tmp_path / "other", seed=5)
    pixels = torch.rand(1, 3, 64, 64)
    wanted = Diffusion.load(str(other), device="cpu").encode(pixels)
    original = tmp_path / "vae-ft.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in original_vae(other).items()}, original)
    for vae in (other, other / "vae", original, other / "vae" / "diffusion_pytorch_model.safetensors"):
        model = Diffusion.load(str(folder(1)), device="cpu", vae=vae)
        assert torch.equal(model.encode(pixels), wanted), vae
    checkpoint = write_checkpoint(folder(1), tmp_path / "dream.safetensors")
    model = Diffusion.load(str(checkpoint), device="cpu", config=folder(1), vae=original)
    assert torch.equal(model.encode(pixels), wanted)


def test_a_checkpoint_keeps_its_own_autoencoder(folder: Folder, tmp_path: Path) -> None:
    """Also if the folder of ``--model-config`` is complete, with weights of its own."""
    checkpoint = write_checkpoint(folder(1), tmp_path / "dream.safetensors")
    other, pixels = write_pipeline(tmp_path / "other", seed=5), torch.rand(1, 3, 64, 64)
    model = Diffusion.load(str(checkpoint), device="cpu", config=other)
    assert torch.equal(model.encode(pixels), Diffusion.load(str(folder(1)), device="cpu").encode(pixels))
    model = Diffusion.load(str(checkpoint), device="cpu", config=folder(1), vae=other)
    assert torch.equal(model.encode(pixels), Diffusion.load(str(other), device="cpu").encode(pixels))


def test_an_autoencoder_of_pickles_is_refused(folder: Folder, tmp_path: Path) -> None:
    pickled = tmp_path / "vae"
    shutil.copytree(folder(1) / "vae", pickled)
    (pickled / "diffusion_pytorch_model.safetensors").rename(pickled / "diffusion_pytorch_model.bin")
    checkpoint = write_checkpoint(folder(1), tmp_path / "dream.safetensors")
    for model in (checkpoint, folder(1)):
        with pytest.raises(ModelError, match=r"diffusion_pytorch_model.bin is a pickle, which is never opened"):
            find_model(str(model), config=folder(1), vae=pickled)


def test_sizes_that_do_not_fit_name_the_part(folder: Folder, tmp_path: Path) -> None:
    """Whatever other autoencoder there is."""
    model, vae = tmp_path / "mixed", folder(1) / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copytree(folder(1), model)
    wider = CLIPTextConfig.from_pretrained(model / "text_encoder", hidden_size=64)
    CLIPTextModel(wider).save_pretrained(model / "text_encoder")
    with pytest.raises(ModelError, match=r"mixed/text_encoder has embeddings of 64 numbers"):
        Diffusion.load(str(model), device="cpu", vae=vae)


def test_autoencoders_that_do_not_fit(folder: Folder, tmp_path: Path) -> None:
    tensors = original_vae(folder(1))
    path = tmp_path / "ae.safetensors"
    save_file({**tensors, "decoder.conv_in.weight": torch.zeros(8, 16, 3, 3)}, path)
    with pytest.raises(ModelError, match=r"ae.safetensors can't be used: its latents have 16 channels, not 4"):
        find_model(str(folder(1)), vae=path)
    with pytest.raises(ModelError, match=r"'.*nowhere' does not exist: name a folder or a .safetensors file"):
        find_model(str(folder(1)), vae=tmp_path / "nowhere")
    with pytest.raises(ModelError, match="'built-in' has an autoencoder of its own kind"):
        find_model("builtin", vae=path)
    other = tmp_path / "vae"
    shutil.copytree(folder(1) / "vae", other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "latent_channels": 16}))
    with pytest.raises(ModelError, match=r"vae' has latents of 16 channels, but the unet of 'little-1' takes 4"):
        find_model(str(folder(1)), vae=other)
    with pytest.raises(ModelError, match=r"is a UNet2DConditionModel: it must be an AutoencoderKL"):
        find_model(str(folder(1)), vae=folder(1) / "unet")
    with pytest.raises(ModelError, match=r"--model-config '.*nowhere' is not a folder"):
        find_model(str(folder(1)), config=tmp_path / "nowhere")


# Folders as the hub and other versions of diffusers have them ---------------------------------------------------------


def shard(path: Path) -> None:
    """Split a file of weights into two shards with an index, as diffusers and transformers do."""
    tensors = load_file(path)
    names = sorted(tensors)
    files: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"{path.stem}-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path.with_name(file), {"format": "pt"})
        files |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": files}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))
    path.unlink()


@pytest.mark.parametrize("version", [1, "xl"])
def test_variants_and_shards_of_every_part(folder: Folder, version: int | str, tmp_path: Path) -> None:
    plain = Diffusion.load(str(folder(version)), device="cpu")
    for change in (shard, lambda path: path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))):
        copy = tmp_path / "copy"
        shutil.copytree(folder(version), copy)
        for path in sorted(copy.glob("*/*.safetensors")):
            change(path)
        assert_same(Diffusion.load(str(copy), device="cpu"), plain)
        shutil.rmtree(copy)


def changed(path: Path, remove: tuple[str, ...] = (), **changes: object) -> None:
    content = {name: value for name, value in json.loads(path.read_text()).items() if name not in remove}
    path.write_text(json.dumps({**content, **changes}))


OLD_UNET = {
    "act_fn": "silu", "center_input_sample": False, "class_embed_type": None, "class_embeddings_concat": False,
    "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_norm": None, "dual_cross_attention": False,
    "encoder_hid_dim": None, "flip_sin_to_cos": True, "freq_shift": 0, "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1, "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None,
    "only_cross_attention": False, "projection_class_embeddings_input_dim": None,
    "resnet_skip_time_act": False, "resnet_time_scale_shift": "default", "time_cond_proj_dim": None,
    "time_embedding_act_fn": None, "time_embedding_type": "positional", "timestep_post_act": None,
    "upcast_attention": False, "use_linear_projection": False,
}  # fmt: skip
"""What diffusers 0.17 writes besides the sizes; everything that came later is not there."""


def test_a_folder_saved_by_diffusers_0_17(folder: Folder, tmp_path: Path) -> None:
    """Also with a scheduler of another kind, and a safety checker that is named but not there."""
    old = tmp_path / "old"
    shutil.copytree(folder(1), old)
    unet = json.loads((old / "unet" / "config.json").read_text())
    sizes = ("_class_name", "attention_head_dim", "block_out_channels", "cross_attention_dim", "down_block_types",
             "in_channels", "layers_per_block", "norm_eps", "norm_num_groups", "out_channels", "sample_size",
             "up_block_types", "downsample_padding")  # fmt: skip
    own = {name: unet[name] for name in sizes}
    (old / "unet" / "config.json").write_text(json.dumps({"_diffusers_version": "0.17.1", **OLD_UNET, **own}))
    late = ("force_upcast", "latents_mean", "latents_std", "shift_factor", "use_quant_conv", "use_post_quant_conv",
            "mid_block_add_attention")  # fmt: skip
    changed(old / "vae" / "config.json", late, _diffusers_version="0.17.1")
    (old / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(
            {
                "_class_name": "PNDMScheduler", "_diffusers_version": "0.17.1", "beta_end": 0.012,
                "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False,
                "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1,
                "trained_betas": None,
            }
        )
    )  # fmt: skip
    changed(
        old / "model_index.json",
        scheduler=["diffusers", "PNDMScheduler"],
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPFeatureExtractor"],
        requires_safety_checker=True,
        _diffusers_version="0.17.1",
    )
    opened = Diffusion.load(str(old), device="cpu")
    assert opened.schedule.prediction_type == "epsilon"
    assert_same(opened, Diffusion.load(str(folder(1)), device="cpu"))


def test_a_folder_saved_by_diffusers_0_42(folder: Folder, tmp_path: Path) -> None:
    """The one installed wrote the folders here; the pipeline's index says more than in 0.17."""
    new = tmp_path / "new"
    shutil.copytree(folder("xl"), new)
    changed(
        new / "model_index.json",
        _diffusers_version="0.42.0",
        _name_or_path="someone/xl",
        add_watermarker=None,
        feature_extractor=[None, None],
        image_encoder=[None, None],
        force_zeros_for_empty_prompt=False,
    )
    changed(new / "unet" / "config.json", _diffusers_version="0.42.0", _name_or_path="someone/xl")
    opened = Diffusion.load(str(new), device="cpu")
    plain = Diffusion.load(str(folder("xl")), device="cpu")
    assert_same(opened, plain)
    assert plain.embed_nothing().abs().max() == 0
    assert torch.equal(opened.embed_nothing(), plain.embed_prompt(""))


@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        ("StableDiffusionXLInpaintPipeline", "an inpainting model"),
        ("StableDiffusionXLImg2ImgPipeline", "Stable Diffusion XL's refiner"),
        ("FluxPipeline", "FLUX"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
    ],
)
def test_folders_of_other_pipelines_are_named(folder: Folder, tmp_path: Path, pipeline: str, named: str) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder(1), other)
    changed(other / "model_index.json", _class_name=pipeline)
    with pytest.raises(ModelError, match=rf"is of a {pipeline} \(.*{named}.*\), which is not supported; supported are"):
        find_model(str(other))


def test_no_configuration_is_read_from_the_built_in_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is of a AutoencoderDC: for a checkpoint it must be of AutoencoderKL"):
        find_model(
            str(write_checkpoint(write_pipeline(tmp_path / "m"), tmp_path / "dream.safetensors")), config=BUILTIN
        )


def test_the_autoencoder_of_xl_is_float32_in_half_precision(folder: Folder, tmp_path: Path) -> None:
    """Unless it is one that was fixed for half precision; that of 1.x is always half."""
    fixed = tmp_path / "fixed"
    shutil.copytree(folder("xl") / "vae", fixed)
    changed(fixed / "config.json", force_upcast=False)
    for version, vae, wanted in ((1, None, torch.float16), ("xl", None, torch.float32), ("xl", fixed, torch.float16)):
        model = Diffusion.load(str(folder(version)), device="cpu", dtype=torch.float16, vae=vae)
        assert (model.unet.dtype, model.vae.dtype) == (torch.float16, wanted)
        latent = model.encode(torch.rand(1, 3, 64, 64) * 2 - 1)
        assert latent.dtype == torch.float32
        assert torch.isfinite(model.decode(latent)).all()


def test_a_file_that_vanishes_while_it_is_in_use(folder: Folder, tmp_path: Path) -> None:
    """Loaded models keep working; loading the file again is refused."""
    path = write_checkpoint(folder(1), tmp_path / "dream.safetensors")
    opened, again = (Diffusion.load(str(path), device="cpu", config=folder(1)) for _ in range(2))
    path.unlink()
    assert_same(opened, again)
    with pytest.raises(ModelError, match=r"unknown model '.*dream.safetensors': there is no such file or folder"):
        Diffusion.load(str(path), device="cpu", config=folder(1))
