"""A network as an ONNX graph, operator by operator, for programs that run such files.

Written from the layers themselves: PyTorch's exporter by tracing is deprecated and changes the
state of the whole process, and its other one needs further packages. A layer that is not here is
refused, and `runs.export_onnx` holds the finished graph against the network itself.

Needs the optional package `onnx`. It knows no runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from diffusion_core.models.unet import (
    Block,
    ResidualBlock,
    SelfAttention,
    SimpleUnet,
    Unet,
    UnetBlock,
)
from diffusion_core.process.embedding import SinusoidalPositionEmbeddings

OPSET, IR_VERSION = 17, 8  # of 2022: what reads ONNX today reads these
MOST_BYTES = 2**31 - 2**24  # of a protobuf message, less room for the graph itself


class Graph:
    """A graph while it is written, in place: its weights are large. Values are known by name."""

    def __init__(self, graph: onnx.GraphProto, network: nn.Module, float16: bool) -> None:
        self.nodes, self.weights = graph.node, graph.initializer
        self.float16 = float16
        self._constants: set[str] = set()
        self._values: dict[str, str] = {}  # of each weight once it is float32
        tensors = [*network.named_parameters(), *network.named_buffers()]
        self._names = {id(tensor): name for name, tensor in tensors}

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The name of the result of an operator."""
        result = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [result], result, **attributes))
        return result

    def split(self, x: str, sizes: list[int]) -> list[str]:
        """Along the channels."""
        results = [f"{x}_part_{k}" for k in range(len(sizes))]
        self.nodes.append(
            helper.make_node("Split", [x, self.constant(sizes)], results, f"{x}_parts", axis=1)
        )
        return results

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        array = np.asarray(values, kind)
        name = f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        name = name if len(name) < 100 else f"constant_{len(self.weights)}"
        if name not in self._constants:
            self.weights.append(numpy_helper.from_array(array, name))
            self._constants.add(name)
        return name

    def weight(self, tensor: Tensor, shape: tuple[int, ...] | None = None) -> str:
        """A weight of the network. In float16 are kernels and matrices, which are nearly all."""
        name = self._names[id(tensor)]
        if name in self._values:
            return self._values[name]
        array = tensor.detach().cpu().float().numpy().reshape(shape or tuple(tensor.shape))
        halved = self.float16 and is_large(tensor)
        stored = array.astype(np.float16) if halved else np.ascontiguousarray(array)
        self.weights.append(numpy_helper.from_array(stored, name))
        self._values[name] = self.add("Cast", name, to=TensorProto.FLOAT) if halved else name
        return self._values[name]


def is_large(weight: Tensor) -> bool:
    """Whether a weight is kept in float16 where that is asked for: not norms, biases, buffers."""
    return weight.ndim > 1


def write_graph(
    network: SimpleUnet | Unet, image_size: int, facts: dict[str, str], float16: bool = False
) -> bytes:
    """The network in evaluation mode as an ONNX file with the metadata `facts`.

    Inputs: x float32 (batch, C, H, W) with `image_size` as H and W; t float32 (batch,), timesteps,
    fractions too; labels int64 (batch,) where the network has classes. Output: prediction in the
    shape of x. With `float16` the large weights are stored in half precision and computed with in
    float32. Raises ValueError for what does not fit into one file, or not into half precision.
    """
    tensors = [*network.parameters(), *network.buffers()]
    if float16 and any(w.abs().max() > 65504 for w in tensors if is_large(w)):
        raise ValueError("Some weights are too large for float16.")
    size = sum(w.numel() * (2 if float16 and is_large(w) else 4) for w in tensors)
    if size > MOST_BYTES:
        raise ValueError(
            f"The weights take {size / 1e9:.1f} GB; one ONNX file holds at most 2.1 GB."
        )
    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="Diffusion Lab")
    model.opset_import.append(helper.make_opsetid("", OPSET))
    helper.set_model_props(model, facts)
    model.graph.name = type(network).__name__
    graph = Graph(model.graph, network, float16)
    shape: list[str | int | None] = ["batch", network.channels, image_size, image_size]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, shape), value("t", TensorProto.FLOAT, shape[:1])]
    if isinstance(network, SimpleUnet):
        result = _simple_unet(graph, network, image_size)
    else:
        if network.num_classes:
            inputs.append(value("labels", TensorProto.INT64, shape[:1]))
        result = _unet(graph, network, image_size)
    graph.nodes.append(helper.make_node("Identity", [result], ["prediction"], "prediction"))
    model.graph.input.extend(inputs)
    model.graph.output.append(value("prediction", TensorProto.FLOAT, shape))
    written = model.SerializeToString()
    del model, graph
    onnx.checker.check_model(written)
    return written


