"""The lecture's guide: above the page of a step, and as an overview on a page of its own.

The step and the questions that are answered stand in the page's address: `lecture`, `answered`.
"""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from dashboard.explain.lecture_steps import STEPS, Question
from dashboard.ui import keys
from dashboard.ui.navigation import entry

STEP = "lecture"  # its number from 1, in the address
ANSWERED = "answered"  # the numbers of the answered steps, joined by this
JOINED = "-"
OVERVIEW = "lecture.py"


def current_step() -> int | None:
    """The number of the step that the address names; None where it names none."""
    numbers = _numbers(st.query_params.get_all(STEP))
    return min(numbers) if len(numbers) == 1 else None


def answered() -> set[int]:
    """The steps whose questions are answered, in this session or in the link that opened it."""
    known: set[int] = st.session_state.setdefault(keys.ANSWERED, set())
    known |= _numbers(st.query_params.get(ANSWERED, "").split(JOINED))
    return known


def _numbers(texts: Iterable[str]) -> set[int]:
    """The steps among the texts of a link; what else is in it is no step and is left out."""
    steps = {str(number): number for number in range(1, len(STEPS) + 1)}
    return {steps[text] for text in texts if text in steps}


def link_of(number: int) -> dict[str, str]:
    """The address of a step's page: its settings, the step and what is answered."""
    return {**STEPS[number - 1].settings, STEP: str(number)} | link_of_progress()


def link_of_progress() -> dict[str, str]:
    done = JOINED.join(map(str, sorted(answered())))
    return {ANSWERED: done} if done else {}


def show_guide(url_path: str) -> None:
    """Above a page, where its address names a step of the lecture that is on this page."""
    number = current_step()
    if number is None or entry(STEPS[number - 1].file).url_path != url_path:
        return
    step = STEPS[number - 1]
    with st.container(border=True, key="lecture-guide"):
        st.markdown(f":material/school: **Lecture, step {number} of {len(STEPS)}: {step.title}**")
        text, quiz = st.columns(2, gap="medium")
        with text:
            st.markdown(step.about)
            st.markdown("\n".join(f"- {sentence}" for sentence in step.look))
            with st.expander("The same with the library", icon=":material/code:"):
                st.code(step.code, language="python")
        with quiz:
            show_question(number, step.question)
        with st.container(horizontal=True):
            if number > 1:
                _show_link(number - 1, "Previous", ":material/arrow_back:")
            st.page_link(
                entry(OVERVIEW).path,
                label="Overview",
                icon=":material/list:",
                query_params=link_of_progress(),
            )
            if number < len(STEPS):
                _show_link(number + 1, "Next", ":material/arrow_forward:")


def _show_link(number: int, way: str, icon: str) -> None:
    step = STEPS[number - 1]
    st.page_link(
        entry(step.file).path,
        label=f"{way}: {step.title}",
        icon=icon,
        query_params=link_of(number),
    )


def show_question(number: int, question: Question) -> None:
    """A step's question, and what is wrong or right about the answer."""
    st.markdown(f"**Question.** {question.text}")
    given: float | str | None
    if question.options:
        given = st.radio("Answer", question.options, index=None, key=f"answer-{number}")
    else:
        whole = isinstance(question.answer, int)
        given = st.number_input(
            "Answer",
            value=None,
            step=1 if whole else 0.01,
            format="%d" if whole else "%g",
            placeholder="A number",
            key=f"answer-{number}",
        )
    if given is None:
        if number in answered():
            st.success(f"You have answered this question. {question.why}")
    elif question.is_right(given):
        answered().add(number)
        st.query_params.update(link_of_progress())
        st.success(f"Correct. {question.why}")
    else:
        st.warning(f"Not yet. {question.hint}")


def show_overview() -> None:
    """All steps, which of them are answered, and where to go on."""
    done = answered()
    st.query_params.update(link_of_progress())
    left = [number for number in range(1, len(STEPS) + 1) if number not in done]
    st.progress(len(done) / len(STEPS), text=f"{len(done)} of {len(STEPS)} questions answered.")
    if left:
        page = entry(STEPS[left[0] - 1].file)
        st.page_link(
            page.path,
            label=f"{'Go on with' if done else 'Begin with'} step {left[0]}: "
            f"{STEPS[left[0] - 1].title}",
            icon=":material/play_arrow:",
            query_params=link_of(left[0]),
        )
    else:
        st.success("You have answered all questions.")
    for number in range(1, len(STEPS) + 1):
        _show_summary(number, number in done)


def _show_summary(number: int, done: bool) -> None:
    step = STEPS[number - 1]
    page = entry(step.file)
    with st.container(border=True):
        st.page_link(
            page.path,
            label=f"**{number}. {step.title}**, on the page {page.title}"
            + (" (answered)" if done else ""),
            icon=":material/check_circle:" if done else page.icon,
            query_params=link_of(number),
        )
        st.markdown(step.about)
