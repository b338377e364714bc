"""The command query against a real server."""

import csv
import io
import json
import re
import time

import pytest
import trio
from querying import (
    DAY,
    HOSTS,
    MINUTE,
    START,
    STOP,
    ZONE,
    bare_store,
    hour,
    query,
    sample,
    store,
    whole_hour,
    write,
)
from test_cli_query_client import PRIVATE_KEY, PUBLIC_KEY

from ccstore.cli import ExitCode, main
from ccstore.cli import query as command

NO_AGGREGATION = "the metric has no aggregation (wanted one component)"
OK, FAILED, USAGE = ExitCode.OK, ExitCode.FAILED, ExitCode.USAGE


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine in Central Europe, without a terminal, at two o'clock on the day of the samples."""
    for name in ("CCSTORE_URL", "CCSTORE_TOKEN", "FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", ZONE)
    time.tzset()
    monkeypatch.setattr(command, "_now", lambda: STOP)
    yield
    monkeypatch.undo()
    time.tzset()


def lines_of(text):
    """Return the lines without the spaces behind them."""
    return [line.rstrip() for line in text.splitlines()]


async def test_all_hosts_of_the_only_cluster(capsys):
    """A line for each, with numbers of the last hour and a sparkline; no colour, as it is no terminal."""
    async with store(hour()) as url:
        assert await query(url, "cpu_load") == OK
    out, err = capsys.readouterr()
    assert err == ""
    title, head, *rows = lines_of(out)
    assert title == "cpu_load, alex, 13:00 to 14:00 CET, every 60 s"
    assert head.split() == ["host", "last", "avg", "min", "max", "trend"]
    assert [row.split()[:5] for row in rows] == [
        ["a0001", "59.0", "29.5", "0.0", "59.0"],
        ["a0002", "118.0", "59.0", "0.0", "118.0"],
        ["a0010", "177.0", "88.5", "0.0", "177.0"],
    ]
    assert re.search("  ▁+▂+▃+▄+▅+▆+▇+█+$", rows[2])
    assert re.search("▃ {20}▄", rows[1]), "20 silent minutes are 20 blanks"


async def test_sorted_and_the_first_of_them(capsys):
    """--top sorts by the average unless told otherwise."""
    async with store(hour()) as url:
        assert await query(url, "cpu_load", "--top", "2") == OK
        assert await query(url, "cpu_load", "--top", "2", "--sort", "host", "--table") == OK
    by_average, by_host = capsys.readouterr().out.split("cpu_load, ")[1:]
    assert re.findall(r"^a\d+", by_average, re.MULTILINE) == ["a0010", "a0002"]
    assert re.findall(r"^a\d+", by_host, re.MULTILINE) == ["a0001", "a0002"]
    assert "2 of 3 series" in by_average


async def test_components(capsys):
    """Each component is a series, also of hosts that were not named; combined they are one."""
    async with store(hour()) as url:
        chosen = ["mem_bw", "--type", "SOCKET", "--ids", "0-1", *whole_hour()]
        assert await query(url, *chosen) == OK
        each = [line.split()[:3] for line in lines_of(capsys.readouterr().out)[2:]]
        assert await query(url, *chosen, "--sum") == OK
        combined = [line.split()[:3] for line in lines_of(capsys.readouterr().out)[2:]]
    assert each == [
        ["a0001", "socket0", "100.0"],
        ["a0001", "socket1", "50.0"],
        ["a0002", "socket0", "100.0"],
        ["a0002", "socket1", "50.0"],
        ["a0010", "socket0", "100.0"],
    ]
    assert combined == [
        ["a0001", "socket[0-1]", "150.0"],
        ["a0002", "socket[0-1]", "150.0"],
        ["a0010", "socket[0-1]", "100.0"],
    ]


async def test_several_metrics_are_several_tables(capsys):
    """Each with its own unit and prefix."""
    async with store(hour()) as url:
        assert await query(url, "net_bytes_in", "mem_bw,net_bytes_in", "--host", "a0001,a0010") == OK
    first, second = capsys.readouterr().out.split("\n\n")
    assert lines_of(first)[0] == "net_bytes_in in MB/s, alex, 13:00 to 14:00 CET, every 60 s"
    assert lines_of(first)[2].split()[:2] == ["a0001", "1.235"]
    assert lines_of(second)[0] == "mem_bw in GB/s, alex, 13:00 to 14:00 CET, every 60 s"
    assert [line.split()[:2] for line in lines_of(second)[2:]] == [["a0001", "150.0"], ["a0010", "100.0"]]


