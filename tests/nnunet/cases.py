"""Which networks there are and what each of them predicts."""

from networks import RESENC, architecture, configuration, dataset, plans

LABELS = {"background": 0, "one": 1, "two": 2, "three": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "center": [3]}
ISO = [[1, 1, 1], [2, 2, 2], [2, 2, 2]]
PATCH, SPACING = [16, 24, 24], [3.0, 2.0, 2.0]
TINY = architecture([4, 6, 8], ISO, convs=1)

MODELS, RUNS = {}, []


def model(name, number, config=None, *, configurations=None, chosen="3d_fullres", trainer="nnUNetTrainer",
          labels=LABELS, calibrate=("plain",), folds=(0,), mirror=(0, 1, 2), optimizer=False, dataset_name=None,
          plans_name="nnUNetPlans", reader="SimpleITKIO", forward=(0, 1, 2), channels=("CT",), edit=None,
          dataset_more=None, **more):
    configurations = configurations or {chosen: config}
    title = dataset_name or "".join(word.capitalize() for word in name.split("_"))
    written = plans(f"Dataset{number:03d}_{title}", configurations, reader, plans_name, forward, len(channels))
    described = dataset(labels, channels, **(dataset_more or {}))
    if edit:
        edit(written, described)
    MODELS[name] = {"name": name, "plans": written, "dataset_json": described, "configuration": chosen,
                    "trainer": trainer, "seed": 1000 * number, "calibrate": calibrate, "folds": list(folds),
                    "mirror": mirror, "optimizer": optimizer, **more}


def run(name, model, *images, folds=(0,), mirror="none", step=0.5, gaussian=True, previous=None, previous_model=None,
        probabilities=False, tricky=()):
    RUNS.append({"name": name, "model": model, "images": images, "folds": list(folds), "mirror": mirror, "step": step,
                 "gaussian": gaussian, "previous": previous, "previous_model": previous_model,
                 "probabilities": probabilities, "tricky": list(tricky)})


# The plain network, with the optimizer's state as real checkpoints have it.
model("plain", 1, configuration(PATCH, SPACING, architecture([4, 6, 8], ISO)), optimizer=True)
run("plain", "plain", "plain")
run("mirroring", "plain", "plain", mirror="auto")
run("step_0.7", "plain", "plain", step=0.7)
run("no_gaussian", "plain", "plain", gaussian=False)
run("probabilities", "plain", "small_box", probabilities=True)
run("smaller_than_patch", "plain", "small", tricky=[3, 4])
run("empty", "plain", "zeros", tricky=[2])
run("crop", "plain", "box", tricky=[1])
run("oblique", "plain", "oblique")
run("scaled", "plain", "scaled", tricky=[22])

# A stage that strides without changing its channels: its skip only pools.
model("resenc", 2, configuration(PATCH, SPACING, architecture([4, 5, 5], ISO, convs=[1, 2, 1], cls=RESENC)),
      plans_name="nnUNetResEncUNetMPlans", mirror=None)
run("resenc", "resenc", "plain", mirror="auto", tricky=[17, 18, 19])

TWO_D = [[1, 1], [2, 2], [2, 2]]
model("2d", 3, configuration([28, 32], [1.4, 1.4], architecture([4, 6, 8], TWO_D)), chosen="2d",
      calibrate=("thick",), mirror=(0, 1), dataset_name="Flat")
run("2d", "2d", "thick", mirror="auto", tricky=[20])
run("2d_thin", "2d", "plain", tricky=[20])

# Regions: sigmoid above one half, painted in order.
model("regions", 4, configuration(PATCH, SPACING, TINY), labels=REGIONS,
      dataset_more={"regions_class_order": [1, 2, 3]}, calibrate=("flipped",))
run("regions", "regions", "flipped")
run("region_probabilities", "regions", "small_box", probabilities=True)

model("lowres", 5, chosen="3d_lowres", configurations=(CASCADE := {
    "3d_lowres": configuration([12, 16, 16], [5.0, 3.5, 3.5], TINY, next_stage="3d_cascade_fullres"),
    "3d_fullres": configuration(PATCH, SPACING, TINY),
    "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
}), calibrate=("box",), dataset_name="Cascade")
run("lowres", "lowres", "box")
model("cascade", 5, chosen="3d_cascade_fullres", configurations=CASCADE, calibrate=("box",), previous="lowres",
      dataset_name="Cascade")
run("cascade", "cascade", "box", previous="lowres", previous_model="lowres")

model("two_channels", 6, configuration(PATCH, SPACING, TINY, ("CTNormalization", "ZScoreNormalization"),
                                       (False, True)), channels=("CT", "MRI"), calibrate=("box", "box_mr"))
run("two_channels", "two_channels", "box", "box_mr")

FLAT = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
KERNELS = [[1, 3, 3], [3, 3, 3], [3, 3, 3]]
model("separate_z", 7, configuration([8, 24, 24], [4.0, 1.2, 1.2], architecture([4, 6, 8], FLAT, KERNELS, 1)),
      calibrate=("thick",))
