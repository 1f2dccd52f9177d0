"""What every command's help holds besides its options: their groups, old spellings, and examples."""

PANELS: dict[str, tuple[str, ...]] = {
    "Data": (
        *("preset", "data", "shape", "targets", "samples", "subset_seed", "centre", "scale"),
        *("inputs", "rank", "outputs", "noise", "fractions", "draw_target"),
    ),
    "Start": (
        *("start", "width", "widths", "alpha", "alphas", "std", "positive", "negative", "u0", "v0", "lambda0"),
        *("depths", "scales", "imbalances", "seed"),
    ),
    "Dynamics": (
        *("dynamics", "horizon", "duration", "stop", "step_size", "steps", "batch_size", "label_noise", "momentum"),
        *("weight_decay", "solver", "rtol", "max_steps", "method", "nodes", "relative_error"),
        *("tasks", "change", "tasks_seed"),
    ),
    "Observation": ("points", "spacing", "observables", "delta", "recovered", "quick"),
    "Trials": ("trials", "precision", "chunk", "batch", "cluster"),
    "Output": ("out", "keep_trials", "to", "json_", "csv", "html"),
}
PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
# Earlier spellings, which are still read.
ALIASES = {"--loss-scale": "--scale", "--until": "--horizon"}

# Of every command by its path, each a line as it is typed. Stores are those that the examples of studies make.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "simulate": (
        "lindyn-jax simulate --data factorization --shape 3,2 --width 1e9 --observables loss,rate,rate_bound",
        "lindyn-jax simulate --start spectral --u0 0.01 --v0 0.01 --dynamics descent --csv - --out modes",
    ),
    "sequence": ("lindyn-jax sequence --data semantic --tasks 2 --change permuted --width 50",),
    "audit": (
        "lindyn-jax audit --data factorization --shape 3,2 --start gaussian --start balanced --widths 20 --dynamics flow",
        "lindyn-jax audit --preset m22-figure3 --trials 5 --out figure3",
    ),
    "figure": ("lindyn-jax figure list", "lindyn-jax figure t21-figure1 --quick"),
    "fit-lambda0": ("lindyn-jax fit-lambda0 --shape 2,3 --widths 50,100 --trials 10",),
    "commutation": (
        "lindyn-jax commutation --data iris --data wine --csv commutation.csv",
        "lindyn-jax commutation --data digits --samples 200 --centre --json",
    ),
    "info": ("lindyn-jax info", "lindyn-jax info --json"),
    "show": ("lindyn-jax show lemma11", "lindyn-jax show lemma11 --csv - > lemma11.csv"),
    "export": ("lindyn-jax export lemma11 --to csv --out reductions.csv",),
    "compare": ("lindyn-jax compare lemma11 other",),
    "list": ("lindyn-jax list .",),
    "sweep theorem12": (
        "lindyn-jax sweep theorem12 --data digits --samples 30 --centre",
        "lindyn-jax sweep theorem12 --data gaussian --widths 1e2:1e6:5 --alphas 0.5 --trials 20 --csv table.csv --out own",
    ),
    "sweep lemma11": (
        "lindyn-jax sweep lemma11 --widths 42,1000 --alphas 0.5 --trials 1000",
        "lindyn-jax sweep lemma11 --inputs 1000000 --widths 7:1e9:12 --precision 0.05 --out other",
    ),
    "sweep completion": (
        "lindyn-jax sweep completion --depths 2,wide-limit --fractions 0.5 --shape 10,10 --rank 1 --trials 5",
    ),
    "sweep phases": ("lindyn-jax sweep phases --scales 0.03,0.3 --imbalances 0,1 --widths 100 --trials 5",),
}
