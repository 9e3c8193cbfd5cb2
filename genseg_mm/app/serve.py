"""Starts the page."""

import contextlib
import threading
from collections.abc import Mapping

from fastapi.middleware import Middleware

from genseg_mm.app.guard import LOCAL, Guard
from genseg_mm.app.page import build_page, css, first_models, theme
from genseg_mm.app.served_models import ServedModel


def serve(
    models: Mapping[str, ServedModel], host: str = '127.0.0.1', port: int = 7860, open_browser: bool = False
) -> tuple[object, str]:
    """Serves the page in threads of this process.

    Args:
        models: By name.
        host: Address to listen at: this machine alone, or '0.0.0.0' for everybody who can reach it.
        port: Or the first free one of the hundred from it on; 0 for any.
        open_browser: Opens the page.

    Returns:
        The page, which ``close()`` ends, and its address.

    Raises:
        ValueError: If there is no free port, or no such address.
    """
    page = build_page(models)
    guard = Middleware(Guard, local_only=host in LOCAL)
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port or None, prevent_thread_lock=True, inbrowser=open_browser, share=False,
            quiet=True, show_error=False, ssr_mode=False, enable_monitoring=False, run_history=False, pwa=False,
            mcp_server=False, footer_links=[], allowed_paths=[], max_file_size=1, state_session_capacity=1000,
            app_kwargs=dict(middleware=[guard], docs_url=None, redoc_url=None, openapi_url=None),
            theme=theme(), css=css(), head='<meta name="viewport" content="width=device-width, initial-scale=1">',
        )  # fmt: skip
    except OSError as error:
        raise ValueError(f'--host {host} --port {port}: the page cannot be served there: {error}') from error
    threading.Thread(target=_open_first, args=(models,), daemon=True).start()
    return page, address


def _open_first(models: Mapping[str, ServedModel]) -> None:
    """Opens what the first visitor will use; a model that cannot be opened says so when it is asked."""
    for name in first_models(models):
        with contextlib.suppress(Exception):
            _ = models[name].inferencer


def wait(page: object) -> None:
    """Until Ctrl-C or SIGTERM, which end the page."""
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
