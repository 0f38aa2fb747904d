"""The tab "Quality" of a run: how good its images are, measured; and the button that measures.

The results are files of the run folder, made here or by `python -m diffusion_core evaluate`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import streamlit as st

from dashboard.components.chart.chart import show_live
from dashboard.figures.quality import cost_figure, end_names, training_figure
from dashboard.services import cached, sampling_queue
from dashboard.services.sampling_queue import OnStep, SamplingJob, Snapshot, Task
from dashboard.services.settings import get_settings
from dashboard.ui.images import read_strip, show_row
from dashboard.ui.progress import show_progress, watch
from dashboard.ui.run_wording import duration
from diffusion_core.data.decode import ImageError
from diffusion_core.evaluation.evaluate import evaluate, make_spec
from diffusion_core.evaluation.evaluator import FEWEST, cost
from diffusion_core.evaluation.results import (
    METRICS,
    Result,
    estimate_words,
    known_metrics,
    number_words,
    read_results,
    result_path,
    sheet_path,
    yardsticks,
)
from diffusion_core.runs.checkpoint import Checkpoint, load_model
from diffusion_core.runs.presets import build_schedule
from diffusion_core.runs.run import Run
from diffusion_core.sampling.registry import samplers_for
from diffusion_core.sampling.spec import MOST_IMAGES, SamplingSpec

LATEST, EVERY = "latest", "every one"
REAL, NOISE = "Held-out real images", "Noise"
STEPS = ["5", "10", "20", "50", "100", "250"]
# What each metric says, for people who have not met it.
MEANINGS = {
    "frechet": "how far apart drawn and real images are as a whole, to the eye of a small "
    "classifier: the distance of the means and spreads of what it sees. FID is the same by a "
    "large network.",
    "precision": "the share of drawn images that look like some real one.",
    "recall": "the share of real images that some drawn one looks like: low where kinds of "
    "images are missing.",
    "density": "how closely drawn images crowd where real ones are; real images get about 1.",
    "coverage": "the share of real images that have a drawn one in their neighbourhood.",
    "accuracy": "how often the classifier sees the class that was asked for.",
    "balance": "how evenly the classes are drawn: 1 where all are equally frequent.",
    "sliced_wasserstein": "how different small patches of drawn and real images are, at several "
    "sizes of detail. It needs no classifier.",
    "copies": "the share of drawn images that lie nearer to a training image than 95 % of "
    "unseen real images do. About 5 % says that nothing is copied; far more says that the "
    "network repeats what it was trained on.",
    "fid": "the Fréchet distance by the network that papers use.",
    "kid": "like FID, but fair to small numbers of images.",
    "bits_per_dim": "how many bits a pixel's colour of an unseen image costs when the network "
    "predicts it (an upper bound). It belongs to the checkpoint, not to the sampler.",
}
DIRECTIONS = {
    "lower": "lower is better",
    "higher": "higher is better",
    "floor": "near 5 % is right",
}


@st.cache_resource(show_spinner=False)
def measurings() -> dict[str, SamplingJob]:
    """The newest measuring of each run folder, for all sessions of this server."""
    return {}


def show_quality(run: Run, compared: Sequence[Run]) -> None:
    """`compared`: further runs whose results stand beside this one's."""
    may_operate = get_settings().may_operate
    if may_operate:
        show_measure(run)
    job = measurings().get(str(run.path))
    if job is not None and may_operate:
        watch(job, show_measuring)
    elif job is not None and job.active:
        st.caption("The operator measures it just now; what is found appears here.")
    results = []
    for each in [run, *compared]:
        found, broken = read_results(each.path)
        results += found
        for sentence in broken:
            st.caption(f":material/warning: A result of {each.name} is left out: {sentence}")
    if not results:
        if job is None or not job.active:
            say_how_to_begin(may_operate)
        return
    show_table(results, several=bool(compared))
    show_notes(results)
    show_charts(results, run)
    show_neighbours(run, results)
    show_meanings(results)


def say_how_to_begin(may_operate: bool) -> None:
    who = "Press Measure above:" if may_operate else "When the operator measures it,"
    st.info(
        f"Nothing was measured of this run yet. {who} many images are drawn and held against "
        "real ones, and what comes out stands here.",
        icon=":material/straighten:",
    )


