"""Talks to a JupyterLab server as its page does: by HTTP, and by a websocket with each kernel."""

import http.cookiejar
import json
import ssl
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import websocket
from lab import HANG

# Certificates that hosts of the lab have signed themselves.
UNPROVEN = ssl._create_unverified_context()


class Server:
    def __init__(self, url: str, token: str = ""):
        self.url, self.token = url.rstrip("/"), token
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.cookies),
            urllib.request.HTTPSHandler(context=UNPROVEN),
        )

    def ask(self, path: str, data=None, *, method: str | None = None):
        """The JSON that the server answers; urllib.error.HTTPError if it refuses."""
        headers = {"Authorization": f"token {self.token}"} if self.token else {}
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with self.opener.open(request, timeout=HANG) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def status(self, path: str) -> int:
        """The status of the answer."""
        try:
            self.ask(path)
        except urllib.error.HTTPError as error:
            return error.code
        return 200

    def sign_in(self, password: str) -> int:
        """Fill in the form of the page to sign in; the status of the last answer."""
        with self.opener.open(f"{self.url}/login", timeout=HANG):
            xsrf = next(c.value for c in self.cookies if c.name == "_xsrf")
        form = urllib.parse.urlencode({"_xsrf": xsrf, "password": password}).encode()
        try:
            with self.opener.open(f"{self.url}/login?next=%2Fapi%2Fstatus", form, HANG) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def connect(self, path: str, **options) -> websocket.WebSocket:
        headers = {"Authorization": f"token {self.token}"} if self.token else {}
        return websocket.create_connection(
            self.url.replace("http", "ws", 1) + path,
            header=headers,
            timeout=HANG,
            sslopt={"context": UNPROVEN},
            **options,
        )


def _message(frame: str | bytes) -> dict:
    """A message without its buffers. With buffers (pictures of widgets) it comes in binary: how
    many parts there are and where each begins, in 32 bits, big-endian; the first part is JSON."""
    if isinstance(frame, str):
        return json.loads(frame)
    count, *begins = struct.unpack_from(f">{1 + frame[3]}I", frame)
    return json.loads(frame[begins[0] : begins[1] if count > 1 else None])


class Kernel:
    """A kernel of the server, from its start to `close`."""

    def __init__(self, server: Server, name: str):
        self.server = server
        self.id = server.ask("/api/kernels", {"name": name})["id"]
        self.socket = server.connect(f"/api/kernels/{self.id}/channels")

    def run(self, code: str, seconds: float = HANG) -> str:
        """What the cell writes and shows. AssertionError if it raises or takes too long."""
        asked = uuid.uuid4().hex
        content = {"code": code, "silent": False, "store_history": True}
        content |= {"user_expressions": {}, "allow_stdin": False, "stop_on_error": True}
        header = {"msg_id": asked, "msg_type": "execute_request", "username": "", "session": asked}
        header |= {"date": "", "version": "5.4"}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self.socket.send(json.dumps(message | {"channel": "shell", "buffers": []}))
        said, end = [], time.monotonic() + seconds
        while True:
            assert time.monotonic() < end, f"no end after {seconds} s: {''.join(said)}"
            try:
                answer = _message(self.socket.recv())
            except websocket.WebSocketTimeoutException:
                continue
            if answer["parent_header"].get("msg_id") != asked:
                continue
            content = answer["content"]
            match answer["msg_type"]:
                case "stream":
                    said.append(content["text"])
                case "execute_result" | "display_data":
                    said.append(content["data"].get("text/plain", "") + "\n")
                case "error":
                    raise AssertionError("\n".join(content["traceback"]))
                case "status" if content["execution_state"] == "idle":
                    return "".join(said)

    def run_notebook(self, notebook: dict) -> str:
        """Run all cells from top to bottom."""
        return "".join(
            self.run("".join(cell["source"]))
            for cell in notebook["cells"]
            if cell["cell_type"] == "code"
        )

    def close(self) -> None:
        self.socket.close()
        self.server.ask(f"/api/kernels/{self.id}", method="DELETE")
