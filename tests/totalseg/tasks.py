"""Writes config/tasks.json: the released data sets of TotalSegmentator and the tasks they answer, from
the tables of the installed package (requirements.txt pins it).

usage: tasks.py     writes that file, and the table in docs/weights.md
"""
import importlib.metadata
import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

FOLDER = importlib.util.find_spec("totalsegmentator").submodule_search_locations[0]


def load(name):
    spec = importlib.util.spec_from_file_location(name, f"{FOLDER}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


B, T = load("map_to_binary"), load("map_tasks_config")
PARTS = {"total": (B.class_map_5_parts, B.map_taskid_to_partname_ct),
         "total_v3": (B.class_map_5_parts_total_v3, B.map_taskid_to_partname_ct_v3),
         "total_mr": (B.class_map_parts_mr, B.map_taskid_to_partname_mr),
         "headneck_muscles": (B.class_map_parts_headneck_muscles,
                              B.map_taskid_to_partname_headneck_muscles)}
LEFT_OUT = {"test", "total_highres_test"}
# fast is 3 mm for total and 6 mm for body; fastest exists where there is something finer.
QUALITIES = {"default": "high", "fast": "low", "fastest": "lowest"}
SMALL = "nnUNetResEncUNetLPlans_8"
SUMMARIES = {"total": "All structures of TotalSegmentator's task total",
             "total_v3": "All structures of the third version of TotalSegmentator's task total",
             "total_mr": "Organs, bones, muscles and vessels in MR"}
OPEN, LICENSED = "Apache-2.0", "TotalSegmentator license (free for non-commercial use, on request)"


def reversed_mm(value):
    if value is None:
        return None
    return [float(value)] * 3 if isinstance(value, (int, float)) else [float(v) for v in value[::-1]]


def part_name(task, dataset, mode, many):
    if many:
        part = PARTS[task][1][dataset].replace("class_map_part_", "").replace("muscles_", "")
        return f"{task}_{part}"
    return (task if mode == "default" else f"{task}_{QUALITIES[mode]}").lower()


def rough_crop(task, config):
    """As python_api.py does it: the margin of the table only counts where a crop model is named."""
    crop = config["crop"]
    if task.startswith("total"):
        models = ["total_mr_low"] if task.endswith("_mr") else ["total_lowest", "total_low"]
        return {"models": models, "structures": [], "margin_mm": 20.0}
    if not crop:
        return None
    if config["crop_model"]:
        return {"models": [config["crop_model"]], "structures": list(crop),
                "margin_mm": float(config["crop_addon"][0])}
    if "body_trunc" in crop or "body_extremities" in crop:
        models = ["body_low"]
    elif task.endswith("_mr"):
        models = ["total_mr_low"]
    elif config["robust_crop"]:
        models = ["total_low"]
    else:
        models = ["total_lowest", "total_low"]
    found = {"models": models, "structures": list(crop), "margin_mm": 20.0}
    if config["remove_outside"]:
        found["keep_within"] = {"structures": list(config["remove_outside"]),
                                "distance_mm": float(config["remove_outside_dilation"])}
    return found


def main():
    datasets, tasks = [], []
    for task, raw in T.TASK_CONFIGS.items():
        if task in LEFT_OUT:
            continue
        modes = raw.get("sub_modes", {"default": raw})
        classes = B.class_map[task]
        auxiliary = B.class_map.get(task + "_auxiliary", {})
        licensed = task in B.commercial_models
        mr = task.endswith("_mr") or task == "brain_aneurysm"
        choices = []
        for mode in ("fastest", "fast", "default"):
            if mode not in modes:
                continue
            config = {**T.DEFAULT_CONFIG, **modes[mode]}
            ids = config["task_id"] if isinstance(config["task_id"], list) else [config["task_id"]]
            names = []
            for dataset in ids:
                own = PARTS[task][0][PARTS[task][1][dataset]] if len(ids) > 1 else {**classes, **auxiliary}
                assert sorted(own) == list(range(1, len(own) + 1)), (task, dataset)
                name = part_name(task, dataset, mode, len(ids) > 1)
                names.append(name)
                # The third version has two trainings of each data set but the coarsest.
                both = task == "total_v3" and mode != "fastest"
                for plans in ["nnUNetPlans"] + ([SMALL] if both else []):
                    entry = {
                        "id": dataset, "folder": T.TASK_ID_WEIGHTS_CONFIGS[dataset]["foldername"],
                        "release": None if licensed else T.TASK_ID_WEIGHTS_CONFIGS[dataset]["version"],
                        "model": name + ("_small" if plans == SMALL else ""), "task": task,
                        "trainer": config["trainer"], "plans": plans, "configuration": config["model"],
                        "grid": reversed_mm(config["resample"]),
                        "step_size": 0.8 if task in ("total", "total_v3", "total_mr") else 0.5,
                        "folds": "auto" if config["folds"] is None else ",".join(map(str, config["folds"])),
                        "rough_crop": rough_crop(task, config),
                        "postprocessing": {"body": "totalsegmentator_body",
                                           "vertebrae_pp": "totalsegmentator_vertebrae",
                                           "vertebrae_pp_refined": "totalsegmentator_vertebrae"}.get(task),
                        "refine": {"model": "vertebrae_body", "structure": classes_of("vertebrae_body", 1),
                                   "grow_mm": 2.0} if task == "vertebrae_pp_refined" else None,
                        "modality": "MR" if mr else None,
                        "license": LICENSED if licensed else OPEN,
                        "labels": [own[k] for k in sorted(own)],
                        "auxiliary": [auxiliary[k] for k in sorted(auxiliary)],
                    }
                    datasets.append({key: value for key, value in entry.items() if value not in (None, [])})
            quality = {"quality": QUALITIES[mode]} if len(modes) > 1 else {}
            choices.append({**quality, "models": names})
            if task == "total_v3":
                small = names if mode == "fastest" else [f"{name}_small" for name in names]
                choices[-1]["small"] = small
        tasks.append({"name": task, "summary": SUMMARIES.get(task, task.replace("_", " ").capitalize()
            .replace(" mr", " in MR")), "choices": choices,
            "labels": [classes[k] for k in sorted(classes)], **({"licensed": True} if licensed else {})})
    version = importlib.metadata.version("TotalSegmentator")
    lines = ['{', ' "version": 1,', f' "made_from": "TotalSegmentator {version}",', ' "datasets": [']
    lines.append(",\n".join("  " + json.dumps(entry) for entry in datasets))
    lines += [' ],', ' "tasks": [', ",\n".join("  " + json.dumps(entry) for entry in tasks), ' ]', '}']
    (ROOT / "config/tasks.json").write_text("\n".join(lines) + "\n")
    document(datasets)


def document(datasets):
    """The table of data sets in docs/weights.md, between its two marks."""
    rows = ["| number | folder | answers as | release |", "|---:|---|---|---|"]
    for dataset in {entry["id"]: entry for entry in datasets}.values():
        models = [f"`{entry['model']}`" for entry in datasets if entry["id"] == dataset["id"]]
        release = dataset.get("release", "on request")
        rows.append(f"| {dataset['id']} | `{dataset['folder']}` | {', '.join(models)} | {release} |")
    page = ROOT / "docs/weights.md"
    begin, end = "tasks.py: begin -->\n", "<!-- end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + "\n".join(rows) + "\n" + end + rest.split(end)[1])


def classes_of(task, number):
    return B.class_map[task][number]


main()
