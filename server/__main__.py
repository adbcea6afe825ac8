"""``livedrag serve | edit | --version``. Each subcommand imports what it needs, when it runs."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.app import Server
    from server.settings import Settings

CANNOT = 2
"""Exit code where the command cannot do what it is asked; one line on stderr says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; see `engine_local.run_worker`
    if arguments[:1] == ["edit"]:  # it reads its own arguments
        code: int = importlib.import_module("editor.cli").main(arguments[1:])
        return code
    chosen = parser.parse_args(arguments)
    if chosen.version:
        from server.app import version

        sys.stdout.write(f"livedrag {version()}\n")
        return 0
    if chosen.command != "serve":
        parser.print_help()
        return CANNOT
    return serve(chosen)


def serve(chosen: argparse.Namespace) -> int:
    """``livedrag serve``."""
    from server.app import CannotServe
    from server.app import serve as serve_app
    from server.engine import EngineError
    from server.engine_local import LocalEngine, WorkerOptions
    from server.settings import SettingsFault, resolve
    from server.store import StoreError

    try:
        settings = resolve(os.environ, vars(chosen))
        _log_to_stderr(settings)
        engine = LocalEngine(
            WorkerOptions(
                model=settings.model,
                device=settings.device,
                threads=settings.threads,
                sessions=settings.sessions,
                log_level=settings.log_level,
            )
        )
        asyncio.run(serve_app(settings, engine, started=_announce))
    except (SettingsFault, CannotServe, StoreError, EngineError) as error:
        sys.stderr.write(f"livedrag: {error}\n")
        return CANNOT
    except KeyboardInterrupt:
        return 130
    return 0


def _announce(address: str, server: Server) -> None:
    sys.stdout.write(f"livedrag is at {address}\n")
    sys.stdout.flush()


def _log_to_stderr(settings: Settings) -> None:
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if settings.log_level != "debug":
        for chatty in ("uvicorn", "PIL", "websockets"):
            logging.getLogger(chatty).setLevel(logging.WARNING)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="livedrag", description="Drag parts of a picture, together, in the browser.", allow_abbrev=False
    )
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serving = commands.add_parser(
        "serve",
        help="serve rooms to browsers",
        description="Serve rooms to browsers. Every option can also be given as LIVEDRAG_<NAME> in the environment.",
        allow_abbrev=False,
    )
    option = serving.add_argument
    option("--host", help="address to listen at (127.0.0.1)")
    option("--port", type=int, help="port to listen at; 0 takes any free one (8000)")
    option(
        "--model",
        help="'builtin', or Stable Diffusion 1.x or 2.x: a diffusers folder, or owner/name@<commit> (builtin)",
    )
    option("--device", help="torch device such as cuda:0 or cpu (the best there is)")
    option("--threads", type=int, help="threads of the device worker (as many as there are cores)")
    option("--data-dir", dest="data_dir", type=_path, help="where rooms are kept (the user's data directory)")
    option("--static-dir", dest="static_dir", type=_path, help="where the built page and the samples are")
    option("--log-level", dest="log_level", help="debug, info, warning or error (info)")
    commands.add_parser("edit", help="drag parts of a picture without a server", add_help=False)
    return parser


def _path(text: str) -> object:
    from pathlib import Path

    return Path(text).expanduser()


if __name__ == "__main__":
    sys.exit(main())
