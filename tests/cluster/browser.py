"""A person's way through JupyterLab in a headless browser; also by itself:

python browser.py URL TOKEN_FILE NOTEBOOK SCREENSHOT
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from jupyter_page import Server
from lab import HANG, wait


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


def run_notebook(url: str, token: str, notebook: str, screenshot: Path, *, wrong: str = "") -> str:
    """Sign in on the page, open the notebook, run all its cells; what the page shows in the end.

    With `wrong`, that is tried as password first, and has to be refused. Raises AssertionError,
    with all that the page says, if the page is not as it should be; `screenshot` shows it then too.
    """
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=["--no-sandbox"])
        page = browser.new_context(
            viewport={"width": 1400, "height": 1000}, ignore_https_errors=True
        ).new_page()
        page.set_default_timeout(HANG * 1000)
        try:
            _open(page, url, notebook, token, wrong)
            _run_all(page)
        except (AssertionError, Error) as error:
            page.screenshot(path=screenshot)
            said = page.locator("body").inner_text()
            raise AssertionError(f"{error}\nThe page ({screenshot}) says:\n{said}") from error
        page.wait_for_timeout(1000)
        page.screenshot(path=screenshot)
        shown = "\n".join(page.locator(".jp-OutputArea-output").all_inner_texts())
        browser.close()
    return shown


def _open(page, url: str, notebook: str, token: str, wrong: str) -> None:
    """Sign in, and wait until the notebook has its kernel."""
    from playwright.sync_api import expect

    page.goto(f"{url}/lab/tree/{notebook}?reset")
    if wrong:
        page.fill("#password_input", wrong)
        page.click("#login_submit")
        expect(page.get_by_text("Invalid credentials")).to_be_visible(timeout=HANG * 1000)
    page.fill("#password_input", token)
    page.click("#login_submit")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    # The page shows a kernel, idle, before it has one; told to run then, it asks for another. The
    # server knows when it is connected.
    server = Server(url, token)

    def connected() -> bool:
        kernels = [s["kernel"] for s in server.ask("/api/sessions") if s["path"] == notebook]
        return any(k["connections"] and k["execution_state"] == "idle" for k in kernels)

    wait(connected, "the page gets no kernel")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")


def _run_all(page) -> None:
    """Run all cells, and wait until they have ended."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # A cell that waits shows a star, one that has ended a number, one behind a failed one neither.
    prompts = page.wait_for_function(
        r"""() => {
            const prompts = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')]
                .filter(cell => cell.querySelector('.cm-content')?.innerText.trim())
                .map(cell => cell.querySelector('.jp-InputArea-prompt')?.innerText ?? '');
            return prompts.some(prompt => /\[\d+\]/.test(prompt))
                && !prompts.some(prompt => prompt.includes('*'))
                && prompts;
        }"""
    ).json_value()
    assert all(re.search(r"\[\d+\]", prompt) for prompt in prompts), f"not all ran: {prompts}"


if __name__ == "__main__":
    url, token_file, notebook, screenshot = sys.argv[1:]
    print(run_notebook(url, Path(token_file).read_text().strip(), notebook, Path(screenshot)))
