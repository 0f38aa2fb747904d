"""The samplers: from noise to images, each a generator of steps and the record that describes it.

`predict(x_t, level)` gives the predicted (x_0, epsilon) at a `NoiseLevel`; `noise()` gives fresh
N(0, I) in the shape of x_T. Every solver walks `levels` downwards and lands on the image. With
x_t = alpha x_0 + sigma epsilon:

- ratio = sigma / alpha is the sigma of Karras et al. 2022, for x_t / alpha;
- lambda = log(alpha / sigma) is that of Lu et al. 2022.

To add a sampler, write its function and a `Sampler` record, and name the record in `SAMPLERS`. One
that adds no noise must also take levels that are tensors, for gradients: see `tuning.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from torch import Tensor

from diffusion_core.process.noise import Noise
from diffusion_core.sampling.levels import NoiseLevel

# The fresh noise of ddpm: its variance is the posterior's beta~ or the large beta (Ho et al. 2020,
# section 3.2), or the lecture's slip, beta~ where its root should be.
VARIANCES = ("posterior", "large", "lecture")

Predict = Callable[[Tensor, NoiseLevel], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class StepView:
    """A sampler's state after a step; tensors (n, C, H, W), not to be written to."""

    index: int  # of this step, from 0
    steps: int  # their total number
    timestep: float  # at which the step started
    x_t: Tensor  # the image after the step
    x_0: Tensor  # the clean image that the network predicted at `timestep`
    epsilon: Tensor  # the noise that belongs to it


Steps = Iterator[StepView]


@dataclass(frozen=True)
class Sampler:
    """A sampler and all that describes it; `name` is used in files, links and commands."""

    name: str
    title: str
    solve: Callable[..., Steps]  # (predict, levels, x_T, noise, **options)
    formula: str  # LaTeX, of one step
    symbols: str  # Markdown, what the formula's symbols mean
    usual_steps: int | None = None  # a good number of steps; None: all timesteps
    usual_spacing: str = "trailing"  # a good one of `levels.TIMESTEP_SPACINGS`
    evaluations: int = 1  # of the network per step; 2: also at the end of all steps but the last
    adds_noise: bool = False  # in its steps, so that x_T alone does not decide the image
    one_step: bool = False  # keeps nothing from the steps before, so RePaint can repeat a step
    from_pure_noise: bool = False  # also where a schedule ends with alpha = 0
    flow: bool = False  # for models that predict the direction of a flow
    distilled: bool = False  # for networks that were distilled: see `process.consistency`
    options: frozenset[str] = frozenset()  # the keywords of `solve`: of eta, noise_term, clip_x_t
    # (formula, symbols) for each of VARIANCES, where the sampler takes `noise_term`.
    by_variance: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def adds_noise_with(self, eta: float = 0.0) -> bool:
        """Whether the steps add noise; with the option `eta` they do above 0."""
        return self.adds_noise or ("eta" in self.options and eta > 0)

    def formula_for(self, variance: str = "posterior") -> tuple[str, str]:
        """The formula and the meaning of its symbols for one of VARIANCES."""
        return self.by_variance.get(variance, (self.formula, self.symbols))


# How the formulas of several samplers are written.
_IN_LAMBDA = (
    r"$\alpha = \sqrt{\bar\alpha}$, $\sigma = \sqrt{1-\bar\alpha}$; $h$ is the width of the step "
    r"in $\lambda = \log(\alpha/\sigma)$ and $h'$ that of the step before, which predicted "
    r"$\hat x_0'$; $z$ is fresh noise. The first and the last step do not use the step before."
)
_IN_SIGMA = (
    r"$\bar x = x/\sqrt{\bar\alpha}$, $\bar\sigma = \sqrt{(1-\bar\alpha)/\bar\alpha}$ is the noise "
    r"in it, $\hat\epsilon$ the noise that belongs to $\hat x_0$, $z$ fresh noise, $\ell_k$ the "
    r"Lagrange polynomials through the last four steps."
)
_OF_FLOW = (
    r"$s$ is the share of noise, which falls from 1 to 0: $x_s = (1-s)\,x_0 + s\,\epsilon$. The "
    r"network predicts the direction of that line, $\epsilon - x_0$."
)


