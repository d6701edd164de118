"""What every label format is read into: a text for each image, and a reader that makes masks of it.

    LabelRequest (config, storage, image_ids) → an adapter of ``table.py`` → Labels
    a text of Labels + the image's size → Labels.read, in a task anywhere → Masks

An adapter lists and matches on the driver and opens only what describes the whole set; label files of
single images are read where their images are. A text is a URI or the JSON of one image's annotations,
so that no task holds more than its own.
"""

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from segjobs.config import LabelsConfig, digest, nearest
from segjobs.errors import ConfigError, ItemError
from segjobs.labels.match_files import FileMatches, match_labels
from segjobs.manifest.rows import Annotation
from segjobs.manifest.schema import Category, Task
from segjobs.manifest.segments import Segment
from segjobs.sources.blame import Blame
from segjobs.sources.read import LARGE_BYTES, opened_file, read_file
from segjobs.sources.tiff import Slices
from segjobs.storage import FileInfo, Storage, refuse
from segjobs.text import first_few, size_text

Key = TypeVar("Key", bound=Hashable)

CHECKS: dict[str, str] = {
    "images_without_label": "images that no label belongs to",
    "labels_without_image": "labels whose image is not in the input; left out",
    "turned": "images that are shown turned by their EXIF orientation; labels.frame says how their labels lie",
    "size_mismatch": "labels of another size than their image: LABEL_SHAPE, never resized",
    "unknown_ids": "ids or names that the class table does not know: LABEL_VALUE, or as labels.unknown says",
    "malformed": "labels that make no sense: LABEL_VALUE",
    "unreadable": "images or labels that cannot be read",
    "empty_masks": "objects whose mask covers no pixel; left out (of coco: but for scores, which count them)",
    "crowds": "crowd regions, of uncounted objects: no score asks for them (coco: labels.crowds=as_objects)",
    "boxes_alone": "objects that are boxes, in a label file without any mask; evaluate scores them by boxes alone",
    "without_mask": "annotations that are no area (boxes, points, lines); left out",
    "outside_frame": "polygons that reach more than a pixel out of the frame; clipped at its edge",
    "void": "shapes and objects that the labels mark to be ignored; left out",
    "listed_twice": "images that the label file lists more than once; the objects of all their entries are taken",
    "other_annotations": "images that several people annotated; one annotation of each is taken",
    "namesakes": "classes of the label file without annotations, of a name that another class has; left out",
    "orphans": "annotations of images that the label file does not list; left out",
    "dropped_classes": "segments of classes that `classes` drops",
    "duplicate_images": "groups of images with the same bytes",
    "listed_without_image": "names of a split's list whose image is not in the input",
    "not_listed": "images that the label set's own lists do not name; left out of the run",
    "in_no_split": "images that no split takes; left out of every manifest",
    "in_two_splits": "images, or copies of the same bytes, that stand in more than one split",
}
"""Everything that ``prepare`` counts, always reported: name → what it means."""


class UnknownId(ItemError):
    """A LABEL_VALUE whose cause is an id or a name outside the class table."""


@dataclass(frozen=True)
class Finding:
    """Something to count: which of ``CHECKS``, how many in this image (or label set), and what exactly."""

    check: str
    count: int
    detail: str


@dataclass(frozen=True)
class Masks:
    """One image's label: its segments, what was found on the way, and who drew it, where the label says that."""

    segments: list[Segment]
    findings: tuple[Finding, ...] = ()
    annotation: Annotation | None = None


LabelReader = Callable[[str, tuple[int, int]], Masks]
"""(text, size_hw of the image in pixels) → Masks. Raises ItemError. Pickles small."""


SizeReader = Callable[[str], tuple[int, int]]
"""(text) → size_hw of its image in pixels, as the label file has it. Raises ItemError LABEL_SHAPE. Pickles small."""


@dataclass(frozen=True)
class LabelRequest:
    """What an adapter is given. ``image_ids``: every image of the input, sorted."""

    config: LabelsConfig
    storage: Storage
    image_ids: Sequence[str]
    max_pixels: int


@dataclass(frozen=True)
class Leftover:
    """Things of a whole label set that no row tells of: how many, and the first few by name."""

    check: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Labels:
    """What an adapter found.

    ``texts``: one per image of the request, None where no label belongs to it. ``digest`` names the
    labels' bytes. ``listed``: the images that belong to the set, where it says so itself. ``size_of``: where the label
    file says the sizes of its images. ``boxes_only``: objects are boxes, and none has a mask. ``any_size``: labels are
    read by bands, of images above ``decode.max_pixels`` too.
    """

    task: Task
    categories: tuple[Category, ...]
    texts: list[str | None]
    read: LabelReader
    digest: str
    leftovers: tuple[Leftover, ...] = ()
    listed: frozenset[str] | None = None
    size_of: SizeReader | None = None
    boxes_only: bool = False
    any_size: bool = False


@dataclass(frozen=True)
class Policy:
    """What becomes of ids and names that are not in the class table (``labels.unknown``)."""

    unknown: str = "fail"
    unknown_class: Category | None = None


@dataclass(frozen=True)
class Files:
    """The label files of a request: one URI (or None) per image, their digest, and those left over.

    ``large``: URIs of files that are not to be held in memory.
    """

    uris: list[str | None]
    digest: str
    leftovers: tuple[Leftover, ...] = ()
    large: frozenset[str] = frozenset()


