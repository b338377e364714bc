"""What the documentation says can be checked is checked: links, command lines, configurations, promises."""

import json
import re
import shlex
from functools import cache, partial
from pathlib import Path

import attrs
import click
import httpx
import pytest
import trio
from querying import warm_up

import ccstore
import ccstore.client
from ccstore.cli.main import COMMANDS, commands, translate
from ccstore.config import MainConfig, MetricStoreConfig, load_config
from ccstore.config.keys import ListOf, Section, key_of
from ccstore.memory.layout import CHUNK, ROW_SLOTS, SERIES, TABLE_ROWS
from ccstore.server import checkpoints, durability, upkeep, wal
from ccstore.server.auth import PERMISSIONS_OF, WITHOUT_ROLES, Permission
from ccstore.server.ledger import OUTCOMES

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("docs/**/*.md"),
    )
)
NO_COMMAND = re.compile(r"ccstore(?: COMMAND.*| \[--version\].*|:.*)?")
"""Texts that begin with the word without being a command line: the bare name, the frame, error messages."""

LATER = re.compile(r"(?<!unpack the )(?<!--)archiv|parquet", re.IGNORECASE)
"""What only a later version has."""
SAYS_SO = re.compile(r"\b(?:this|next|later) version|not there yet|job archive|reference", re.IGNORECASE)


@cache
def read(page):
    """Return a page."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def prose(page):
    """Return a page without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4,}.*$", "", text, flags=re.MULTILINE)


