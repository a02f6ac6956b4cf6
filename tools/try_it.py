"""Put what "Try it here" needs beside its scripts: ONNX Runtime, the networks, two examples.

    python tools/try_it.py _docs/assets      after the site is rendered
    python tools/try_it.py nbs/assets        to try the page from a copy of the repository

Writes ort/ (from npm, its checksum checked), models/*.onnx (exported from the shipped weights),
examples/*.wav and models.json. What is there already is kept. None of it is committed.
"""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = "onnxruntime-web@1.30.0"
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")  # one thread, any browser
LONGEST = 180  # s; a browser's memory ends
TITLES = {
    "music": "Music: vocals, drums, bass and the rest",
    "speech": "Two people who talk at once",
    "denoise": "A voice in noise",
}


def runtime(out: Path) -> None:
    """The two files of ONNX Runtime that the page loads. Raises: SystemExit without npm."""
    if all((out / name).exists() for name in FILES):
        return
    if not shutil.which("npm"):
        sys.exit("npm is not installed here; it brings ONNX Runtime for the page Try it here")
    with tempfile.TemporaryDirectory() as folder:
        call = ["npm", "pack", RUNTIME, "--silent"]
        subprocess.run(call, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=600)
        packed = next(Path(folder).glob("*.tgz"))
        found = "sha512-" + base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != INTEGRITY:
            sys.exit(f"{RUNTIME} has checksum {found}, but {INTEGRITY} was expected")
        out.mkdir(parents=True, exist_ok=True)
        with tarfile.open(packed) as archive:
            for name in FILES:
                (out / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())


def steadied(file: Path) -> None:
    """Average one axis after another: long sums in a browser are off in their fourth digit."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        axes = known.get(node.input[1]) if len(node.input) > 1 else None
        keeps = any(a.name == "keepdims" and a.i == 1 for a in node.attribute)
        if node.op_type != "ReduceMean" or axes is None or axes.size < 2 or not keeps:
            nodes.append(node)
            continue
        given = node.input[0]
        for k, axis in enumerate(sorted(axes.tolist(), reverse=True)):
            name = f"{node.output[0]}_axis_{axis}"
            model.graph.initializer.append(numpy_helper.from_array(axes[:1] * 0 + axis, name))
            result = node.output[0] if k == axes.size - 1 else f"{name}_mean"
            nodes.append(onnx.helper.make_node("ReduceMean", [given, name], [result], keepdims=1))
            given = result
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def entry(name: str, out: Path) -> dict:
    """What the page must know of a shipped model; its ONNX file is made if it is missing."""
    from sepbook.engine.export import export
    from sepbook.engine.streams import _in_samples, has_speakers, wanted_level
    from sepbook.engine.weights import defaults, find_file, load

    weights = find_file(defaults().get(name, name))
    file = out / "models" / f"{name}-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}.onnx"
    model = load(name)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        made = export(model, file)
        if not made.dynamic:
            file.unlink()
            sys.exit(f"{name} can't be exported for any length: {made.why}")
        steadied(file)
    length, hop = _in_samples(model, model.sample_rate, None, None)
    return {
        "name": name,
        "title": TITLES.get(name, name),
        "network": weights.stem,
        "file": f"models/{file.name}",
        "bytes": file.stat().st_size,
        "sources": list(model.sources),
        "sample_rate": model.sample_rate,
        "channels": model.channels,
        "length": length,
        "hop": hop,
        "level_db": wanted_level(model),
        "speakers": has_speakers(model),
        "example": f"examples/{name}.wav",
    }


def example(name: str):
    """A recording that fits a model and that it has not seen: audio (channel, time), its rate."""
    from sepbook.engine import examples

    if name == "speech":
        mixture = examples.example_readers(2, 6.0, seed=5)
    elif name == "denoise" and hasattr(examples, "example_noisy"):
        mixture = examples.example_noisy()
    else:
        mixture = examples.example_track()
    return mixture.mix, mixture.sample_rate


def make(out: Path, names: list[str] | None = None) -> dict:
    """Write everything below `out`; return what models.json says."""
    import soundfile as sf

    from sepbook.engine.weights import defaults

    offered = names or [name for name in TITLES if defaults().get(name)]
    runtime(out / "ort")
    told = {"longest": LONGEST, "models": [entry(name, out) for name in offered]}
    (out / "examples").mkdir(parents=True, exist_ok=True)
    for name in offered:
        wav, rate = example(name)
        sf.write(out / "examples" / f"{name}.wav", wav.T.numpy(), rate, "PCM_16")
    (out / "models.json").write_text(json.dumps(told, indent=1) + "\n")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder that holds try.js")
    told = make(parser.parse_args().out)
    for model in told["models"]:
        print(f"{model['name']}: {model['network']}, {model['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
