// The page "Try it here": a recording goes to a worker (try-worker.js), which separates it
// on the visitor's own machine, and comes back as players and files. Nothing is uploaded:
// the only requests are for this site's own files, the runtime and the network.

const base = new URL(".", import.meta.url);

const el = (tag, props = {}, ...kids) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...kids);
  return element;
};

// The sample rate that a file says it has, so that decoding does not change it; where it is
// unknown, 44.1 kHz.
export function rateOf(buffer) {
  const view = new DataView(buffer), size = Math.min(buffer.byteLength, 1 << 16);
  const text = (at, n) => String.fromCharCode(...new Uint8Array(buffer, at, Math.min(n, size - at)));
  const find = word => text(0, Math.min(size, 4096)).indexOf(word);
  if (size < 64) return 44100;
  if (text(0, 4) === "RIFF" && find("fmt ") > 0) return view.getUint32(find("fmt ") + 12, true);
  if (text(0, 4) === "fLaC") return view.getUint32(18) >>> 12;
  if (text(0, 4) === "OggS" && find("OpusHead") > 0) return 48000;
  if (text(0, 4) === "OggS" && find("vorbis") > 0) return view.getUint32(find("vorbis") + 11, true);
  let at = 0;
  if (text(0, 3) === "ID3") { // a tag before the music, its size in four times seven bits
    at = 10 + [6, 7, 8, 9].reduce((sum, k) => sum * 128 + view.getUint8(k), 0);
  }
  if (at + 4 < buffer.byteLength && view.getUint16(at) >= 0xffe0) { // MP3
    const version = (view.getUint8(at + 1) >> 3) & 3, index = (view.getUint8(at + 2) >> 2) & 3;
    return [44100, 48000, 32000, 44100][index] / {3: 1, 2: 2, 0: 4, 1: 1}[version];
  }
  return 44100;
}

// A recording as 32-bit floating-point WAV, which keeps every sample.
export function wavFile(wave, rate) {
  const channels = wave.length, time = wave[0].length, bytes = 4 * channels * time;
  const view = new DataView(new ArrayBuffer(44 + bytes));
  const word = (at, text) => [...text].forEach((c, k) => view.setUint8(at + k, c.charCodeAt(0)));
  word(0, "RIFF"), word(8, "WAVEfmt "), word(36, "data");
  view.setUint32(4, 36 + bytes, true), view.setUint32(16, 16, true), view.setUint32(40, bytes, true);
  view.setUint16(20, 3, true), view.setUint16(22, channels, true); // 3: floating point
  view.setUint32(24, rate, true), view.setUint32(28, 4 * channels * rate, true);
  view.setUint16(32, 4 * channels, true), view.setUint16(34, 32, true);
  const out = new Float32Array(view.buffer, 44);
  wave.forEach((channel, c) => { for (let t = 0; t < time; t++) out[t * channels + c] = channel[t]; });
  return new Blob([view.buffer], {type: "audio/wav"});
}

const STYLE = `
#try-it .try-models { border: 0; margin: 0 0 .6rem; padding: 0; min-width: 0; }
#try-it legend { font-size: 1rem; font-weight: 600; margin: 0; }
#try-it .try-models label { display: block; padding: .2rem 0; }
#try-it .try-models input { margin-right: .5rem; accent-color: currentColor; }
#try-it > button, #try-it input[type=file], #try-it ::file-selector-button {
  font: inherit; color: inherit; background: none; max-width: 100%;
}
#try-it > button, #try-it ::file-selector-button {
  border: 1px solid color-mix(in srgb, currentColor 60%, transparent);
  border-radius: .4rem; padding: .3rem .8rem; cursor: pointer;
}
#try-it .try-drop {
  border: 2px dashed color-mix(in srgb, currentColor 60%, transparent);
  border-radius: .6rem; padding: 1.2rem; margin: .4rem 0 .8rem;
}
#try-it .try-drop.over { background: color-mix(in srgb, currentColor 14%, transparent); }
#try-it .try-drop label { display: block; margin-bottom: .4rem; }
#try-it :focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
#try-it progress { width: min(100%, 24rem); display: block; margin: .4rem 0; }
#try-it [hidden] { display: none; }
`;

class TryIt {
  constructor(box, offer) {
    this.box = box, this.offer = offer, this.worker = null, this.urls = [];
    this.models = el("fieldset", {className: "try-models"}, el("legend", {textContent: "What is in it?"}));
    offer.models.forEach((model, k) => {
      const radio = el("input", {type: "radio", name: "try-model", value: model.name, checked: !k});
      const size = ` (${(model.bytes / 1e6).toFixed(0)} MB to load)`;
      this.models.append(el("label", {}, radio, el("span", {textContent: model.title + size})));
    });
    this.file = el("input", {type: "file", accept: "audio/*,video/*", id: "try-file"});
    this.file.onchange = () => this.file.files[0] && this.take(this.file.files[0]);
    this.drop = el("div", {className: "try-drop"},
      el("label", {htmlFor: "try-file", textContent: "Drop a recording here, or choose a file: "}), this.file);
    this.example = el("button", {type: "button", textContent: "Use our example"});
    this.example.onclick = () => this.takeExample();
    this.status = el("p", {className: "try-status"});
    this.status.setAttribute("role", "status");
    this.bar = el("progress", {hidden: true, ariaLabel: "Progress"});
    this.cancel = el("button", {type: "button", textContent: "Stop", hidden: true});
    this.cancel.onclick = () => this.stop("Stopped.");
    this.results = el("div", {className: "try-results"});
    box.replaceChildren(el("style", {textContent: STYLE}), this.models, this.drop, this.example, this.status, this.bar, this.cancel, this.results);
    for (const kind of ["dragover", "dragleave", "drop"]) {
      this.drop.addEventListener(kind, event => {
        event.preventDefault();
        this.drop.classList.toggle("over", kind === "dragover");
        if (kind === "drop" && event.dataTransfer.files[0]) this.take(event.dataTransfer.files[0]);
      });
    }
    this.say("Nothing leaves your machine: the network comes to your browser and works there.");
  }