def _pairs(levels: Sequence[NoiseLevel]) -> Iterator[tuple[int, NoiseLevel, NoiseLevel]]:
    """(index, level at which a step starts, level at which it lands)."""
    return ((k, start, end) for k, (start, end) in enumerate(pairwise(levels)))


def _expm1(x: float) -> float:
    """exp(x) - 1, also of a tensor."""
    return x.expm1() if isinstance(x, Tensor) else math.expm1(x)


def ddpm(
    predict: Predict,
    levels: Sequence[NoiseLevel],
    x_T: Tensor,
    noise: Noise,
    *,
    noise_term: str = "posterior",
    clip_x_t: bool = False,
) -> Steps:
    """Ancestral sampling: Ho et al. 2020, algorithm 2.

    `noise_term`: `posterior` has the fixed variance of equation 7, beta~; `large` has beta, the
    paper's other choice; `lecture` adds beta~ * z where the paper has sqrt(beta~) * z, and
    `clip_x_t` clamps every x_t to [-1, 1], both as in the lecture.
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        bar, bar_prev = level.alpha**2, after.alpha**2
        alpha = bar / bar_prev
        beta = 1 - alpha
        mean_x_0 = bar_prev**0.5 * beta / (1 - bar)
        mean_x_t = alpha**0.5 * (1 - bar_prev) / (1 - bar)
        x_t = mean_x_0 * x_0 + mean_x_t * x_t
        if after.sigma > 0:
            variance = beta if noise_term == "large" else beta * (1 - bar_prev) / (1 - bar)
            x_t = x_t + (variance if noise_term == "lecture" else variance**0.5) * noise()
        if clip_x_t:
            x_t = x_t.clamp(-1, 1)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


def _ddpm_formula(noise: str) -> str:
    return rf"""\begin{{aligned}}
x_{{t-1}} = {{}}& \frac{{\sqrt{{\bar\alpha_{{t-1}}}}\,\beta_t}}{{1-\bar\alpha_t}}\,\hat x_0 \\
&+ \frac{{\sqrt{{\alpha_t}}\,(1-\bar\alpha_{{t-1}})}}{{1-\bar\alpha_t}}\,x_t + {noise}\,z
\end{{aligned}}"""


def _ddpm_symbols(variance: str) -> str:
    return (
        rf"$z$ is fresh noise, {variance} variance; the last step has none. With fewer steps the "
        r"same formula holds between the chosen timesteps."
    )


_DDPM = {
    "posterior": (
        _ddpm_formula(r"\sqrt{\tilde\beta_t}"),
        _ddpm_symbols(r"$\tilde\beta_t$ the posterior"),
    ),
    "large": (_ddpm_formula(r"\sqrt{\beta_t}"), _ddpm_symbols(r"$\beta_t$ the large")),
    "lecture": (
        _ddpm_formula(r"\tilde\beta_t"),
        _ddpm_symbols(r"$\tilde\beta_t$ the posterior"),
    ),
}
DDPM = Sampler(
    "ddpm",
    "DDPM",
    ddpm,
    *_DDPM["posterior"],
    adds_noise=True,
    one_step=True,
    from_pure_noise=True,
    options=frozenset({"noise_term", "clip_x_t"}),
    by_variance=_DDPM,
)
LECTURE_FORMULA = r"""x_{t-1} = \frac{1}{\sqrt{\alpha_t}}\Bigl(x_t
- \frac{\beta_t}{\sqrt{1-\bar\alpha_t}}\,\epsilon_\theta\Bigr) + \tilde\beta_t z"""


def ddim(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise, *, eta: float = 0.0
) -> Steps:
    """Song et al. 2021, equation 12; `eta` 0 adds no noise, 1 as much as DDPM (equation 16)."""
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        bar, bar_prev = level.alpha**2, after.alpha**2
        spread = eta * ((1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)) ** 0.5 if eta else 0.0
        x_t = after.alpha * x_0 + max(after.sigma**2 - spread**2, 0.0) ** 0.5 * epsilon
        if spread > 0:
            x_t = x_t + spread * noise()
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


DDIM = Sampler(
    "ddim",
    "DDIM",
    ddim,
    r"""x_s = \sqrt{\bar\alpha_s}\,\hat x_0
