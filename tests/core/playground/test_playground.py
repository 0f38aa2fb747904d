"""The playground's mathematics against closed forms, PyTorch and scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from diffusion_core.data.errors import DataError
from diffusion_core.playground import (
    Data,
    Settings,
    exact_model,
    make_data,
    python_code,
    sample,
    start,
    train,
    train_step,
)
from diffusion_core.playground.components import principal_components
from diffusion_core.playground.data import image_plane
from diffusion_core.playground.drawing import EDGE, MOST_POINTS, read_drawing, write_drawing
from diffusion_core.playground.model import ANY, make_schedule
from diffusion_core.playground.network import EMBEDDING, backward, forward, time_features
from diffusion_core.playground.random import Random
from diffusion_core.playground.settings import SAMPLERS, SHAPES
from diffusion_core.process.embedding import SinusoidalPositionEmbeddings
from diffusion_core.records import RecordError, record_of

FEW = Settings(width=8, layers=2, batch=16, steps=5, particles=6, sampling_steps=4, classes=True)


def test_the_random_numbers_are_those_of_mulberry32() -> None:
    """The first two of seed 0 as published with the JavaScript function."""
    numbers = Random(0, "data").uniforms(2)
    assert (numbers * 2**32 - 0.5).astype(np.int64).tolist() == [1144304738, 1416247]
    together, one = Random(7, "noise"), Random(7, "noise")
    apart = [one.uniforms(1)[0] for _ in range(5)]
    assert together.uniforms(5).tolist() == apart
    normals = Random(1, "x_T").normals(20_000)
    assert abs(normals.mean(axis=0)).max() < 0.03
    assert abs(np.cov(normals.T) - np.eye(2)).max() < 0.03


def test_the_timestep_is_embedded_as_in_the_networks() -> None:
    expected = SinusoidalPositionEmbeddings(EMBEDDING)(torch.arange(50)).numpy()
    np.testing.assert_allclose(time_features(50), expected, atol=1e-5)


@pytest.mark.parametrize("objective", ["epsilon", "flow"])
def test_gradients_and_adam_are_those_of_pytorch(objective: str) -> None:
    data = make_data(FEW)
    model = start(FEW, objective)
    ours = [weight.copy() for weight in model.weights]
    theirs = [torch.from_numpy(weight.copy()).requires_grad_() for weight in model.weights]
    x, t = data.points[:16], np.arange(16) * 10
    inputs = model.inputs(x, t, data.labels[:16])
    output = torch.from_numpy(inputs)
    for k in range(0, len(theirs), 2):
        output = output @ theirs[k] + theirs[k + 1]
        if k < len(theirs) - 2:
            output = torch.nn.functional.silu(output)
    optimizer = torch.optim.Adam(theirs, lr=FEW.learning_rate)
    (output - torch.from_numpy(x)).square().mean().backward()
    prediction, kept = forward(ours, inputs)
    gradients = backward(ours, kept, 2 * (prediction - x) / prediction.size)
    for gradient, weight in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(gradient, weight.grad.numpy(), atol=1e-12)
    for _ in range(3):  # with the same gradients
        optimizer.step()
        model.optimizer.step(gradients)
    for ours_now, their_now in zip(model.weights, theirs, strict=True):
        np.testing.assert_allclose(ours_now, their_now.detach().numpy(), atol=1e-9)


@pytest.mark.parametrize("objective", ["epsilon", "flow"])
def test_the_exact_prediction_is_the_gradient_of_the_density(objective: str) -> None:
    """x_t of a few points has the density of a mixture; its score is -E[epsilon] / spread."""
    data = Data(np.array([[1.0, 0.5], [-1.2, 0.1], [0.3, -0.8]]), np.array([0, 1, 1]))
    schedule = make_schedule(FEW, objective)
    x = torch.tensor([[0.4, 0.2], [-0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    for t, label in ((3, ANY), (150, ANY), (150, 1)):
        signal, spread = schedule.exact_signal[t], schedule.exact_spread[t]
        chosen = data.points[data.labels == label] if label != ANY else data.points
        away = (x[:, None] - signal * torch.from_numpy(chosen)).square().sum(2)
        density = torch.logsumexp(-away / (2 * spread**2), dim=1).sum()
        [score] = torch.autograd.grad(density, x)
        epsilon = -spread * score.numpy()
        expected = epsilon
        if objective == "flow":
            expected = epsilon - (x.detach().numpy() - spread * epsilon) / signal
        there = np.full(2, t), np.full(2, label)
        found = exact_model(data, schedule)(x.detach().numpy(), *there)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_exact_score_leads_back_to_the_points_of_each_class() -> None:
    settings = FEW.model_copy(update={"particles": 40, "sampling_steps": 100, "data": "rings"})
    data = make_data(settings)
    ends = sample(settings, start(settings, "epsilon"), data, "exact")[-1]
    for label in (0, 1):
        points = data.points[data.labels == label]
        away = np.linalg.norm(ends[label::2, None] - points, axis=2).min(axis=1)
        assert away.max() < 0.1


def test_training_learns_and_guidance_starts_from_the_same_noise() -> None:
    settings = FEW.model_copy(update={"steps": 200, "width": 16, "batch": 64})
    data = make_data(settings)
    model = train(settings, data)
    assert np.mean(model.losses[-50:]) < 0.8 * np.mean(model.losses[:10])
    plain = sample(settings, model, data, "ddim")
    guided = sample(settings.model_copy(update={"guidance_scale": 3.0}), model, data, "ddim")
    assert np.isfinite(guided).all() and not np.allclose(plain[-1], guided[-1])
    assert (plain[0] == guided[0]).all()


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_have_two_classes_about_the_middle(name: str) -> None:
    data = make_data(Settings(data=name))
    assert abs(data.points.mean(axis=0)).max() < 0.1
    assert 0.8 < data.points.std() < 1.1
    assert np.bincount(data.labels).tolist() == [256, 256]


def test_a_drawing_is_kept_to_a_thousandth() -> None:
    points = Random(5, "data").uniforms(MOST_POINTS, 2) * 2 * EDGE - EDGE
    labels = np.arange(MOST_POINTS) % 2
    found, classes = read_drawing(write_drawing(points, labels))
    assert abs(found - points).max() <= EDGE / 4095 + 1e-12
    assert classes.tolist() == labels.tolist()
    assert len(read_drawing("")[0]) == 0


@pytest.mark.parametrize("text", ["é", "AAAA", "A", "!!!!", "A" * 4 * 4 * MOST_POINTS])
def test_what_is_no_drawing_gets_a_sentence(text: str) -> None:
    with pytest.raises(RecordError, match="drawing"):
        record_of(Settings, {"drawing": text}, "The settings")


def test_the_components_are_those_of_scikit_learn() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 12)) * np.arange(1, 13)
    scores, explained, axes = principal_components(rows)
    reference = PCA(2).fit(rows)
    np.testing.assert_allclose(abs(scores), abs(reference.transform(rows)), atol=1e-9)
    np.testing.assert_allclose(explained, reference.explained_variance_ratio_, atol=1e-12)
    np.testing.assert_allclose(abs(axes), abs(reference.components_), atol=1e-9)
    np.testing.assert_allclose((rows - rows.mean(axis=0)) @ axes.T, scores, atol=1e-9)


def test_images_become_points_within_the_plane(tmp_path: Path) -> None:
    """Grey images of five brightnesses lie on a line, in their order."""
    for k, brightness in enumerate((0, 60, 120, 130, 255)):
        folder = tmp_path / ("dark" if k < 2 else "light")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (brightness,) * 3).save(folder / f"{k}.png")
    plane = image_plane(f"folder:{tmp_path}")
    assert plane.classes == ("dark", "light") and plane.data.labels.tolist() == [0, 0, 1, 1, 1]
    places = plane.data.points[:, 0]
    np.testing.assert_allclose(np.diff(places) / (places[-1] - places[0]) * 255, [60, 60, 10, 125])
    assert abs(plane.data.points).max() <= EDGE and abs(plane.data.points[:, 1]).max() < 1e-6
    assert plane.explained[0] == pytest.approx(1)
    assert np.diff(plane.axes[0, :, 0, 0, 0].astype(int)).min() > 0
    with pytest.raises(DataError, match="at least 3 images"):
        image_plane(f"folder:{tmp_path / 'dark'}")


def test_the_code_of_a_playground_gives_its_numbers() -> None:
    settings = FEW.model_copy(update={"guidance_scale": 2.0, "data": "spiral"})
    names: dict[str, Any] = {}
    exec(python_code(settings, list(SAMPLERS)), names)
    data = make_data(settings)
    for sampler, objective in SAMPLERS.items():
        expected = sample(settings, train(settings, data, objective), data, sampler)[-1]
        np.testing.assert_array_equal(names["samples"][sampler], expected)


def test_a_sampler_needs_its_model() -> None:
    data = make_data(FEW)
    model = start(FEW, "flow")
    train_step(model, data)
    with pytest.raises(ValueError, match="does not go with"):
        sample(FEW, model, data, "ddim")
    with pytest.raises(ValueError, match="Unknown objective"):
        start(FEW, "x_0")
