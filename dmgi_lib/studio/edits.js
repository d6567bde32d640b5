// Sliders that move the code of the face that is shown, turn it where it is a head, another style for
// it, and style mixing with a face drawn before.

const FARTHEST = 2; // strength at the ends of a slider
const STRONGEST = 1.5; // share of a style
const MIXED_ROWS = [
  ["coarse", "Pose, shape of head and hair"],
  ["middle", "Features, colours of hair and skin"],
  ["fine", "Texture, nearly alike for all faces"],
];

const PHOTOGRAPH = "photograph"; // no style
const TURNS = [["yaw", "Turn"], ["pitch", "Tilt"]];

const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(1);

// changed({ strengths, mix, style, view }) is called at each move, changed(null) when nothing is asked
// any more. styles: names. views: name of TURNS → least and largest degrees, nothing for a model of
// pictures.
function editor(names, styles, views, changed) {
  const sliders = new Map(), turns = new Map();
  let rows = "coarse";
  let drawn = []; // degrees from which the head was drawn

  function told() {
    const strengths = {};
    for (const [name, { input }] of sliders) {
      if (input.valueAsNumber) strengths[name] = input.valueAsNumber;
    }
    const [number, face] = other.value.split(":").map(Number);
    const mix = other.value ? { number, face, rows } : null;
    const now = [...turns.values()].map(({ input }) => input.valueAsNumber);
    const view = now.some((value, i) => value !== Math.round(drawn[i] ?? 0)) ? now : null;
    const share = style.value === PHOTOGRAPH ? {} : { [style.value]: shares.input.valueAsNumber };
    const restyled = style.value ? share : null;
    const all = { strengths, mix, style: restyled, view };
    return mix || restyled || view || Object.keys(strengths).length ? all : null;
  }

  function put({ input, said, written }, value) {
    input.value = value;
    said.textContent = written(input.valueAsNumber);
    input.setAttribute("aria-valuetext", said.textContent);
  }

  function tell() {
    const asked = told();
    reset.disabled = !asked;
    shares.input.disabled = !styles.includes(style.value);
    changed(asked);
  }

  function slider(plain, [min, max], step, written) {
    const input = element("input", { type: "range", min, max, step });
    const said = element("output", { ariaHidden: "true" }); // the slider says it itself
    const one = { input, said, written };
    input.oninput = () => {
      put(one, input.value);
      tell();
    };
    put(one, 0);
    const label = element("label", {}, element("span", {}, plain[0].toUpperCase() + plain.slice(1)), input);
    return [one, element("div", { className: "dmgi-edit" }, label, said)];
  }

  const fields = [];
  for (const [name, plain] of TURNS.filter(([name]) => name in views)) {
    const [one, box] = slider(plain, views[name], 1, (value) => `${value}°`);
    turns.set(name, one);
    fields.push(box);
  }
  for (const name of names) {
    const [one, box] = slider(name.replaceAll("_", " "), [-FARTHEST, FARTHEST], 0.1, signed);
    sliders.set(name, one);
    fields.push(box);
  }
  const style = element("select", { onchange: tell, ariaLabel: "Style" });
  for (const value of ["", PHOTOGRAPH, ...styles]) {
    style.append(element("option", { value }, value || "as it was drawn"));
  }
  const [shares, sharesBox] = slider("strength of the style", [0, STRONGEST], 0.1, (value) => value.toFixed(1));
  const styling = element(
    "div",
    { className: "dmgi-bar" },
    element("label", { className: "dmgi-width" }, element("span", {}, "Style"), style),
    sharesBox,
  );
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

  // asked: as `changed` gets it. others: [value, text] of the faces to mix with. angles: as drawn.
  function show(asked, others = null, angles = drawn) {
    drawn = angles;
    [...turns.values()].forEach((one, i) => put(one, Math.round((asked?.view ?? drawn)[i] ?? 0)));
    for (const [name, one] of sliders) put(one, asked?.strengths[name] ?? 0);
    if (others) {
      const entries = [["", "nobody"], ...others];
      other.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
    }
    const [[name, share]] = Object.entries(asked?.style ?? {}).concat([[asked?.style ? PHOTOGRAPH : "", 1]]);
    style.value = name;
    put(shares, share);
    shares.input.disabled = !styles.includes(name);
    other.value = asked?.mix ? `${asked.mix.number}:${asked.mix.face}` : "";
    if (asked?.mix) choice.set((rows = asked.mix.rows));
    reset.disabled = !asked;
  }

  // Degrees by name → the head as if the sliders had been moved to them.
  function turn(degrees) {
    for (const [name, one] of turns) put(one, Math.round(degrees[name]));
    tell();
  }

  const seen = () => Object.fromEntries([...turns].map(([name, { input }]) => [name, input.valueAsNumber]));

  const box = element(
    "details",
    { className: "dmgi-edits", hidden: true },
    element("summary", {}, "Edit the face"),
    element("div", { className: "dmgi-sliders" }, ...fields),
    ...(styles.length ? [styling] : []),
    element(
      "div",
      { className: "dmgi-bar" },
      element("label", { className: "dmgi-width" }, element("span", {}, "Mix with"), other),
      choice.box,
      reset,
    ),
  );
  return { box, show, turn, seen };
}