+ \sqrt{1-\bar\alpha_s-\sigma_t^2}\,\hat\epsilon + \sigma_t z""",
    r"$\hat\epsilon$ is the noise that belongs to it; $s$ is the next of the chosen "
    r"timesteps, $z$ fresh noise, $\sigma_t = \eta\sqrt{\frac{1-\bar\alpha_s}{1-\bar\alpha_t}"
    r"\bigl(1-\frac{\bar\alpha_t}{\bar\alpha_s}\bigr)}$.",
    usual_steps=50,
    one_step=True,
    from_pure_noise=True,
    options=frozenset({"eta"}),
)


def euler(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Euler's method along the probability flow (Karras et al. 2022, algorithm 1 without line 6).

    In x_t / alpha the direction is epsilon: the step is DDIM's with eta 0. For a flow it is a step
    along the straight line to the predicted image (Liu et al. 2023).
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        x_t = after.alpha * x_0 + after.sigma * epsilon
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


EULER = Sampler(
    "euler",
    "Euler",
    euler,
    r"\bar x_s = \bar x_t + (\bar\sigma_s - \bar\sigma_t)\,\hat\epsilon",
    _IN_SIGMA,
    usual_steps=50,
    one_step=True,
    from_pure_noise=True,
)
FLOW_EULER = Sampler(
    "euler",
    "Euler",
    euler,
    r"x_{s'} = x_s + (s' - s)\,(\hat\epsilon - \hat x_0)",
    _OF_FLOW,
    usual_steps=50,
    one_step=True,
    from_pure_noise=True,
    flow=True,
)


def euler_ancestral(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise
) -> Steps:
    """Euler's method to a lower level and noise back up to the right one (Crowson, k-diffusion)."""
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        here, there = level.ratio, after.ratio
        up = min(there, (there**2 * (here**2 - there**2) / here**2) ** 0.5)
        down = (there**2 - up**2) ** 0.5
        x_t = after.alpha * (x_0 + down * epsilon)
        if up > 0:
            x_t = x_t + after.alpha * up * noise()
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


EULER_ANCESTRAL = Sampler(
    "euler_ancestral",
    "Euler ancestral",
    euler_ancestral,
    r"""\bar x_s = \hat x_0 + \sigma_{\text{down}}\,\hat\epsilon
+ \sigma_{\text{up}}\,z, \qquad \sigma_{\text{down}}^2 + \sigma_{\text{up}}^2 = \bar\sigma_s^2""",
    _IN_SIGMA,
    usual_steps=50,
    adds_noise=True,
    one_step=True,
)


