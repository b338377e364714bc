"""What a directory of checkpoints holds, and whether all of it can be read.

Owns the check of a whole directory, whichever formats its files have. It reads every byte and changes
nothing, so it may run beside a server; what that server removes meanwhile is passed over. Invariant: a
directory is good exactly if no file of it is damaged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import define, field, frozen

from ccstore.disk import layout
from ccstore.disk.contents import FileKind, open_file
from ccstore.disk.files import TEMPORARY, OsDisk, lock_directory
from ccstore.disk.frames import Damage
from ccstore.disk.inspection import Inspection, inspect_file
from ccstore.disk.layout import ROOM, ColumnarFile
from ccstore.disk.reference.directory import Listing, list_hosts
from ccstore.errors import ConfigError, CorruptionError

__all__ = [
    "Found",
    "Group",
    "Problem",
    "Verification",
    "is_in_use",
    "list_directory",
    "verify_directory",
]

_ATTEMPTS = 10


@frozen
class Found:
    """The names in a directory."""

    directory: Path
    columnar: Sequence[ColumnarFile]
    """In the order of their numbers."""
    reference: Listing
    covered: Path | None
    """The file that tells what is covered, if there is one."""
    leftovers: Sequence[Path]
    """Files that somebody did not finish; the next start removes them."""
    strange: Sequence[Path]
    """What nobody reads."""

    @property
    def files(self) -> list[Path]:
        """Every file that is to be read."""
        of_hosts = [
            path
            for host in self.reference.hosts
            for path in (*(file.path for file in host.files), *host.logs)
        ]
        return [
            *(file.path for file in self.columnar),
            *([self.covered] if self.covered else []),
            *of_hosts,
        ]


@define
class Group:
    """Files of one kind, taken together."""

    files: int = 0
    bytes: int = 0
    values: int = 0
    missing: int = 0
    damaged: int = 0
    """Files."""
    torn: int = 0
    """Files with a tail that a crash left."""

    def add(self, found: Inspection) -> None:
        """Count a file."""
        self.files += 1
        self.bytes += found.content.size
        self.values += found.values
        self.missing += found.missing
        self.damaged += not found.is_good
        self.torn += found.content.tail is not None


@frozen
class Problem:
    """A file with damage or a torn tail."""

    path: Path
    kind: FileKind
    damage: Sequence[Damage]
    tail: Damage | None
    nameless: int
    """Samples whose series is not known because its names are lost."""

    @property
    def is_damage(self) -> bool:
        """Whether more than a torn tail is wrong."""
        return bool(self.damage or self.nameless)


@define
class Verification:
    """What a directory holds."""

    found: Found
    groups: dict[FileKind, Group] = field(factory=dict)
    covered: int = 0
    """Segments with smaller numbers are in checkpoints as well."""
    covered_segments: int = 0
    replayed_segments: int = 0
    """Those that the next start reads."""
    replayed_samples: int = 0
    missing_numbers: int = 0
    """Numbers between the first and the last file without a file: it was removed, or nothing was written."""
    problems: list[Problem] = field(factory=list)
    unreadable: list[str] = field(factory=list)
    """Files of which nothing can be read, each with the reason."""
    vanished: int = 0
    """Files that were removed while others were read."""
    span: tuple[int, int] | None = None
    """Times of the first and the last value, in seconds."""
    hosts: int = 0
    series: int = 0

    @property
    def is_good(self) -> bool:
        """Whether nothing is damaged."""
        return not self.unreadable and not any(problem.is_damage for problem in self.problems)

    @property
    def has_damaged_checkpoints(self) -> bool:
        """Whether the next start reads all segments because a checkpoint is damaged."""
        return any(problem.kind is FileKind.CHECKPOINT and problem.is_damage for problem in self.problems)


def is_in_use(directory: Path) -> bool:
    """Tell whether a server has a directory, which exists."""
    try:
        with lock_directory(directory):
            return False
    except ConfigError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return True
        raise


def list_directory(directory: Path) -> Found:
    """Look at the names in a directory. Raises ConfigError if there is no such directory, and OSError."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory (wanted that of the checkpoints)")
    reference = list_hosts(OsDisk(), directory, skip={ROOM})
    columnar = layout.find_files(OsDisk(), directory)
    known = {file.path for file in columnar}
    covered = directory / ROOM / "covered"
    known |= {covered, directory / ROOM / layout.SUPERSEDED}
    others = [path for path in _walk(directory / ROOM) if path not in known]
    leftovers = [path for path in others if path.suffix == TEMPORARY]
    strange = [path for path in others if path.suffix != TEMPORARY]
    for host in reference.hosts:
        leftovers += host.temporary
        strange += host.strange
    return Found(
        directory,
        columnar,
        reference,
        covered if covered.is_file() else None,
        leftovers,
        [*strange, *reference.strange],
    )


def _walk(directory: Path) -> Iterator[Path]:
    """Yield all files below a directory; directories as well where none belongs."""
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_dir() and path.parent.name == ROOM:
            yield from _walk(path) if path.name.isdecimal() else (path,)
        else:
            yield path


def verify_directory(directory: Path, advance: Callable[[int], None] = lambda _bytes: None) -> Verification:
    """Read every file of a directory.

    advance: called with the bytes that were read since it was called last.
    Raises ConfigError if there is no such directory, and OSError.
    """
    found = _list_while_files_vanish(directory)
    result = Verification(
        found, unreadable=list(found.reference.unreadable), covered=layout.read_covered(OsDisk(), directory)
    )
    segments = {file.path: file.number for file in found.columnar if file.is_segment}
    series: set[int] = set()
    hosts: set[tuple[str, ...]] = set()
    for path in found.files:  # series by their hash: there can be millions, and they are only counted
        inspected = _read(path, result, advance)
        if inspected is None:
            continue
        hosts.update(one.series.path[:2] for one in inspected.series)
        series.update(hash((one.series.path, one.series.metric)) for one in inspected.series)
        if path in segments and segments[path] >= result.covered:
            result.replayed_segments += 1
            result.replayed_samples += inspected.values + inspected.missing
    numbers = {file.number for file in found.columnar}
    result.covered_segments = sum(number < result.covered for number in segments.values())
    result.missing_numbers = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    result.hosts, result.series = len(hosts), len(series)
    return result


def _list_while_files_vanish(directory: Path) -> Found:
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):  # a server removed a file after its name was seen
            return list_directory(directory)
    return list_directory(directory)


def _read(path: Path, result: Verification, advance: Callable[[int], None]) -> Inspection | None:
    """Read a file and enter it into the groups; None if nothing of it can be read."""
    try:
        content = open_file(path)
        read = 0

        def see(_part: object) -> None:
            nonlocal read
            advance(content.position - read)
            read = content.position

        inspected = inspect_file(content, see=see)
        advance(content.size - read)
    except FileNotFoundError:
        result.vanished += 1
        return None
    except CorruptionError as error:
        result.unreadable.append(str(error))
        return None
    except OSError as error:
        result.unreadable.append(f"{path}: cannot be read ({error.strerror})")
        return None
    result.groups.setdefault(content.kind, Group()).add(inspected)
    if not inspected.is_good or content.tail is not None:
        result.problems.append(Problem(path, content.kind, inspected.damage, content.tail, content.nameless))
    if inspected.span is not None:
        spans = [span for span in (result.span, inspected.span) if span is not None]
        result.span = min(start for start, _ in spans), max(stop for _, stop in spans)
    return inspected
