"""JupyterLab on the master: notebooks on the whole cluster, and who gets in."""

import json
import re
import ssl
import subprocess
from pathlib import Path

import browser
import nbformat
import pytest
import websocket
from jupyter_page import Kernel, Server
from lab import ADDRESS, ROOT, wait

MASTER = ADDRESS["femto-master"]
URL = f"http://{MASTER}:1337"
HOME = "/var/lib/jupyter"
# Every executor says which host it is on, and which femto it has.
WHERE = """\
import socket
import femto
from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
print("master", spark.sparkContext.master)

def here(_):
    import time
    import numpy
    import femto
    time.sleep(2)
    picture = numpy.arange(4096, dtype=numpy.uint8).reshape(64, 64)
    return socket.gethostname(), femto.decode(femto.encode(picture)).shape

found = spark.sparkContext.parallelize(range(12), 12).map(here).collect()
print(sorted(set(found)))
"""


@pytest.fixture(scope="module")
def token(cluster) -> str:
    return cluster.shell("femto-master", "cat /etc/jupyter/token").strip()


@pytest.fixture(scope="module")
def server(cluster, token) -> Server:
    return Server(URL, token)


@pytest.fixture
def kernel(server):
    kernel = Kernel(server, "python3")
    yield kernel
    kernel.close()


def cores(cluster) -> int:
    return sum(worker["coresused"] for worker in cluster.page("/json/")["workers"])


def test_a_notebook_works_on_all_workers_and_gives_them_back(cluster, kernel):
    said = kernel.run(WHERE)
    assert f"master spark://{MASTER}:7077" in said
    assert "('femto-worker1', (64, 64)), ('femto-worker2', (64, 64))" in said
    # The kernel stays, its executors go: jupyter_executor_idle_seconds of the lab.
    wait(lambda: cores(cluster) == 0, "an idle notebook keeps its executors")
    assert "45" in kernel.run("print(spark.sparkContext.parallelize(range(10)).sum())")


def test_the_local_kernel_leaves_the_cluster_alone(cluster, server):
    kernel = Kernel(server, "python-local")
    said = kernel.run(WHERE)
    assert "master local[*]" in said
    assert "[('femto-master', (64, 64))]" in said
    assert cores(cluster) == 0
    kernel.close()


def test_the_kernels_are_these_two(server):
    found = server.ask("/api/kernelspecs")["kernelspecs"]
    names = {name: kernel["spec"]["display_name"] for name, kernel in found.items()}
    assert names == {"python3": "PySpark (cluster)", "python-local": "Python (local)"}


def served(server, notebook: str) -> dict:
    return server.ask(f"/api/contents/notebooks/{notebook}")["content"]


def test_all_notebooks_are_there(server):
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        written = nbformat.read(path, 4)["cells"]
        found = served(server, path.name)["cells"]
        assert [cell["source"] for cell in found] == [cell["source"] for cell in written], path


# tests/notebooks runs all of them, without a cluster.
@pytest.mark.parametrize("notebook", ["spark_image_compression.ipynb", "progressive.ipynb"])
def test_a_notebook_runs_on_the_cluster(server, kernel, notebook):
    kernel.run(f"import os; os.chdir('{HOME}/notebooks')")
    kernel.run_notebook(served(server, notebook))


def test_nobody_gets_in_without_the_token(cluster, server, token):
    assert Server(URL).status("/api/contents") == 403
    assert Server(URL, token="wrong" + token[5:]).status("/api/contents") == 403
    assert Server(URL).sign_in("not the password") == 401
    signed_in = Server(URL)
    assert signed_in.sign_in(token) == 200
    assert signed_in.status("/api/contents") == 200
    # The page of another site, open in a browser that has signed in here, reaches no kernel.
    cookie = "; ".join(f"{c.name}={c.value}" for c in signed_in.cookies)
    channels = f"/api/kernels/{server.ask('/api/kernels', {'name': 'python-local'})['id']}/channels"
    signed_in.connect(channels, cookie=cookie, origin=URL).close()
    for refused in ({"cookie": cookie, "origin": "http://elsewhere.example"}, {}):
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            Server(URL).connect(channels, **refused)
    server.ask(channels.removesuffix("/channels"), method="DELETE")


