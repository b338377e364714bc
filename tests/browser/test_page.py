"""The page in a real browser: it loads, it moves, it survives a restart of the server."""

import re

import pytest
from conftest import Demo, Eyes, free_port
from playwright.sync_api import Browser, expect

NOTHING = "\N{EN DASH}"
"""What stands where there is no value yet."""


def test_a_cluster_at_a_glance(demo: Demo, eyes: Eyes):
    """A cell for each host; a filter leaves what fits; a colour by metric shows more than one colour."""
    page = eyes.page
    page.goto(demo.url)
    cells = page.locator(".nodes a")
    expect(cells).to_have_count(demo.hosts)
    expect(page.locator("#link")).to_have_text("live")
    eyes.shoot("cluster")
    first = cells.first.get_attribute("aria-label")
    page.get_by_label("Filter hosts").fill(first)
    expect(page.locator(".nodes a:visible")).to_have_count(1)
    page.get_by_label("Filter hosts").fill("")
    page.get_by_label("Colour by").select_option("cpu_load")
    expect(cells.first).to_have_attribute("style", re.compile("background-color"))
    other = cells.first.evaluate("(a) => a.style.backgroundColor")
    expect(page.locator(f".nodes a:not([style*='{other}'])").first).to_be_visible()


def test_a_node_moves(demo: Demo, eyes: Eyes):
    """Its plots get new values while one looks, and components unfold to a heat map."""
    page = eyes.page
    page.goto(demo.url)
    page.locator(".nodes a").first.click()
    card = page.locator("[data-metric=cpu_load]")
    value = card.locator("h2 b")
    expect(value).not_to_have_text(NOTHING)
    before = value.text_content()
    expect(value).not_to_have_text(before)
    threads = page.locator("[data-metric=flops_any]")
    threads.get_by_role("button").click()
    expect(threads.locator("canvas.heat")).to_be_visible()
    expect(threads.locator("small.quiet")).to_contain_text("rows from")
    eyes.shoot("node")


def test_a_running_job_moves(demo: Demo, eyes: Eyes):
    """One plot a metric, and statistics that change while one looks."""
    page = eyes.page
    page.goto(f"{demo.url}/#/jobs")
    page.locator("tbody a").first.click()
    expect(page.locator("h1")).to_contain_text("Job ")
    expect(page.locator("[data-metric=cpu_load] canvas")).to_be_visible()
    average = page.locator(".scroll tbody tr").last.locator("td").first
    expect(average).not_to_have_text(NOTHING)
    row = page.locator(".scroll tbody tr").first
    before = row.text_content()
    expect(row).not_to_have_text(before)
    eyes.shoot("job")


def test_the_store_adds_up(demo: Demo, eyes: Eyes):
    """The ledger of the page is closed, and lines come in."""
    page = eyes.page
    page.goto(f"{demo.url}/#/store")
    expect(page.get_by_text("They add up: nothing got lost.")).to_be_visible()
    received = (
        page.locator("tr", has=page.get_by_role("rowheader", name="received", exact=True)).locator("td").first
    )
    before = received.text_content()
    expect(received).not_to_have_text(before)
    eyes.shoot("store")


def test_keys_lead_everywhere(demo: Demo, eyes: Eyes):
    """Arrows move in the grid, Enter opens, letters change the view, a slash goes to the search."""
    page = eyes.page
    page.goto(demo.url)
    expect(page.locator(".nodes a")).to_have_count(demo.hosts)
    page.locator(".nodes a[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    second = page.locator(".nodes a").nth(1)
    expect(second).to_be_focused()
    name = second.get_attribute("aria-label")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(name)
    page.keyboard.press("s")
    expect(page.locator("h1")).to_have_text("Store")
    page.keyboard.press("/")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(name)


@pytest.mark.parametrize("path", ["/", "/jobs", "/store", "/nothing"])
def test_a_narrow_screen_needs_no_sideways_scrolling(demo: Demo, eyes: Eyes, path: str):
    """Nothing is wider than a telephone."""
    page = eyes.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"{demo.url}/#{path}")
    expect(page.locator("#link")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_light_and_dark(demo: Demo, eyes: Eyes):
    """As the system wants it, unless the button says otherwise; the choice stays."""
    page = eyes.page
    page.goto(f"{demo.url}/#/store")
    back = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(back)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(back)
    assert light != dark
    page.locator("#theme").click()
    assert page.evaluate(back) == light
    page.reload()
    assert page.evaluate(back) == light


def test_a_restart_of_the_server_is_survived(chromium: Browser, eyes: Eyes):
    """The page says that the connection is lost, finds the server again, and its plots go on."""
    demo = Demo(free_port(), hosts=2)
    demo.start()
    page = eyes.page
    page.goto(demo.url)
    page.locator(".nodes a").first.click()
    value = page.locator("[data-metric=cpu_load] h2 b")
    expect(value).not_to_have_text(NOTHING)
    demo.stop()
    expect(page.locator("#link")).to_have_attribute("data-state", "lost")
    demo.start()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    before = value.text_content()
    expect(value).not_to_have_text(before)
    demo.stop()
