"""A person's way through JupyterLab in a headless browser; also by itself:

python browser.py URL TOKEN_FILE NOTEBOOK SCREENSHOT
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def find() -> str | None:
    """The browser of this machine; root on Debian installs one. None if there is no way to one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    # Ubuntu's package of that name only fetches a snap, which needs a running snapd.
    debian = Path("/etc/debian_version").exists() and not Path("/etc/lsb-release").exists()
    if found is None and debian and os.geteuid() == 0:
        subprocess.run(["apt-get", "-qq", "update"], check=False)
        subprocess.run(["apt-get", "-qq", "-y", "install", "chromium"], check=False)
        found = shutil.which("chromium")
    return found


def run_notebook(
    url: str, token: str, notebook: str, screenshot: Path, *, wrong: str = "", seconds: int = 300
) -> str:
    """Sign in on the page, open the notebook, run all its cells; what the page shows in the end.

    With `wrong`, that is tried as password first, and has to be refused. Raises
    playwright.sync_api.Error if the page is not as it should be.
    """
    from playwright.sync_api import TimeoutError, expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        page = browser.new_context(
            viewport={"width": 1400, "height": 1000}, ignore_https_errors=True
        ).new_page()
        page.set_default_timeout(90_000)
        page.goto(f"{url}/lab/tree/{notebook}?reset")
        if wrong:
            page.fill("#password_input", wrong)
            page.click("#login_submit")
            expect(page.get_by_text("Invalid credentials")).to_be_visible(timeout=30_000)
        page.fill("#password_input", token)
        page.click("#login_submit")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
        # A kernel has started, and nothing asks for one.
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
        # A page that is still loading drops what it is told: told again, until a cell runs.
        for attempt in range(5):
            # Told before it has found the kernel, it asks which; the first answer is the right one.
            if page.locator(".jp-Dialog").is_visible():
                page.locator(".jp-Dialog .jp-mod-accept").click()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            try:
                page.wait_for_function(
                    r"() => /\[[\d*]+\]/.test(document.querySelector('.jp-CodeCell')?.innerText)",
                    timeout=15_000,
                )
                break
            except TimeoutError:
                if attempt == 4:
                    raise
        # The last cell with code in it gets its number when all have ended.
        page.wait_for_function(
            r"""() => {
                const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
                    .filter(cell => cell.querySelector('.cm-content')?.innerText.trim());
                return cells.length && cells.every(cell =>
                    /\[\d+\]/.test(cell.querySelector('.jp-InputArea-prompt')?.innerText));
            }""",
            timeout=seconds * 1000,
        )
        page.wait_for_timeout(1000)
        page.screenshot(path=screenshot)
        shown = "\n".join(page.locator(".jp-OutputArea-output").all_inner_texts())
        browser.close()
    return shown


if __name__ == "__main__":
    url, token_file, notebook, screenshot = sys.argv[1:]
    print(run_notebook(url, Path(token_file).read_text().strip(), notebook, Path(screenshot)))
