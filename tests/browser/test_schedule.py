"""The Schedule page in a real browser: cursor and overlay, a link to the same view, the way on."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from dashboard.figures.schedule import number
from diffusion_core.process.tables import SCHEDULE_KINDS, Points, ScheduleTables
from tests.browser.conftest import PHONE, OpenPage, assert_not_too_wide

SET = "(slider, t) => { slider.value = t; slider.dispatchEvent(new Event('input')); }"
# Move the slider and return the cells of the table's rows at the next frame but one.
MOVE_AND_READ = """
async (slider, t) => {
  slider.value = t;
  slider.dispatchEvent(new Event("input"));
  for (let k = 0; k < 2; k += 1) await new Promise(requestAnimationFrame);
  const hosts = [...document.querySelectorAll("*")].filter((each) => each.shadowRoot);
  const rows = hosts.flatMap((each) => [
    ...each.shadowRoot.querySelectorAll(".coefficients tbody tr"),
  ]);
  return rows.map((row) => [...row.cells].slice(2).map((cell) => cell.textContent));
}
"""


def row(page: Page, name: str) -> Locator:
    """The line of one coefficient in the table at t."""
    return page.locator(".coefficients").get_by_role("row").filter(has_text=re.compile(f"^{name}"))


def expect_t(page: Page, t: int) -> None:
    """The table shows the coefficients at t."""
    expect(page.get_by_role("columnheader", name=f"at t = {t}")).to_be_visible()


@pytest.mark.long
def test_a_visitor_moves_t_overlays_a_schedule_and_shares_the_view(open_page: OpenPage) -> None:
    page = open_page("/schedule")
    expect(page.locator(".chart .main-svg .scatterlayer")).to_have_count(6)
    expect(row(page, "sqrt_alphas_cumprod")).to_contain_text("0.6800")

    page.get_by_role("button", name="cosine").click()
    expect(page.get_by_role("columnheader", name="cosine")).to_be_visible()
    page.get_by_role("slider").press("ArrowRight")
    expect_t(page, 151)
    page.wait_for_url(re.compile("kinds=linear&kinds=cosine"))
    page.wait_for_url(re.compile("t=151"))

    address = "/schedule" + page.url.partition("/schedule")[2]
    colleagues = open_page(address, viewport=PHONE)
    expect_t(colleagues, 151)
    assert row(colleagues, "betas").inner_text() == row(page, "betas").inner_text()
    assert_not_too_wide(colleagues)


@pytest.mark.long
def test_a_figure_has_nothing_to_select_with_and_on_a_phone_no_tool_bar(
    open_page: OpenPage,
) -> None:
    for path in ("/schedule", "/embedding"):  # a chart of ours, and Streamlit's
        page = open_page(path)
        tools = page.locator(".modebar").first
        expect(tools.locator("[data-title=Pan]")).to_be_attached()
        titles = tools.locator("[data-title]").evaluate_all("all => all.map(b => b.dataset.title)")
        assert not [title for title in titles if "Select" in title]
        page.set_viewport_size(PHONE)
        expect(tools).to_be_hidden()


def test_another_t_moves_the_cursor_and_leaves_the_curves_and_a_zoom_as_they_are(
    open_page: OpenPage,
) -> None:
    page = open_page("/schedule")
    chart = page.locator(".chart").nth(1)
    line = chart.locator(".cursor line")
    curve = chart.locator(".scatterlayer path.js-line").element_handle()
    before = line.get_attribute("x1")
    chart.evaluate(
        "box => window.diffusionLabPlotly.then(p => p.relayout(box, 'xaxis.range', [0, 199]))"
    )
    expect(line).not_to_have_attribute("x1", before)
    page.get_by_role("slider").press("ArrowLeft")
    expect(chart.locator(".cursor text")).to_have_text("0.4671")
    expect_t(page, 149)
    assert curve is not None and curve.evaluate("path => path.isConnected")
    assert chart.evaluate("box => box.layout.xaxis.range") == [0, 199]


@pytest.mark.long
def test_keys_and_play_move_t_and_the_server_is_told_where_it_rests(open_page: OpenPage) -> None:
    page = open_page("/schedule?t=20&T=40")
    slider = page.get_by_role("slider")
    for key, t in (("Home", 0), ("PageUp", 4), ("End", 39), ("PageDown", 35), ("ArrowUp", 36)):
        slider.press(key)
        expect(slider).to_have_value(str(t))
        page.wait_for_url(re.compile(rf"\bt={t}\b"))
    page.get_by_role("button", name="Play through the timesteps").click()
    expect(slider).to_have_value("39")  # it stops at the end
    page.wait_for_url(re.compile(r"\bt=39\b"))
    expect_t(page, 39)
    page.go_back()  # t of an earlier address
    expect(slider).to_have_value("36")
    expect(page.locator(".cursor text").nth(1)).to_have_text(re.compile(r"^0\.\d+$"))


@pytest.mark.long
def test_the_tables_can_be_downloaded_and_the_way_leads_on_to_noising(open_page: OpenPage) -> None:
    page = open_page("/schedule?kinds=cosine&T=100&t=250")
    expect_t(page, 99)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all tables as CSV").click()
    assert download.value.suggested_filename == "schedule-cosine-T100.csv"
    lines = download.value.path().read_text().splitlines()
    assert lines[0].startswith("kind,t,betas,alphas,alphas_cumprod,alphas_cumprod_prev,")
    assert len(lines) == 101

    page.get_by_role("slider").press("ArrowLeft")
    page.get_by_role("link", name="Noise an image: cosine, t = 98").click()
    expect(page.get_by_role("heading", name="Noising", level=1)).to_be_visible()
    page.wait_for_url(re.compile(r"/noising\?kind=cosine&"))
    assert set(page.url.partition("?")[2].split("&")) == {"kind=cosine", "T=100", "t=98"}


@pytest.mark.long
def test_the_coefficients_in_the_browser_are_numpys_to_the_last_digit(open_page: OpenPage) -> None:
    """The values and how they are written, at 200 timesteps of every kind."""
    kinds = "&".join(f"kinds={kind}" for kind in SCHEDULE_KINDS)
    for more in ("T=1000", "T=1000&zero_snr=true&shift=128"):
        page = open_page(f"/schedule?{kinds}&{more}")
        expect(page.locator(".coefficients tr")).to_have_count(10)
        rescale, size = ("zero" in more, 128 if "shift" in more else 0)
        schedules = [
            ScheduleTables(kind, 1000, rescale_zero_terminal_snr=rescale, shift_size=size)
            for kind in SCHEDULE_KINDS
        ]
        names = (*ScheduleTables.TABLES, "log_snr")
        for t in [*range(0, 990, 5), 998, 999]:
            shown = page.get_by_role("slider").evaluate(MOVE_AND_READ, t)
            wanted = [[number(float(getattr(s, name)[t])) for s in schedules] for name in names]
            assert shown == wanted, t


def expect_curve(page: Page, points: Points, *timesteps: int) -> None:
    """The designer's curve is NumPy's at these timesteps."""
    schedule = ScheduleTables("designed", 300, points=points)
    for t in timesteps:
        page.get_by_role("slider", name="Timestep t").evaluate(SET, t)
        log_snr = f"{schedule.log_snr[t]:.4f}".replace("-", "−")
        expect(page.locator(".designer output")).to_have_text(
            f"at t = {t}: log-SNR {log_snr}, ᾱ {schedule.alphas_cumprod[t]:.4f}"
        )


@pytest.mark.long
def test_points_are_dragged_and_moved_by_keys_within_their_neighbours(open_page: OpenPage) -> None:
    page = open_page("/schedule?view=Design&points=0:9,0.3:2.5,1:-8")
    expect_curve(page, ((0, 9), (0.3, 2.5), (1, -8)), 1, 50, 90, 233)
    point = page.get_by_role("slider", name="Point 2 of 3")
    point.focus()
    point.press("ArrowUp")
    point.press("Shift+ArrowRight")
    page.wait_for_url(re.compile(r"points=0%3A9%2C0.4%3A2.6%2C1%3A-8"))
    expect_curve(page, ((0, 9), (0.4, 2.6), (1, -8)), 100)
    for _ in range(9):
        point.press("Shift+ArrowUp")
    page.wait_for_url(re.compile(r"0.4%3A8.99"))  # below the point before it

    box = point.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 90, steps=5)
    page.mouse.move(box["x"] + 4000, box["y"] + 90, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile(r"0.995%3A"))  # before the point after it

    page.get_by_role("button", name="Remove the point").click()
    page.wait_for_url(re.compile(r"points=0%3A9%2C1%3A-8"))
    page.get_by_role("button", name="Add a point").click()
    page.wait_for_url(re.compile(r"points=0%3A9%2C0.5%3A0.5%2C1%3A-8"))
    page.get_by_role("radio", name="ᾱ").click()
    expect(page.get_by_role("group", name="Points of your own schedule: ᾱ")).to_be_visible()
    page.set_viewport_size(PHONE)
    assert_not_too_wide(page)