def leftover(check: str, names: Sequence[object]) -> tuple[Leftover, ...]:
    """The leftovers of one check; none where there are no names."""
    return (Leftover(check, len(names), tuple(str(name) for name in names[:5])),) if names else ()


def list_files(
    request: LabelRequest, suffixes: Sequence[str], *, folder: str | None = None, key: str = "labels.uri"
) -> dict[str, FileInfo]:
    """Label files below ``folder`` (or ``labels.uri``) by relative path. Raises ConfigError where there are none.

    ``key``: of the config, which the message names. A link to no file stays in, and fails its image when it is read:
    its image is not one without label.
    """
    root = folder or request.config.uri
    gone: list[FileInfo] = []

    def trouble(entry: FileInfo, error: OSError) -> None:
        refuse(entry, error)
        gone.append(entry)

    listed = [*request.storage.walk(root, on_trouble=trouble), *gone]
    files = {file.path: file for file in listed if file.path.lower().endswith(tuple(suffixes))}
    if not files:
        raise ConfigError(f"{key}: {root}: no {' or '.join(suffixes)} below it")
    return files


def match_files(
    request: LabelRequest, suffixes: Sequence[str], *, folder: str | None = None, others: Sequence[str] = ()
) -> Files:
    """List the label files and match them to the images by path without extension (see ``match_labels``).

    ``others``: the suffixes of a folder that has none of ``suffixes``.
    """
    files = list_files(request, (*suffixes, *others), folder=folder)
    first = {path: file for path, file in files.items() if path.lower().endswith(tuple(suffixes))}
    files = first or files
    config = request.config
    matches = match_labels(
        request.image_ids, sorted(files), prefix=config.prefix, suffix=config.suffix, pattern=config.pattern
    )
    return files_of(request, files, matches)


def files_of(request: LabelRequest, files: Mapping[str, FileInfo], matches: FileMatches) -> Files:
    """Matched label files → ``Files``."""
    used = [matches.label_of.get(image_id) for image_id in request.image_ids]
    return Files(
        [files[path].uri if path else None for path in used],
        digest(prints_of(files[path] for path in used if path)),
        leftover("labels_without_image", matches.unused),
        frozenset(files[path].uri for path in used if path and files[path].size > LARGE_BYTES),
    )


def prints_of(files: Iterable[FileInfo]) -> list[tuple[str, int, int, str]]:
    """Fingerprints of listed files."""
    return [(file.path, file.size, file.mtime_us, file.etag) for file in files]


def read_label(storage: Storage, uri: str) -> bytes:
    """The bytes of one image's label. Raises ItemError NOT_FOUND, TIMEOUT, TOO_LARGE or UNREADABLE."""
    return read_file(Blame(storage), uri, what="the label")


@contextmanager
def opened_label(storage: Storage, uri: str, *, large: bool) -> Generator[Slices]:
    """One image's label, in memory where it is not large. Raises as ``read_label``."""
    if not large:
        yield read_label(storage, uri)
        return
    with opened_file(storage, uri, what="the label") as data:
        yield data


def read_whole(storage: Storage, uri: str, key: str = "labels.uri") -> bytes:
    """The bytes of a file that describes the whole set. Raises ConfigError, naming the config's ``key``."""
    try:
        return storage.read(uri)
    except OSError as error:
        raise ConfigError(f"{key}: {uri}: cannot be read: {error.strerror or error}") from None


def check_size(found: tuple[int, ...], size_hw: tuple[int, int]) -> None:
    """Raise ItemError LABEL_SHAPE unless a label of shape ``found`` (h, w) fits its image."""
    if found != size_hw:
        raise ItemError(
            "LABEL_SHAPE",
            f"the label has {size_text(found)}, the image {size_text(size_hw)} pixels{turned_hint(found, size_hw)}",
        )


def turned_hint(found: tuple[int, ...] | None, size_hw: tuple[int, int]) -> str:
    """The end of a message on sizes, where one is the other turned."""
    return " (turned: has the image an EXIF orientation? see labels.frame)" if found == size_hw[::-1] else ""


def policy_of(config: LabelsConfig, categories: Sequence[Category]) -> Policy:
    """The config's policy for unknown ids. Raises ConfigError where ``unknown_class`` is none of them."""
    names = {category.name: category for category in categories}
    if config.unknown_class is None:
        return Policy(config.unknown)
    if config.unknown_class not in names:
        raise ConfigError(
            f"labels.unknown_class: {config.unknown_class!r} is no class; {nearest(config.unknown_class, names)}"
        )
    return Policy(config.unknown, names[config.unknown_class])


def resolve(
    keys: Sequence[Key], known: Mapping[Key, Category], policy: Policy, *, what: str
) -> tuple[list[Category | None], tuple[Finding, ...]]:
    """Ids or names of an image's objects → their categories, None for those to leave out.

    ``what`` names the keys in messages ("category ids"). Raises UnknownId where the policy fails them.
    """
    strangers = Counter(key for key in keys if key not in known)
    if not strangers:
        return [known[key] for key in keys], ()
    found = ", ".join(first_few([f"{key} ({count} annotations)" for key, count in sorted(strangers.items(), key=repr)]))
    if policy.unknown == "fail":
        raise UnknownId("LABEL_VALUE", f"{what} {found} are not in the class table; see labels.unknown")
    fate = f"taken as {policy.unknown_class.name!r}" if policy.unknown_class else "left out"
    finding = Finding("unknown_ids", strangers.total(), f"{what} {found}: {fate}")
    return [known.get(key, policy.unknown_class) for key in keys], (finding,)
