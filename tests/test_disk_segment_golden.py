"""The bytes of columnar files do not change: files that were written once are read for ever."""

import re
from pathlib import Path

import pytest
from disk_columnar import (
    CHECKPOINT,
    CHECKPOINT_CONTENT,
    CHECKPOINT_HEAD,
    COMPRESSED_BLOCK,
    COMPRESSED_SAMPLES,
    FIRST_NAMES,
    GOLDEN,
    SEGMENT,
    SEGMENT_CONTENT,
    SEGMENT_HEAD,
    SUMMARY,
    plain,
)

from ccstore.disk.checkpoint import SLOTS, CheckpointReader, read_summary
from ccstore.disk.columns import DELTAS, MAX_COLUMN, OFFSETS, RUNS
from ccstore.disk.frames import COMPRESSED, COPY, HEAD_BYTES, HEADER_BYTES, MAX_PAYLOAD
from ccstore.disk.names import MAX_NUMBERS
from ccstore.disk.segment import FRAME_SAMPLES, SegmentReader

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")


def test_a_segment_is_written_as_ever() -> None:
    """The example gives the bytes of the golden file."""
    assert (GOLDEN / "version-1.log").read_bytes() == SEGMENT


def test_a_checkpoint_is_written_as_ever() -> None:
    """The example gives the bytes of the golden file."""
    assert (GOLDEN / "version-1.ckpt").read_bytes() == CHECKPOINT


@pytest.mark.parametrize(
    ("name", "content"),
    [("version-1.log", SEGMENT_CONTENT), ("version-1-compressed.log", [FIRST_NAMES, COMPRESSED_SAMPLES])],
)
def test_old_segments_are_read(name: str, content: list[object]) -> None:
    """What the golden files hold is read as it was written."""
    reader = SegmentReader((GOLDEN / name).read_bytes())
    assert [plain(found) for found in content] == [plain(found) for found in reader]
    assert (reader.head, reader.damage, reader.tail) == (SEGMENT_HEAD, [], None)


@pytest.mark.parametrize(
    ("name", "content"),
    [("version-1.ckpt", CHECKPOINT_CONTENT), ("version-1-compressed.ckpt", [COMPRESSED_BLOCK])],
)
def test_old_checkpoints_are_read(name: str, content: list[object]) -> None:
    """What the golden files hold is read as it was written."""
    data = (GOLDEN / name).read_bytes()
    reader = CheckpointReader(data)
    assert [plain(found) for found in content] == [plain(found) for found in reader]
    assert (reader.head, reader.damage, reader.tail, reader.lost) == (CHECKPOINT_HEAD, [], None, 0)
    assert read_summary(data) == reader.summary


def test_compressed_files_are_compressed() -> None:
    """The golden files of compressed frames have such frames."""
    for name, letter in (("version-1-compressed.log", b"S"), ("version-1-compressed.ckpt", b"B")):
        data = (GOLDEN / name).read_bytes()
        at = data.index(b"\xccfr\x01" + letter)
        assert data[at + 5] == COMPRESSED


# --- docs/reference/formats.md


def example(title: str) -> bytes:
    """Return the bytes of an example of the page, each line of which is ``offset  bytes  # what``."""
    block = re.search(rf"<!-- {title} -->\n```\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    data = b""
    for line in block[1].splitlines():
        if line.strip():
            offset, _, rest = line.strip().partition("  ")
            assert int(offset) == len(data), line
            data += bytes.fromhex(rest.partition("#")[0])
    return data


@pytest.mark.parametrize(("title", "data"), [("segment", SEGMENT), ("checkpoint", CHECKPOINT)])
def test_the_examples_of_the_page_are_right(title: str, data: bytes) -> None:
    """Each line of an example stands where it says, and together they are the golden file."""
    assert example(title) == data


@pytest.mark.parametrize(
    "text",
    [
        f"head, {HEAD_BYTES} bytes",
        f"header of {HEADER_BYTES} bytes",
        f"at most {MAX_PAYLOAD // 2**20} MiB",
        f"at most 2^{FRAME_SAMPLES.bit_length() - 1} samples",
        f"at most 2^{MAX_COLUMN.bit_length() - 1} numbers",
        f"at most 2^{MAX_NUMBERS.bit_length() - 1} of each kind",
        f"| {RUNS} | runs |",
        f"| {DELTAS} | deltas |",
        f"| {OFFSETS} | offsets |",
        f"| {COPY} | copy |",
        f"| {COMPRESSED} | compressed |",
        f"1 to {SLOTS}",
        f"[{SUMMARY.start}, {SUMMARY.stop})",
    ],
)
def test_the_figures_of_the_page_are_those_of_the_code(text: str) -> None:
    """A limit or a code that changes in the code changes on the page."""
    assert text in PAGE