run("separate_z", "separate_z", "thick", tricky=[9])

# Axes rolled, so that applying transpose_forward twice does not undo it.
model("transposed", 8, configuration([8, 20, 24], [3.0, 1.7, 1.5], architecture([4, 6, 8], FLAT, KERNELS, 1)),
      forward=(2, 0, 1), mirror=(0, 2), calibrate=("tall",))
run("transposed", "transposed", "tall", tricky=[21])
run("transposed_mirroring", "transposed", "tall", mirror="auto", tricky=[19])
run("transposed_crop", "transposed", "box", tricky=[21])

model("folds", 9, configuration(PATCH, SPACING, TINY), folds=(0, 1, 3))
run("folds_0_1", "folds", "plain", folds=(0, 1))
run("folds_0_1_3", "folds", "small", folds=(0, 1, 3))
run("fold_1", "folds", "small", folds=(1,))

model("fold_all", 10, configuration(PATCH, SPACING, TINY), folds=("all",), best=True)
run("fold_all_best", "fold_all", "small", folds=("all",))


def old(cls):
    """Plans of nnU-Net before 2.4: the network's shape lies in the configuration."""
    def edit(written, described):
        chosen = written["configurations"]["3d_fullres"]
        chosen.update({
            "UNet_class_name": cls, "UNet_base_num_features": 4, "n_conv_per_stage_encoder": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1], "num_pool_per_axis": [1, 2, 2],
            "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "conv_kernel_sizes": KERNELS,
            "unet_max_num_features": 6})
        written["foreground_intensity_properties_by_modality"] = \
            written.pop("foreground_intensity_properties_per_channel")
        described["modality"] = described.pop("channel_names")
    return edit


model("old_plans", 11, configuration(PATCH, SPACING, None), edit=old("PlainConvUNet"))
run("old_plans", "old_plans", "plain")
model("old_resenc", 12, configuration(PATCH, SPACING, None), edit=old("ResidualEncoderUNet"))
run("old_resenc", "old_resenc", "plain")

model("ignore", 13, configuration(PATCH, SPACING, TINY), labels={"background": 0, "one": 1, "two": 2, "ignore": 3})
run("ignore", "ignore", "plain")

READERS = ("sform_differs", "uncoded", "slope_zero", "pixdim_differs", "micrometers", "sheared")
TRICKY = {"sform_differs": [23], "uncoded": [23], "slope_zero": [22], "pixdim_differs": [25], "micrometers": [25],
          "sheared": [24]}
FINE = configuration([16, 16, 16], [2.4, 2.2, 2.0], TINY)
for header in READERS:
    run(f"itk_{header}", "plain", header, tricky=TRICKY[header])
model("itk_reorient", 14, FINE, reader="SimpleITKIOWithReorient", calibrate=("oblique",))
for source in ("oblique", "flipped", "sform_differs", "uncoded"):
    run(f"itk_reorient_{source}", "itk_reorient", source, tricky=TRICKY.get(source, []))
model("nibabel", 15, FINE, reader="NibabelIO", calibrate=("oblique",))
for source in ("oblique", "flipped", *[h for h in READERS if h != "micrometers"]):
    run(f"nibabel_{source}", "nibabel", source, tricky=TRICKY.get(source, []))
model("nibabel_reorient", 16, FINE, reader="NibabelIOWithReorient", calibrate=("oblique",))
for source in ("oblique", "flipped", "sform_differs", "uncoded", "pixdim_differs", "sheared"):
    run(f"nibabel_reorient_{source}", "nibabel_reorient", source, tricky=TRICKY.get(source, []))

model("batch_norm", 17, configuration(PATCH, SPACING, TINY), trainer="nnUNetTrainerBN")
run("batch_norm", "batch_norm", "plain")

# 256 labels: one of them is 255, which nnU-Net keeps out of uint8 files.
model("many_labels", 18, configuration([16, 16, 16], [2.6, 2.6, 2.6], architecture([8, 8], ISO[:2], convs=1)),
      labels={"background": 0, **{f"label {k}": k for k in range(1, 256)}}, calibrate=("flipped",),
      used=[0, 1, 100, 200, 254, 255])
run("many_labels", "many_labels", "flipped", tricky=[16])

model("residual_unet", 19, configuration(PATCH, SPACING, architecture(
    [4, 5, 6], ISO, convs=1, cls="dynamic_network_architectures.architectures.unet.ResidualUNet")))
run("residual_unet", "residual_unet", "small")

model("torch_resampling", 20, configuration(PATCH, SPACING, TINY, resample="resample_torch_fornnunet"))
run("torch_resampling", "torch_resampling", "plain")

model("other_normalization", 21, configuration(PATCH, SPACING, TINY, (
    "RescaleTo01Normalization", "ZScoreNormalization", "NoNormalization")), channels=("a", "b", "c"),
      calibrate=("box", "box_mr", "box"))
run("other_normalization", "other_normalization", "box", "box_mr", "box")