  get model() {
    const chosen = this.models.querySelector(":checked").value;
    return this.offer.models.find(model => model.name === chosen);
  }

  say(text) { this.status.textContent = text; }

  stop(text) {
    this.worker?.terminate();
    this.worker = null;
    this.busy(false);
    this.say(text);
  }

  busy(on) {
    this.bar.hidden = this.cancel.hidden = !on;
    this.example.disabled = this.file.disabled = on;
    this.bar.removeAttribute("value");
  }

  async takeExample() {
    const answer = await fetch(new URL(this.model.example, base));
    this.take(new File([await answer.blob()], this.model.example.split("/").pop()));
  }

  // Decode a file at its own rate, and cut what is too long for a browser's memory.
  async take(file) {
    if (this.worker && !this.bar.hidden) return;
    this.busy(true);
    this.results.replaceChildren();
    this.urls.splice(0).forEach(URL.revokeObjectURL);
    this.say(`Reading ${file.name} ...`);
    let audio;
    try {
      const bytes = await file.arrayBuffer(), rate = rateOf(bytes);
      audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
    } catch {
      return this.stop(`Your browser can't read ${file.name} as audio; try a WAV, FLAC or MP3 file.`);
    }
    if (!audio.length) return this.stop(`${file.name} holds no sound.`);
    const most = Math.floor(this.offer.longest * audio.sampleRate);
    const channels = Array.from({length: audio.numberOfChannels}, (_, c) => audio.getChannelData(c).slice(0, most));
    this.cut = audio.length > most;
    this.separate(file.name.replace(/\.[^.]*$/, ""), channels, audio.sampleRate);
  }

  separate(name, wave, rate) {
    const model = this.model, length = wave[0].length / rate;
    this.worker ||= new Worker(new URL("try-worker.js", base), {type: "module"});
    this.worker.onerror = event => this.stop(`It did not work: ${event.message || "the worker did not start"}.`);
    this.worker.onmessage = ({data}) => {
      if (data.state === "loading") this.say("Loading the network (once) ...");
      if (data.state === "working") {
        const whole = data.all === 1;
        this.say(`Separating ${length.toFixed(0)} s of sound${whole ? " in one piece" : `: part ${Math.min(data.done + 1, data.all)} of ${data.all}`} ...`);
        if (!whole) this.bar.value = data.done / data.all;
      }
      if (data.state === "failed") this.stop(`It did not work: ${data.why}. A shorter recording may.`);
      if (data.state === "done") this.show(name, wave, rate, data);
    };
    // The worker gets a copy: the page plays the mixture beside the estimates.
    this.worker.postMessage({model, base: base.href, wave, rate});
  }

  // One player for all, and a file for each.
  show(name, wave, rate, {ests, seconds}) {
    const clips = [["the recording", wave], ...this.model.sources.map((source, j) => [source, ests[j]])];
    const player = el("div", {className: "sepbook-player"}), list = el("ul", {className: "try-files"});
    player.dataset.seconds = (wave[0].length / rate).toFixed(2);
    for (const [title, audio] of clips) {
      const url = URL.createObjectURL(wavFile(audio, rate));
      this.urls.push(url);
      player.append(el("figure", {}, el("figcaption", {textContent: title}),
        el("audio", {controls: true, src: url, preload: "metadata"})));
      if (audio === wave) continue;
      const link = el("a", {href: url, download: `${name}-${title}.wav`, textContent: `Download ${title}`});
      list.append(el("li", {}, link));
    }
    this.results.replaceChildren(el("h2", {textContent: "Listen"}), player, list);
    window.sepbookPlayer?.(player);
    this.busy(false);
    const cut = this.cut ? ` Only the first ${this.offer.longest / 60} minutes; the package takes any length.` : "";
    this.say(`Done: ${(wave[0].length / rate).toFixed(1)} s of sound in ${seconds.toFixed(1)} s.${cut}`);
  }
}

const box = typeof document === "undefined" ? null : document.getElementById("try-it");
if (box) {
  try {
    const answer = await fetch(new URL("models.json", base));
    if (!answer.ok) throw Error();
    window.tryIt = new TryIt(box, await answer.json());
  } catch {
    box.textContent = "The networks are not here: they are made when the site is published (tools/try_it.py).";
  }
}
