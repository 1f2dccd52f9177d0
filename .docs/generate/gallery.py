"""The gallery: the figures of the package and of its studies, from the pictures and data that are kept under `pages/gallery`.

`python -m generate.gallery FOLDER` makes those anew from a folder that `lindyn-jax figure all --quick --out FOLDER` wrote, beside
which the studies of `STUDIES` have written theirs.
"""

import json
import sys
from pathlib import Path

KEPT = Path(__file__).parent.parent / "pages" / "gallery"
LARGEST, WIDEST = 6000, 900

# Name, title, command without its folder, what is seen.
STUDIES = [
    (
        "theorem12",
        "How far from the minimum-norm solution wide networks end",
        "lindyn-jax sweep theorem12 --data digits --samples 30 --centre --trials 20",
        "Distance to the minimum-norm solution against the width, on handwritten digits, with what M22 proves and the sharp law.",
    ),
    (
        "lemma11",
        "The imbalance of wide starts",
        "lindyn-jax sweep lemma11 --trials 1000",
        "How often the events of M22's Lemma 11 hold, and where the level of imbalance is, against the width.",
    ),
    (
        "phases",
        "Lazy and rich learning over scale and width",
        "lindyn-jax sweep phases --scales 0.003:0.3:9 --widths 100:1e6:9",
        "Turn of the tangent kernel, time to learn, least test error on the way and stable rank.",
    ),
    (
        "completion",
        "A real matrix with hidden entries",
        "lindyn-jax sweep completion --data digits --samples 40 --depths 2 --widths 40 --stop 0.1 --recovered 0.5 --trials 8",
        "Error on the hidden entries, nuclear norm over the least one, and recovery, against the share that is known.",
    ),
    (
        "simulate",
        "One trajectory",
        "lindyn-jax simulate --data factorization --shape 3,2 --start imbalance --positive 2 --negative 1 --width 1e9 "
        "--observables loss,rate,lemma7,rate_bound --points 40",
        "Loss, its rate and two bounds of M22 along one flow of width 1e9.",
    ),
    (
        "audit",
        "The bounds of M22 against the dynamics",
        "lindyn-jax audit --data factorization --shape 3,2 --start gaussian --start balanced --widths 20 --trials 50 "
        "--dynamics flow",
        "How often hypotheses hold and how tight the bounds are along the flow.",
    ),
    (
        "sequence",
        "Tasks one after another",
        "lindyn-jax sequence",
        "Losses of all tasks while one after another is learned.",
    ),
    (
        "fit-lambda0",
        "The homogeneous imbalance nearest to a flow",
        "lindyn-jax fit-lambda0",
        "The objective over lambda0, with its two basins, and the path of the best fit.",
    ),
]


def card(name: str, title: str) -> str:
    options = [f":link: {name}", ":link-type: ref", f":img-top: gallery/{name}.png", ":class-card: thumbnail"]
    return "\n".join([f"::::{{grid-item-card}} {title}", *options, "::::"])


def thumbnails() -> str:
    """A small picture of everything, which leads to it."""
    from lindyn_jax.figures import FIGURES

    cards = [card(name, figure.source if figure.source[0].isupper() else name) for name, figure in FIGURES.items()]
    cards += [card(name, f"`{name}`") for name, *_ in kept_studies()]
    return "\n\n".join([":::::{grid} 2 3 4 5\n:gutter: 2", *cards, ":::::"])


def kept_studies():
    return [study for study in STUDIES if (KEPT / f"{study[0]}.png").is_file()]


def part(name: str, title: str, command: str, texts: list[str]) -> str:
    """One picture with what it shows, its command and its data."""
    picture = f"```{{image}} gallery/{name}.png\n:alt: {title}\n:loading: lazy\n```"
    data = f"[Data of this picture](gallery/{name}.json), for `xarray.Dataset.from_dict`"
    texts = [text for text in texts if text]
    return "\n\n".join([f"({name})=\n### {title}", picture, *texts, f"```sh\n{command}\n```", data])


def figures() -> str:
    """Every figure of `lindyn-jax figure`."""
    from lindyn_jax.figures import FIGURES

    parts = []
    for name, figure in FIGURES.items():
        measured = json.loads((KEPT / f"{name}.json").read_text())["attrs"]["measured"]
        texts = [
            f"**Shown there:** {figure.shows}.",
            figure.reference and f"**Reference:** {figure.reference}.",
            f"**Measured here:** {measured}.",
        ]
        title = f"{figure.source}: {figure.title}" if figure.source[0].isupper() else figure.title.capitalize()
        parts.append(part(name, title, f"lindyn-jax figure {name} --quick", [plain(text) for text in texts if text]))
    return "\n\n".join(parts)


def studies() -> str:
    """Every study."""
    return "\n\n".join(
        part(name, title, f"{command} --out {name}", [plain(text)]) for name, title, command, text in kept_studies()
    )


def plain(text: str) -> str:
    """Words of a figure as Markdown: what would be emphasis there are stars and bars of the notation."""
    return text.replace("_", "\\_").replace("<", "&lt;").replace("..", ".") if "`" not in text else text


# -- making them anew ----------------------------------------------------------------------------------------------------


def shrink(source: Path, to: Path) -> None:
    """A picture of at most `WIDEST` pixels in few colours, below 60 kB if 16 colours suffice for that."""
    from PIL import Image

    picture = Image.open(source).convert("RGB")
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)), Image.Resampling.LANCZOS)
    for colours in (128, 64, 32, 16):
        # Others than by coverage give rare colours, those of thin lines, away.
        few = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
        few.save(to, optimize=True)
        if to.stat().st_size < 60_000:
            return


def small(dataset):
    """Some of the trials and points of a dataset, so that it has at most `LARGEST` numbers; `kept` says which."""
    kept = {}
    while sum(one.size for one in dataset.variables.values()) > LARGEST:
        name = max(dataset.sizes, key=lambda one: dataset.sizes[one] * (4 if "trial" in one else 1))
        half = slice(0, max(dataset.sizes[name] // 2, 1)) if "trial" in name else slice(None, None, 2)
        dataset = dataset.isel({name: half})
        kept[name] = dataset.sizes[name]
    return dataset.assign_attrs(kept=json.dumps(kept)) if kept else dataset


def rounded(value):
    """Numbers of five digits, as JSON has them."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value


def keep(name: str, picture: Path, dataset) -> None:
    shrink(picture, KEPT / f"{name}.png")
    for attribute in ("environment", "files", "checksum"):
        dataset.attrs.pop(attribute, None)
    text = json.dumps(rounded(small(dataset).to_dict()), separators=(",", ":"), allow_nan=False, default=str)
    (KEPT / f"{name}.json").write_text(text + "\n")


def main(folder: Path) -> None:
    import xarray as xr

    import lindyn_jax as ld

    for name in ld.figures.names():
        keep(name, folder / f"{name}.png", ld.figures.open_figure(folder / f"{name}.zarr"))
    for name, *_ in STUDIES:
        store = next(iter(sorted((folder.parent / name).glob("*.zarr"))), None)
        picture = next(iter(sorted((folder.parent / name).glob("*.png"))), None)
        if store is None or picture is None:
            print(f"{name} is not there", file=sys.stderr)
            continue
        keep(name, picture, xr.open_zarr(store, consolidated=False, chunks=None).load())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
