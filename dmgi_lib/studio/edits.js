// Sliders that move the code of the face that is shown, and style mixing with a face drawn before.

const FARTHEST = 2; // strength at the ends of a slider
const MIXED_ROWS = [
  ["coarse", "Pose, shape of face and hair"],
  ["middle", "Features and hair style"],
  ["fine", "Colours and texture"],
];

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(1);

// changed({ strengths, mix }) is called at each move, changed(null) when nothing is asked any more.
function editor(names, changed) {
  const sliders = new Map();
  let rows = "coarse";

  function told() {
    const strengths = {};
    for (const [name, { input }] of sliders) {
      if (input.valueAsNumber) strengths[name] = input.valueAsNumber;
    }
    const [number, face] = other.value.split(":").map(Number);
    const mix = other.value ? { number, face, rows } : null;
    return mix || Object.keys(strengths).length ? { strengths, mix } : null;
  }

  function put(name, value) {
    const { input, said } = sliders.get(name);
    input.value = value;
    said.textContent = signed(input.valueAsNumber);
    input.setAttribute("aria-valuetext", said.textContent);
  }

  function move(name) {
    put(name, sliders.get(name).input.value);
    tell();
  }

  function tell() {
    const asked = told();
    reset.disabled = !asked;
    changed(asked);
  }

  const fields = names.map((name) => {
    const input = element("input", { type: "range", min: -FARTHEST, max: FARTHEST, step: 0.1 });
    const said = element("output", { ariaHidden: "true" }); // the slider says it itself
    sliders.set(name, { input, said });
    put(name, 0);
    input.oninput = () => move(name);
    const plain = name.replaceAll("_", " ");
    const label = element("label", {}, element("span", {}, plain[0].toUpperCase() + plain.slice(1)), input);
    return element("div", { className: "dmgi-edit" }, label, said);
  });
  const other = element("select", { onchange: tell });
  const choice = choices(
    "Rows of the other face",
    MIXED_ROWS.map(([value, title]) => ({ value, title, content: [element("span", {}, value)] })),
    (value) => {
      rows = value;
      if (other.value) tell();
    },
  );
  choice.set(rows);
  const reset = button("Reset edits", "Back to the face as it was drawn", () => {
    show(null);
    changed(null);
  });

  // asked: as `changed` gets it. others: [value, text] of the faces to mix with.
  function show(asked, others = null) {
    for (const name of sliders.keys()) put(name, asked?.strengths[name] ?? 0);
    if (others) {
      const entries = [["", "nobody"], ...others];
      other.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
    }
    other.value = asked?.mix ? `${asked.mix.number}:${asked.mix.face}` : "";
    if (asked?.mix) choice.set((rows = asked.mix.rows));
    reset.disabled = !asked;
  }

  const box = element(
    "details",
    { className: "dmgi-edits", hidden: true },
    element("summary", {}, "Edit the face"),
    element("div", { className: "dmgi-sliders" }, ...fields),
    element(
      "div",
      { className: "dmgi-bar" },
      element("label", { className: "dmgi-width" }, element("span", {}, "Mix with"), other),
      choice.box,
      reset,
    ),
  );
  return { box, show };
}
