// Drawing in a square picture of bytes, row by row: nothing is blended.

const same = (a, b) => a.length === b.length && a.every((value, i) => value === b[i]);

// Paints all pixels whose centre is within half a width of the segment.
function segment(pixels, size, from, to, width, value) {
  const radius = width / 2;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = dx * dx + dy * dy || 1;
  const low = (a, b) => Math.max(0, Math.floor(Math.min(a, b) - radius));
  const high = (a, b) => Math.min(size - 1, Math.ceil(Math.max(a, b) + radius));
  for (let y = low(from.y, to.y); y <= high(from.y, to.y); y++) {
    for (let x = low(from.x, to.x); x <= high(from.x, to.x); x++) {
      const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
      const t = Math.min(1, Math.max(0, (px * dx + py * dy) / length));
      if (Math.hypot(px - t * dx, py - t * dy) <= radius) pixels[y * size + x] = value;
    }
  }
  const [x, y] = [Math.floor(to.x), Math.floor(to.y)]; // a point may lie half a pixel off all
  if (x >= 0 && y >= 0 && x < size && y < size) pixels[y * size + x] = value;
}

// Fills the area of one value that holds (x, y).
function flood(pixels, size, x, y, value) {
  const old = pixels[y * size + x];
  if (old === value) return;
  const open = [y * size + x];
  while (open.length) {
    const at = open.pop();
    if (pixels[at] !== old) continue;
    pixels[at] = value;
    const column = at % size;
    if (column > 0) open.push(at - 1);
    if (column < size - 1) open.push(at + 1);
    if (at >= size) open.push(at - size);
    if (at < size * (size - 1)) open.push(at + size);
  }
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

// PNG of bytes: class ids with their palette, or grey. Made here, so that saving needs no kernel.
async function pngOf(bytes, size, palette) {
  const rows = new Uint8Array(size * (size + 1)); // each row opens with 0, "no filter"
  for (let y = 0; y < size; y++) {
    rows.set(bytes.subarray(y * size, (y + 1) * size), y * (size + 1) + 1);
  }
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const chunk = (name, data) => {
    const whole = new Uint8Array(data.length + 12);
    const view = new DataView(whole.buffer);
    view.setUint32(0, data.length);
    whole.set(new TextEncoder().encode(name), 4);
    whole.set(data, 8);
    view.setUint32(data.length + 8, crc32(whole.subarray(4, data.length + 8)));
    return whole;
  };
  const head = new Uint8Array(13);
  new DataView(head.buffer).setUint32(0, size);
  new DataView(head.buffer).setUint32(4, size);
  head.set([8, palette ? 3 : 0], 8);
  const parts = [Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), chunk("IHDR", head)];
  if (palette) parts.push(chunk("PLTE", Uint8Array.from(palette.flat())));
  parts.push(chunk("IDAT", packed), chunk("IEND", new Uint8Array(0)));
  return new Blob(parts, { type: "image/png" });
}
