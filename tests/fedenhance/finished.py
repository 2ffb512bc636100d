"""Result folders, for what reads them."""

import numpy as np

from fedenhance.reports.runs import Run

SETTINGS = {
    "n_clients": 4,
    "p_supervised": 0.0,
    "p_available_users": 0.25,
    "local_epoch_p": 1,
    "selected_clients": "null",
    "initial_model": "null",
    "rounds": 12,
    "maximize": "valid_si_sdri",
    "mixing": "!new:some.Class",
}


def write_run(results, name, seed=1, test=(1.0, 3.0), valid=(1.0, 2.0), **settings):
    """Writes the output folder of a federated run; a round is half a minute and hour.

    Arguments
    ---------
    results : Path
    name : str
        Of the experiment.
    seed : int
    test, valid : sequence of float
        SI-SDRi in dB, evaluated in rounds spread from the first to the last; with two
        noises it is one dB more in the test.
    **settings : str or float
        Of hyperparams.yaml.

    Returns
    -------
    Run
    """
    folder = results / name / str(seed)
    folder.mkdir(parents=True)
    settings = {**SETTINGS, **settings, "seed": seed, "output_folder": str(folder)}
    settings["save_folder"] = f"{folder}/save"
    lines = [f"{key}: {value}" for key, value in settings.items()]
    (folder / "hyperparams.yaml").write_text("\n".join(lines) + "\n")
    columns = ["valid_si_sdri"]
    columns += [f"{s}_si_sdri_{n}" for s in ("valid", "test") for n in (1, 2)]
    rows = [f"round,seconds,hours,{','.join(columns)}"]
    evaluated = np.linspace(1, settings["rounds"], len(test)).round().astype(int)
    scores = dict(zip(evaluated.tolist(), zip(valid, test, strict=True), strict=True))
    for number in range(1, settings["rounds"] + 1):
        values = [""] * len(columns)
        if number in scores:
            validated, tested = scores[number]
            values = [validated] * 3 + [tested, tested + 1]
        rows.append(",".join(map(str, [number, 30, 0.5, *values])))
    (folder / "rounds.csv").write_text("\n".join(rows) + "\n")
    return Run(folder)
