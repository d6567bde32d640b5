// The panel: a sentence, seed, exit and number of faces, the faces drawn, and those drawn before.

const TYPING = 400; // ms without a key after which the prompt goes to the kernel
const ANSWER = 10000; // ms to wait for any word of the kernel, and between two questions whether it lives
const DEAF = "Python does not answer";
const PIXELS_A_DEGREE = 4; // of a drag
const LARGEST_SEED = 2 ** 31 - 1;

function render({ model, el }) {
  const steps = model.get("steps");
  const words = model.get("words");
  const results = new Map(); // number → result, oldest first
  let preview = null;
  let shown = null;
  let face = 0;
  let typing = 0;
  let waiting = 0;
  let asked = 0; // number of the newest request that the kernel took
  let answered = 0;
  let stamps = 0; // of edits that were asked
  let edited = 0; // stamp of the newest edit that came back
  let fetching = false; // a file

  // --- what is asked ---------------------------------------------------------------------------
  const list = element("datalist", { id: `dmgi-${Math.random().toString(36).slice(2)}` });
  const prompt = element("input", {
    type: "text",
    className: "dmgi-prompt",
    value: model.get("prompt"),
    maxLength: 1000,
    autocomplete: "off",
    placeholder: "a smiling young woman with blond hair",
  });
  prompt.setAttribute("list", list.id);
  const seed = element("input", { type: "number", min: 0, max: LARGEST_SEED });
  const exit = element("input", { type: "range", min: 0, max: steps - 1 });
  const exitSaid = element("output");
  const faces = element("input", { type: "number", min: 1, max: model.get("most_faces") });
  const live = element("input", { type: "checkbox" });
  const controls = { prompt, seed, exit_step: exit, faces };

  // The browser completes whole values, so each suggestion repeats what stands before its word.
  function suggest() {
    const [, before, begun] = prompt.value.match(/^(.*?)([^\s,]*)$/s);
    const fitting = begun ? words.filter((word) => word.startsWith(begun.toLowerCase())) : [];
    list.replaceChildren(
      ...fitting.slice(0, 8).map((word) => element("option", { value: before + word })),
    );
  }

  function showExit() {
    const last = exit.valueAsNumber === steps - 1;
    exitSaid.textContent = last ? `${exit.value}, the last` : exit.value;
  }

  // One control at a time: the others may hold what the kernel does not know yet.
  function take(name) {
    const value = String(model.get(name));
    if (name === "live") live.checked = model.get(name);
    else if (controls[name].value !== value) controls[name].value = value;
    if (name === "exit_step") showExit();
  }

  function give(extra = {}) {
    clearTimeout(typing);
    for (const [name, input] of Object.entries(controls)) {
      if (input === prompt) model.set(name, prompt.value);
      else if (input.value !== "" && input.checkValidity()) model.set(name, input.valueAsNumber);
      else input.value = model.get(name);
    }
    for (const [name, value] of Object.entries(extra)) model.set(name, value);
    model.save_changes();
  }

  function draw() {
    give({ asked: model.get("asked") + 1 });
    expectAnswer();
  }

  function expectAnswer() {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      say([`${DEAF}: it is busy, or has stopped. Nothing on this page is lost.`], true);
      showBusy(false);
    }, ANSWER);
  }

  // A drawing may take minutes, and the kernel may die meanwhile: while it owes something, it is asked.
  function ask() {
    model.send({ type: "alive?" });
    expectAnswer();
  }

  function showBusy(busy) {
    figure.classList.toggle("dmgi-busy", busy);
    figure.setAttribute("aria-busy", busy);
  }

  prompt.oninput = () => {
    suggest();
    clearTimeout(typing);
    typing = setTimeout(give, TYPING);
  };
  exit.oninput = showExit;
  exit.onchange = seed.onchange = faces.onchange = () => give();
  live.onchange = () => give({ live: live.checked });
  const another = button("New", "Another seed", () => {
    seed.value = Math.floor(Math.random() * 10000);
    give();
  });

  // --- what came back --------------------------------------------------------------------------
  const pictures = element("div", { className: "dmgi-pictures" });
  const caption = element("figcaption");
  const savePicture = button("Save picture", "PNG of the face that is chosen", () =>
    download(shown.edited.get(face)?.picture ?? shown.pictures[face], `face_${shown.seed + face}.png`),
  );
  function fetchFile(type) {
    model.send({ type, number: shown.number, face, ...shown.edited.get(face)?.asked });
    fetching = true;
    expectAnswer();
  }
  const saveCode = button("Save W+ code", "safetensors, for G.synthesis", () => fetchFile("code"));
  const saveMesh = button("Save head", "GLB: a mesh with colours, takes some seconds", () => {
    fetchFile("mesh");
    say(["The mesh is being made."]);
  });
  const said = element("div", { className: "dmgi-said", role: "status" });
  const history = element("ol", { className: "dmgi-history" });
  const historyBox = element("details", { open: true, hidden: true }, element("summary", {}, "Drawn before"), history);

  // --- edits of the face that is chosen --------------------------------------------------------
  const views = model.get("views");
  const turnable = Object.keys(views).length > 0;
  const editing = editor(model.get("edits"), model.get("styles"), views, (asked) => {
    const edit = shown.edited.get(face);
    if (!asked) {
      if (edit?.url) URL.revokeObjectURL(edit.url);
      shown.edited.delete(face);
      showFace(face);
      return;
    }
    stamps += 1;
    shown.edited.set(face, { first: stamps, drawn: 0, ...edit, asked });
    model.send({ type: "edit", number: shown.number, face, stamp: stamps, ...asked });
    expectAnswer();
  });

  function receiveEdit({ number, face: which, stamp }, [view]) {
    const result = results.get(number) ?? (preview?.number === number ? preview : null);
    const edit = result?.edited.get(which);
    if (!edit || stamp < edit.first || stamp < edit.drawn) return; // reset meanwhile
    if (edit.url) URL.revokeObjectURL(edit.url);
    edit.picture = new Blob([view], { type: "image/png" });
    edit.url = URL.createObjectURL(edit.picture);
    edit.drawn = stamp;
    if (result === shown) showFace(which);
  }

  function showFace(i) {
    const img = pictures.querySelectorAll("img")[i];
    const url = shown.edited.get(i)?.url;
    img.src = url ?? shown.urls[i];
    img.alt = `Face ${i + 1}: ${named(shown)}${url ? ", edited" : ""}`;
  }

  function showEdits() {
    const others = [...results.values()].flatMap((result) =>
      result.urls.map((_, i) => [`${result.number}:${i}`, `“${result.prompt}”, seed ${result.seed + i}`]),
    );
    const own = `${shown.number}:${face}`;
    const asked = shown.edited.get(face)?.asked ?? null;
    editing.show(asked, others.filter(([value]) => value !== own), shown.angles[face]);
    editing.box.hidden = false;
  }

  // A head follows the pointer that drags it.
  function drag(event, i) {
    if (event.button) return;
    const img = event.currentTarget;
    pictures.querySelectorAll("input")[i].click();
    img.setPointerCapture(event.pointerId);
    const { clientX, clientY } = event;
    const from = editing.seen();
    img.onpointermove = (now) => {
      const [right, down] = [now.clientX - clientX, now.clientY - clientY];
      editing.turn({ yaw: from.yaw - right / PIXELS_A_DEGREE, pitch: from.pitch + down / PIXELS_A_DEGREE });
    };
    img.onpointerup = img.onpointercancel = () => (img.onpointermove = null);
  }

  const named = (result) => `“${result.prompt}”, seed ${result.seed}, step ${result.exit_step}`;

  function show(result) {
    shown = result;
    face = Math.min(face, result.urls.length - 1);
    const group = `dmgi-${Math.random().toString(36).slice(2)}`;
    pictures.replaceChildren(
      ...result.urls.map((src, i) => {
        const input = element("input", { type: "radio", name: group, checked: i === face });
        input.onchange = () => {
          face = i;
          showEdits();
        };
        const img = element("img", { src, draggable: false });
        if (turnable) img.onpointerdown = (event) => drag(event, i);
        return element("label", {}, input, img);
      }),
    );
    result.urls.forEach((_, i) => showFace(i));
    showEdits();
    pictures.classList.toggle("dmgi-many", result.urls.length > 1);
    const kind = result.live ? "Preview" : "Drawn";
    caption.textContent = `${kind}: ${named(result)}, ${result.seconds.toFixed(1)} s`;
    savePicture.disabled = saveCode.disabled = saveMesh.disabled = false;
    for (const item of history.children) {
      item.firstChild.setAttribute("aria-current", item.dataset.number === String(result.number));
    }
  }

  // Later, since a picture that was replaced at once may still be loading.
  const release = (result) => {
    const edited = [...(result?.edited.values() ?? [])].flatMap(({ url }) => url ?? []);
    const urls = [...(result?.urls ?? []), ...edited];
    setTimeout(() => urls.forEach((url) => URL.revokeObjectURL(url)), 2000);
  };

  function receive(message, buffers) {
    const blobs = buffers.map((view) => new Blob([view], { type: "image/png" }));
    const result = { ...message, pictures: blobs, urls: blobs.map((b) => URL.createObjectURL(b)), edited: new Map() };
    if (result.live) {
      const old = preview;
      preview = result;
      show(result);
      release(old);
      return;
    }
    release(results.get(result.number)); // sent anew
    history.querySelector(`[data-number="${result.number}"]`)?.remove();
    results.set(result.number, result);
    remember(result);
    show(result);
  }

  function remember(result) {
    const again = element("button", { type: "button", title: `Go back to ${named(result)}` });
    again.append(element("img", { src: result.urls[0], alt: `Go back to ${named(result)}` }));
    again.onclick = () => {
      show(result);
      model.send({ type: "restore", number: result.number });
      expectAnswer();
    };
    const item = element("li", {}, again);
    item.dataset.number = result.number;
    history.prepend(item);
    historyBox.hidden = false;
    if (results.size <= model.get("most_results")) return;
    const [oldest] = results.keys();
    release(results.get(oldest));
    results.delete(oldest);
    history.lastChild.remove();
  }

  function say(lines, problem = false) {
    said.replaceChildren(...lines.map((line) => element("p", {}, line)));
    said.classList.toggle("dmgi-problem", problem);
  }

  function hear(message, buffers) {
    if (said.textContent.startsWith(DEAF)) say([]);
    if (message.type === "asked") asked = Math.max(asked, message.number);
    if (message.type === "result") receive(message, buffers);
    if (message.type === "edited") {
      receiveEdit(message, buffers);
      edited = message.stamp;
    }
    if (message.type === "file") {
      download(new Blob([buffers[0]]), message.name);
      fetching = false;
    }
    // A problem without a number is one of an edit or a file.
    if (message.type === "problem" && !message.number) [edited, fetching] = [stamps, false];
    if (message.type === "problem") say([message.text], true);
    else if (message.type !== "asked") say(message.notes ?? []);
    if (message.number && message.type !== "asked") answered = Math.max(answered, message.number);
    showBusy(asked > answered);
    clearTimeout(waiting);
    if (asked > answered || stamps > edited || fetching) waiting = setTimeout(ask, ANSWER);
  }

  // --- the page --------------------------------------------------------------------------------
  const figure = element("figure", {}, pictures, caption);
  const field = (name, ...inputs) => element("label", { className: "dmgi-field" }, element("span", {}, name), ...inputs);
  const form = element(
    "form",
    { onsubmit: (event) => (event.preventDefault(), draw()) },
    field("Describe the face", prompt, list),
    element(
      "div",
      { className: "dmgi-bar" },
      element("div", { className: "dmgi-with" }, field("Seed", seed), another),
      field("Faces", faces),
      field("Exit step", element("span", { className: "dmgi-exit" }, exit, exitSaid)),
    ),
    element(
      "div",
      { className: "dmgi-bar" },
      element("button", { type: "submit", className: "dmgi-button dmgi-primary" }, "Draw"),
      element("label", { className: "dmgi-choice dmgi-toggle" }, live, element("span", {}, "Live preview")),
    ),
  );
  savePicture.disabled = saveCode.disabled = saveMesh.disabled = true;
  saveMesh.hidden = !turnable;
  pictures.classList.toggle("dmgi-turnable", turnable);
  caption.textContent = "Paint, or press Draw: the face comes here.";
  const root = element(
    "section",
    { className: "dmgi dmgi-panel", "aria-label": "Face" },
    form,
    figure,
    said,
    element("div", { className: "dmgi-bar" }, savePicture, saveCode, saveMesh),
    editing.box,
    historyBox,
  );
  root.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab's keys are not meant here
  root.onkeydown = (event) => event.stopPropagation();
  el.append(root);

  const listeners = { "msg:custom": hear };
  for (const name of [...Object.keys(controls), "live"]) {
    take(name);
    listeners[`change:${name}`] = () => take(name);
  }
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  model.send({ type: "hello" });
  return () => {
    clearTimeout(typing);
    clearTimeout(waiting);
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
    for (const result of [...results.values(), preview]) release(result);
  };
}

export default { render };
