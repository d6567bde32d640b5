// A mesh with vertex colours in WebGL: drag or arrow keys turn it, wheel, pinch or + and - zoom,
// double click or Home bring the first view back. Nothing is loaded from anywhere.
(() => {
  const canvas = document.querySelector("canvas"), still = document.querySelector("img");
  const gl = canvas.getContext("webgl", { antialias: true, alpha: false });
  if (!gl || !gl.getExtension("OES_element_index_uint")) return; // the still picture stays

  const bytes = (id) =>
    Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const shader = (kind, text) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, text);
    gl.compileShader(made);
    if (!gl.getShaderParameter(made, gl.COMPILE_STATUS)) throw Error(gl.getShaderInfoLog(made));
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER, `
    attribute vec3 position, normal, color;
    uniform vec2 turn; uniform float distance, aspect;
    varying vec3 tint; varying vec3 facing;
    vec3 turned(vec3 v) {
      float cy = cos(turn.x), sy = sin(turn.x), cp = cos(turn.y), sp = sin(turn.y);
      v = vec3(cy * v.x + sy * v.z, v.y, cy * v.z - sy * v.x);
      return vec3(v.x, cp * v.y - sp * v.z, sp * v.y + cp * v.z);
    }
    void main() {
      vec3 p = turned(position * 2.0 - 1.0);
      facing = turned(normal * 2.0 - 1.0); tint = color;
      float depth = distance - p.z;
      gl_Position = vec4(3.8 * p.x / max(aspect, 1.0), 3.8 * p.y * min(aspect, 1.0),
                         (depth - 1.0) * depth / 16.0, depth);
    }`));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER, `
    precision mediump float;
    varying vec3 tint; varying vec3 facing;
    void main() {
      vec3 n = normalize(facing);
      float light = 0.62 + 0.38 * max(dot(n, normalize(vec3(0.3, 0.5, 0.9))), 0.0);
      gl_FragColor = vec4(tint * light, 1.0);
    }`));
  gl.linkProgram(program);
  gl.useProgram(program);

  const fill = (target, data) => {
    gl.bindBuffer(target, gl.createBuffer());
    gl.bufferData(target, data, gl.STATIC_DRAW);
  };
  const attribute = (name, kind, size) => {
    fill(gl.ARRAY_BUFFER, bytes(name));
    const place = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, kind, true, size, 0);
  };
  attribute("position", gl.UNSIGNED_SHORT, 8); // padded to four numbers, as GPUs like it
  attribute("normal", gl.UNSIGNED_BYTE, 4);
  attribute("color", gl.UNSIGNED_BYTE, 4);
  const faces = new Uint32Array(bytes("faces").buffer);
  fill(gl.ELEMENT_ARRAY_BUFFER, faces);
  gl.enable(gl.DEPTH_TEST);

  const uniform = (name) => gl.getUniformLocation(program, name);
  const places = { turn: uniform("turn"), distance: uniform("distance"), aspect: uniform("aspect") };
  const front = { yaw: 0, pitch: 0, distance: 4.4 };
  let view = { ...front }, asked = false;
  const draw = () => {
    asked = false;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0.93, 0.94, 0.95, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniform2f(places.turn, view.yaw, view.pitch);
    gl.uniform1f(places.distance, view.distance);
    gl.uniform1f(places.aspect, canvas.width / canvas.height);
    gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
    canvas.dataset.view = [view.yaw, view.pitch, view.distance].map((v) => v.toFixed(3)).join(" ");
  };
  const change = (yaw, pitch, zoom = 1) => {
    view.yaw += yaw;
    view.pitch = Math.min(1.5, Math.max(-1.5, view.pitch + pitch));
    view.distance = Math.min(9, Math.max(2.6, view.distance * zoom));
    if (!asked) requestAnimationFrame(draw);
    asked = true;
  };
  const reset = () => { view = { ...front }; change(0, 0); };

  const held = new Map(); // pointers that are down
  const spread = () => {
    const [a, b] = [...held.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    held.set(e.pointerId, { x: e.clientX, y: e.clientY });
  });
  canvas.addEventListener("pointermove", (e) => {
    const last = held.get(e.pointerId);
    if (!last) return;
    const before = held.size === 2 ? spread() : 0;
    held.set(e.pointerId, { x: e.clientX, y: e.clientY });
    if (held.size === 2) change(0, 0, before / Math.max(1, spread()));
    else change((e.clientX - last.x) * 0.01, (e.clientY - last.y) * 0.01);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (e) => held.delete(e.pointerId));
  }
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    change(0, 0, Math.exp(Math.sign(e.deltaY) * 0.08));
  }, { passive: false });
  canvas.addEventListener("dblclick", reset);
  const keys = {
    ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1],
    "+": [0, 0, 0.92], "=": [0, 0, 0.92], "-": [0, 0, 1.08],
  };
  canvas.addEventListener("keydown", (e) => {
    if (e.key !== "Home" && !keys[e.key]) return;
    e.preventDefault();
    if (e.key === "Home") reset();
    else change(...keys[e.key]);
  });
  new ResizeObserver(() => change(0, 0)).observe(canvas);
  canvas.addEventListener("webglcontextlost", () => { canvas.hidden = true; still.hidden = false; });
  canvas.hidden = false;
  still.hidden = true;
  draw();
})();