async def test_csv_has_a_line_for_each_value(capsys):
    """In seconds and with all digits; what is missing has no line."""
    async with store(hour()) as url:
        chosen = ["--from", str(START), "--to", str(START + 120), "--csv"]
        assert await query(url, "cpu_load", "net_bytes_in", "--host", "a0010", *chosen) == OK
        first = capsys.readouterr().out
        assert await query(url, *whole_hour("cpu_load", "--csv")) == OK
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert await query(url, "mem_bw", "--type", "socket", "--ids", "0", "--host", "a0010", *chosen) == OK
        assert capsys.readouterr().out.splitlines()[1] == f"mem_bw,a0010,socket0,{START},100.0"
    assert first == (
        "metric,host,component,time,value\n"
        f"cpu_load,a0010,,{START},0.0\n"
        f"cpu_load,a0010,,{START + 60},3.0\n"
        f"net_bytes_in,a0010,,{START},1234567.875\n"
        f"net_bytes_in,a0010,,{START + 60},1234567.875\n"
    )
    assert [sum(row["host"] == host for row in rows) for host in HOSTS] == [60, 40, 60]


async def test_json_is_the_answer_of_the_server(capsys):
    """As it is, for all nodes or for queries in the order of hosts, metrics and components."""
    async with store(hour()) as url:
        assert await query(url, *whole_hour("cpu_load", "--json")) == OK
        answer = json.loads(capsys.readouterr().out)
        assert [one["host"] for one in answer["queries"]] == list(HOSTS)
        assert answer["results"][0][0]["data"] == [float(value) for value in range(60)]
        assert await query(url, *whole_hour("cpu_load", "mem_bw", "--host", "a0001", "--json")) == OK
        answer = json.loads(capsys.readouterr().out)
    assert [one[0]["max"] for one in answer["results"]] == [59.0, 150.0]


async def test_resolution_thins_out_in_the_server(capsys):
    """With all values counted in the statistics; it works for all hosts, whom the server names first."""
    lines = [sample("cpu_load", host, k % 100, START + k * MINUTE) for host in HOSTS[:2] for k in range(1440)]
    async with store(lines) as url:
        chosen = ["cpu_load", "--from", str(START), "--to", str(START + DAY), "--resolution", "1h"]
        assert await query(url, *chosen) == OK
        title, _, *rows = lines_of(capsys.readouterr().out)
        assert await query(url, *chosen, "--csv") == OK
        values = capsys.readouterr().out.splitlines()[1:]
    assert title.endswith("2023-11-02 13:00 to 2023-11-03 13:00 CET, every 3600 s")
    assert [row.split()[:5] for row in rows] == [
        [host, "39.00", "48.67", "0.00", "99.00"] for host in HOSTS[:2]
    ]
    assert len(values) == 2 * 24


async def test_without_a_metric_it_shows_what_there_is(capsys):
    """The clusters, and the metrics with frequency, aggregation and unit."""
    other = sample("temp", "f1", 1, START, cluster="fritz")
    async with store([*hour(), other]) as url:
        assert await query(url) == OK
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [["cluster", "hosts"], ["alex", "3"], ["fritz", "1"], []]
    assert lines[4] == ["metric", "every", "combined", "unit"]
    assert ["mem_bw", "60", "s", "sum", "GB/s"] in lines
    assert ["temp", "30", "s", "-", "degC"] in lines
    assert ["cpu_load", "60", "s", "avg", "-"] in lines


