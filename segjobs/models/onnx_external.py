"""An ONNX file whose numbers lie beside it: its bytes in, the names of those files and their least sizes out.

The file is a stranger's: a name in it may lead anywhere (``../../etc/passwd``), and an offset behind the file's end.
The names are therefore held to be files of the same folder, and what ONNX Runtime is handed are those files' bytes
alone.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError

from segjobs.errors import WeightsError
from segjobs.models.weights import first_line

_MOST_BYTES = 2**63 - 1


def external_files(path: Path, uri: str) -> dict[str, int]:
    """File name → bytes that it has at least, of every file that the network at ``path`` reads its numbers from.

    ``uri``: as the user knows it. Raises WeightsError where one is no file of the same folder.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (DecodeError, ValueError) as error:
        raise WeightsError(f"{uri}: not readable as ONNX: {first_line(error)}; export it again") from error
    found: defaultdict[str, int] = defaultdict(int)
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            about = {entry.key: entry.value for entry in tensor.external_data}
            name = about.get("location", "")
            if not _is_beside(name):
                raise WeightsError(
                    f"{uri}: the numbers of {tensor.name!r} lie in {name!r}, expected a file of the same folder: not "
                    "read; export it again, into one file or with its data beside it"
                )
            found[name] = max(found[name], _end(tensor, about, uri))
    return dict(found)


def check_sizes(uri: str, sizes: Mapping[str, int], files: Mapping[str, Path]) -> None:
    """Raise WeightsError where a file is shorter than what the network reads of it."""
    for name, least in sizes.items():
        if (size := files[name].stat().st_size) < least:
            raise WeightsError(
                f"{uri}: {name} beside it has {size} bytes, and the network reads {least}: cut off, or another "
                "export's; fetch both again"
            )


def _is_beside(name: str) -> bool:
    plain = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return plain and name not in ("", ".", "..") and "\0" not in name


def _end(tensor: onnx.TensorProto, about: Mapping[str, str], uri: str) -> int:
    """The byte behind the tensor's last."""
    itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    try:
        offset, length = (int(about.get(key, "0")) for key in ("offset", "length"))
        end = offset + max(length, itemsize * math.prod(tensor.dims))
    except ValueError:
        offset = end = -1
    if not 0 <= offset <= end <= _MOST_BYTES or min(tensor.dims, default=0) < 0:
        raise WeightsError(
            f"{uri}: the numbers of {tensor.name!r} lie at offset {about.get('offset')!r}, {about.get('length')!r} "
            f"long, with the sides {list(tensor.dims)}: no place in a file; export it again"
        )
    return end


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _of_graph(graph)
