"""A page that shows widgets in a real browser, their Python side in this process, with no server.

The model of the page does what that of Jupyter does: it holds the state, sends what changed, and
hands on messages.
"""

from __future__ import annotations

import base64
import queue
from typing import Any

from comm.base_comm import BaseComm

HTML = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>studio</title>
<style>body { margin: 16px; background: light-dark(#e9ebef, #101216); color-scheme: light dark }
@media (max-width: 440px) { body { margin: 8px } }</style><div id="studio"></div></html>"""

MODEL = """
const pack = (view) => {
  const bytes = new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { base64: btoa(text) };
};
const unpack = (value) => value?.base64 === undefined ? value
  : new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer);
window.sent = [];  // [milliseconds, what]
window.heard = [];  // kinds of messages
class Model {
  constructor(id, state) {
    Object.assign(this, { id, listeners: {}, changed: {} });
    this.state = Object.fromEntries(Object.entries(state).map(([k, v]) => [k, unpack(v)]));
  }
  get(name) { return this.state[name]; }
  set(name, value) {
    this.state[name] = value;
    this.changed[name] = value?.buffer ? pack(value) : value;
    this.emit(`change:${name}`);
  }
  save_changes() {
    if (!Object.keys(this.changed).length) return;
    window.sent.push([performance.now(), Object.keys(this.changed)]);
    toPython(this.id, { method: "update", state: this.changed }, []);
    this.changed = {};
  }
  send(content, _, buffers = []) {
    window.sent.push([performance.now(), [content.type]]);
    toPython(this.id, { method: "custom", content }, buffers.map(pack));
  }
  on(name, call) { (this.listeners[name] ??= []).push(call); }
  off(name, call) { this.listeners[name] = this.listeners[name].filter((c) => c !== call); }
  emit(name, ...given) { for (const call of this.listeners[name] ?? []) call(...given); }
  hear({ method, state, content }, buffers) {
    if (method === "custom") {
      this.emit("msg:custom", content, buffers.map(unpack));
      return window.heard.push(content.type);
    }
    for (const [name, value] of Object.entries(state)) this.state[name] = unpack(value);
    for (const name of Object.keys(state)) this.emit(`change:${name}`);
  }
}
window.models = {};
window.mount = async (id, state, script, style) => {
  document.head.append(Object.assign(document.createElement("style"), { textContent: style }));
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const widget = (await import(url)).default;
  const model = (models[id] = new Model(id, state));
  const el = document.createElement("div");
  document.querySelector("#studio").append(el);
  model.leave = widget.render({ model, el });
};
const listen = async () => {
  for (const [id, data, buffers] of await fromPython()) models[id]?.hear(data, buffers);
  setTimeout(listen, 10);  // not before the answer: on a busy machine questions would pile up
};
listen();
"""


class PageComm(BaseComm):
    """What a widget says, kept for the page to fetch."""

    def __init__(self, *args, **keys):
        self.said: queue.SimpleQueue[tuple[dict, list[bytes]]] = queue.SimpleQueue()
        super().__init__(*args, **keys)

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        if msg_type == "comm_msg":
            self.said.put((data, [bytes(b) for b in buffers or []]))


class WidgetPage:
    """Widgets on a Playwright page.

    answers: set it to False, and Python is deaf, as a stopped kernel is
    """

    def __init__(self, page: Any, *widgets: Any) -> None:
        self.page, self.answers = page, True
        self._widgets = {widget.comm.comm_id: widget for widget in widgets}
        page.route(
            "http://localhost/*", lambda route: route.fulfill(body=HTML, content_type="text/html")
        )
        page.expose_function("toPython", self._hear)
        page.expose_function("fromPython", self._say)
        page.goto("http://localhost/")
        if len(widgets) > 1:
            page.evaluate("document.querySelector('#studio').className = 'dmgi-studio'")
        page.evaluate(MODEL)
        self._say()  # older than the state that is shown
        for id, widget in self._widgets.items():
            keys = [k for k in widget.keys if not k.startswith("_")]
            state = {k: _packed(v) for k, v in widget.get_state(keys).items()}
            style = widget._css if isinstance(widget._css, str) else widget._css.read_text()
            page.evaluate("given => mount(...given)", [id, state, str(widget._esm), style])

    def _hear(self, id: str, data: dict, buffers: list[dict]) -> None:
        if not self.answers:
            return
        widget = self._widgets[id]
        if data["method"] == "custom":
            content = [base64.b64decode(b["base64"]) for b in buffers]
            widget._handle_custom_msg(data["content"], content)
            return
        widget.set_state({k: _unpacked(v) for k, v in data["state"].items()})

    def _say(self) -> list:
        said = []
        for id, widget in self._widgets.items():
            while not widget.comm.said.empty():
                data, buffers = widget.comm.said.get()
                if data["method"] == "update":
                    for path, buffer in zip(data.get("buffer_paths", []), buffers, strict=True):
                        data["state"][path[0]] = buffer
                    data["state"] = {k: _packed(v) for k, v in data["state"].items()}
                    buffers = []
                said.append([id, data, [_packed(b) for b in buffers]])
        return said


def _packed(value: Any) -> Any:
    if isinstance(value, (bytes, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "base64" in value:
        return memoryview(base64.b64decode(value["base64"]))
    return value