# ---------------------------------------------------------------- layers


def _layer(graph: Graph, layer: nn.Module, x: str) -> str:
    """One of PyTorch's own layers, or several in a row."""
    match layer:
        case nn.Identity():
            return x
        case nn.Sequential():
            for each in layer:
                x = _layer(graph, each, x)
            return x
        case nn.Conv2d() | nn.ConvTranspose2d():
            return _convolution(graph, layer, x)
        case nn.Linear():
            return graph.add("Gemm", x, graph.weight(layer.weight), _bias(graph, layer), transB=1)
        case nn.GroupNorm():
            return _group_norm(graph, layer, x)
        case nn.BatchNorm2d():
            assert layer.running_mean is not None and layer.running_var is not None
            terms = (layer.weight, layer.bias, layer.running_mean, layer.running_var)
            terms_of = [graph.weight(term) for term in terms]
            return graph.add("BatchNormalization", x, *terms_of, epsilon=layer.eps)
        case nn.ReLU():
            return graph.add("Relu", x)
        case nn.SiLU():
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        case nn.Upsample(scale_factor=2, mode="nearest"):
            scales = graph.constant([1, 1, 2, 2], np.float32)
            how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            return graph.add("Resize", x, "", scales, mode="nearest", **how)
        case SinusoidalPositionEmbeddings():
            frequencies = graph.constant(layer.frequencies()[None].numpy(), np.float32)
            angles = graph.add("Mul", graph.add("Unsqueeze", x, graph.constant([1])), frequencies)
            return graph.add("Concat", graph.add("Sin", angles), graph.add("Cos", angles), axis=-1)
    raise ValueError(f"A layer {type(layer).__name__} cannot be written as ONNX yet.")


def _bias(graph: Graph, layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d) -> str:
    return "" if layer.bias is None else graph.weight(layer.bias)


def _convolution(graph: Graph, layer: nn.Conv2d | nn.ConvTranspose2d, x: str) -> str:
    padding = layer.padding
    assert not isinstance(padding, str) and layer.padding_mode == "zeros"
    return graph.add(
        *("Conv" if isinstance(layer, nn.Conv2d) else "ConvTranspose", x),
        *(graph.weight(layer.weight), _bias(graph, layer)),
        kernel_shape=layer.kernel_size,
        strides=layer.stride,
        pads=[*padding, *padding],
        dilations=layer.dilation,
        group=layer.groups,
    )


def _group_norm(graph: Graph, layer: nn.GroupNorm, x: str) -> str:
    """An operator of its own from opset 21 on; before, one instance is one group."""
    groups = layer.num_groups
    rows = graph.add("Reshape", x, graph.constant([0, groups, -1]))
    one, none = (
        graph.constant([1.0] * groups, np.float32),
        graph.constant([0.0] * groups, np.float32),
    )
    rows = graph.add("InstanceNormalization", rows, one, none, epsilon=layer.eps)
    h = graph.add("Reshape", rows, graph.add("Shape", x))
    each = (layer.num_channels, 1, 1)
    h = graph.add("Mul", h, graph.weight(layer.weight, each))
    return graph.add("Add", h, graph.weight(layer.bias, each))


def _silu(graph: Graph, x: str) -> str:
    return _layer(graph, nn.SiLU(), x)


def _of_image(graph: Graph, term: str) -> str:
    """A term (batch, C) as (batch, C, 1, 1)."""
    return graph.add("Unsqueeze", term, graph.constant([2, 3]))


# ---------------------------------------------------------------- the lecture's network


def _simple_unet(graph: Graph, network: SimpleUnet, size: int) -> str:
    time = _layer(graph, network.time_mlp, "t")
    x, more = "x", -size % 2**network.halvings
    if more:
        x = graph.add("Pad", x, graph.constant([0, 0, 0, 0, 0, 0, more, more]))
    x = _layer(graph, network.conv0, x)
    skips = []
    for down in network.downs:
        x = _block(graph, down, x, time)
        skips.append(x)
    for up in network.ups:
        x = _block(graph, up, graph.add("Concat", x, skips.pop(), axis=1), time)
    x = _layer(graph, network.output, x)
    if more:
        to = [graph.constant(each) for each in ([0, 0], [size, size], [2, 3])]
        x = graph.add("Slice", x, *to)
    return x


