// The painter: two canvases of bytes, class ids and strokes, which the kernel holds as well.

const REST = 150; // ms without a change after which a canvas goes to the kernel
const PATIENCE = 10000; // ms to wait for the kernel's answer
const LARGEST_FILE = 8 * 2 ** 20; // bytes; a mask of 4096 x 4096 takes less
const TOOLS = {
  brush: ["Brush", "b", "Paint with the chosen class"],
  fill: ["Fill", "f", "Fill an area of one class"],
  erase: ["Eraser", "e", "Paint background"],
  pick: ["Pick", "i", "Choose the class under the pointer"],
};
const SCRIBBLE_TOOLS = ["brush", "erase"];
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = [
  ["B F E I", "brush, fill, eraser, pick"],
  [", .", "class before, class after"],
  ["[ ]", "smaller, larger brush"],
  ["M", "mirror"],
  ["Arrows", "move on the canvas; Shift: eight pixels"],
  ["Space", "use the tool there; hold it and move to draw"],
  ["Ctrl Z, Ctrl Y", "undo, redo"],
  ["Ctrl S, Ctrl O", "save, load"],
  ["Alt click", "pick a class"],
];

function render({ model, el }) {
  const size = model.get("size");
  const names = model.get("names");
  const palette = model.get("palette");
  const twins = model.get("twins");
  const modes = model.get("modes");
  const greys = Array.from({ length: 256 }, (_, value) => [value, value, value]);
  const layers = {
    mask: new Layer("ids", bytesOf(model.get("ids")), palette),
    scribble: new Layer("strokes", bytesOf(model.get("strokes")), greys),
  };
  let mode = model.get("mode");
  let tool = "brush";
  let chosen = 1; // class
  const widths = { mask: 9, scribble: 2 };
  let stroke = null; // {x, y, pointer} while one is drawn
  let cursor = { x: size / 2, y: size / 2 };
  let resting = 0;
  let waiting = 0;
  const now = () => layers[mode];

  // --- the canvas ---------------------------------------------------------------------------
  const canvas = element("canvas", {
    width: size,
    height: size,
    tabIndex: 0,
    role: "application",
    "aria-label": "Canvas. Arrow keys move, Space paints.",
  });
  const context = canvas.getContext("2d");
  const image = new ImageData(size, size);
  const shown = new Uint32Array(image.data.buffer);
  const ring = element("div", { className: "dmgi-ring", hidden: true });
  const spine = element("div", { className: "dmgi-spine", hidden: true });

  function show() {
    const { pixels, colours } = now();
    for (let i = 0; i < pixels.length; i++) shown[i] = colours[pixels[i]];
    context.putImageData(image, 0, 0);
    undo.disabled = !now().undo.length;
    redo.disabled = !now().redo.length;
  }

  function showCursor() {
    const width = (tool === "brush" || tool === "erase" ? widths[mode] : 1) / size;
    ring.style.width = ring.style.height = `${Math.max(width, 1 / size) * 100}%`;
    ring.style.left = `${(cursor.x / size) * 100}%`;
    ring.style.top = `${(cursor.y / size) * 100}%`;
  }

  // --- changes, undo and what the kernel gets --------------------------------------------------
  function step(from, to) {
    if (!from.length || stroke) return;
    now().step(from, to);
    changed();
  }

  function changed(wait = REST) {
    show();
    clearTimeout(resting);
    resting = wait ? setTimeout(send, wait) : 0;
    if (!wait) send();
  }

  function send() {
    const { pixels, sent, trait } = now();
    resting = 0;
    if (same(pixels, sent)) return;
    now().sent = pixels.slice();
    model.set(trait, new DataView(pixels.slice().buffer));
    expectAnswer();
    model.save_changes();
  }

  function expectAnswer() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      say("Python does not answer: it is busy, or has stopped. Your drawing is safe here: Save keeps it.", true);
    }, PATIENCE);
  }

  function receive(trait) {
    const target = Object.values(layers).find((one) => one.trait === trait);
    const given = bytesOf(model.get(trait));
    if (same(given, target.pixels)) return; // our own
    target.remember();
    target.pixels = given;
    target.sent = given.slice();
    show();
  }

  // --- tools -----------------------------------------------------------------------------------
  function use(from, to) {
    const { pixels } = now();
    const ink = mode === "scribble" ? 255 : chosen;
    const value = tool === "erase" ? 0 : ink;
    const twin = mode === "scribble" ? value : twins[value];
    if (tool === "fill") {
      const [x, y] = [Math.floor(to.x), Math.floor(to.y)];
      flood(pixels, size, x, y, value);
      if (mirror.checked) flood(pixels, size, size - 1 - x, y, twin);
      return;
    }
    const across = ({ x, y }) => ({ x: size - x, y });
    if (mirror.checked) segment(pixels, size, across(from), across(to), widths[mode], twin);
    segment(pixels, size, from, to, widths[mode], value);
  }

  const inside = ({ x, y }) => x >= 0 && y >= 0 && x < size && y < size;
  const under = ({ x, y }) => now().pixels[Math.floor(y) * size + Math.floor(x)];

  function begin(place, pointer, picking = false) {
    if (stroke || !inside(place)) return;
    if (mode === "mask" && (tool === "pick" || picking)) {
      setClass(under(place));
      if (tool === "pick") setTool("brush");
      return;
    }
    now().remember();
    use(place, place);
    stroke = { ...place, pointer };
    show();
    if (tool === "fill") end(pointer);
  }

  function move(place) {
    use(stroke, place);
    Object.assign(stroke, place);
  }

  function end(pointer) {
    if (!stroke || stroke.pointer !== pointer) return;
    stroke = null;
    now().settle();
    changed(0);
  }

  // --- pointer ---------------------------------------------------------------------------------
  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * size,
      y: ((event.clientY - box.top) / box.height) * size,
    };
  }

  canvas.onpointerdown = (event) => {
    if (event.button !== 0) return;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    begin(placeOf(event), event.pointerId, event.altKey);
    event.preventDefault();
  };
  canvas.onpointermove = (event) => {
    cursor = placeOf(event);
    ring.hidden = event.pointerType === "touch";
    showCursor();
    if (stroke?.pointer !== event.pointerId) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) move(placeOf(one));
    changed();
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => end(event.pointerId);
  canvas.onpointerleave = () => (ring.hidden = document.activeElement !== canvas);

  // --- keyboard --------------------------------------------------------------------------------
  canvas.onfocus = () => {
    if (!inside(cursor)) cursor = { x: size / 2, y: size / 2 };
    ring.hidden = !canvas.matches(":focus-visible");
    showCursor();
  };
  canvas.onblur = () => {
    ring.hidden = true;
    end("key");
  };

  function canvasKey(event) {
    if (event.key === " ") {
      if (!event.repeat) begin({ ...cursor }, "key");
      return true;
    }
    if (!(event.key in STEPS)) return false;
    const far = event.shiftKey ? 8 : 1;
    const [dx, dy] = STEPS[event.key];
    const within = (value) => Math.min(size - 0.5, Math.max(0.5, Math.floor(value) + 0.5));
    cursor = { x: within(cursor.x + dx * far), y: within(cursor.y + dy * far) };
    ring.hidden = false;
    showCursor();
    if (stroke?.pointer === "key") {
      move({ ...cursor });
      changed();
    }
    const at = `${Math.floor(cursor.x)}, ${Math.floor(cursor.y)}`;
    say(mode === "mask" ? `${names[under(cursor)]} at ${at}` : at);
    return true;
  }

  function shortcut(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") (event.shiftKey ? redo : undo).click();
      else if (key === "y") redo.click();
      else if (key === "s") save();
      else if (key === "o") file.click();
      else return false;
      return true;
    }
    const named = Object.keys(TOOLS).find((name) => TOOLS[name][1] === key);
    if (event.altKey) return false;
    if (named && (mode === "mask" || SCRIBBLE_TOOLS.includes(named))) setTool(named);
    else if (key === "m") mirror.click();
    else if (key === "[" || key === "]") setWidth(widths[mode] + (key === "]" ? 1 : -1));
    else if (mode === "mask" && (key === "," || key === ".")) {
      setClass((chosen + (key === "." ? 1 : names.length - 1)) % names.length);
      say(names[chosen]);
    } else return false;
    return true;
  }

  function onKey(event) {
    if (event.target === canvas && canvasKey(event)) event.preventDefault();
    else if (shortcut(event)) event.preventDefault();
    else return;
    event.stopPropagation();
  }

  // --- controls --------------------------------------------------------------------------------
  const undo = button("Undo", "Ctrl Z", () => step(now().undo, now().redo));
  const redo = button("Redo", "Ctrl Y", () => step(now().redo, now().undo));
  const clear = button("Clear", "Empty the canvas; undo brings it back", () => {
    now().remember();
    now().pixels.fill(0);
    now().settle();
    changed();
  });
  const file = element("input", { type: "file", accept: "image/png", hidden: true });
  file.onchange = () => {
    if (file.files.length) load(file.files[0]);
    file.value = ""; // the same file can be chosen again
  };
  const mirror = element("input", { type: "checkbox" });
  mirror.onchange = () => (spine.hidden = !mirror.checked);
  const width = element("input", { type: "range", min: 1, max: Math.ceil(size / 4) });
  const widthSaid = element("output");
  width.oninput = () => setWidth(width.valueAsNumber);
  const tools = choices(
    "Tool",
    Object.entries(TOOLS).map(([value, [name, key, title]]) => ({
      value,
      content: [element("span", {}, name)],
      title: `${title} (${key.toUpperCase()})`,
    })),
    setTool,
  );
  const classes = choices(
    "Class",
    names.map((name, value) => {
      const chip = element("i", { "aria-hidden": "true" });
      chip.style.background = `rgb(${palette[value].join(" ")})`;
      return { value, content: [element("span", {}, chip, name)] };
    }),
    setClass,
  );
  classes.box.classList.add("dmgi-classes");
  const modeChoice = choices(
    "Paint",
    modes.map((value) => ({
      value,
      content: [element("span", {}, value === "mask" ? "Mask" : "Scribble")],
    })),
    (value) => {
      model.set("mode", value);
      model.save_changes();
    },
  );
  const people = element(
    "div",
    { className: "dmgi-people", role: "group", "aria-label": "Begin with" },
    "Begin with",
    ...model.get("example_names").map(person),
  );
  const said = element("p", { className: "dmgi-said", role: "status" });

  function person(name, i) {
    const given = bytesOf(model.get("examples")).subarray(i * size * size, (i + 1) * size * size);
    const thumb = element("canvas", { width: size, height: size });
    const picture = new ImageData(size, size);
    const colours = new Uint32Array(picture.data.buffer);
    given.forEach((id, at) => (colours[at] = layers.mask.colours[id]));
    thumb.getContext("2d").putImageData(picture, 0, 0);
    const begin = () => {
      layers.mask.remember();
      layers.mask.pixels = given.slice();
      layers.mask.settle();
      changed(0);
      say(`A test person's mask: ${name}.`);
    };
    const node = button("", `Begin with a test person's mask: ${name}`, begin);
    node.setAttribute("aria-label", node.title);
    node.append(thumb);
    return node;
  }

  function say(text, problem = false) {
    said.textContent = text;
    said.classList.toggle("dmgi-problem", problem);
  }

  function setTool(name) {
    tool = name;
    tools.set(name);
    showCursor();
  }

  function setClass(value) {
    chosen = value;
    classes.set(value);
    if (tool === "erase") setTool("brush");
  }

  function setWidth(value) {
    widths[mode] = Math.min(Number(width.max), Math.max(1, value));
    width.value = widths[mode];
    widthSaid.textContent = `${widths[mode]} px`;
    showCursor();
  }

  function setMode() {
    if (resting) {
      clearTimeout(resting);
      send(); // what was painted last, in the mode that is left
    }
    stroke = null;
    mode = model.get("mode");
    modeChoice.inputs.get(mode).checked = true;
    classes.box.hidden = mode !== "mask";
    people.hidden = mode !== "mask" || !people.firstElementChild;
    for (const [name, input] of tools.inputs) {
      input.parentElement.hidden = mode !== "mask" && !SCRIBBLE_TOOLS.includes(name);
    }
    if (mode !== "mask" && !SCRIBBLE_TOOLS.includes(tool)) setTool("brush");
    setWidth(widths[mode]);
    show();
  }

  async function save() {
    download(await pngOf(now().pixels, size, mode === "mask" && palette), `${mode}.png`);
    say(`Saved ${mode}.png.`);
  }

  async function load(chosenFile) {
    if (chosenFile.size > LARGEST_FILE) {
      const megabytes = (chosenFile.size / 2 ** 20).toFixed(0);
      say(`Not loaded: the file has ${megabytes} MB; a ${mode} as PNG has less than 8.`, true);
      return;
    }
    const content = await chosenFile.arrayBuffer();
    say("Loading …");
    model.send({ type: "load" }, undefined, [new DataView(content)]);
    expectAnswer();
  }

  function answered(message) {
    clearTimeout(waiting);
    if (message.type === "said") say(message.text, message.problem);
    else if (said.textContent.startsWith("Python does not answer")) say("");
  }

  const board = element("div", { className: "dmgi-board" }, canvas, spine, ring);
  board.ondragover = (event) => event.preventDefault();
  board.ondrop = (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) load(event.dataTransfer.files[0]);
  };
  const bar = (...children) => element("div", { className: "dmgi-bar" }, ...children);
  const help = element(
    "details",
    { className: "dmgi-keys" },
    element("summary", {}, "Keys"),
    element(
      "dl",
      {},
      ...KEYS.flatMap(([keys, what]) => [element("dt", {}, keys), element("dd", {}, what)]),
    ),
  );
  const root = element(
    "section",
    { className: "dmgi dmgi-painter", "aria-label": "Painter", onkeydown: onKey },
    bar(
      ...(modes.length > 1 ? [modeChoice.box] : []),
      tools.box,
      element("label", { className: "dmgi-width" }, "Size", width, widthSaid),
      element("label", { className: "dmgi-choice dmgi-toggle" }, mirror, element("span", {}, "Mirror")),
    ),
    board,
    bar(
      undo,
      redo,
      clear,
      button("Load PNG …", "Ctrl O, or drop a file on the canvas", () => file.click()),
      button("Save PNG", "Ctrl S", save),
      file,
    ),
    said,
    people,
    classes.box,
    help,
  );
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's "b" would add a cell
  root.onkeyup = (event) => event.key === " " && end("key");
  el.append(root);

  setTool("brush");
  setClass(chosen);
  setMode();
  showCursor();
  const listeners = {
    "change:ids": () => receive("ids"),
    "change:strokes": () => receive("strokes"),
    "change:mode": setMode,
    "msg:custom": answered,
  };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  return () => {
    clearTimeout(resting);
    clearTimeout(waiting);
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
  };
}

export default { render };