async def test_the_cluster_is_found_or_asked_for(capsys):
    """One is taken, of several one must be named, and without any there is nothing to ask for."""
    async with store() as url:
        assert await query(url, "cpu_load") == FAILED
        assert capsys.readouterr().err == "ccstore: query: this server has no samples yet\n"
        await write(url, [sample("cpu_load", "h", 1, START, cluster=name) for name in ("alex", "fritz")])
        assert await query(url, *whole_hour("cpu_load")) == FAILED
        wanted = "ccstore: query: several clusters: alex, fritz (wanted one as --cluster NAME)\n"
        assert capsys.readouterr().err == wanted
        assert await query(url, *whole_hour("cpu_load", "--cluster", "fritz")) == OK
        assert "cpu_load, fritz, " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        (["cpu_lod"], ["unknown metric 'cpu_lod' (did you mean 'cpu_load'?)"]),
        (
            ["nope", "cpu_load", "nix"],
            [
                "unknown metric 'nope' (there is cpu_load, mem_bw, net_bytes_in, temp, clock)",
                "unknown metric 'nix' (there is cpu_load, mem_bw, net_bytes_in, temp, clock)",
            ],
        ),
        (
            ["cpu_load", "--host", "a0011"],
            ["nothing is stored of host 'a0011' in cluster 'alex' (did you mean 'a0010'?)"],
        ),
        (
            ["cpu_load", "--cluster", "b", "--host", "x"],
            ["nothing is stored of cluster 'b' (the server has alex)"],
        ),
        (["cpu_load", "--cluster", "b"], ["nothing is stored of cluster 'b' (the server has alex)"]),
        (
            ["cpu_load", "--cluster", "b", "--type", "core", "--ids", "0"],
            ["nothing is stored of cluster 'b' (the server has alex)"],
        ),
        (["clock"], ["no host of cluster 'alex' has 'clock'"]),
        (["clock", "--host", "a0001"], ["host 'a0001' has no 'clock'"]),
        (
            ["cpu_load", "--type", "core", "--ids", "0-9"],
            ["no host of cluster 'alex' has 'cpu_load' of core0, core1, core2, core3, core4 and 5 more"],
        ),
        (
            ["cpu_load", "--from", "2023-11-01", "--to", "2023-11-01T12:00"],
            ["no samples of 'cpu_load' from 2023-11-01 00:00 to 12:00 CET"],
        ),
        (
            ["temp"],
            [f"'temp' of a0001, a0002, a0010: several components, and {NO_AGGREGATION}"],
        ),
        (
            ["cpu_load", "--resolution", "90s", "--host", "a0001"],
            ["'cpu_load' of a0001: resolution (wanted a multiple of the metric's frequency)"],
        ),
    ],
)
async def test_what_is_not_there_is_one_line(arguments, errors, capsys):
    """Nothing is shown, and the line says what was probably meant."""
    async with store(hour()) as url:
        assert await query(url, *arguments) == FAILED
    assert capsys.readouterr() == ("", "".join(f"ccstore: query: {error}\n" for error in errors))