# ------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Plan:
    """Measurings, one after the other."""

    run: Run
    parts: tuple[tuple[Checkpoint, SamplingSpec], ...]
    bits: bool

    def cost(self) -> int:
        """Evaluations of the network, about."""
        return sum(self.cost_of(checkpoint, spec) for checkpoint, spec in self.parts)

    def cost_of(self, checkpoint: Checkpoint, spec: SamplingSpec) -> int:
        return cost(spec, build_schedule(checkpoint.config), self.bits)


def show_measure(run: Run) -> None:
    """The settings and the button."""
    usable, _ = run.checkpoints()
    if not usable:
        st.caption("It can be measured as soon as there is a checkpoint.")
        return
    job = measurings().get(str(run.path))
    busy = job is not None and job.active
    with st.expander("Measure", icon=":material/straighten:", key="quality_form"):
        plan = pick_plan(run, usable)
        if plan is None:
            return
        first = plan.parts[0][1]
        queue = sampling_queue.queue_of(cached.device())
        key = sampling_queue.pace_key(first, plan.parts[0][0].config)
        expected = queue.expected_seconds(key, plan.cost())
        words = f"{plan.cost():,} evaluations of the network"
        if expected is not None:
            words += f", about {duration(max(1.0, expected))}"
        st.caption(
            f"{words}. It goes on when this page is closed, and lets other drawings go first. "
            "What was measured before with the same settings is not measured again."
        )
        if st.button("Measure", type="primary", icon=":material/straighten:", disabled=busy):
            start(plan)


def pick_plan(run: Run, usable: Sequence[Checkpoint]) -> Plan | None:
    """What to measure; None, and a sentence, where nothing is chosen."""
    schedule = build_schedule(usable[-1].config)
    by_step = {f"step {checkpoint.step:,}": checkpoint for checkpoint in reversed(usable)}
    more = [EVERY] if len(usable) > 1 else []
    columns = st.columns(3)
    chosen = columns[0].selectbox(
        "Checkpoint to measure", [LATEST, *more, *by_step], required=True, key="quality_checkpoint"
    )
    names = [sampler.name for sampler in samplers_for(schedule)]
    sampler = columns[1].selectbox(
        "Sampler",
        names,
        required=True,
        key="quality_sampler",
    )
    n = columns[2].number_input(
        "Images to draw",
        FEWEST,
        MOST_IMAGES,
        512,
        help="More make the intervals narrower. Only results of equally many images can be "
        "compared: papers draw 10,000 and more.",
        key="quality_n",
    )
    allowed = [*(k for k in STEPS if int(k) < schedule.timesteps), str(schedule.timesteps)]
    taken = st.multiselect(
        "Steps",
        allowed,
        default=["20"] if "20" in allowed else allowed[-1:],
        help="Each is measured by itself. Several make the curve of quality against cost.",
        key="quality_steps",
    )
    guidance = 1.0
    # Without dropped labels in its training the network never learned what "any class" means, and
    # guidance leads away from that.
    if usable[-1].classes and usable[-1].config.label_dropout > 0:
        guidance = st.slider(
            "Guidance scale",
            1.0,
            8.0,
            step=0.5,
            help="Above 1 images look more typical of their class, and vary less; each costs "
            "twice the evaluations.",
            key="quality_guidance",
        )
    bits = st.toggle(
        "Bits per dimension too",
        help="How well the network predicts held-out images; measured once for each checkpoint. "
        "A flow has none.",
        disabled=schedule.is_flow,
        key="quality_bits",
    )
    if not taken:
        st.caption("Choose at least one number of steps.")
        return None
    checkpoints = [usable[-1]] if chosen == LATEST else list(usable)
    if chosen in by_step:
        checkpoints = [by_step[chosen]]
    parts = tuple(
        (
            checkpoint,
            make_spec(
                run.name,
                checkpoint,
                n=int(n),
                sampler=sampler,
                steps=int(steps),
                guidance_scale=guidance,
            ),
        )
        for checkpoint in checkpoints
        for steps in sorted(taken, key=int)
    )
    return Plan(run, parts, bits and not schedule.is_flow)