def _block(graph: Graph, block: nn.Module, x: str, time: str) -> str:
    assert isinstance(block, Block)
    h = _layer(graph, nn.Sequential(block.conv1, block.relu, block.bnorm1), x)
    bias = _layer(graph, nn.Sequential(block.time_mlp, block.relu), time)
    h = graph.add("Add", h, _of_image(graph, bias))
    return _layer(graph, nn.Sequential(block.conv2, block.relu, block.bnorm2, block.transform), h)


# ---------------------------------------------------------------- the improved network


def _unet(graph: Graph, network: Unet, size: int) -> str:
    emb = _layer(graph, network.time_mlp, "t")
    if network.num_classes:
        rows = graph.weight(network.label_embedding.weight)
        emb = graph.add("Add", emb, graph.add("Gather", rows, "labels"))
    emb = _silu(graph, emb)
    x = _layer(graph, network.stem, _unshuffle(graph, "x", network.channels, size, network.patch))
    skips = [x]
    for down in network.downs:
        x = _level(graph, down, x, emb)
        skips.append(x)
    for level in network.middle:
        x = _level(graph, level, x, emb)
    for up in network.ups:
        if isinstance(up, UnetBlock):
            x = graph.add("Concat", x, skips.pop(), axis=1)
        x = _level(graph, up, x, emb)
    x = _layer(graph, network.output, _silu(graph, _layer(graph, network.norm, x)))
    if network.patch == 1:
        return x
    return graph.add("DepthToSpace", x, blocksize=network.patch, mode="CRD")


def _unshuffle(graph: Graph, x: str, channels: int, size: int, patch: int) -> str:
    """`pixel_unshuffle`; SpaceToDepth has its channels in another order."""
    if patch == 1:
        return x
    side = size // patch
    x = graph.add("Reshape", x, graph.constant([0, channels, side, patch, side, patch]))
    x = graph.add("Transpose", x, perm=[0, 1, 3, 5, 2, 4])
    return graph.add("Reshape", x, graph.constant([0, channels * patch**2, side, side]))


def _level(graph: Graph, level: nn.Module, x: str, emb: str) -> str:
    if not isinstance(level, UnetBlock):
        return _layer(graph, level, x)
    x = _residual(graph, level.residual, x, emb)
    if isinstance(level.attention, SelfAttention):
        return _attention(graph, level.attention, x)
    return _layer(graph, level.attention, x)


def _residual(graph: Graph, block: ResidualBlock, x: str, emb: str) -> str:
    h = _layer(graph, block.conv1, _silu(graph, _layer(graph, block.norm1, x)))
    terms = _of_image(graph, _layer(graph, block.scale_shift, emb))
    scale, shift = graph.split(terms, [block.norm2.num_channels] * 2)
    scale = graph.add("Add", scale, graph.constant(1.0, np.float32))
    h = graph.add("Add", graph.add("Mul", _layer(graph, block.norm2, h), scale), shift)
    h = _layer(graph, block.conv2, _silu(graph, h))
    return graph.add("Add", _layer(graph, block.skip, x), h)


def _attention(graph: Graph, layer: SelfAttention, x: str) -> str:
    channels, heads = layer.norm.num_channels, layer.heads
    qkv = _layer(graph, layer.qkv, _layer(graph, layer.norm, x))
    by_head = graph.constant([0, heads, channels // heads, -1])
    q, k, v = (graph.add("Reshape", part, by_head) for part in graph.split(qkv, [channels] * 3))
    turn = {"perm": [0, 1, 3, 2]}
    scores = graph.add("MatMul", graph.add("Transpose", q, **turn), k)
    scale = graph.constant((channels // heads) ** -0.5, np.float32)
    share = graph.add("Softmax", graph.add("Mul", scores, scale), axis=-1)
    y = graph.add("MatMul", share, graph.add("Transpose", v, **turn))
    y = graph.add("Reshape", graph.add("Transpose", y, **turn), graph.add("Shape", x))
    return graph.add("Add", x, _layer(graph, layer.out, y))
