"""``livedrag serve | rooms | status | models | edit | generate | dragbench | --version``.

Each imports what it needs when it is run.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from livedrag.server.errors import LivedragError

if TYPE_CHECKING:
    from livedrag.server.device.engine import Engine
    from livedrag.server.settings import Settings
    from livedrag.server.web.serve import Server

log = logging.getLogger("livedrag.server")

FAILED = 2
"""Exit code of a command that cannot run; one line on stderr says why."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
EDITOR_COMMANDS = {
    "edit": "livedrag.editor.cli",
    "generate": "livedrag.editor.cli",
    "models": "livedrag.editor.models_command",
    "dragbench": "livedrag.editor.dragbench.command",
}
"""The modules of the commands that need no server; their ``main`` parses all arguments."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    try:
        return run(list(sys.argv[1:] if argv is None else argv))
    except LivedragError as error:
        sys.stderr.write(f"livedrag: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("livedrag: interrupted\n")
        return INTERRUPTED


def run(arguments: Sequence[str]) -> int:
    """Run a subcommand; returns the exit code. Raises `LivedragError`."""
    parser = _parser()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: see `worker_process.run_worker`
    command = arguments[0] if arguments else ""
    if command in EDITOR_COMMANDS:
        code: int = importlib.import_module(EDITOR_COMMANDS[command]).main(arguments)
        return code
    if command == "rooms":
        return rooms(arguments)
    if command == "status":
        return status(arguments)
    chosen = parser.parse_args(arguments)
    if chosen.version:
        from livedrag.software import version

        sys.stdout.write(f"livedrag {version()}\n")
        return 0
    if chosen.command != "serve":
        parser.print_help()
        return FAILED
    return serve(chosen)


def serve(chosen: argparse.Namespace) -> int:
    """``livedrag serve``."""
    import asyncio

    from livedrag.server.logs import configure
    from livedrag.server.settings import resolve, unknown_variables
    from livedrag.server.web.serve import serve as serve_app

    settings = resolve(os.environ, vars(chosen))
    configure(settings.log_level, settings.log_format)
    for warning in unknown_variables(os.environ):
        log.warning(warning)
    try:
        asyncio.run(serve_app(settings, _engine(settings), started=_announce))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _engine(settings: Settings) -> Engine:
    """The engine that the settings name."""
    from pathlib import Path

    from livedrag.server.device.local import LocalEngine
    from livedrag.server.device.worker_process import WorkerOptions
    from livedrag.server.settings import SettingsError

    if settings.checkpoints_url.startswith("memory:"):
        text = f"checkpoints at {settings.checkpoints_url!r} would be in the memory of each process: use a folder"
        raise SettingsError(text)
    options = WorkerOptions(
        model=settings.model,
        model_config=settings.model_config,
        vae=settings.vae,
        lora=settings.lora,
        models=settings.models,
        device=settings.device,
        threads=settings.threads,
        sessions=settings.sessions,
        memory=settings.memory,
        caps=settings.caps,
        checkpoints_dir=settings.checkpoints,
        checkpoint_every=settings.checkpoint_every,
        hang=settings.hang,
        tiny=settings.tiny,
        preview_quality=settings.preview_quality,
        metadata=settings.metadata,
        share_passes=settings.share_passes,
        cuda_graphs=settings.cuda_graphs,
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
    if settings.engine == "local":
        return LocalEngine(options)
    from livedrag.server.device.ray.engine import RayEngine
    from livedrag.server.device.ray.hub import Tls

    return RayEngine(
        options,
        address=settings.ray_address,
        cpus=settings.ray_cpus,
        host=settings.ray_host,
        port=settings.ray_port,
        tls=Tls(Path(settings.ray_certificate), Path(settings.ray_key)) if settings.ray_key else None,
    )


def rooms(arguments: Sequence[str]) -> int:
    """``livedrag rooms``."""
    from livedrag.server.rooms_command import add_parsers, manage
    from livedrag.server.settings import resolve

    parser = argparse.ArgumentParser(prog="livedrag", allow_abbrev=False)
    add_parsers(parser.add_subparsers(dest="command"))
    chosen = parser.parse_args(arguments)
    manage(chosen, resolve(os.environ, {"data_dir": chosen.data_dir, "checkpoints_url": chosen.checkpoints_url}))
    return 0


def status(arguments: Sequence[str]) -> int:
    """``livedrag status``."""
    from livedrag.server.status_command import add_parser, show

    parser = argparse.ArgumentParser(prog="livedrag", allow_abbrev=False)
    add_parser(parser.add_subparsers(dest="command"))
    show(parser.parse_args(arguments))
    return 0


def _announce(address: str, server: Server) -> None:
    sys.stdout.write(f"livedrag is at {address}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="livedrag",
        description="Edit pictures by dragging their content, together, in the browser.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serving = commands.add_parser(
        "serve",
        help="serve rooms to browsers",
        description="Serve rooms to browsers. Every option can also be given as LIVEDRAG_<NAME> in the environment.",
        allow_abbrev=False,
    )
    _add_serving(serving)
    commands.add_parser("rooms", help="list, export, import, delete, check, back up or restore rooms", add_help=False)
    commands.add_parser("status", help="show rooms, people, workers and disk of a running server", add_help=False)
    commands.add_parser("edit", help="edit a picture without a server", add_help=False)
    commands.add_parser("generate", help="generate a picture from a prompt without a server", add_help=False)
    commands.add_parser("models", help="list the models in a folder", add_help=False)
    commands.add_parser("dragbench", help="run the benchmarks DragBench and Drag100", add_help=False)
    return parser


def _add_serving(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--host", help="address to listen on (default: 127.0.0.1)")
    option("--port", type=int, help="port to listen on; 0 picks a free one (default: 8000)")
    option(
        "--model",
        help="'builtin', or Stable Diffusion 1.x, 2.x or XL: a .safetensors checkpoint, a diffusers folder, "
        "owner/name@<commit>, or a name in --models (default: builtin)",
    )
    option(
        "--model-config",
        dest="model_config",
        help="for a checkpoint: folder with CLIP's tokenizer, such as a diffusers folder (default: the hub's cache)",
    )
    option("--vae", help="autoencoder that replaces the model's own, a folder, a file or a name (default: none)")
    option("--lora", action="append", metavar="PATH[:WEIGHT]", help="LoRA on the model; repeatable (default: none)")
    option("--models", help="folder of ComfyUI or A1111 with your models (default: none)")
    option(
        "--device", help="torch device such as cuda:0 or cpu, several separated by commas, or all (default: the best)"
    )
    option("--engine", help="local: workers on this machine; ray: on those of a Ray cluster (default: local)")
    option(
        "--ray-address",
        dest="ray_address",
        help="HOST:PORT of the Ray cluster, or auto for the one of this machine (default: start one here)",
    )
    option("--ray-cpus", dest="ray_cpus", type=int, help="CPUs of each worker, without GPUs (default: all of a node's)")
    option("--ray-host", dest="ray_host", help="address where workers connect (default: this machine's in the cluster)")
    option("--ray-port", dest="ray_port", type=int, help="port where workers connect (default: any free one)")
    option("--threads", type=int, help="threads of the device worker (default: one for each core)")
    option("--tiny", help="tiny autoencoder for previews, a folder or owner/name@<commit> (default: none)")
    option(
        "--data-dir", dest="data_dir", type=_path, help="where rooms are stored (default: the user's data directory)"
    )
    option(
        "--checkpoints-url",
        dest="checkpoints_url",
        help="where checkpoints are stored: a folder, file:///folder, or s3:// and gs:// (untested) (default: in the "
        "data directory)",
    )
    option("--static-dir", dest="static_dir", type=_path, help="folder of the built page and the samples")
    option(
        "--base-path",
        dest="base_path",
        help="path below which a proxy forwards requests, such as /drag (default: none)",
    )
    option(
        "--room-days", dest="room_days", type=float, help="delete rooms unused for this many days (default: 0, never)"
    )
    option("--log-level", dest="log_level", help="debug, info, warning or error (default: info)")
    option("--log-format", dest="log_format", help="text, or json for one object per line (default: text)")


def _path(text: str) -> object:
    from pathlib import Path

    return Path(text).expanduser()


if __name__ == "__main__":
    sys.exit(main())
