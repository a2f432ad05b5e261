"""A builder of ONNX graphs.

A tensor is represented by its name in the graph. Numbers and arrays become constants:
int64 for integers, float32 otherwise (except those that `double` adds). Equal nodes and
constants are added only once.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx

OPSET = 17  # the first with STFT nodes; needs onnxruntime 1.12 or later
_IR_VERSION = 8  # of the ONNX release with this operator set
Tensor = str
Value = Tensor | float | Sequence[int] | np.ndarray


class Graph:
    """An ONNX graph that is built by adding nodes and constants one by one."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Tensor] = {}
        self._tensors: list[onnx.TensorProto] = []
        self._outputs: dict[str, list[Tensor]] = {}
        self._scope = ""

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix `name/` to the names of all nodes that are added in a `with` block."""
        before = self._scope
        self._scope = f"{before}{name}/"
        yield
        self._scope = before

    def op(
        self, kind: str, *inputs: Value, n_outputs: int = 1, **attributes: Any
    ) -> Tensor:
        """Add a node and return its first output."""
        return self.outputs_of(kind, *inputs, n_outputs=n_outputs, **attributes)[0]

    def outputs_of(
        self, kind: str, *inputs: Value, n_outputs: int, **attributes: Any
    ) -> list[Tensor]:
        """Add a node and return all of its outputs."""
        names = [self._name(value) for value in inputs]
        key = repr((kind, names, sorted(attributes.items())))
        if key not in self._outputs:
            name = f"{self._scope}{kind}_{len(self._nodes)}"
            outputs = [name, *(f"{name}_{i}" for i in range(1, n_outputs))]
            node = onnx.helper.make_node(kind, names, outputs, name, **attributes)
            self._nodes.append(node)
            self._outputs[key] = outputs
        return self._outputs[key]

    def output(self, name: str, value: Value) -> None:
        """Add a named output to the graph."""
        source = [self._name(value)]
        self._nodes.append(onnx.helper.make_node("Identity", source, [name], name))

    def length(self, tensor: Tensor) -> Tensor:
        """Return the length of the first axis, as an int64 of shape `(1,)`."""
        return self.op("Shape", tensor, start=0, end=1)

    def float_length(self, tensor: Tensor) -> Tensor:
        """Return the length of the first axis, as a float32 of shape `(1,)`."""
        return self.as_float(self.length(tensor))

    def as_float(self, tensor: Tensor) -> Tensor:
        """Cast a tensor to float32."""
        return self.op("Cast", tensor, to=onnx.TensorProto.FLOAT)

    def double(self, value: Value) -> Tensor:
        """Cast a tensor to float64, or insert a number as a float64 constant."""
        if isinstance(value, Tensor):
            return self.op("Cast", value, to=onnx.TensorProto.DOUBLE)
        return self._constant(np.ascontiguousarray(value, np.float64))

    def as_int(self, tensor: Tensor) -> Tensor:
        """Cast a tensor to int64."""
        return self.op("Cast", tensor, to=onnx.TensorProto.INT64)

    def slice(
        self, tensor: Tensor, first: int, last: int | None, axis: int = 0
    ) -> Tensor:
        """Return `tensor[first:last]` along an axis."""
        end = np.iinfo(np.int64).max if last is None else last
        return self.op("Slice", tensor, [first], [end], [axis])

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.ModelProto:
        """Return a validated model with only the nodes that the outputs need."""
        needed = {output.name for output in outputs}
        nodes: list[onnx.NodeProto] = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.insert(0, node)
        constants = [tensor for tensor in self._tensors if tensor.name in needed]
        model = onnx.helper.make_model(
            onnx.helper.make_graph(nodes, name, inputs, outputs, constants),
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="gammavae_jax",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _name(self, value: Value) -> Tensor:
        if isinstance(value, Tensor):
            return value
        array = np.asarray(value)
        kind = np.int64 if array.dtype.kind in "iu" else np.float32
        array = np.ascontiguousarray(array, dtype=kind).reshape(np.shape(value))
        return self._constant(array)

    def _constant(self, array: np.ndarray) -> Tensor:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._constants[key] = Tensor(f"constant_{len(self._constants)}")
            self._tensors.append(onnx.numpy_helper.from_array(array, name))
        return self._constants[key]