@cache
def anchors(page):
    """Return the anchors of the headings of a page, as GitHub makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def sections(page):
    """Yield (heading, text) of every section, up to the next heading of any level."""
    parts = re.split(r"^(#+ .*)$", read(page), flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def code_lines(page):
    """Yield the lines of the blocks of code for a shell: indented by four, or fenced as sh."""
    for block in re.findall(r"^```sh\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL):
        yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"^ {4}(?! )(.*)$", read(page), re.MULTILINE)


def command_lines(page):
    """Yield the arguments of every call of ccstore on a page, in blocks of code and in sentences."""
    quoted = re.findall(r"(?<!`)`(ccstore[^`\n]*)`", prose(page))
    for line in [*code_lines(page), *(text for text in quoted if not NO_COMMAND.fullmatch(text))]:
        if "ccstore" not in line or NO_COMMAND.fullmatch(line):
            continue
        for part in re.split(r"&&|\||;", line):
            try:
                words = shlex.split(part.partition(" > ")[0], comments=True)
            except ValueError:  # a sentence with an apostrophe, which no shell would take either
                continue
            if words[:2] == ["runuser", "-u"]:
                words = words[words.index("--") + 1 :]
            while words and (words[0] == "env" or re.match(r"[A-Z_]+=", words[0])):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "ccstore" and len(words) > 1:
                yield words[1:]


def is_synopsis(arguments):
    """Tell whether a command line is the pattern of one, such as ``query [METRIC ...] [OPTIONS]``."""
    return any(word.startswith("[") for word in arguments)


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    """Every relative link leads to a file, and its anchor to a heading."""
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = ((ROOT / page).parent / target).resolve() if target else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path.relative_to(ROOT).as_posix())):
            broken.append(link)
    assert broken == []


def test_the_index_lists_every_page():
    """A page that nobody links to is not read."""
    listed = set(re.findall(r"\]\(([^)#]+\.md)", read("docs/README.md")))
    written = {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} - {"README.md"}
    assert listed == written


def test_the_test_command_of_the_readme_is_what_ci_runs():
    """The line that is to work on a bare machine is the last one of .ci/run, to the letter."""
    last = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert re.search(r"^Test it.*?\n\n    (.*)$", read("README.md"), re.MULTILINE)[1] == last


def test_the_demo_command_of_the_readme():
    """It makes an environment without ensurepip, installs into it, and starts the demo."""
    first = re.search(r"^    (python3 .*)$", read("README.md"), re.MULTILINE)[1]
    assert [part.strip() for part in first.split("&&")] == [
        "python3 -m venv --without-pip .venv",
        "pip --python .venv/bin/python install .",
        ".venv/bin/ccstore demo",
    ]


def test_the_order_of_the_readme():
    """What it is and two lines; then what you see, running it, configuration, speed, where to read on."""
    assert re.findall(r"^## (.*)$", prose("README.md"), re.MULTILINE) == [
        "Two lines", "What you see", "Running it for real", "Configuration", "How fast", "Where to read on",
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_command_lines(page):
    """The command exists and takes these options and values; of a pattern, all options exist."""
    for arguments in command_lines(page):
        name, *rest = translate(arguments)
        with commands.make_context("ccstore", [], resilient_parsing=True) as context:
            if name.startswith("-"):
                assert name in {
                    option for parameter in commands.get_params(context) for option in parameter.opts
                }
                continue
            assert name in COMMANDS, (page, arguments)
            command = commands.get_command(context, name)
            options = {option for parameter in command.get_params(context) for option in parameter.opts}
        if is_synopsis(arguments):
            assert set(re.findall(r"--[a-z-]+", " ".join(rest))) <= options, (page, arguments)
            continue
        try:
            command.make_context(name, rest)
        except click.UsageError as error:
            pytest.fail(f"{page}: {' '.join(arguments)}: {error.format_message()}")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_section(name):
    """The reference has a section for each, and it names all of its options and no other."""
    section = read("docs/reference/cli.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert section
    with commands.make_context("ccstore", [], resilient_parsing=True) as context:
        command = commands.get_command(context, name)
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        options = {option for parameter in shown for option in parameter.opts if option.startswith("--")}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", section))
    assert named == options


def test_there_are_command_lines():
    """The search above finds those that a reader sees first."""
    found = [tuple(arguments) for page in PAGES for arguments in command_lines(page)]
    assert ("demo",) in found
    assert ("query", "cpu_load", "--top", "5") in found
    assert ("-config", "config.json", "-loglevel", "info") in found
    assert len(found) > 40


def json_values(page):
    """Yield every value of the blocks of JSON of a page: one for each block, or one for each line of it."""
    for block in re.findall(r"^```json\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL):
        try:
            yield json.loads(block)
        except json.JSONDecodeError:
            yield from map(json.loads, block.splitlines())


def is_configuration(value):
    """Tell whether a value is a configuration, or some sections of one, and not an answer of the server."""
    found = {"main", "metrics", "metric-store", "nats"} & value.keys()
    return bool(found) and all(isinstance(value[name], dict) for name in found)


@pytest.mark.parametrize("page", PAGES)
def test_json(page, tmp_path):
    """Every block is JSON; a configuration, or a part of one, is a valid one."""
    needed = {
        "main": {"addr": "127.0.0.1:8082"},
        "metric-store": {"retention-in-memory": "48h", "memory-cap": 0},
    }
    for value in filter(is_configuration, json_values(page)):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(needed | value))
        assert load_config(str(path), environ={}).path == str(path)


@pytest.mark.parametrize("page", PAGES)
def test_what_is_not_there_yet_is_not_promised(page):
    """Where a section speaks of what a later version has, it says so, or is about the reference store."""
    promised = [
        heading
        for heading, text in sections(page)
        if LATER.search(heading + text) and not SAYS_SO.search(heading + text)
    ]
    assert promised == []


@pytest.mark.parametrize("folder", ["ccstore", "docs", "examples", "."])
def test_the_project_stands_alone(folder):
    """No file refers to papers that are not part of it."""
    pattern = re.compile("/work/" + "|" + r"\bshared" + "/")
    paths = (ROOT / folder).glob("*.md") if folder == "." else (ROOT / folder).rglob("*.*")
    texts = {path for path in paths if path.suffix in (".md", ".py", ".json", ".yml", ".service", ".toml")}
    assert texts
    assert [path for path in sorted(texts) if pattern.search(path.read_text(encoding="utf-8"))] == []


def settings(cls, path):
    """Yield (path, name of the attribute) of every key below an object of the configuration."""
    for field in attrs.fields(cls):
        declared = key_of(field)
        kind = declared.kind.item if isinstance(declared.kind, ListOf) else declared.kind
        if isinstance(kind, Section):
            yield from settings(kind.cls, f"{path}.{declared.name}")
        else:
            yield f"{path}.{declared.name}", field.name


def test_keys_without_effect():
    """The page on the configuration says of exactly those keys that nobody reads that they have no effect."""
    page = read("docs/reference/config.md")
    users = [*(ROOT / "ccstore/server").rglob("*.py"), *(ROOT / "ccstore/cli").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in users)
    text = page.partition("\n## Keys without effect in this version\n")[2].partition("\n## ")[0]
    listed = re.findall(r"`([a-z.-]+)`", text)
    for path, name in [*settings(MainConfig, "main"), *settings(MetricStoreConfig, "metric-store")]:
        row = re.search(rf"^\| `{re.escape(path)}`.*", page, re.MULTILINE)
        said = (row is not None and "without effect" in row[0]) or path.startswith(tuple(listed))
        above = [part.replace("-", "_") for part in path.split(".")[1:-1]]  # others have a `directory`, too
        is_read = path == "main.allow-test-key" or all(
            re.search(rf"\.{part}\b", code) for part in (*above, name)
        )
        if above == ["cleanup"]:  # `checkpoints.directory` is read
            is_read = f"cleanup.{name}" in code
        assert said != is_read, (path, "without effect by the page" if said else "with an effect by the page")


def test_the_numbers_of_durability():
    """Times and sizes that the page on durability tells are those of the code."""
    page = " ".join(read("docs/explanation/durability.md").split())
    store = MetricStoreConfig()
    for number in (
        f"`wal.max-delay` ({store.wal.max_delay * 1000:g} ms)",
        f'`metric-store.wal.ack: "{store.wal.ack}"`, the default',
        f"`metric-store.shards`, {durability._SHARDS} by default",
        f"A request that waits for {wal.PATIENCE:g} s gets 429",
        f"**Full** means {wal.CAPACITY} steps",
        f"After {2 * checkpoints._FIRST_RETRY:g} s, then {4 * checkpoints._FIRST_RETRY:g} s",
    ):
        assert number in page, number
    assert (checkpoints._LAST_RETRY, upkeep._FIRST_CHECKPOINT) == (60, 60)
    assert "at most every minute" in page
    assert "a checkpoint comes after a minute" in page


@pytest.mark.timeout(300)  # compiling, the first time
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # of hot loops as plain Python
async def test_the_lines_and_the_answer_of_the_guide():
    """The lines that it begins with are stored, and a bad one behind them gets the answer that it shows."""
    warm_up()
    page = read("docs/how-to/send-metrics.md")
    lines = re.findall(r"^    (\w+,cluster=.*)$", page, re.MULTILINE)
    metrics = {line.partition(",")[0] for line in lines}
    assert len(metrics) == 3
    shown = next(value for value in json_values("docs/how-to/send-metrics.md") if "stored" in value)
    default = ccstore.Config()
    config = attrs.evolve(default, main=attrs.evolve(default.main, addr="127.0.0.1:0"))
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        (url,) = await nursery.start(partial(ccstore.run, config, stop=stop.wait))
        async with httpx.AsyncClient(base_url=url) as client:
            good = await client.post("/api/write", content="\n".join(lines))
            bad = "cpu_load,cluster=alex,hostname=a0002 value=much"
            answer = await client.post("/api/write", content="\n".join([*lines, bad]))
        stop.set()
    assert (good.status_code, good.content) == (200, b"")
    assert (answer.status_code, answer.json()) == (400, shown)


def test_the_table_of_roles():
    """The guide to tokens has every role, with what it permits."""
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+|no claim `roles` at all) \| (yes|) ?\| (yes|) ?\| (yes|) ?\|$",
        read("docs/how-to/install.md"), re.MULTILINE,
    )  # fmt: skip
    wanted = {name: tuple(may in permits for may in Permission) for name, permits in PERMISSIONS_OF.items()}
    wanted[""] = tuple(may in WITHOUT_ROLES for may in Permission)
    found = {
        name: tuple(cell == "yes" for cell in cells)
        for names, *cells in rows
        for name in ([""] if names.startswith("no ") else re.findall(r"`(\w+)`", names))
    }
    assert [may.value for may in Permission] == ["read", "write", "admin"]
    assert found == wanted


def test_the_table_of_the_ledger():
    """The guide to monitoring explains every outcome that is counted."""
    rows = re.findall(r"^\| `([a-z_]+)` \|", read("docs/how-to/monitor.md"), re.MULTILINE)
    assert sorted(rows) == sorted(outcome.name.lower() for outcome in OUTCOMES)


def test_the_table_of_memory():
    """What a series takes follows from the records that it is made of, within a twentieth."""
    page = read("docs/how-to/install.md")
    rows = re.findall(
        r"^\| (\d+) h \| ([\d ]+) \| ([\d.]+) GB \| ([\d.]+) GB \| (\d+) GB \|$", page, re.MULTILINE
    )
    assert len(rows) == 4
    for hours, each, *totals in rows:
        slots = int(hours) * 60 + 512
        rows_used, chunks = -(-slots // ROW_SLOTS), -(-slots // 512)
        size = SERIES.itemsize + chunks * (CHUNK.itemsize + 4 * TABLE_ROWS) + rows_used * 4 * ROW_SLOTS + 110
        assert int(each.replace(" ", "")) == pytest.approx(size, rel=0.05)
        for series, total in zip((1e5, 1e6, 2e6), totals, strict=True):
            assert float(total) == pytest.approx(size * series / 1e9, rel=0.08)


def test_the_public_names_are_documented():
    """The tables in reference/python.md have each of them, and no other."""
    server, client = read("docs/reference/python.md").split("\n## ccstore.client\n")
    rows = re.findall(r"^\| `(\w+)[^`]*` \|", server, re.MULTILINE)
    assert sorted(rows) == sorted(ccstore.__all__)
    rows = re.findall(r"^\| `(?:await client\.\w+|client\.\w+|(\w+))[^`]*` \|", client, re.MULTILINE)
    assert sorted(filter(None, rows)) == sorted(ccstore.client.__all__)
