"""The commands for more machines, as the Training page shows them."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def page() -> None:
    from pathlib import Path

    from dashboard.training.machines import show_commands
    from diffusion_core.runs.launch import launch_commands
    from tests.tiny_runs import tiny

    path = Path("/shared/run")

    def commands(machines: int, processes: int) -> list[str]:
        return launch_commands(path, tiny(batch_size=8), machines, processes, resume=True)

    show_commands(commands, "cpu", "more")


def test_there_is_a_command_for_each_machine_and_what_they_need() -> None:
    app = AppTest.from_function(page).run()
    assert not app.exception
    assert [code.value.split()[3:5] for code in app.code] == [
        ["--node_rank", "0"],
        ["--node_rank", "1"],
    ]
    assert all("--nproc_per_node 1" in code.value for code in app.code)
    notes, *places = [words.value for words in app.markdown]
    assert "the run's folder on a shared disk, under the path in the commands" in notes
    assert "Replace FIRST_MACHINE by the address of the first machine" in notes
    assert places == [f"On machine {number}, in the app's folder:" for number in (1, 2)]


def test_one_machine_needs_one_command_and_no_notes() -> None:
    app = AppTest.from_function(page).run()
    app.number_input(key="more-machines").set_value(1)
    app.number_input(key="more-processes").set_value(4).run()
    assert len(app.code) == 1
    assert "torchrun --standalone --nproc_per_node 4 --log_dir /dev/null -m" in app.code[0].value
    assert [words.value for words in app.markdown] == ["In the app's folder:"]


def test_a_batch_that_cannot_be_shared_is_said() -> None:
    app = AppTest.from_function(page).run()
    app.number_input(key="more-processes").set_value(3).run()
    assert app.caption[0].value == "A batch of 8 cannot be shared evenly by 6 processes."
    assert not app.code
