"""The dashboard's server: `streamlit run streamlit_app.py --server.address localhost`.

Each visit runs `dashboard/shell.py`. It does not lie here because Streamlit takes a folder called
`pages` beside the script for its older kind of pages until a visit has called `st.navigation`: the
first visitor's link to a page would go astray.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.routing import Route

from dashboard.components.film import served
from dashboard.services import browser_models, downloads, hosts, server_log
from dashboard.services.document import Document, head_of
from dashboard.services.garbage import import_all_and_spare_it, share_heaps
from dashboard.services.queue_watch import watching
from dashboard.services.uploads import UploadGate
from dashboard.ui import addresses, errors


@asynccontextmanager
async def lifespan(app: st.App) -> AsyncIterator[None]:
    server_log.begin(st.get_option("server.port"))
    # In a thread, so that the server answers before PyTorch is imported.
    threading.Thread(target=import_all_and_spare_it, name="imports", daemon=True).start()
    hosts.report_roles()
    async with watching(app):
        yield
    end_samplings()


def end_samplings() -> None:
    # Here, so that the server answers before PyTorch is imported.
    from dashboard.services import series_jobs

    series_jobs.end_all()
    logging.getLogger("dashboard").info("server stopped")


share_heaps()
hosts.refuse_foreign_names()
base = st.get_option("server.baseUrlPath").strip("/")
root = f"/{base}" if base else ""
dashboard = Path(__file__).parent / "dashboard"
app = st.App(
    dashboard / "shell.py",
    lifespan=lifespan,
    middleware=[
        Middleware(hosts.HostGate, health=f"{root}/_stcore/health"),
        Middleware(UploadGate),
        Middleware(Document, head=head_of(dashboard / "style.css")),
    ],
    routes=[
        Route(root + served.ROUTE, served.serve),
        Route(root + downloads.ROUTE, downloads.serve),
        Route(root + browser_models.ROUTE, browser_models.serve),
        *addresses.routes(root),
    ],
    on_script_error=errors.show,
)
