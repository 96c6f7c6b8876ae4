"""Pictures for the documents, from the real demo: `scripts/pictures [folder]`.

Runs the demo's story in a folder of its own and looks at it with Debian's Chromium: the fleet and
the rollout while the last wave of the good release is under way, a device, and the bad release.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from demo_lib import cast
from demo_lib.progress import Progress
from demo_lib.story import Story
from local_fleet.fleet import LocalFleet
from playwright.sync_api import Page, ViewportSize, sync_playwright
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZE = ViewportSize(width=1180, height=860)
PATIENCE_MS = 120_000
LAST_WAVE = "li.wave:nth-child(3)[aria-current]"


def main() -> None:
    """Take all pictures."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, LocalFleet(Path(folder)) as fleet:
        story = Story(fleet, Progress(Console(highlight=False), 6))
        for step in (story.build, story.start, story.enrol, story.first_release):
            step()
        with signed_in(fleet) as page:
            while_running(story.better_release, lambda: last_wave(page, fleet, target))
            page.goto(f"{fleet.url}/devices/{cast.FAULTY_DEVICE}")
            page.locator("figure[data-chart=latency] canvas").wait_for()
            shoot(page, target / "device.png")
            while_running(story.bad_release, lambda: bad_release(page, fleet, target))


def last_wave(page: Page, fleet: LocalFleet, target: Path) -> None:
    """The fleet while most of it changes to the good release."""
    page.goto(fleet.url)
    page.locator(f"#rollouts {LAST_WAVE}").wait_for()
    page.locator("#counters .is-updating strong:not(:text-is('0'))").wait_for()
    shoot(page, target / "fleet.png")


def bad_release(page: Page, fleet: LocalFleet, target: Path) -> None:
    """The rollout that was taken back, with the reason."""
    page.goto(f"{fleet.url}/rollouts")
    page.get_by_role("link", name="r-3", exact=True).click()
    page.get_by_text("rolled back", exact=True).first.wait_for()
    shoot(page, target / "rollout.png")


def shoot(page: Page, path: Path) -> None:
    """One picture of what fits on the screen."""
    page.wait_for_timeout(300)  # a swap may be under way
    page.screenshot(path=path)
    print(f"pictures: {path}")


def while_running(work: Callable[[], None], look: Callable[[], None]) -> None:
    """Look at something while it happens."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        look()
    finally:
        thread.join()


@contextmanager
def signed_in(fleet: LocalFleet) -> Iterator[Page]:
    """A browser that is signed in as operator."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(PATIENCE_MS)
        page.goto(fleet.sign_in_url())
        page.get_by_role("button", name="Sign out").wait_for()
        yield page
        browser.close()


if __name__ == "__main__":
    main()