def heun(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Heun's method in x_t / alpha over sigma / alpha (Karras et al. 2022, algorithm 1).

    The mean of the directions at both ends of a step: two evaluations, except in the last step,
    which lands on the image and is Euler's.
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        landed = after.alpha * x_0 + after.sigma * epsilon
        if after.sigma > 0:
            _, there = predict(landed, after)
            width = after.ratio - level.ratio
            landed = after.alpha * (x_t / level.alpha + width * (epsilon + there) / 2)
        x_t = landed
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


HEUN = Sampler(
    "heun",
    "Heun",
    heun,
    r"""\begin{aligned}
\tilde x ={}& \bar x + (\bar\sigma_s - \bar\sigma_t)\,\hat\epsilon_t \\
\bar x_s ={}& \bar x + (\bar\sigma_s - \bar\sigma_t)\,\tfrac12\,(\hat\epsilon_t
+ \hat\epsilon_s \text{ at } \tilde x)
\end{aligned}""",
    _IN_SIGMA,
    usual_steps=25,
    usual_spacing="karras",  # as in the paper; `stability.py` says why not `trailing`
    evaluations=2,
)


def flow_heun(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Heun's method on a flow's own equation dx/ds = epsilon - x_0, s = sigma (Liu et al. 2023)."""
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        direction, width = epsilon - x_0, after.sigma - level.sigma
        landed = x_t + width * direction
        if after.sigma > 0:
            far_x_0, far_epsilon = predict(landed, after)
            landed = x_t + width * (direction + far_epsilon - far_x_0) / 2
        x_t = landed
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


FLOW_HEUN = Sampler(
    "heun",
    "Heun",
    flow_heun,
    r"""\begin{aligned}
\tilde x ={}& x_s + (s' - s)\,d_s, \qquad d_s = \hat\epsilon - \hat x_0 \text{ at } x_s \\
x_{s'} ={}& x_s + (s' - s)\,\tfrac12\,(d_s + d_{s'}), \qquad d_{s'} \text{ at } \tilde x
\end{aligned}""",
    _OF_FLOW,
    usual_steps=25,
    evaluations=2,
    from_pure_noise=True,
    flow=True,
)


def dpmpp_2m(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """DPM-Solver++(2M): Lu et al. 2022, algorithm 2. The first and the last step are of order 1."""
    x_t, before = x_T, None
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        h = after.log_snr_half - level.log_snr_half
        shift = -_expm1(-h)  # 1 - exp(-h); 1 in the last step, where h is infinite
        guess = x_0
        if before is not None and after.sigma > 0:
            old_x_0, old_h = before
            guess = x_0 + (x_0 - old_x_0) * h / (2 * old_h)
        x_t = after.sigma / level.sigma * x_t + after.alpha * shift * guess
        before = (x_0, h)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


DPMPP_2M = Sampler(
    "dpmpp_2m",
    "DPM-Solver++ 2M",
    dpmpp_2m,
    r"""\begin{aligned}
x_s ={}& \tfrac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\,(1 - e^{-h})\,D \\
D ={}& \hat x_0 + \tfrac{h}{2h'}\,(\hat x_0 - \hat x_0')
\end{aligned}""",
    _IN_LAMBDA,
    usual_steps=20,
)


def dpmpp_2m_sde(
    predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise
) -> Steps:
    """SDE-DPM-Solver++(2M), midpoint (Lu et al. 2022, section 5): as `dpmpp_2m`, with fresh noise
    in every step but the last."""
    x_t, before = x_T, None
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        h = after.log_snr_half - level.log_snr_half
        shift = -math.expm1(-2 * h)
        guess = x_0
        if before is not None and after.sigma > 0:
            old_x_0, old_h = before
            guess = x_0 + (x_0 - old_x_0) * h / (2 * old_h)
        x_t = after.sigma / level.sigma * math.exp(-h) * x_t + after.alpha * shift * guess
        if after.sigma > 0:
            x_t = x_t + after.sigma * shift**0.5 * noise()
        before = (x_0, h)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


DPMPP_2M_SDE = Sampler(
    "dpmpp_2m_sde",
    "DPM-Solver++ 2M SDE",
    dpmpp_2m_sde,
    r"""\begin{aligned}
x_s ={}& \tfrac{\sigma_s}{\sigma_t}\,e^{-h}\,x_t + \alpha_s\,(1 - e^{-2h})\,D
+ \sigma_s\sqrt{1 - e^{-2h}}\,z \\
D ={}& \hat x_0 + \tfrac{h}{2h'}\,(\hat x_0 - \hat x_0')
\end{aligned}""",
    _IN_LAMBDA,
    usual_steps=25,
    adds_noise=True,
)


def lms(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Linear multistep (Adams-Bashforth) in x_t / alpha over sigma / alpha, with the directions of
    the last four steps; their weights integrate the polynomial through them exactly."""
    ratios = [level.ratio for level in levels]
    x_t = x_T
    directions: list[Tensor] = []
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        directions = [epsilon, *directions][:4]
        weights = _lagrange_integrals(ratios, index, len(directions))
        moved = sum(w * d for w, d in zip(weights, directions, strict=True))
        x_t = after.alpha * (x_t / level.alpha + moved)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


LMS = Sampler(
    "lms",
    "LMS (linear multistep)",
    lms,
    r"""\bar x_s = \bar x_t + \sum_{k=0}^{3} w_k\,\hat\epsilon_{t_k}, \qquad
w_k = \int_{\bar\sigma_t}^{\bar\sigma_s} \ell_k(\sigma)\,d\sigma""",
    _IN_SIGMA,
    usual_steps=25,
)


def _lagrange_integrals(ratios: Sequence[float], index: int, order: int) -> list[float]:
    """The integrals from ratios[index] to ratios[index + 1] of the Lagrange polynomials through
    the last `order` of the ratios, the newest first."""
    # Around the step's start, so that high powers of large ratios do not lose digits.
    nodes = [ratios[index - k] - ratios[index] for k in range(order)]
    width = ratios[index + 1] - ratios[index]
    weights = []
    for k, node in enumerate(nodes):
        others = nodes[:k] + nodes[k + 1 :]
        powers = [1.0]  # coefficients of the product of (x - other), the lowest power first
        for other in others:
            times_x, times_other = [0.0, *powers], [-other * power for power in powers]
            powers = [a + b for a, b in zip(times_x, [*times_other, 0.0], strict=True)]
        integral = sum(power * width ** (n + 1) / (n + 1) for n, power in enumerate(powers))
        weights.append(integral / math.prod(node - other for other in others))
    return weights


def unipc(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """UniPC of order 2 with B(h) = exp(h) - 1: Zhao et al. 2023, algorithms 5 and 6, on x_0.

    Every evaluation is used twice: to correct the step that led to it, which makes the whole of
    order 3, and to predict the next.
    """
    x_t, last = x_T, None
    newest: list[tuple[Tensor, float]] = []  # (x_0, lambda) of the evaluations, newest first
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        if last is not None:
            x_t = _unipc_correct(last, level, newest, x_0)
        newest = [(x_0, level.log_snr_half), *newest][:2]
        last = (x_t, level)
        h = after.log_snr_half - level.log_snr_half
        shift = -_expm1(-h)
        guess = x_0
        if len(newest) == 2 and after.sigma > 0:
            (m0, lambda0), (m1, lambda1) = newest
            guess = m0 + (m1 - m0) / ((lambda1 - lambda0) / h) / 2
        x_t = after.sigma / level.sigma * x_t + after.alpha * shift * guess
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


UNIPC = Sampler(
    "unipc",
    "UniPC",
    unipc,
    r"""\begin{aligned}
\text{predict: } x_s ={}& \tfrac{\sigma_s}{\sigma_t}\,x_t + \alpha_s\,(1 - e^{-h})\,
\bigl(\hat x_0 + \tfrac{h}{2h'}(\hat x_0 - \hat x_0')\bigr) \\
\text{correct: } & \text{the same step again, with } \hat x_0 \text{ at its end}
\end{aligned}""",
    _IN_LAMBDA,
    usual_steps=20,
)


def _unipc_correct(
    last: tuple[Tensor, NoiseLevel],
    level: NoiseLevel,
    newest: list[tuple[Tensor, float]],
    x_0: Tensor,
) -> Tensor:
    """The step from `last` to `level` again, now that x_0 at its end is known."""
    x, start = last
    m0, lambda0 = newest[0]
    h = level.log_snr_half - start.log_snr_half
    b = _expm1(-h)
    correction = (x_0 - m0) / 2
    if len(newest) == 2:
        m1, lambda1 = newest[1]
        ratio = (lambda1 - lambda0) / h
        phi = -b / h - 1
        wanted = phi / b, (-phi / h - 1 / 2) * 2 / b
        # The weights of the two differences solve
        # w_old + w_new = wanted[0] and ratio * w_old + w_new = wanted[1].
        w_old = (wanted[0] - wanted[1]) / (1 - ratio)
        w_new = wanted[0] - w_old
        correction = w_new * (x_0 - m0) + w_old / ratio * (m1 - m0)
    return level.sigma / start.sigma * x - level.alpha * b * (m0 + correction)


def sa_solver(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """SA-Solver with tau = 1, predictor and corrector of order 2 on x_0: Xue et al. 2023
    (arXiv 2309.05019), algorithm 1.

    Every evaluation corrects the step that led to it, with the same fresh noise, and predicts the
    next. The slopes of x_0 have the weights h^2 / h' and h of the authors' code, which are those of
    Adams' formulas but for a term of order h^3.
    """
    x_t, landed, old = x_T, x_T, None
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        h = after.log_snr_half - level.log_snr_half
        if old is not None:
            old_x_0, old_h = old
            x_t = landed + level.alpha * old_h * (x_0 - old_x_0)
        shift = -math.expm1(-2 * h)
        x_t = after.sigma / level.sigma * math.exp(-h) * x_t + after.alpha * shift * x_0
        if after.sigma > 0:
            x_t = x_t + after.sigma * shift**0.5 * noise()
        landed = x_t
        if old is not None and index < len(levels) - 2:
            x_t = landed + after.alpha * h**2 / old_h * (x_0 - old_x_0)
        old = (x_0, h)
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


SA_SOLVER = Sampler(
    "sa_solver",
    "SA-Solver",
    sa_solver,
    r"""\begin{aligned}
\bar x ={}& \tfrac{\sigma_s}{\sigma_t}\,e^{-h}\,x_t + \alpha_s\,(1 - e^{-2h})\,\hat x_0
+ \sigma_s\sqrt{1 - e^{-2h}}\,z \\
\text{predict: } x_s ={}& \bar x + \alpha_s\,\tfrac{h^2}{h'}\,(\hat x_0 - \hat x_0') \\
\text{correct: } x_s ={}& \bar x + \alpha_s\,h\,(\hat x_0 \text{ at } x_s - \hat x_0)
\end{aligned}""",
    _IN_LAMBDA,
    usual_steps=20,
    adds_noise=True,
)


def consistency(predict: Predict, levels: Sequence[NoiseLevel], x_T: Tensor, noise: Noise) -> Steps:
    """Multistep consistency sampling: Song et al. 2023 (2303.01469), algorithm 1.

    A distilled network answers with the image at the end of the path that x_t is on. It gets fresh
    noise of the next level, and the network answers again.
    """
    x_t = x_T
    for index, level, after in _pairs(levels):
        x_0, epsilon = predict(x_t, level)
        x_t = after.alpha * x_0
        if after.sigma > 0:
            x_t = x_t + after.sigma * noise()
        yield StepView(index, len(levels) - 1, level.t, x_t, x_0, epsilon)


CONSISTENCY = Sampler(
    "consistency",
    "Consistency",
    consistency,
    r"x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,z",
    r"$\hat x_0$ is the image at the end of the path that $x_t$ is on, $s$ the next of the chosen "
    r"timesteps, $z$ fresh noise; the last step has none.",
    usual_steps=2,
    adds_noise=True,
    one_step=True,
    from_pure_noise=True,
    distilled=True,
)
FLOW_CONSISTENCY = replace(
    CONSISTENCY,
    formula=r"x_{s'} = (1-s')\,\hat x_0 + s'\,z",
    symbols=r"$\hat x_0$ is the image at the end of the path that $x_s$ is on, $s'$ the next share "
    r"of noise, $z$ fresh noise; the last step has none.",
    flow=True,
)


# In the order in which they are offered; the first that a model takes is the usual one.
SAMPLERS = (
    DPMPP_2M,
    DDIM,
    DDPM,
    DPMPP_2M_SDE,
    UNIPC,
    SA_SOLVER,
    HEUN,
    EULER,
    EULER_ANCESTRAL,
    LMS,
    FLOW_EULER,
    FLOW_HEUN,
    CONSISTENCY,
    FLOW_CONSISTENCY,
)