def start(plan: Plan) -> None:
    """Put it in the device's line; what refuses it is said."""
    checkpoint, spec = plan.parts[0]
    count = len(plan.parts)
    words = f"Measuring {plan.run.name}: {count} result{'s' if count > 1 else ''}"
    task = Task(
        spec,
        words,
        plan.cost(),
        plan.cost(),
        sampling_queue.pace_key(spec, checkpoint.config),
        lambda on_step: measure(plan, on_step),
        background=True,
    )
    try:
        job = sampling_queue.queue_of(cached.device()).submit(task)
    except sampling_queue.QueueFull as error:
        st.error(str(error))
        return
    measurings()[str(plan.run.path)] = job
    st.rerun()


def measure(plan: Plan, on_step: OnStep) -> Generator[int, None, None]:
    """Yields the evaluations that are done, of `plan.cost`.

    The networks are its own: a measuring of every checkpoint would else push those that people draw
    with out of the memory that is shared.
    """
    before, loaded, held = 0, None, None
    for checkpoint, spec in plan.parts:
        if loaded is None or held != checkpoint:
            loaded, held = load_model(checkpoint, cached.device(), spec.average), checkpoint
        # Without processes: each would import the whole app first.
        work = evaluate(
            plan.run, checkpoint, spec, loaded, bits=plan.bits, workers=0, on_step=on_step
        )
        for done in work:
            yield before + done
        before += plan.cost_of(checkpoint, spec)
        yield before


def show_measuring(job: SamplingJob, seen: Snapshot) -> None:
    if seen.active:
        st.markdown(f"**{job.task.words}**")
        show_progress(job, seen, "Evaluation")
    elif seen.state == "failed":
        st.error(seen.sentence)
    elif seen.state == "cancelled":
        st.warning(f"{seen.sentence} What was measured until then is kept.")


# ------------------------------------------------------------------------------ results


def show_table(results: Sequence[Result], *, several: bool) -> None:
    """A row each, between what held-out real images get and what noise gets."""
    metrics = known_metrics(list(results))
    ends = yardsticks(list(results))
    floors, ceilings = [e for e in ends if e.floor], [e for e in ends if e.ceiling]
    rows = [
        end_row(name, end, "floor", metrics)
        for name, end in zip(end_names(floors, results, REAL), floors, strict=True)
    ]
    for result in results:
        row: dict[str, object] = {"Run": result.spec.run} if several else {}
        row |= {
            "Drawn by": result.way(),
            "Step": result.spec.step,
            "Evaluations": result.evaluations,
            "Images": result.spec.n,
        }
        for name in metrics:
            if name in result.metrics:
                row[METRICS[name].title] = estimate_words(name, result.metrics[name])
        rows.append(row)
    rows += [
        end_row(name, end, "ceiling", metrics)
        for name, end in zip(end_names(ceilings, results, NOISE), ceilings, strict=True)
    ]
    st.dataframe(
        rows,
        hide_index=True,
        height="content",  # the last row is one to compare with
        placeholder="",
        column_order=[
            *(["Run"] if several else []),
            *("Drawn by", "Step", "Evaluations", "Images"),
            *(METRICS[name].title for name in metrics),
        ],
        column_config={
            "Step": st.column_config.NumberColumn(format="%,d"),
            "Evaluations": st.column_config.NumberColumn(
                format="%,d", help="How often the network computes one image."
            ),
            "Images": st.column_config.NumberColumn(format="%,d"),
            **{
                METRICS[name].title: st.column_config.TextColumn(
                    help=f"{DIRECTIONS[METRICS[name].better].capitalize()}: {MEANINGS[name]}"
                )
                for name in metrics
            },
        },
        alt="How good the images are",
    )
    words = (
        "In brackets the 95 % interval: where the value would lie with other images of the same "
        "number."
    )
    if floors:
        words += f" “{REAL}”: what real images get that the training has not seen."
    if ceilings:
        words += f" “{NOISE}”: what pure noise gets."
    if len({end.spec.n for end in ends}) > 1:
        words += " Hold a result against the rows for its own number of images."
    st.caption(words)