async def test_what_is_there_is_shown_beside_what_is_not(capsys):
    """A table of the one, a line for each of the others, and the exit code of a failure."""
    async with store(hour()) as url:
        found = ["mem_bw", "--host", "a0010,a0001,a9", "--type", "socket", "--ids", "0,1,2"]
        assert await query(url, *found) == FAILED
        out, err = capsys.readouterr()
        assert [line.split()[:2] for line in lines_of(out)[2:]] == [
            ["a0001", "socket0"],
            ["a0001", "socket1"],
            ["a0010", "socket0"],
        ]
        assert err.splitlines() == [
            "ccstore: query: host 'a0010' has no 'mem_bw' of socket1, socket2",
            "ccstore: query: host 'a0001' has no 'mem_bw' of socket2",
            "ccstore: query: nothing is stored of host 'a9' in cluster 'alex' (there is a0001, a0002, a0010)",
        ]
        assert await query(url, "cpu_load", "--host", "a9", "--json") == FAILED
        out, err = capsys.readouterr()
        assert json.loads(out) == {"results": [[]]}
        assert "'a9'" in err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["m", "--from", "x"], "invalid value for '--from': not a time (got 'x', wanted such as -2h, now, "),
        (["m", "--last", "5x"], "invalid value for '--last': unknown unit 'x' in a duration (got '5x', "),
        (["m", "--ids", "3-1", "--type", "core"], "invalid value for '--ids': not a range (got '3-1', "),
        (["m", "--last", "1h", "--from", "-2h"], "--last with --from (wanted one of them)"),
        (["m", "--from", "now", "--to", "-1h"], "--from is not before --to (got 1698930000 and 1698926400 "),
        (["m", "--ids", "0"], "--ids without --type (wanted --type socket|memoryDomain|"),
        (["m", "--subids", "0"], "--subids without --type (wanted --type socket|memoryDomain|"),
        (["m", "--sum"], "--sum without --type (wanted --type socket|memoryDomain|"),
        (["m", "--type", "core"], "--type core without --ids (wanted --ids LIST, such as 0,1 or 0-71)"),
        (["m", "--type", "core", "--ids", "0", "--subtype", "x"], "one of --subtype and --subids without "),
        (["m", "--type", "cpu"], "invalid value for '--type': 'cpu' is not one of 'socket', "),
        (["m", "--watch", "--json"], "--watch with --json (wanted a table or a plot)"),
        (["m", "--watch"], "--watch without a terminal (wanted one as the output)"),
        (
            ["--watch", "m"],
            "invalid value for '--watch': a duration needs a number before each unit (got 'm', ",
        ),
        (
            ["m", "--json", "--top", "3"],
            "--json with --sort or --top (the server's answer is printed as it is)",
        ),
        (["m", "--top", "0"], "invalid value for '--top': 0 is not in the range x>=1"),
        (["--csv"], "--csv without a metric (wanted METRIC)"),
    ],
)
def test_wrong_usage_is_one_line(arguments, error, capsys):
    """Nothing is asked: there is no server here."""
    assert main.run(["query", "--url", "http://127.0.0.1:1", *arguments]) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"ccstore: query: {error}")
    assert err.endswith(" (see 'ccstore query --help')\n")
    assert err.count("\n") == 1


async def test_a_server_that_tells_no_lists(capsys):
    """The reference store's routes are enough; units and suggestions are what is missing."""
    async with bare_store(hour()) as url:
        assert await query(url) == USAGE
        missing = "ccstore: query: no METRIC, and this server does not tell which it has (see "
        assert capsys.readouterr().err.startswith(missing)
        assert await query(url, "mem_bw") == FAILED
        wanted = "ccstore: query: this server does not tell its clusters (wanted --cluster NAME)\n"
        assert capsys.readouterr().err == wanted
        assert await query(url, *whole_hour("mem_bw", "--cluster", "alex")) == OK
        assert lines_of(capsys.readouterr().out)[0].startswith("mem_bw, alex, ")
        assert await query(url, "nope", "--cluster", "alex") == FAILED
        unknown = "ccstore: query: 'nope' of a0001, a0002, a0010: unknown metric: nope\n"
        assert capsys.readouterr().err == unknown
        assert await query(url, "mem_bw", "--cluster", "b") == FAILED
        assert capsys.readouterr().err == "ccstore: query: nothing is stored of cluster 'b'\n"


async def test_url_and_token_from_the_environment(capsys, monkeypatch):
    """Options win over them."""
    import jwt

    token = jwt.encode({"roles": ["api"]}, PRIVATE_KEY, algorithm="EdDSA")
    async with store(hour(), public_key=PUBLIC_KEY, token=token) as url:
        monkeypatch.setenv("CCSTORE_URL", url)
        run = main.run
        assert await trio.to_thread.run_sync(run, ["query", "cpu_load"]) == FAILED
        assert "401 " in capsys.readouterr().err
        monkeypatch.setenv("CCSTORE_TOKEN", token)
        assert await trio.to_thread.run_sync(run, ["query", "cpu_load"]) == OK
        assert await trio.to_thread.run_sync(run, ["query", "cpu_load", "--token", "x.y.z"]) == FAILED


def test_help_tells_what_is_needed(capsys):
    """The agreed options are there, with the forms of times and lists."""
    assert main.run(["query", "--help"]) == OK
    out = capsys.readouterr().out
    options = (
        "--host --cluster --type --ids --subtype --subids --sum --last --from --to --resolution "
        "--url --token --plot --table --json --csv --sort --top --watch"
    )
    assert set(options.split()) <= set(re.findall(r"--[a-z]+", out))
    assert max(map(len, out.splitlines())) <= 100