def test_secrets_are_in_files_of_the_owner_alone(cluster, token):
    assert len(token) >= 32
    modes = cluster.shell(
        "femto-master", "cd /etc/jupyter; stat -c '%a %U %G %n' token spark/spark-defaults.conf"
    )
    assert modes == "600 jupyter jupyter token\n640 root jupyter spark/spark-defaults.conf\n"
    for said in (
        "ps -eo args",
        "journalctl --no-pager",
        "systemctl show jupyter; systemctl cat jupyter",
    ):
        text = cluster.shell("femto-master", said)
        assert "jupyter-lab" in text
        assert token not in text
        assert cluster.secret() not in text
    for output in cluster.outputs:
        assert token not in output
    # Only who asks for it is told.
    asked = cluster.playbook("playbooks/jupyter-url.yml")
    assert f"{URL}/lab?token={token}" in asked.stdout
    cluster.outputs.pop()


def test_pyspark_sh_finds_the_jupyter_of_the_master(cluster, token):
    for name in ("pyspark.sh", "environment.sh"):
        cluster.engine("cp", ROOT / name, f"femto-master:/tmp/{name}")
        cluster.engine("cp", ROOT / name, f"femto-worker1:/tmp/{name}")
    cluster.shell("femto-master", "systemctl stop jupyter")
    said = cluster.shell("femto-master", "bash /tmp/pyspark.sh")
    assert f"JupyterLab runs: {URL}/lab?token={token}" in said
    assert Server(URL, token).status("/api/contents") == 200
    said = cluster.shell("femto-worker1", "bash /tmp/pyspark.sh 2>&1", check=False)
    assert (
        said.strip()
        == f"pyspark.sh: this host is a worker: run it on the master, {MASTER}, or add --local"
    )
    said = cluster.shell(
        "femto-master",
        "setpriv --reuid=nobody --clear-groups bash /tmp/pyspark.sh 2>&1",
        check=False,
    )
    assert "you are not root" in said and len(said.splitlines()) == 1


def test_it_comes_back_after_a_restart_and_after_the_hosts(cluster, token):
    server = Server(URL, token)

    def answers() -> bool:
        try:
            return server.status("/api/contents") == 200
        except OSError:
            return False

    ask = "systemctl show -P NRestarts jupyter"
    before = int(cluster.shell("femto-master", ask))
    cluster.shell("femto-master", "systemctl kill --signal=KILL jupyter")
    wait(lambda: int(cluster.shell("femto-master", ask)) > before, "systemd leaves it dead")
    wait(answers, "JupyterLab does not come back after kill -9")
    cluster.engine("stop", "femto-master")
    cluster.boot("femto-master")
    wait(answers, "JupyterLab does not come back with its host")
    cluster.wait_alive("femto-worker1", "femto-worker2")


def test_https_with_a_certificate_of_ones_own(cluster, token, tmp_path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=notebooks.example", "-keyout", key, "-out", certificate]
    subprocess.run([*make.split(), *names], check=True, capture_output=True)
    variables = {"jupyter_tls": True, "jupyter_tls_certificate": str(certificate)}
    variables |= {"jupyter_tls_key": str(key)}
    done = cluster.playbook("playbooks/jupyter.yml", "-e", json.dumps(variables))
    assert key.read_text().splitlines()[1] not in done.stdout
    assert ssl.get_server_certificate((MASTER, 1337)) == certificate.read_text()
    assert Server(URL.replace("http", "https"), token).status("/api/contents") == 200
    cluster.playbook("playbooks/jupyter.yml")
    assert Server(URL, token).status("/api/contents") == 200


def test_a_person_signs_in_and_runs_a_notebook_in_a_browser(
    cluster, token, tmp_path, record_property
):
    if browser.find() is None:
        pytest.skip("no browser: install chromium")
    cells = [
        {
            "cell_type": "markdown",
            "id": "a",
            "metadata": {},
            "source": ["# The cluster in a browser"],
        },
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": [WHERE],
        },
        {
            "cell_type": "code",
            "id": "c",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": [
                "from PIL import Image\nfrom pathlib import Path\nimport os\n"
                "Image.open(next(Path(os.environ['FEMTO_IMAGES']).glob('drag*'))).reduce(2)"
            ],
        },
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    Server(URL, token).ask(
        "/api/contents/browser.ipynb", {"type": "notebook", "content": notebook}, method="PUT"
    )
    screenshot = Path(tmp_path / "jupyter.png")
    shown = browser.run_notebook(URL, token, "browser.ipynb", screenshot, wrong="not the password")
    print("screenshot:", screenshot)
    assert re.search(r"femto-worker1.*femto-worker2", shown), shown
    assert screenshot.stat().st_size > 20_000
    cluster.shell("femto-master", f"rm -f {HOME}/browser.ipynb; systemctl restart jupyter")
