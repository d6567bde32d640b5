"""The studio as a page of its own: python -m dmgi_lib.studio

Voilà serves it, to this machine alone unless --host says otherwise. Each tab gets a kernel of its
own, so that tabs share no drawing. Nothing is fetched from the network: that is what the template
beside this file is for, since Voilà's own ask a server elsewhere for icons.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path

import tyro

HERE = Path(__file__).parent
LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Page:
    """Serves the studio as a page until it is stopped (Ctrl C)."""

    port: int = 8866
    """of the page; 0 takes a free one"""
    host: str = LOCAL
    """address to listen on; 0.0.0.0 lets everyone draw who reaches this machine"""
    weights: str = "mini"
    """preset, or a folder of weights"""
    device: str = "auto"
    """auto, cpu, cuda or mps"""
    browser: bool = False
    """opens the page in a browser"""

    @property
    def cell(self) -> str:
        """What each tab's kernel runs. It starts in another folder, hence the whole path."""
        folder = Path(self.weights).expanduser()
        weights = str(folder.resolve()) if folder.is_dir() else self.weights
        return f"from dmgi_lib.studio.opened import studio\n\nstudio({weights!r}, {self.device!r})"


def free_port(host: str, port: int) -> int:
    """`port` if nothing listens there, or any free one for 0.

    Raises:
        ValueError: it is taken or no port, or `host` is no address of this machine.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name != "nt":  # there it would take a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError, UnicodeError) as error:
            raise ValueError(
                f"no page can be served at {host}, port {port} ({error}). Does another studio run"
                " there? Choose another --port, 0 for a free one."
            ) from error
        return int(probe.getsockname()[1])


def write_notebook(page: Page, folder: Path) -> Path:
    """The page as a notebook of one cell, and the kernel that runs it: this very Python."""
    import nbformat

    kernel = folder / "kernels" / "dmgi-studio" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"display_name": "DMGI studio", "language": "python"}
    told = {**spec, "argv": [*command, "--log-level=CRITICAL"]}
    kernel.write_text(json.dumps(told), encoding="utf-8")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(page.cell)],
        metadata={"kernelspec": {**spec, "name": "dmgi-studio"}, "title": "DMGI studio"},
    )
    path = folder / "studio.ipynb"
    nbformat.write(notebook, path)
    return path


def serve(page: Page, folder: Path) -> None:
    """Serves until Ctrl C or SIGTERM.

    Args:
        folder: an empty one for what Voilà reads.

    Raises:
        ValueError: see `free_port`.
        ModuleNotFoundError: Voilà is not installed.
    """
    port = free_port(page.host, page.port)
    # Voilà looks for templates and kernels in the first, kernels for the kit in the second.
    for name, paths in (("JUPYTER_PATH", [HERE, folder]), ("PYTHONPATH", [HERE.parents[1]])):
        known = [*map(str, paths), os.environ.get(name, "")]
        os.environ[name] = os.pathsep.join(filter(None, known))
    try:
        from voila.app import Voila
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'the page needs {error.name}: pip install "dmgi-kit[studio]". In a notebook,'
            " dmgi_lib.studio.Studio shows the same without it.",
            name=error.name,
        ) from error

    class Server(Voila):  # type: ignore[misc]
        """Voilà that says one line, its address."""

        def launch_browser(self) -> None:
            """Called once it listens."""
            shown = LOCAL if page.host in ("", "0.0.0.0") else page.host
            address = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}/"
            print(f"The studio is at {address} (Ctrl C stops it).", flush=True)
            if page.browser:
                webbrowser.open(address)

    server = Server(log_level="CRITICAL")
    server.initialize(
        [
            str(write_notebook(page, folder)),
            f"--Voila.ip={page.host}",
            f"--Voila.port={port}",
            "--Voila.port_retries=0",
            "--VoilaConfiguration.template=studio",
            # An address must not bring back a template that fetches.
            "--VoilaConfiguration.allow_template_override=NO",
        ]
    )
    server.start()


if __name__ == "__main__":
    try:
        with tempfile.TemporaryDirectory(prefix="dmgi_studio_") as made:
            serve(tyro.cli(Page), Path(made))
    except (ModuleNotFoundError, ValueError) as error:
        sys.exit(str(error))
