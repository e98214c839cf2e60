// Moments: the slider that replays the map, and the difference of two of them.

const CHANGES = { same: 0, grew: 1, shrank: 2, otherwise: 3 };

class Moments {
  constructor(view, timeline) {
    this.view = view;
    this.timeline = timeline;
    this.at = content.maps.length - 1;
    this.maps = [];
    this.maps[this.at] = view.map;
    if (content.maps.length < 2) return;
    this.slider = document.getElementById("moment");
    this.against = document.getElementById("against");
    content.maps.forEach((told, at) => this.against.add(new Option(momentName(at), at)));
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.against.addEventListener("change", () => this.go(this.at));
    document.getElementById("peak").addEventListener("click", () => this.go(peak()));
    this._tell("");
  }

  async map(at) {
    return (this.maps[at] ??= new MemoryMap(content.maps[at], await columnsOf(at)));
  }

  // Show the map of a moment; where another one has been chosen meanwhile, that.
  async go(at) {
    this.at = at;
    this.slider.value = at;
    const other = this.against.value === "" ? null : Number(this.against.value);
    const [map, before] = [await this.map(at), other === null || other === at ? null : await this.map(other)];
    if (this.at !== at) return;
    const changes = before ? differenceOf(map, before) : null;
    this.view.show(map, changes);
    this.timeline?.show(at);
    this._tell(changes ? changeWords(changes, other) : "");
  }

  _tell(more) {
    const last = content.maps.length - 1;
    const where = `${this.at + 1} of ${last + 1}: ${momentName(this.at)}`;
    const rest = this.at === last ? "" : "; all other figures are of the end";
    document.getElementById("moment-told").textContent = where + rest + (more ? `. ${more}` : "");
    this.slider.setAttribute("aria-valuetext", where);
  }
}

function momentName(at) {
  return `${content.maps[at].seconds.toFixed(2)} s, RSS ${size(content.maps[at].rss)}`;
}

function peak() {
  return content.maps.reduce((best, told, at) => (told.rss > content.maps[best].rss ? at : best), 0);
}

// What changed of each page of `map` since `before`: more of it in RAM, less, or another use with as much.
function differenceOf(map, before) {
  const codes = new Uint8Array(map.pages.length);
  const sums = { grew: 0, shrank: 0, otherwise: 0 };
  const where = new Map();
  for (let at = 0; at < before.shown; at++) where.set(before.arena_base[at], before.arena_first[at]);
  for (let arena = 0; arena < map.shown; arena++) {
    const first = where.get(map.arena_base[arena]);
    for (let page = map.arena_first[arena]; page < map.arena_first[arena + 1]; page++) {
      const [now, then] = [map.pages[page], first === undefined ? 5 : before.pages[first + page - map.arena_first[arena]]];
      const more = halves(now, RESIDENT) - halves(then, RESIDENT);
      if (more > 0) (codes[page] = CHANGES.grew), (sums.grew += (more * PAGE) / 2);
      else if (more < 0) (codes[page] = CHANGES.shrank), (sums.shrank -= (more * PAGE) / 2);
      else if ((now & 7) !== (then & 7)) (codes[page] = CHANGES.otherwise), (sums.otherwise += PAGE);
    }
  }
  return { codes, sums };
}

function changeWords({ sums }, other) {
  return (
    `Since ${momentName(other)}, of the heap's pages: ${size(sums.grew)} more in RAM (red), ${size(sums.shrank)} less ` +
    `(blue), ${size(sums.otherwise)} with another use (yellow)`
  );
}
