// What all widgets of the page are built of. Everything shown is text, never HTML, so that words of
// users and files cannot run.

function element(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A group of radio buttons, so that arrows, Tab and screen readers work as everywhere.
function choices(legend, entries, choose) {
  const group = `dmgi-${Math.random().toString(36).slice(2)}`;
  const inputs = new Map();
  const labels = entries.map(({ value, content, title }) => {
    const input = element("input", { type: "radio", name: group, onchange: () => choose(value) });
    inputs.set(value, input);
    return element("label", { className: "dmgi-choice", title: title ?? "" }, input, ...content);
  });
  const box = element("fieldset", {}, element("legend", {}, legend), ...labels);
  return { box, inputs, set: (value) => (inputs.get(value).checked = true) };
}

function button(text, title, onclick) {
  return element("button", { type: "button", className: "dmgi-button", title, onclick }, text);
}

function download(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function bytesOf(view) {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
}