def end_row(words: str, result: Result, end: str, metrics: Sequence[str]) -> dict[str, object]:
    found = getattr(result, end)
    counts = [estimate.n_fake for estimate in found.values()]
    row: dict[str, object] = {"Drawn by": words, "Images": max(counts, default=None)}
    for name in metrics:
        if name in found:
            row[METRICS[name].title] = estimate_words(name, found[name])
    return row


def show_notes(results: Sequence[Result]) -> None:
    """Each once; of compared runs it says whose it is where not all have it."""
    runs = {result.spec.run: None for result in results}
    for note in dict.fromkeys(note for result in results for note in result.notes):
        of = {result.spec.run: None for result in results if note in result.notes}
        whose = "" if of == runs else f"{', '.join(of)}: "
        st.caption(f":material/info: {whose}{note}")


def show_charts(results: Sequence[Result], run: Run) -> None:
    metrics = known_metrics(list(results))
    titles = {METRICS[name].title: name for name in metrics}
    title = st.selectbox("Metric", list(titles), required=True, key="quality", bind="query-params")
    metric = titles[title]
    st.caption(
        f"{MEANINGS[metric][0].upper()}{MEANINGS[metric][1:]} "
        f"{DIRECTIONS[METRICS[metric].better].capitalize()}."
    )
    shown = [result for result in results if metric in result.metrics]
    counts = {result.spec.n for result in shown}
    if len(counts) > 1:
        st.caption(
            "The results are of different numbers of images; only those of equal numbers can be "
            "compared."
        )
    charts = []
    if (figure := cost_figure(shown, metric)) is not None:
        over = "the evaluations of the network for an image"
        charts.append(("Against what an image costs", figure, over))
    if (figure := training_figure(shown, metric)) is not None:
        over = "the steps of the training"
        charts.append(("Over the training", figure, over))
    if not charts:
        st.caption(
            "A curve stands here as soon as images of several numbers of steps, or of several "
            "checkpoints, are measured: equally many of each."
        )
        return
    for column, (words, figure, over) in zip(st.columns(len(charts)), charts, strict=True):
        with column:
            st.markdown(f"**{words}**")
            show_live(figure, f"quality-{words}-{run.name}", f"{title} over {over}")


def show_neighbours(run: Run, results: Sequence[Result]) -> None:
    """The samples nearest to a training image, each above that image."""
    own = [result for result in results if result.spec.run == run.name and result.neighbours]
    if not own:
        return
    st.markdown("**Is it copying?**")
    labels = {f"step {r.spec.step:,}, {r.way()}, {r.spec.n:,} images": r for r in own}
    newest = max(labels, key=lambda label: labels[label].written)
    chosen = st.selectbox(
        "Samples of",
        list(labels),
        index=list(labels).index(newest),
        required=True,
        key="quality_result",
    )
    result = labels[chosen]
    try:
        pairs = read_strip(sheet_path(result_path(run.path, result.spec)), rows=2)
    except ImageError:
        st.caption("The image of the nearest neighbours is missing or cannot be read.")
        return
    captions = [f"distance {neighbour.distance:.1f}" for neighbour in result.neighbours]
    pairs = pairs[: len(captions)]  # a file from elsewhere may hold more
    show_row(pairs, "A sample above its nearest training image", 96, captions)
    words = (
        f"Of {result.spec.n:,} samples the {len(pairs)} that are nearest to a training image, "
        "each above it. The distance is the root mean square difference in grey levels (0 to 255), "
        "of the images made small."
    )
    if "copies" in result.metrics:
        share = number_words("copies", result.metrics["copies"].value)
        words += (
            f" {share} of the samples are nearer than {result.near:.1f}; of real images that the "
            "training has not seen, 5 % are."
        )
    st.caption(words)


def show_meanings(results: Sequence[Result]) -> None:
    with st.expander("What the numbers mean", icon=":material/help:"):
        lines = [
            f"- **{METRICS[name].title}** ({DIRECTIONS[METRICS[name].better]}): {MEANINGS[name]}"
            for name in known_metrics(list(results))
        ]
        st.markdown("\n".join(lines))
