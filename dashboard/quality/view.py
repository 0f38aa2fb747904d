"""The tab "Quality" of a run: measure its images, and the results.

Results are files of the run folder, made here or by `python -m diffusion_core evaluate`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import streamlit as st

from dashboard.quality.measure import job_of, show_form, show_job
from dashboard.quality.results import show_results
from dashboard.services.roles import Deed, may
from dashboard.services.shared_look import recent
from dashboard.ui.outside import code, plain
from dashboard.ui.progress import watch
from diffusion_core.evaluation.results import read_results
from diffusion_core.runs.run import Run


def show_quality(run: Run, compared: Sequence[Run]) -> None:
    """`compared`: further runs whose results are shown beside this one's."""
    may_measure = may(Deed.MEASURE)
    if may_measure:
        show_form(run)
    job = job_of(run)
    if job is not None and may_measure:
        watch(job, show_job)
    elif job is not None and job.active:
        st.caption("The operator is measuring this run. The results will appear here.")
    results = []
    for each in [run, *compared]:
        found, broken = recent(("results", each.path), functools.partial(read_results, each.path))
        results += found
        for sentence in broken:
            st.caption(
                f":material/warning: A result of {code(each.name)} is skipped: {plain(sentence)}"
            )
    if results:
        show_results(run, results, several=bool(compared))
    elif job is None or not job.active:
        who = "Open *Measure* above" if may_measure else "The operator can measure it"
        st.info(
            f"No results for this run yet. {who} to compare many generated images with real ones.",
            icon=":material/straighten:",
        )
