// One canvas of bytes with what undo and redo bring back.

const UNDO = 100; // canvases kept

class Layer {
  constructor(trait, pixels, colours) {
    this.trait = trait; // where the kernel holds it
    this.pixels = pixels;
    this.sent = pixels.slice();
    this.undo = [];
    this.redo = [];
    this.colours = Uint32Array.from(colours, ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r);
  }

  // To be called before pixels change.
  remember() {
    this.undo.push(this.pixels.slice());
    if (this.undo.length > UNDO) this.undo.shift();
    this.redo.length = 0;
  }

  // Forgets the last `remember` if nothing changed since.
  settle() {
    if (this.undo.length && same(this.undo.at(-1), this.pixels)) this.undo.pop();
  }

  step(from, to) {
    to.push(this.pixels);
    this.pixels = from.pop();
  }
}
