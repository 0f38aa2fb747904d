"""The seven steps of the lecture: the page, its settings, what to look at, and a question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with one answer: a number, or one of `options`."""

    text: str
    answer: float | str
    options: tuple[str, ...] = ()
    within: float = 0.0  # how far a number may be off: as much as rounding makes it
    why: str  # said of the right answer
    hint: str  # said of a wrong one

    def is_right(self, given: float | str) -> bool:
        if isinstance(given, str) or isinstance(self.answer, str):
            return given == self.answer
        # One digit in a hundred thousand more, for the rounding of the sum itself.
        return abs(given - self.answer) <= self.within + 1e-5 * abs(self.answer)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of the lecture on the page `file`; `settings` are those of the page's address."""

    title: str
    file: str
    settings: Mapping[str, str]
    about: str
    look: tuple[str, ...]
    code: str  # the same with the library
    question: Question


LINEAR = {"kind": "linear", "T": "300"}
STEPS = (
    Step(
        title="Images",
        file="data.py",
        settings={"data": "cars", "view": "Reading"},
        about="The lecture reads about 16,130 photographs of cars, resizes each to 64×64 px, flips "
        "half of them and scales their values to −1 … 1. A batch has 128 images; the last, "
        "incomplete batch of an epoch is dropped.",
        look=(
            "The cars here are drawings: no photographs are shipped or downloaded.",
            "Both sides become 64 px, so wide cars look squashed. The lecture does the same.",
        ),
        code="""from diffusion_core.data.store import load_image
from diffusion_core.process.noising import image_to_x_0

image, _, _ = load_image("cars", 0, 64)
x_0 = image_to_x_0(image)  # (1, 3, 64, 64), from -1 to 1""",
        question=Question(
            text="How many batches of 128 does an epoch of 16,130 images have?",
            answer=126,
            why="16,130 / 128 is 126.02: 126 full batches; the last 2 images are dropped.",
            hint="Divide, and drop the incomplete batch.",
        ),
    ),
    Step(
        title="Noise schedule",
        file="schedule.py",
        settings=LINEAR | {"kinds": "linear", "t": "150"},
        about=r"The variances $\beta_t$ grow linearly from 0.0001 to 0.02 over $T = 300$ "
        r"timesteps. Everything else follows from them: $\bar\alpha_t = \prod_{s \le t} "
        r"(1 - \beta_s)$ is what is left of the image's variance.",
        look=(
            "Move t, and watch the two coefficients in the table: the first falls, the second "
            "rises.",
            "Add the cosine schedule: it removes the image more evenly.",
        ),
        code="""from diffusion_core import NoiseSchedule

schedule = NoiseSchedule("linear", timesteps=300, beta_start=1e-4, beta_end=0.02)
schedule.sqrt_alphas_cumprod[150]  # 0.6800""",
        question=Question(
            text="From which timestep t on is there more noise than image, in the linear schedule?",
            answer=143,
            why=r"At t = 143, $\sqrt{1-\bar\alpha_t}$ becomes larger than $\sqrt{\bar\alpha_t}$, "
            "so the logarithm of the signal-to-noise ratio becomes negative.",
            hint="Find the first t at which sqrt_one_minus_alphas_cumprod is larger than "
            "sqrt_alphas_cumprod.",
        ),
    ),
    Step(
        title="Noising",
        file="noising.py",
        settings=LINEAR | {"t": "299", "size": "64", "data": "cars"},
        about=r"An image at any timestep comes from one line: $x_t = \sqrt{\bar\alpha_t}\,x_0 + "
        r"\sqrt{1-\bar\alpha_t}\,\epsilon$. No step before it is needed.",
        look=(
            "Move t from 0 to 299. Details disappear first, large shapes and colours last.",
            r"The same $\epsilon$ is used at every t: the network has to find it.",
        ),
        code="""import torch

t = torch.tensor([299])
x_t, noise = schedule.add_noise(x_0, t)""",
        question=Question(
            text="By how much is the image multiplied at the last timestep, t = 299? Give two "
            "decimals.",
            answer=0.22,
            within=0.005,
            why=r"$\sqrt{\bar\alpha_{299}} = 0.2192$: a trace of the image remains, although "
            "sampling starts from pure noise. *End in pure noise* removes it.",
            hint="It is the first number of the formula at t = 299.",
        ),
    ),
    Step(
        title="Time embedding",
        file="embedding.py",
        settings={"size": "32", "T": "300", "t": "30"},
        about=r"The network is told t as 16 sines and 16 cosines of frequencies from 1 to "
        r"1/10000: $[\sin(t f_i) \dots,\ \cos(t f_i) \dots]$.",
        look=(
            "The row of t = 30 begins with −0.9880, as in the lecture.",
            "The similarity is constant along each diagonal.",
        ),
        code="""from diffusion_core import SinusoidalPositionEmbeddings

row = SinusoidalPositionEmbeddings(32)(torch.tensor([30]))  # (1, 32)""",
        question=Question(
            text="What does the similarity of the embeddings of two timesteps depend on?",
            answer="only on their distance",
            options=("on the larger one", "only on their distance", "on their product"),
            why=r"$\sin a \sin b + \cos a \cos b = \cos(a - b)$, for every frequency.",
            hint="Look along a diagonal of the right heatmap: there the distance is the same.",
        ),
    ),
    Step(
        title="U-Net",
        file="unet.py",
        settings={"network": "lecture", "size": "64"},
        about="The network goes down in four blocks from 64 to 1,024 channels and up again. Each "
        "block going up is given the output of one going down beside what comes from below: a "
        "skip.",
        look=(
            "It has 62,438,883 parameters, most of them where the images are smallest.",
            "Each block adds the embedded t to all its positions.",
        ),
        code="""from diffusion_core import SimpleUnet

network = SimpleUnet()
epsilon = network(x_t, t)  # the size of x_t""",
        question=Question(
            text="How many channels enter the first block of the way up?",
            answer=2048,
            why="The deepest output, 1,024 channels, is concatenated with itself: the lecture "
            "keeps the output of every block on the way down and takes the last one first.",
            hint="The skip is concatenated before the block, and the deepest skip is the block's "
            "own input.",
        ),
    ),
    Step(
        title="Training",
        file="training.py",
        settings={"preset": "lecture"},
        about=r"For every image a random t and noise; the loss is the mean of "
        r"$|\epsilon - \epsilon_\theta(x_t, t)|$. Adam with a learning rate of 0.001, two epochs "
        "of 126 batches.",
        look=(
            "The form has the lecture's settings. On a CPU the preset small learns faster.",
            "The curves of a run show the lecture's own losses beside it, where it is the "
            "lecture's training.",
        ),
        code="""from diffusion_core import load_run

run = load_run("checkpoints/demo-cars")
run.latest_checkpoint()""",
        question=Question(
            text="Which loss does a network have that always answers 0? Give one decimal.",
            answer=0.8,
            within=0.05,
            why=r"The mean of $|\epsilon|$ for $\epsilon \sim \mathcal{N}(0, 1)$ is "
            r"$\sqrt{2/\pi} = 0.798$. The lecture starts at 0.715 and ends at about 0.19.",
            hint=r"Then the loss is the mean of $|\epsilon|$, a normal number without its sign.",
        ),
    ),
    Step(
        title="Sampling",
        file="sampling.py",
        settings={"sampler": "ddpm", "steps": "300"},
        about="From pure noise, step by step from t = 299 down to 0: subtract a part of the "
        "predicted noise, add a little new noise.",
        look=(
            "Play the film of a generated image: large shapes appear first.",
            r"The lecture adds $\sigma_t^2 z$ instead of $\sigma_t z$: its images have too little "
            "noise on the way and look smooth. Both are offered.",
        ),
        code="""from diffusion_core import load_model, sample

model, schedule, config = load_model(run.latest_checkpoint(), "cpu")
images = sample(model, schedule, 4, sampler="ddpm", seed=0)  # (4, 3, 64, 64)""",
        question=Question(
            text="Which noise does the last step, at t = 0, add?",
            answer="none",
            options=("none", "a variance of β₀", "as much as the first step"),
            why="The posterior variance at t = 0 is 0: the mean itself is the image.",
            hint="See posterior_variance at t = 0 on the Schedule page.",
        ),
    ),
)
