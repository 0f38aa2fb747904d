"""How to train a run on several machines, as commands to copy."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.ui.outside import plain
from diffusion_core.device import device_count
from diffusion_core.runs.config import ConfigError
from diffusion_core.runs.jobs import JobError
from diffusion_core.runs.launch import FIRST_MACHINE, PORT


def show_commands(commands: Callable[[int, int], list[str]], device: str, key: str) -> None:
    """A button that opens the commands, one for each machine.

    `commands(machines, processes)`: see `launch.launch_commands`. `device`: the one that trains
    here. `key`: distinguishes several of these buttons.
    """
    with st.popover("Run on several machines", icon=":material/hub:"):
        left, right = st.columns(2)
        machines = left.number_input("Machines", 1, 64, 2, key=f"{key}-machines")
        processes = right.number_input(
            "Processes per machine",
            1,
            64,
            device_count(device),
            help="One per GPU. The batch is divided evenly among all processes.",
            key=f"{key}-processes",
        )
        try:
            typed = commands(machines, processes)
        except (ConfigError, JobError) as error:
            st.caption(plain(error))
            return
        if machines > 1:
            st.markdown(
                "Every machine needs this app, the data, and the run's folder on a shared disk, "
                f"under the path in the commands. Replace {FIRST_MACHINE} by the address of the "
                f"first machine. It listens on port {PORT}, and all must reach each other."
            )
        for number, command in enumerate(typed, 1):
            where = f"On machine {number}, in" if machines > 1 else "In"
            st.markdown(f"{where} the app's folder:")
            st.code(command, language="bash", wrap_lines=True)
        st.caption("Watch, pause and stop the run on this page as usual.")
