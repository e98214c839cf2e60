// What the page carries: the report, and maps as columns of bytes. Nothing here draws.

const content = JSON.parse(document.getElementById("content").textContent);
const report = JSON.parse(document.getElementById("report").textContent);
const PAGE = 8192;

// An address. It may have up to 57 bits: what is not at the beginning of a page is exact up to 53 of them.
function address(bytes) {
  return "0x" + BigInt(bytes).toString(16);
}

const WIDTHS = { u8: 1, u32: 4, f64: 8 };
const ARRAYS = { u8: Uint8Array, u32: Uint32Array, f64: Float64Array };

async function inflated(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The columns of a map by their names. In the bytes each has the first byte of all its values, then the second of all.
async function columnsOf(index) {
  const bytes = await inflated(document.getElementById(`map-${index}`).textContent);
  const columns = {};
  let at = 0;
  for (const [name, type, length] of content.maps[index].columns) {
    const width = WIDTHS[type];
    const whole = new Uint8Array(length * width);
    for (let plane = 0; plane < width; plane++, at += length) {
      if (width === 1) whole.set(bytes.subarray(at, at + length));
      else for (let row = 0, to = plane; row < length; row++, to += width) whole[to] = bytes[at + row];
    }
    columns[name] = new ARRAYS[type](whole.buffer);
  }
  return columns;
}
